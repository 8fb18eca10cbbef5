"""The step decide: confidence becomes belief, declined or undecided."""

from collections.abc import Sequence
from dataclasses import replace

from selfloop.contradictions import contradictions
from selfloop.records import Attempt, Decision
from selfloop.steps.context import RoundContext
from selfloop.text.answers import declines
from selfloop.text.nonanswers import BOILERPLATE, REFUSAL, non_answer


def decide(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Choose between draft and revision, and decide by the confidence of the chosen one.

    The last detector that does not abstain gives the confidence. Answers that contradict each other
    lower it, before it is compared with the thresholds.
    """
    context.start_step("decide", sum(attempt.live for attempt in attempts))
    results = list(attempts)
    for i, attempt in enumerate(attempts):
        if attempt.live:
            results[i] = _choose_candidate(context, attempt)
    # Before the thresholds: a lowered confidence may fall below them.
    results = contradictions(context.history.beliefs, results)
    # With `decide.risk` the threshold depends on the confidences of the whole round.
    confidences = [a.confidence for a in results if a.live and a.confidence is not None]
    options = context.recipe.decide
    threshold = options.threshold(confidences)
    for i, attempt in enumerate(results):
        if attempt.live:
            results[i] = context.end_attempt(_decide_one(attempt, threshold, options.declined))
    return results


def _choose_candidate(context: RoundContext, attempt: Attempt) -> Attempt:
    """Choose between draft and revision, and note the confidence of the chosen one.

    A revision replaces the draft only if it is an answer, and if the last detector that judged both
    gives it more: a critique is pressure, not a signal (Sharma et al. 2023, arXiv 2310.13548; Huang
    et al. 2023, arXiv 2310.01798). A text that is not an answer is decided here, whatever the
    detectors gave it.
    """
    question = attempt.question.text
    prompt = context.prompts_by_question.get(question)
    if not prompt:
        prompt = context.recipe_prompt("answer", question=question)
    confidences = _confidences(attempt, "draft")
    revision = attempt.revision if _revision_is_better(attempt) else None
    if revision and not non_answer(question, revision.text, prompt):
        attempt = replace(attempt, chosen="revision")
        confidences = _confidences(attempt, "revision")
    chosen = attempt.draft if attempt.chosen == "draft" else attempt.revision
    # A model may think and then answer nothing: its thought may say that it does not know.
    text = attempt.answer or (chosen.thought if chosen else "")
    if declines(text):
        return replace(attempt, decision="declined", reason="the model declined")
    if why := non_answer(question, text, prompt):
        refused = why in (REFUSAL, BOILERPLATE)
        decision: Decision = "declined" if refused else "undecided"
        return replace(attempt, decision=decision, reason=f"no answer: {why}")
    return replace(attempt, confidence=next(reversed(confidences.values()), None))


def _revision_is_better(attempt: Attempt) -> bool:
    """Return whether the last detector that judged both candidates gives the revision more."""
    draft, revision = _confidences(attempt, "draft"), _confidences(attempt, "revision")
    # Without a detector that judged both there is nothing to compare, and the draft stays.
    judged_both = [name for name in draft if name in revision]
    return bool(judged_both) and revision[judged_both[-1]] > draft[judged_both[-1]]


def _confidences(attempt: Attempt, candidate: str) -> dict[str, float]:
    """Return the confidences of the detectors that did not abstain, in the recipe's order."""
    # the order counts: the last detector decides
    confidences = attempt.confidences(candidate)
    return {name: value for name, value in confidences.items() if value is not None}


def _decide_one(attempt: Attempt, threshold: float, declined: float) -> Attempt:
    """Decide by the confidence: belief from `threshold` on, declined up to `declined`."""
    if attempt.confidence is None:
        return replace(attempt, decision="undecided", reason=_why_unjudged(attempt))
    decision: Decision = "undecided"
    if attempt.confidence >= threshold:
        decision = "belief"
    elif attempt.confidence <= declined:
        decision = "declined"
    reason = f"confidence {attempt.confidence:.2f}"
    if attempt.reason:
        reason = f"{reason}, {attempt.reason}"
    low = attempt.lowers
    if low and low.confidence is not None and low.confidence >= threshold:
        # the earlier belief that this answer contradicts is lowered, and still a belief
        attempt = replace(attempt, lowers=replace(low, decision="belief"))
    return replace(attempt, decision=decision, reason=reason)


def _why_unjudged(attempt: Attempt) -> str:
    failed = dict.fromkeys(f.component for f in attempt.failures if f.step == "verify")
    if not failed:
        return "no detector could tell"
    return f"no detector could tell: {' and '.join(failed)} failed"
