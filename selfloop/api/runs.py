"""Runs from Python: `selfloop.run(recipe)` and `selfloop.load(folder)` return a `Run`.

They are the runs of the command line: one can begin a run, and the other resume and show it.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from selfloop.api.recipes import Changes, RecipeLike, located, overrides_of
from selfloop.config.recipe import Decide
from selfloop.data.cells import evened
from selfloop.errors import MissingExtraError
from selfloop.evaluation.round_figures import RoundFigures
from selfloop.history import WITHOUT_ANSWER, History
from selfloop.records import Attempt, Belief, Decision, Outcome, Round
from selfloop.registry import builtin
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import open_store, recipe_of
from selfloop.text.answers import UNKNOWN
from selfloop.text.display import encodable, printable

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-not-found,import-untyped,unused-ignore]

Row = dict[str, Any]
ANSWERED: tuple[Decision, ...] = ("belief", "declined", "undecided")
MAX_BELIEFS = 10  # in a notebook's view of a run
MAX_CELL = 200  # characters of a cell in a notebook's tables


class _Records(NamedTuple):
    """Everything that a `Run` reads of its database."""

    rounds: tuple[Round, ...]
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A run on disk.

    The database is read and validated once, when something of it is first needed. A run that is
    still going on is read again by `reload`.
    """

    folder: Path

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def _records(self) -> _Records:
        with closing(open_store(self.folder, write=False)) as store:
            return _Records(tuple(store.rounds()), store.meta())

    @cached_property
    def _history(self) -> History:
        return History.from_rounds(self._records.rounds)

    @property
    def rounds(self) -> list[Round]:
        """The rounds that have ended, in order, with all their attempts."""
        return list(self._records.rounds)

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """The beliefs after the last round, in the order asked."""
        return self._history.beliefs

    @property
    def declined(self) -> tuple[Outcome, ...]:
        """The questions that are declined after the last round.

        `answer` is the answer that the model would have made up.
        """
        outcomes = _last_outcomes(self._history.outcomes)
        return tuple(outcome for outcome in outcomes if outcome.decision == "declined")

    @property
    def report(self) -> Path:
        """The path of the run's report; `selfloop report RUN` writes it."""
        return RunFolder(self.folder).report

    @property
    def model(self) -> dict[str, Any]:
        """The pinned model: `name`, `file`, `sha256` and so on.

        Raises StoreError where the run has not begun.
        """
        pinned = self._records.meta.get("model")
        if pinned is not None:
            return dict(pinned)
        with closing(open_store(self.folder, write=False)) as store:
            return store.model()  # raises: the run has not begun

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe as it was run, as data, without defaults."""
        return recipe_of(self.folder)

    @property
    def decide(self) -> Decide:
        """The thresholds of the run's decisions."""
        return Decide.model_validate_json(json.dumps(self.recipe.get("decide", {})))

    def rows(self, only: Collection[Decision] = ANSWERED) -> list[Row]:
        """Return a row for each question after the last round, in the order first asked.

        `answer` is the answer that counts: "I don't know" where the question was declined.
        `drafted` is the model's own answer, and `confidence` is the confidence in that. `verdicts`
        has the confidence of each detector, None where it abstained. `columns` are the other
        columns of the question's data, if there are any.
        """
        model = str(self.model.get("name", ""))
        attempts = _attempts_by_question(self._records.rounds)
        outcomes = [
            outcome
            for outcome in _last_outcomes(self._history.outcomes)
            if outcome.decision in only
        ]
        rows = []
        for outcome in outcomes:
            # The outcome may be of an earlier round than the last one that asked.
            attempt = attempts[outcome.question.text, outcome.round]
            rows.append(_row(outcome, attempt, model))
        _fill_in_detectors(rows)
        # Every row has every column of the data too: a table has the same columns in all rows.
        columns = evened([outcome.question.other_columns for outcome in outcomes])
        if columns:
            for index, row in enumerate(rows):
                row["columns"] = {name: values[index] for name, values in columns.items()}
        return rows

    def frame(self, only: Collection[Decision] = ANSWERED) -> "DataFrame":
        """Return `rows` as a pandas table with a column for each detector.

        Raises MissingExtraError without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("pandas", "pandas", "Run.frame") from error
        return pandas.json_normalize(self.rows(only))

    def summary(self) -> dict[str, Any]:
        """Return the counts of each round and of the whole run, as `selfloop run --json` prints."""
        from selfloop.api.summary import run_summary

        return run_summary(self.folder)

    def round_figures(self) -> list[RoundFigures]:
        """Return the figures of each round that show whether a run that tunes collapses."""
        # Those of an adapter are in the report of the tuner's gate, which a plugin writes.
        figures: list[RoundFigures] = builtin.library().round_figures(self.folder, self.rounds)
        return figures

    def reload(self) -> "Run":
        """Return the run as it is on disk now."""
        return Run(self.folder)

    def resume(self, *, quiet: bool = False) -> "Run":
        """Go on with a run that was stopped, and return it; a run that is done stays as it is.

        Raises SelfloopError.
        """
        from selfloop.runner import resume

        return Run(resume(self.folder, quiet=quiet))

    def rescore(self, changes: Changes, *, runs: Path | str = "runs") -> "Run":
        """Judge the stored answers again; see `selfloop.rescore`."""
        return rescore(self, changes, runs=runs)

    def _repr_html_(self) -> str:
        """Return the run as tables for a notebook. Text of a model is escaped."""
        decisions = get_args(Decision)
        counts = []
        for ended in self._records.rounds:
            by_decision = [str(ended.count(decision)) for decision in decisions]
            counts.append((str(ended.number), *by_decision))
        surest_first = sorted(self.beliefs, key=lambda belief: -belief.confidence)
        beliefs = [
            (f"{belief.confidence:.2f}", belief.question.text, belief.answer)
            for belief in surest_first[:MAX_BELIEFS]
        ]
        rest = len(surest_first) - MAX_BELIEFS
        more = f"<p>and {rest} beliefs more</p>" if rest > 0 else ""
        tables = html_table(("round", *decisions), counts)
        tables += html_table(("confidence", "question", "answer"), beliefs)
        return f"<p>{_html(str(self.folder))}</p>{tables}{more}"


RunLike = Run | Path | str


def run(
    recipe: RecipeLike,
    changes: Changes = MappingProxyType({}),
    *,
    runs: Path | str = "runs",
    quiet: bool = False,
) -> Run:
    """Run a recipe in a new folder of `runs`, and return the run. Raises SelfloopError.

    `recipe` is the path of a YAML file, the name of a recipe that comes with selfloop, YAML text
    (a string with more than one line), or the recipe as data. A recipe without a file is called
    `recipe`, unless it names itself, and its paths are relative to the working directory.
    `changes` are applied as `--set` applies them: `{"backend.model": "my.gguf"}`. `quiet` leaves
    out the progress.
    """
    from selfloop import runner

    source = located(recipe)
    folder = runner.run(
        source.path,
        overrides_of(changes),
        Path(runs),
        quiet=quiet,
        base=source.base,
        text=source.text,
    )
    return Run(folder)


def load(folder: Path | str) -> Run:
    """Return the run in a folder. Raises StoreError if there is none."""
    open_store(Path(folder), write=False).close()
    return Run(Path(folder))


def folder_of(run: RunLike) -> Path:
    """Return the folder of a run, which may be given by its path."""
    return run.folder if isinstance(run, Run) else Path(run)


def rescore(run: RunLike, changes: Changes, *, runs: Path | str = "runs") -> Run:
    """Judge the stored answers of a run again, with other detectors or thresholds.

    `changes` are those of the run's recipe. Nothing is generated: the model is opened only if a
    detector needs something that is not stored. The result is a new run in `runs`.

    Raises RecipeError for changes that would need new answers, StepFailedError if every verdict
    failed.
    """
    from selfloop.evaluation import rescoring

    return Run(rescoring.rescore(folder_of(run), overrides_of(changes), Path(runs)))


def _last_outcomes(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the last outcome of each question, in the order first asked.

    A dropped or failed attempt counts only for a question that has no other.
    """
    last: dict[str, Outcome] = {}
    for outcome in outcomes:
        earlier = last.get(outcome.question.text)
        # "Dropped" and "failed" say nothing of the earlier answer.
        if (
            earlier is None
            or earlier.decision in WITHOUT_ANSWER
            or outcome.decision not in WITHOUT_ANSWER
        ):
            last[outcome.question.text] = outcome
    return list(last.values())


def _attempts_by_question(rounds: Iterable[Round]) -> dict[tuple[str, int], Attempt]:
    """Return the attempts by question and round.

    A question that was dropped because it had been asked in the round keeps the first attempt.
    """
    attempts: dict[tuple[str, int], Attempt] = {}
    for ended in rounds:
        for attempt in ended.attempts:
            key = attempt.question.text, ended.number
            if key not in attempts or attempt.decision not in WITHOUT_ANSWER:
                attempts[key] = attempt
    return attempts


def _row(outcome: Outcome, attempt: Attempt, model: str) -> Row:
    question = outcome.question
    return {
        "question": encodable(question.text),
        "answer": UNKNOWN if outcome.decision == "declined" else encodable(outcome.answer),
        "drafted": encodable(outcome.answer),
        "decision": outcome.decision,
        "confidence": outcome.confidence,
        "round": outcome.round,
        "source": question.source,
        "topic": encodable(question.topic),
        "samples": [encodable(sample.text.strip()) for sample in attempt.samples],
        "verdicts": attempt.confidences(attempt.chosen),
        "adapter": outcome.adapter,
        "model": model,
    }


def _fill_in_detectors(rows: Sequence[Row]) -> None:
    """Give every row the verdict of every detector: a table has the same columns in all rows."""
    names: dict[str, None] = {}  # a set that keeps the order
    for row in rows:
        names |= dict.fromkeys(row["verdicts"])
    for row in rows:
        row["verdicts"] = {name: row["verdicts"].get(name) for name in names} or None


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a notebook; all cells are escaped."""
    # Every cell is escaped in `_html`: a model may have written markup.
    lines = [_html_row("th", head), *(_html_row("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    columns = [f"<{tag}>{_html(cell)}</{tag}>" for cell in cells]
    return f"<tr>{''.join(columns)}</tr>"


def _html(text: str) -> str:
    return escape(printable(text, MAX_CELL))
