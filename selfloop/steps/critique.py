"""The steps critique and revise: a critic comments on the draft, and the model answers again."""

from collections.abc import Sequence
from dataclasses import replace

from selfloop.guard import Failed, capture_each
from selfloop.records import Attempt, Completion, Request, Sampling
from selfloop.steps.batching import generate_batch, request_for, reread
from selfloop.steps.claims import draft_claim, revision_differs
from selfloop.steps.context import RoundContext
from selfloop.text.thoughts import thought


def critique(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the critic comment on each draft that the model wrote itself.

    An attempt whose critique fails or is empty goes on without one.
    """
    critic = context.parts.critic
    if critic is None:
        return list(attempts)
    # An answer that the user gave is judged as it is: the model does not revise it.
    live = [i for i, attempt in enumerate(attempts) if attempt.live and not attempt.question.answer]
    context.start_step("critique", len(live))
    claims = [draft_claim(attempts[i]) for i in live]
    # The model that answers criticises itself, and answers again.
    answering = context.recipe.answer.with_
    part = critic.part
    verify_context = context.verify_context("critique", critic.name, answering)
    critiques = capture_each(
        "critique",
        critic.name,
        lambda batch: part.critique(batch, verify_context),
        claims,
        Completion,
        context.note_failure,
    )
    results = list(attempts)
    for i, completion in zip(live, critiques, strict=True):
        if isinstance(completion, Failed):
            results[i] = results[i].failed(completion.failure, fatal=False)
        elif text := _after_thought(completion.text):
            results[i] = replace(results[i], critique=replace(completion, text=text))
    return results


def _after_thought(text: str) -> str:
    """Return the text that follows a marked thought, or nothing where the thought has no end."""
    if not text.strip():
        return ""
    begun = thought(text)
    if begun is None:
        return text
    return begun.answer or ""


def revise(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the model answer again with the critique in its prompt.

    The revision is then read after the bare question, for its log-probabilities.
    """
    critic = context.parts.critic
    if critic is None:
        return list(attempts)
    options = context.recipe.answer
    sampling = Sampling(max_tokens=options.max_tokens, stop=tuple(options.stop))

    def requests_of(attempt: Attempt) -> list[Request]:
        if attempt.critique is None:
            return []
        prompt = context.prompt(
            critic.part.revise_prompt,
            question=attempt.question.text,
            draft=attempt.answer,
            critique=attempt.critique.text.strip(),
        )
        return [request_for(prompt, sampling)]

    def with_completions(attempt: Attempt, completions: list[list[Completion]]) -> Attempt:
        ((revision,),) = completions
        return replace(attempt, revision=revision)

    with context.model(options.with_):
        revised = generate_batch(context, "revise", attempts, requests_of, with_completions)
    with context.model(options.samples_with):
        return _read_revisions(context, revised)


def _read_revisions(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Give each revision its log-probabilities after the bare question.

    Those that it was generated with are dropped: after a critique any answer is likely.
    """
    revisions: dict[int, Completion] = {}
    for i, attempt in enumerate(attempts):
        # a revision that only repeats the draft is never judged, so it need not be read
        if attempt.live and attempt.revision and revision_differs(attempt):
            revisions[i] = attempt.revision
    texts = [(attempts[i].question.text, revision) for i, revision in revisions.items()]
    results = list(attempts)
    for i, (read, failure) in zip(revisions, reread(context, "revise", texts), strict=True):
        results[i] = replace(results[i], revision=read)
        if failure:
            results[i] = results[i].failed(failure, fatal=False)
    return results
