"""The step answer: the model's greedy draft, and the samples that all detectors share."""

from collections.abc import Sequence
from dataclasses import replace

from selfloop.guard import Failed, capture
from selfloop.records import Attempt, Completion, Failure, Request, Sampling
from selfloop.steps.batching import as_written, generate_batch, read_logprobs, request_for
from selfloop.steps.context import RoundContext


def answer(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Draw the greedy draft and the samples of each attempt.

    A question that came with an answer to judge needs no draft: its answer is read instead.
    """
    options = context.recipe.answer
    attempts = _choose_prompts(context, attempts)
    stop = tuple(options.stop)
    greedy = Sampling(max_tokens=options.max_tokens, stop=stop, decline_bias=options.decline_bias)
    sampled = Sampling(
        options.temperature, top_p=options.top_p, max_tokens=options.max_tokens, stop=stop
    )
    # only of the draft, and only where the backend has them: they cost a pass over the vocabulary
    entropy = "entropies" in context.backend.describe().capabilities

    def requests_of(attempt: Attempt) -> list[Request]:
        prompt = context.prompt("answer", question=attempt.question.text)
        # by the id of the question, so that it draws the same in any order of questions
        seed = context.seed("answer", attempt.question.id)
        samples = request_for(prompt, sampled, n=options.samples, seed=seed)
        if attempt.draft:
            return [samples]
        return [request_for(prompt, greedy, entropy=entropy), samples]

    def with_completions(attempt: Attempt, completions: list[list[Completion]]) -> Attempt:
        *drafts, samples = completions
        draft = drafts[0][0] if drafts else attempt.draft
        return replace(attempt, draft=draft, samples=tuple(samples))

    attempts = _read_given_answers(context, attempts)
    return generate_batch(context, "answer", attempts, requests_of, with_completions)


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
