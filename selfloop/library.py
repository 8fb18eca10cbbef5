"""selfloop from Python: `selfloop.run(recipe)` and `selfloop.open(folder)` return a `Run` to look
into.

The same runs as those of the command line: what one begins, the other can resume and show.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from ruamel.yaml import YAML

from selfloop.config.recipe import Decide
from selfloop.config.yaml_source import Source, override
from selfloop.data.cells import evened
from selfloop.errors import MissingExtra, RecipeError
from selfloop.history import WITHOUT_ANSWER, Past
from selfloop.records import Attempt, Belief, Decision, Outcome, Round
from selfloop.storage.store import RECIPE, opened, rounds_of
from selfloop.text.answers import UNKNOWN
from selfloop.text.display import encodable, printable

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-not-found,import-untyped,unused-ignore]

Row = dict[str, Any]
ANSWERED: tuple[Decision, ...] = ("belief", "declined", "undecided")
SHOWN = 10  # beliefs in a notebook's picture of a run


@dataclass(frozen=True)
class Run:
    """A run on disk.

    What is asked of it is read anew each time, so that a run at work can be looked into too.
    """

    folder: Path

    @property
    def rounds(self) -> list[Round]:
        """Return the rounds that have ended, in order, with all that was asked in them."""
        return rounds_of(self.folder)

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """Return what is held true after the last round, in the order asked."""
        return Past.from_rounds(self.rounds).beliefs

    @property
    def declined(self) -> tuple[Outcome, ...]:
        """Return what the model does not know after the last round; `answer` is what it would have made up."""
        return tuple(outcome for outcome in _last(self.rounds) if outcome.decision == "declined")

    @property
    def report(self) -> Path:
        """Return where the run's report lies once it is written: `selfloop report RUN`."""
        return self.folder / "report.html"

    @property
    def model(self) -> dict[str, Any]:
        """Return what was pinned of the model: `name`, `file`, `sha256` and so on."""
        store = opened(self.folder, write=False)
        try:
            return store.model()
        finally:
            store.close()

    @property
    def recipe(self) -> dict[str, Any]:
        """Return the recipe as it was run, as data; what it leaves out is as docs/recipe.md says."""
        return Source(self.folder / RECIPE).data

    @property
    def decide(self) -> Decide:
        """Return the thresholds by which it was decided."""
        return Decide.model_validate_json(json.dumps(self.recipe.get("decide", {})))

    def rows(self, only: Collection[Decision] = ANSWERED) -> list[Row]:
        """Return a row for each question, as its run left it, in the order first asked.

        `answer` is what holds: "I don't know" where it was declined. `drafted` is what the model
        said, and `confidence` is about that. `verdicts` has the confidence of each verifier, None
        where it could not tell. `columns` are the other columns of the data that the questions came
        from, `id` among them, where there are any.
        """
        rounds, model = self.rounds, str(self.model.get("name", ""))
        attempts = _attempts(rounds)
        chosen = [outcome for outcome in _last(rounds) if outcome.decision in only]
        rows = [
            _row(outcome, attempts[outcome.question.text, outcome.round], model)
            for outcome in chosen
        ]
        names = dict.fromkeys(name for row in rows for name in row["verdicts"])
        # every row has every verifier, for a table has the same columns in all its rows
        for row in rows:
            row["verdicts"] = {name: row["verdicts"].get(name) for name in names} or None
        own = evened([outcome.question.other_columns for outcome in chosen])
        if own:
            for place, row in enumerate(rows):
                row["columns"] = {name: values[place] for name, values in own.items()}
        return rows

    def frame(self, only: Collection[Decision] = ANSWERED) -> "DataFrame":
        """Return `rows` as a table of pandas, with a column for each verifier.

        Raises MissingExtra without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtra("pandas", "pandas", "Run.frame") from error
        return pandas.json_normalize(self.rows(only))

    def resume(self, *, quiet: bool = False) -> "Run":
        """Go on with the run where it was stopped, and return it; do nothing if it is done.

        Raises SelfloopError.
        """
        from selfloop.runner import resume

        return Run(resume(self.folder, quiet=quiet))

    def _repr_html_(self) -> str:
        """Return what a notebook shows of the run.

        What the model wrote is text and nothing else.
        """
        rounds = self.rounds
        columns = ("round", *get_args(Decision))
        counts = [
            (str(ended.number), *(str(ended.count(d)) for d in get_args(Decision)))
            for ended in rounds
        ]
        held = sorted(Past.from_rounds(rounds).beliefs, key=lambda belief: -belief.confidence)
        beliefs = [
            (f"{belief.confidence:.2f}", belief.question.text, belief.answer)
            for belief in held[:SHOWN]
        ]
        more = f"<p>and {len(held) - SHOWN} beliefs more</p>" if len(held) > SHOWN else ""
        tables = _table(columns, counts) + _table(("confidence", "question", "answer"), beliefs)
        return f"<p>{_shown(str(self.folder))}</p>{tables}{more}"


def run(
    recipe: Path | str | Mapping[str, Any],
    changes: Mapping[str, Any] = MappingProxyType({}),
    *,
    runs: Path | str = "runs",
    quiet: bool = False,
) -> Run:
    """Run a recipe in a new folder of `runs`, and return the run. Raises SelfloopError.

    `recipe` is the path of a YAML file, YAML text (whatever has more than one line), or the recipe
    as data. What is no file is called `recipe`, if it does not name itself, and has its paths
    relative to the working directory. `changes` are laid over it as `--set` lays them:
    `{"backend.model": "my.gguf"}`. `quiet` leaves out the progress.
    """
    from selfloop import runner

    overrides = tuple(override(key, value) for key, value in changes.items())
    text = None if isinstance(recipe, Path) else _text(recipe)
    path = Path("recipe.yaml") if text is not None or isinstance(recipe, Mapping) else Path(recipe)
    return Run(runner.run(path, overrides, Path(runs), quiet=quiet, text=text))


def open(folder: Path | str) -> Run:
    """Return the run in `folder`. Raises StoreError if there is none."""
    opened(Path(folder), write=False).close()
    return Run(Path(folder))


def _text(recipe: str | Mapping[str, Any]) -> str | None:
    """Return a recipe that is no file as YAML, or None for the path of one."""
    if isinstance(recipe, str):
        return recipe if "\n" in recipe else None
    data = dict(recipe)
    try:
        plain = json.loads(json.dumps(data, default=str))
    except TypeError as error:
        raise RecipeError(f"every key of a recipe must be plain text: {error}.") from error
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(plain, out := StringIO())
    return out.getvalue()


def _last(rounds: list[Round]) -> list[Outcome]:
    """Return what became of each question in the end; what says nothing of an answer counts only if nothing else is."""
    last: dict[str, Outcome] = {}
    for outcome in Past.from_rounds(rounds).outcomes:
        before = last.get(outcome.question.text)
        if (
            before is None
            or before.decision in WITHOUT_ANSWER
            or outcome.decision not in WITHOUT_ANSWER
        ):
            last[outcome.question.text] = outcome
    return list(last.values())


def _attempts(rounds: list[Round]) -> dict[tuple[str, int], Attempt]:
    """Return the attempt at each question of each round; where it was dropped as asked already, the first one."""
    found: dict[tuple[str, int], Attempt] = {}
    for ended in rounds:
        for attempt in ended.attempts:
            key = attempt.question.text, ended.number
            if key not in found or attempt.decision not in WITHOUT_ANSWER:
                found[key] = attempt
    return found


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{_shown(cell)}</td>" for cell in row) for row in rows]
    named = "".join(f"<th>{_shown(name)}</th>" for name in head)
    return f"<table><tr>{named}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _shown(text: str) -> str:
    return escape(printable(text, 200))
