"""`selfloop.score`: how likely answers that exist already are true, by a model's detectors."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfloop import data
from selfloop.api.answerer import ModelLike
from selfloop.api.closed_book import closed_book, kept_input, kept_rows, refuse_not_applied
from selfloop.api.recipes import Changes, overrides_of
from selfloop.api.runs import Run
from selfloop.config.defaults import FILE_SOURCE
from selfloop.errors import StepFailedError
from selfloop.records import Attempt
from selfloop.storage.store import attempts_of

# A question and an answer, or a row with these and other columns.
Pair = tuple[str, str] | Mapping[str, Any]
# The model writes no draft and no critique, so their settings would not be applied.
NOT_APPLIED = ("critique", "answer.decline_bias", "prompts.critique", "prompts.revise")


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer and the confidence in it, from 0 to 1; None where every detector abstained.

    `columns` are the other columns of the answer's row. `error` says why it could not be scored.
    """

    question: str
    answer: str
    confidence: float | None
    reason: str = field(default="", repr=False)
    verdicts: Mapping[str, float | None] = field(default_factory=dict, repr=False)
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)
    error: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the scored answer as data for JSON."""
        plain: dict[str, Any] = {"question": self.question, "answer": self.answer}
        if "id" in self.columns:
            plain["id"] = self.columns["id"]
        plain |= {
            "confidence": self.confidence,
            "reason": self.reason,
            "verdicts": dict(self.verdicts),
            "columns": dict(self.columns),
        }
        return plain | ({"error": self.error} if self.error else {})


@dataclass(frozen=True)
class Scores:
    """The scored answers of a file or a list, in order, and the run that scored them.

    `failure` is the error of a step that failed for every answer.
    """

    run: Run
    answers: tuple[ScoredAnswer, ...]
    failure: StepFailedError | None = None

    def __iter__(self) -> Iterator[ScoredAnswer]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def raise_for_failure(self) -> None:
        """Raise the StepFailedError of a step that failed for every answer."""
        if self.failure:
            raise self.failure


def score(
    model: ModelLike,
    pairs: Path | str | Iterable[Pair],
    changes: Changes = (),
    *,
    question_column: str = "",
    answers_column: str = "",
    answer_column: str = "",
    skip_broken: bool = False,
    runs: Path | str = "runs",
    quiet: bool = False,
) -> Scores:
    """Score answers, whoever wrote them, in a new run of `runs`.

    `model` is as for `ask`. `pairs` are questions with their answers, or the path of a file with
    rows of them; the columns are found by their usual names, unless they are named here. The model
    reads each answer, and answers the question itself a few times to compare.

    Raises RecipeError for rows that cannot be read. A step that fails for every answer does not
    raise: see `Scores.failure`.
    """
    overrides = overrides_of(changes)
    refuse_not_applied(overrides, *NOT_APPLIED)
    folder = Path(runs)
    if isinstance(pairs, Path | str):
        path = kept_input(Path(pairs), folder)
    else:
        path = kept_rows(map(_as_row, pairs), folder)
    # Read here too, so that mistakes in the rows are found before a run has a folder.
    columns = data.Columns(question_column, answers_column, answer_column)
    table = data.read(path, "score", columns, skip_broken=skip_broken)
    source = {
        "kind": FILE_SOURCE,
        "path": str(path.absolute()),
        "judge": True,  # the row's answer takes the place of the draft
        "skip_broken": skip_broken,
        "question_column": question_column,
        "answers_column": answers_column,
        "answer_column": answer_column,
    }
    failure: StepFailedError | None = None
    try:
        run = closed_book(
            model,
            source,
            len(table.questions),
            # A critique would answer again, and the given answer is the one to score.
            ("critique=none", *overrides),
            folder,
            name="score",
            quiet=quiet,
            pinned={"data": table.plain()},
        )
    except StepFailedError as error:  # the run was stored, and its answers say their own errors
        run, failure = error.folder, error
    answers = tuple(map(_scored, attempts_of(run)))
    return Scores(Run(run), answers, failure)


def _as_row(pair: Pair) -> Mapping[str, Any]:
    if isinstance(pair, Mapping):
        return pair
    question, answer = pair
    return {"question": question, "answer": answer}


def _scored(attempt: Attempt) -> ScoredAnswer:
    return ScoredAnswer(
        question=attempt.question.text,
        answer=attempt.question.answer,
        confidence=attempt.confidence,
        reason=attempt.reason,
        verdicts=attempt.confidences(attempt.chosen),
        columns=attempt.question.other_columns,
        error=attempt.reason if attempt.decision == "failed" else "",
    )
