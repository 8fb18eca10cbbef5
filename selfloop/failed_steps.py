"""Steps that failed for every question of a round: such a run holds errors, and no result.

All of it is read from the stored records, so a run ends in the same way whether or not it was
stopped in between.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from selfloop.errors import NothingAnsweredError, StepFailedError, TunerFailedError
from selfloop.records import Attempt, Failure, Round

MAX_CAUSE = 300  # characters of a cause in a message
EMPTY_ANSWER = Failure(
    "answer",
    "the model",
    "EmptyAnswer",
    "it wrote nothing; see answer.stop, answer.thought_tokens and the prompt",
)


@dataclass(frozen=True)
class FailedStep:
    """A step that failed for all `questions` of a round, and the most common failure."""

    round: int
    step: str
    questions: int
    cause: Failure

    def __str__(self) -> str:
        cause = cause_text(self.cause)
        if self.step == "tune":
            return f"in round {self.round} the tuner made no adapter: {cause}"
        if not self.questions:
            return f"in round {self.round} no question was asked: {cause}"
        questions = _count_questions(self.questions)
        return f"in round {self.round} the step {self.step} failed for all {questions}: {cause}"


def failed_steps(rounds: Iterable[Round]) -> list[FailedStep]:
    """Return the steps that failed throughout a round, in order.

    A tuner that raised has failed its round.
    """
    failed: list[FailedStep] = []
    for ended in rounds:
        failed += _failed_in_round(ended)
    return failed


def _failed_in_round(ended: Round) -> Iterator[FailedStep]:
    # ask: no question at all, and a source failed
    of_sources = [failure for failure in ended.failures if failure.step == "ask"]
    if not ended.attempts and of_sources:
        yield FailedStep(ended.number, "ask", 0, _most_common(of_sources))
    asked = [attempt for attempt in ended.attempts if attempt.decision != "dropped"]
    answered = [attempt for attempt in asked if attempt.decision != "failed"]
    # answer: the step is that of the commonest failure, for scorers fail in `ask`
    if asked and all(map(unanswered, asked)):
        cause = _most_common(map(_cause, asked))
        yield FailedStep(ended.number, cause.step, len(asked), cause)
    # The attempts that each later step worked on. A question that came with its answer has no
    # critique.
    attempts_by_step = {
        "critique": [attempt for attempt in answered if not attempt.question.answer],
        "revise": [attempt for attempt in answered if attempt.critique is not None],
        "verify": answered,
    }
    for step, attempts in attempts_by_step.items():
        if attempts and all(_failed_throughout(attempt, step) for attempt in attempts):
            failures: list[Failure] = []
            for attempt in attempts:
                failures += _failures_of(attempt, step)
            yield FailedStep(ended.number, step, len(attempts), _most_common(failures))
    of_tuner = [failure for failure in ended.failures if failure.step == "tune"]
    if of_tuner:
        yield FailedStep(ended.number, "tune", len(asked), of_tuner[0])


def unanswered(attempt: Attempt) -> bool:
    """Return whether a question that was asked has no answer: it failed, or its text is empty."""
    return attempt.decision == "failed" or not attempt.answer


def _cause(attempt: Attempt) -> Failure:
    return attempt.failures[-1] if attempt.decision == "failed" else EMPTY_ANSWER


def _failures_of(attempt: Attempt, step: str) -> list[Failure]:
    return [failure for failure in attempt.failures if failure.step == step]


def _failed_throughout(attempt: Attempt, step: str) -> bool:
    """Return whether a step gave an attempt failures and nothing else."""
    judged = any(verdict.confidence is not None for verdict in attempt.verdicts)
    return bool(_failures_of(attempt, step)) and not (step == "verify" and judged)


def failed_detectors(rounds: Iterable[Round]) -> list[FailedStep]:
    """Return the detectors that failed for every answer of a round that others judged."""
    failed: list[FailedStep] = []
    for ended in rounds:
        if any(step.step == "verify" for step in _failed_in_round(ended)):
            continue  # all of them failed, which `failed_steps` reports
        answered = [a for a in ended.attempts if a.decision not in ("dropped", "failed")]
        failures_by_detector: dict[str, list[Failure]] = {}
        for attempt in answered:
            for name, failure in _last_failures(attempt).items():
                failures_by_detector.setdefault(name, []).append(failure)
        for failures in failures_by_detector.values():
            # one failure at most for each attempt, so an equal number means all
            if len(failures) == len(answered):
                cause = _most_common(failures)
                failed.append(FailedStep(ended.number, "verify", len(failures), cause))
    return failed


def _last_failures(attempt: Attempt) -> dict[str, Failure]:
    """Return the last failure of each detector: one may fail on the draft and on the revision."""
    return {failure.component: failure for failure in _failures_of(attempt, "verify")}


def refuse_failed(folder: Path, rounds: Sequence[Round], steps: Iterable[FailedStep]) -> None:
    """Raise for the run in `folder` if all its questions failed, or one of these `steps` did.

    Raises NothingAnsweredError for the questions, StepFailedError for a step, and TunerFailedError
    where only the tuner failed.
    """
    steps = list(steps)
    look = f"All failures: selfloop show {quote(str(folder))} --failures"
    asked: list[Attempt] = []
    for ended in rounds:
        asked += [attempt for attempt in ended.attempts if attempt.decision != "dropped"]
    if asked and all(map(unanswered, asked)):
        why = nothing_answered(asked)
        raise NothingAnsweredError(f"{why} Fix that, and start a new run. {look}", folder)
    if not steps:
        return
    reasons = "\n".join(f"{step}." for step in steps)
    if all(step.step == "tune" for step in steps):
        kept = "Every round is stored, and the last good adapter stays."
        advice = f"Fix the tuner's part of the recipe, and start a new run. {look}"
        raise TunerFailedError(f"{reasons}\n{kept} {advice}", folder)
    advice = f"The records are kept. Fix that, and start a new run. {look}"
    raise StepFailedError(f"{reasons}\n{advice}", folder)


def nothing_answered(attempts: Sequence[Attempt]) -> str:
    """Return the sentence that none of these attempts has an answer, with the commonest cause."""
    cause = cause_text(_most_common(map(_cause, attempts)))
    if len(attempts) == 1:
        return f"the question was not answered: {cause}."
    return f"not one of the {_count_questions(len(attempts))} was answered: {cause}."


def cause_text(failure: Failure) -> str:
    """Return the component and the message of a failure, without a full stop at the end."""
    message = " ".join(failure.message.split())
    return f"{failure.component}: {failure.type}: {message[:MAX_CAUSE]}".rstrip(" .:")


def _most_common(failures: Iterable[Failure]) -> Failure:
    return Counter(failures).most_common(1)[0][0]


def _count_questions(count: int) -> str:
    return "1 question" if count == 1 else f"{count:,} questions"
