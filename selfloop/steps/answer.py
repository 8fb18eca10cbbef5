"""The step answer: the model's greedy draft, and the samples that all detectors share."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import chain

from selfloop.config.prompts import Prompt
from selfloop.guard import Failed, capture
from selfloop.records import Attempt, Completion, Failure, Request, Sampling
from selfloop.steps import auto_samples
from selfloop.steps.batching import (
    as_written,
    generate_batch,
    generate_more,
    read_logprobs,
    request_for,
    reread,
    without_measurements,
)
from selfloop.steps.context import RoundContext
from selfloop.text.answers import declines, normalise


def answer(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Draw the greedy draft and the samples of each attempt.

    A question that came with an answer to judge needs no draft: its answer is read instead. If the
    model that answers is not the one that judges, the one writes the drafts, and the other draws
    the samples and gives the drafts their log-probabilities. With `samples: auto` the samples come
    last, where the drafts do not settle the decision.
    """
    attempts = _answered(context, _choose_prompts(context, attempts))
    if context.recipe.answer.samples == "auto":
        attempts = _with_auto_samples(context, attempts)
    return attempts


def _answered(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts with their drafts, and with samples unless these are drawn later."""
    options = context.recipe.answer
    with context.model(options.samples_with):
        attempts = _read_given_answers(context, attempts)
        if context.are_one(options.with_, options.samples_with):
            return generate_batch(
                context, "answer", attempts, partial(_missing_and_samples, context), _with_both
            )
    with context.model(options.with_):
        attempts = generate_batch(
            context, "answer", attempts, partial(_draft_alone, context), _with_draft
        )
    with context.model(options.samples_with):
        return _judged_by_another(context, attempts)


def _draft_request(context: RoundContext, attempt: Attempt, *, measured: bool) -> Request:
    """Return the request for the greedy draft.

    `measured` asks for its entropies, where the backend has them: they cost a pass over the
    vocabulary.
    """
    options = context.recipe.answer
    greedy = Sampling(
        max_tokens=options.max_tokens, stop=tuple(options.stop), decline_bias=options.decline_bias
    )
    entropy = measured and "entropies" in context.backend.describe().capabilities
    return request_for(_prompt(context, attempt), greedy, entropy=entropy)


def _with_auto_samples(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Draw samples for some questions by chance, and then for those that are not settled."""
    drawn = auto_samples.drawn_by_chance(context, attempts)
    attempts = _with_more_samples(context, attempts, drawn)
    return _with_more_samples(context, attempts, auto_samples.unsettled(context, attempts, drawn))


def _with_more_samples(
    context: RoundContext, attempts: Sequence[Attempt], indices: Set[int]
) -> list[Attempt]:
    """Draw the samples of the attempts at some indices."""
    ids = {attempts[i].question.id for i in indices}

    def requests_of(attempt: Attempt) -> list[Request]:
        if attempt.question.id not in ids:
            return []
        return [_samples_request(context, attempt, auto_samples.SAMPLES)]

    def with_samples(attempt: Attempt, completions: list[list[Completion]]) -> Attempt:
        return replace(attempt, samples=tuple(chain.from_iterable(completions)))

    if not ids:
        return list(attempts)
    with context.model(context.recipe.answer.samples_with):
        return generate_more(context, "answer", attempts, requests_of, with_samples)


def _fixed_samples(context: RoundContext, attempt: Attempt) -> list[Request]:
    """Return the request for the samples that a question gets in any case; none with 0 or auto."""
    number = context.recipe.answer.samples
    if number == "auto" or number == 0:
        return []
    return [_samples_request(context, attempt, number)]


def _samples_request(context: RoundContext, attempt: Attempt, number: int) -> Request:
    options = context.recipe.answer
    sampled = Sampling(
        options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_tokens,
        stop=tuple(options.stop),
    )
    # by the id of the question, so that it draws the same in any order of questions
    seed = context.seed("answer", attempt.question.id)
    return request_for(_prompt(context, attempt), sampled, n=number, seed=seed)


def _prompt(context: RoundContext, attempt: Attempt) -> Prompt:
    return context.prompt("answer", question=attempt.question.text)


def _missing_and_samples(context: RoundContext, attempt: Attempt) -> list[Request]:
    drafts = [] if attempt.draft else [_draft_request(context, attempt, measured=True)]
    return [*drafts, *_fixed_samples(context, attempt)]


def _with_both(attempt: Attempt, completions: list[list[Completion]]) -> Attempt:
    draft, samples = attempt.draft, completions
    if draft is None:
        ((draft,), *samples) = completions
    return replace(attempt, draft=draft, samples=tuple(chain.from_iterable(samples)))


def _draft_alone(context: RoundContext, attempt: Attempt) -> list[Request]:
    # The measurements of a draft are those of the model that judges.
    return [] if attempt.draft else [_draft_request(context, attempt, measured=False)]


def _with_draft(attempt: Attempt, completions: list[list[Completion]]) -> Attempt:
    ((draft,),) = completions
    return replace(attempt, draft=draft)


def _judged_by_another(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Draw the samples by the model that judges, and give the drafts the measurements of it.

    It writes a draft too. Where that is the same text its measurements are taken, with all that a
    detector may need of a completion. Any other text is read after the bare question. How often
    both drafts are the same answer is the round's agreement.
    """
    drafts_of_judge: dict[str, Completion] = {}  # by the id of the question

    def requests_of(attempt: Attempt) -> list[Request]:
        has_answer = bool(attempt.question.answer)
        drafts = [] if has_answer else [_draft_request(context, attempt, measured=True)]
        return [*drafts, *_fixed_samples(context, attempt)]

    def with_samples(attempt: Attempt, completions: list[list[Completion]]) -> Attempt:
        samples = completions
        if not attempt.question.answer:
            ((drafts_of_judge[attempt.question.id],), *samples) = completions
        return replace(attempt, samples=tuple(chain.from_iterable(samples)))

    results = generate_more(context, "answer", attempts, requests_of, with_samples)
    to_read: dict[int, tuple[str, Completion]] = {}
    are_same: list[bool] = []
    for i, attempt in enumerate(results):
        of_judge = drafts_of_judge.get(attempt.question.id)
        if not attempt.live or attempt.draft is None or of_judge is None:
            continue  # it failed, or came with its answer
        are_same.append(_is_same_answer(attempt.draft, of_judge))
        if attempt.draft.text == of_judge.text:
            draft = attempt.draft
            measured = replace(of_judge, adapter=draft.adapter, thought=draft.thought)
            results[i] = replace(attempt, draft=measured)
        else:
            to_read[i] = (attempt.question.text, attempt.draft)
    if are_same:
        context.agreement = sum(are_same) / len(are_same)
    for i, (draft, failure) in _reread(context, to_read).items():
        results[i] = replace(results[i], draft=draft)
        if failure:
            results[i] = results[i].failed(failure, fatal=False)
    return results


def _reread(
    context: RoundContext, drafts: Mapping[int, tuple[str, Completion]]
) -> dict[int, tuple[Completion, Failure | None]]:
    """Return each draft, which comes with its question, with its log-probabilities.

    It has none where the backend cannot read, which is no failure.
    """
    if "loglikelihood" not in context.backend.describe().capabilities:
        return {i: (without_measurements(draft), None) for i, (_, draft) in drafts.items()}
    return dict(zip(drafts, reread(context, "answer", drafts.values()), strict=True))


def _is_same_answer(first: Completion, second: Completion) -> bool:
    if declines(first.text) or declines(second.text):
        return declines(first.text) and declines(second.text)
    return normalise(first.text) == normalise(second.text)


def _choose_prompts(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the few-shot selector choose the prompts of all questions in one call.

    If it cannot, all live attempts fail: there is no prompt to answer.
    """
    selector = context.parts.few_shot
    if selector is None:
        return list(attempts)
    questions = [attempt.question.text for attempt in attempts if attempt.live]
    prompts = capture("answer", selector.name, lambda: context.few_shot_prompts(questions))
    if not isinstance(prompts, Failed):
        return list(attempts)  # the context keeps the prompts
    results = list(attempts)
    for i, attempt in enumerate(attempts):
        if attempt.live:
            results[i] = context.end_attempt(attempt.failed(prompts.failure))
    return results


def _read_given_answers(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Take the answers that came with questions as drafts, with the model's log-probabilities.

    So they can be judged as if the model had written them.
    """
    indices = [i for i, a in enumerate(attempts) if a.live and a.question.answer]
    texts = [(attempts[i].question.text, attempts[i].question.answer) for i in indices]
    results = list(attempts)
    for i, logprobs in zip(indices, read_logprobs(context, "answer", texts), strict=True):
        if isinstance(logprobs, Failure):
            results[i] = context.end_attempt(results[i].failed(logprobs))
        else:
            text = as_written(context, results[i].question.answer)
            results[i] = replace(results[i], draft=Completion(text, logprobs=logprobs))
    return results
