"""Steps that failed for every question of a round: what such a run leaves is records of errors, and
no result.

All of it is read off the records, so that a run ends in the same way whether or not it was stopped
in between.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from selfloop.errors import NothingAnswered, StepFailed, TunerFailed
from selfloop.records import Attempt, Failure, Round

SHOWN = 300  # characters of a cause
EMPTY = Failure(
    "answer",
    "the model",
    "EmptyAnswer",
    "it wrote nothing; see answer.stop, answer.thought_tokens and the prompt",
)


@dataclass(frozen=True)
class FailedStep:
    """A step that failed for all `questions` of a round, and the failure that most of them met."""

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
        return f"in round {self.round} the step {self.step} failed for all {_questions(self.questions)}: {cause}"


def failed_steps(rounds: Iterable[Round]) -> list[FailedStep]:
    """Return the steps that failed throughout a round, in order.

    A tuner that raised has failed its round.
    """
    return [step for ended in rounds for step in _of_round(ended)]


def _of_round(ended: Round) -> Iterator[FailedStep]:
    sources = [failure for failure in ended.failures if failure.step == "ask"]
    if not ended.attempts and sources:
        yield FailedStep(ended.number, "ask", 0, _commonest(sources))
    asked = [attempt for attempt in ended.attempts if attempt.decision != "dropped"]
    answered = [attempt for attempt in asked if attempt.decision != "failed"]
    if asked and all(map(unanswered, asked)):
        cause = _commonest(map(_cause, asked))
        yield FailedStep(ended.number, cause.step, len(asked), cause)
    reached = {
        "critique": [attempt for attempt in answered if not attempt.question.answer],
        "revise": [attempt for attempt in answered if attempt.critique is not None],
        "verify": answered,
    }
    for step, attempts in reached.items():
        if attempts and all(_failed_in(attempt, step) for attempt in attempts):
            failures = [
                failure
                for attempt in attempts
                for failure in attempt.failures
                if failure.step == step
            ]
            yield FailedStep(ended.number, step, len(attempts), _commonest(failures))
    tunes = [failure for failure in ended.failures if failure.step == "tune"]
    if tunes:
        yield FailedStep(ended.number, "tune", len(asked), tunes[0])


def unanswered(attempt: Attempt) -> bool:
    """Return whether a question that was asked has no answer: it failed, or the model wrote nothing at all."""
    return attempt.decision == "failed" or not attempt.answer


def _cause(attempt: Attempt) -> Failure:
    return attempt.failures[-1] if attempt.decision == "failed" else EMPTY


def _failed_in(attempt: Attempt, step: str) -> bool:
    """Return whether a step gave an attempt nothing but failures."""
    failed = any(failure.step == step for failure in attempt.failures)
    judged = any(verdict.confidence is not None for verdict in attempt.verdicts)
    return failed and not (step == "verify" and judged)


def failed_verifiers(rounds: Iterable[Round]) -> list[FailedStep]:
    """Return the verifiers that failed for every answer of a round while others judged it."""
    broken: list[FailedStep] = []
    for ended in rounds:
        answered = [
            attempt for attempt in ended.attempts if attempt.decision not in ("dropped", "failed")
        ]
        failures = [failure for attempt in answered for failure in _of_verifiers(attempt)]
        counts = Counter(failure.component for failure in failures)
        if any(step.step == "verify" for step in _of_round(ended)):
            continue
        for name, count in counts.items():
            if count == len(answered):
                cause = _commonest(failure for failure in failures if failure.component == name)
                broken.append(FailedStep(ended.number, "verify", count, cause))
    return broken


def _of_verifiers(attempt: Attempt) -> list[Failure]:
    """Return the failures of an attempt's verifiers, one for each: a revision is judged beside its draft."""
    return list(
        {
            failure.component: failure for failure in attempt.failures if failure.step == "verify"
        }.values()
    )


def refuse_failed(folder: Path, rounds: Sequence[Round], steps: Iterable[FailedStep]) -> None:
    """Raise for the run in `folder` if every question failed (NothingAnswered), or one of these
    `steps` did.

    StepFailed is for a step of a round, TunerFailed where nothing but a tuner failed.
    """
    steps = list(steps)
    look = f"All failures: selfloop show {quote(str(folder))} --failures"
    asked = [a for ended in rounds for a in ended.attempts if a.decision != "dropped"]
    if asked and all(map(unanswered, asked)):
        raise NothingAnswered(
            f"{nothing_answered(asked)} Mend that, and start a new run. {look}", folder
        )
    if not steps:
        return
    reasons = "\n".join(f"{step}." for step in steps)
    if all(step.step == "tune" for step in steps):
        kept = "Every round is stored, and the last good adapter stays."
        raise TunerFailed(
            f"{reasons}\n{kept} Mend the tuner's part of the recipe, and start a new run. {look}",
            folder,
        )
    raise StepFailed(
        f"{reasons}\nThe records are kept. Mend that, and start a new run. {look}", folder
    )


def nothing_answered(attempts: Sequence[Attempt]) -> str:
    """Return that all of these attempts have no answer, and why most of them have none."""
    cause = cause_text(_commonest(map(_cause, attempts)))
    which = (
        "the question was not"
        if len(attempts) == 1
        else f"not one of the {_questions(len(attempts))} was"
    )
    return f"{which} answered: {cause}."


def cause_text(failure: Failure) -> str:
    """Return whose failure it was, and what it said, without a full stop at its end."""
    message = " ".join(failure.message.split())
    return f"{failure.component}: {failure.type}: {message[:SHOWN]}".rstrip(" .:")


def _commonest(failures: Iterable[Failure]) -> Failure:
    return Counter(failures).most_common(1)[0][0]


def _questions(count: int) -> str:
    return "1 question" if count == 1 else f"{count:,} questions"
