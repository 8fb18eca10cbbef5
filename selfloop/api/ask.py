"""`selfloop.ask`: a model's answers to questions, and how likely each is true."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

from selfloop.api.answerer import ModelLike
from selfloop.api.closed_book import closed_book, refuse_not_applied
from selfloop.api.recipes import Changes, overrides_of
from selfloop.config.defaults import FILE_SOURCE
from selfloop.errors import NothingAnsweredError, RecipeError, StepFailedError, StoppedError
from selfloop.failed_steps import nothing_answered, unanswered
from selfloop.records import Attempt
from selfloop.storage.store import attempts_of
from selfloop.text.answers import UNKNOWN
from selfloop.text.display import encodable

# Several questions. Not any sequence: a text is a sequence of texts too.
Questions = list[str] | tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question.

    `answer` is the model's `guess` where that became a belief, and "I don't know" elsewhere.
    `confidence` is the confidence in the guess, from 0 to 1, None where every detector abstained.
    `samples` counts the answers that the model gave when it was asked again. `verdicts` are the
    confidences by detector. Where there is no answer, `error` says why, and `answer` is empty.
    """

    question: str
    answer: str = ""
    confidence: float | None = None
    guess: str = field(default="", repr=False)
    decision: str = ""
    reason: str = field(default="", repr=False)
    samples: Mapping[str, int] = field(default_factory=dict, repr=False)
    verdicts: Mapping[str, float | None] = field(default_factory=dict, repr=False)
    error: str = ""
    attempt: Attempt | None = field(default=None, repr=False, compare=False)

    @property
    def is_belief(self) -> bool:
        """Whether the model's guess is the answer."""
        return self.decision == "belief" and not self.error

    def plain(self) -> dict[str, Any]:
        """Return the answer as data for JSON."""
        if self.error:
            plain = {"question": self.question, "error": self.error}
            return plain | ({"decision": self.decision} if self.decision else {})
        return {
            "question": self.question,
            "answer": self.answer,
            "known": self.is_belief,
            "guess": self.guess,
            "confidence": self.confidence,
            "decision": self.decision,
            "reason": self.reason,
            "samples": dict(self.samples),
            "verdicts": dict(self.verdicts),
        }


@overload
def ask(model: ModelLike, questions: str, changes: Changes = ...) -> Answer: ...


@overload
def ask(model: ModelLike, questions: Questions, changes: Changes = ...) -> list[Answer]: ...


def ask(
    model: ModelLike, questions: str | Questions, changes: Changes = ()
) -> Answer | list[Answer]:
    """Ask a model; return an `Answer` to one question, or a list of them in the order asked.

    `model` is the name of a model, a .gguf file, a recipe, or a run, whose adapter is used too.
    `changes` are those of the recipe. Nothing is kept on disk. A question that fails has an
    `error` in its answer.

    Raises RecipeError for an empty question, and SelfloopError for a model that cannot be loaded.
    """
    if isinstance(questions, str):
        return ask(model, [questions], changes)[0]
    overrides = overrides_of(changes)
    refuse_not_applied(overrides, "name", "observers")  # nothing of the run is kept
    for question in questions:
        if not question.strip():
            raise RecipeError(f"a question is empty: {question!r}")
    # Arguments of a command line may hold bytes that are not text.
    texts = [encodable(question.strip()) for question in questions]
    attempts = _attempts(model, list(dict.fromkeys(texts)), overrides)
    # A question that was given twice is asked once, and answered in both places.
    answers = {attempt.question.text: _answer(attempt) for attempt in attempts}
    return [answers.get(text) or Answer(text, error="it was not asked") for text in texts]


def refuse_all_failed(answers: Sequence[Answer]) -> None:
    """Raise NothingAnsweredError where every answer is an error."""
    attempts = [answer.attempt for answer in answers if answer.attempt]
    if not attempts or not all(answer.error for answer in answers):
        return
    # Answers may exist that no detector could judge; then the first error stands for all.
    reason = f"{answers[0].error}."
    if all(map(unanswered, attempts)):
        reason = nothing_answered(list({id(attempt): attempt for attempt in attempts}.values()))
    advice = "See the model with `selfloop doctor`, and the recipe with `selfloop check`."
    raise NothingAnsweredError(f"{reason} {advice}", Path())


def _attempts(
    model: ModelLike, questions: Sequence[str], overrides: tuple[str, ...]
) -> list[Attempt]:
    """Return the attempts of one round over the questions, run in a temporary folder."""
    rows = [json.dumps({"question": text}) + "\n" for text in questions]
    with TemporaryDirectory(prefix="selfloop-ask-") as temporary:
        home = Path(temporary)
        file = home / "questions.jsonl"
        file.write_text("".join(rows), encoding="utf-8")
        source = {"kind": FILE_SOURCE, "path": str(file), "quiet": True}
        try:
            folder = closed_book(
                model,
                source,
                len(questions),
                # No report and no progress: the folder is gone a moment later.
                ("observers=[]", *overrides),
                home,
                name="ask",
                quiet=True,
            )
        except StepFailedError as failed:
            folder = failed.folder  # each answer has its own error
        except StoppedError:
            raise StoppedError("stopped; nothing was kept.") from None
        return attempts_of(folder)


def _answer(attempt: Attempt) -> Answer:
    question, decision = attempt.question.text, str(attempt.decision)
    error = _error(attempt)
    if error:
        return Answer(question, error=error, decision=decision, attempt=attempt)
    return Answer(
        question=question,
        answer=attempt.answer if decision == "belief" else UNKNOWN,
        confidence=attempt.confidence,
        guess=attempt.answer,
        decision=decision,
        reason=attempt.reason,
        samples=Counter(" ".join(sample.text.split()) for sample in attempt.samples),
        verdicts=attempt.confidences(attempt.chosen),
        attempt=attempt,
    )


def _error(attempt: Attempt) -> str:
    """Return why a question has no result, or an empty string where it has one."""
    if attempt.decision == "failed":
        return attempt.reason
    # Only whitespace, or a thought that did not end.
    if not attempt.answer:
        return "the model wrote nothing; see answer.stop, answer.thought_tokens and the prompt"
    # Detectors that abstain are no error. Without any verdict, one that failed is the reason.
    failures = [failure for failure in attempt.failures if failure.step == "verify"]
    if attempt.decision == "undecided" and attempt.confidence is None and failures:
        last = failures[-1]
        return f"no detector could judge the answer: {last.component}: {last.message}"
    return ""
