"""`selfloop.evaluate`: a model, a recipe or a finished run, measured by gold answers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from selfloop import data as question_data
from selfloop.api.answerer import Answerer, ModelLike, answerer
from selfloop.api.choices import ChoiceEvaluation, choice_rows, evaluate_choices
from selfloop.api.closed_book import closed_book, kept_input, kept_rows, refuse_not_applied
from selfloop.api.recipes import Changes, overrides_of
from selfloop.api.run_folders import run_folder
from selfloop.api.runs import Run
from selfloop.config.assembly import numbered
from selfloop.config.defaults import DATASET_SOURCE
from selfloop.config.recipe import read
from selfloop.data import Table
from selfloop.errors import (
    MissingExtraError,
    NothingAnsweredError,
    RecipeError,
    StepFailedError,
    StoreError,
)
from selfloop.evaluation import evaluate as measures
from selfloop.evaluation.gold import Match, match_named
from selfloop.evaluation.requirements import (
    Requirement,
    figure_names,
    figures,
    refuse_short,
    refuse_unknown,
)
from selfloop.failed_steps import failed_steps, refuse_failed
from selfloop.storage.parquet import save
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import Store, declining_as_in

HUB = "hf:"
MAX_NAME = 60  # characters of a data set's name in the name of a run
# A question with its gold answer or answers, or a row with these and other columns.
Gold = tuple[str, str | Sequence[str]] | Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """The figures of a run, with intervals.

    `report` holds all of them. `rows` counts the rows of the data, None for a run whose questions
    did not come from one file. `files` are those written into the run's folder; `missing_extra` and
    `store_error` say why one of them was not written.
    """

    run: Run
    model: str
    report: measures.Report = field(repr=False)
    match: Match = field(repr=False)
    rows: Mapping[str, Any] | None = field(default=None, repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    missing_extra: str = field(default="", repr=False)
    store_error: str = field(default="", repr=False)

    def __repr__(self) -> str:
        accuracy = self.report.accuracy["chosen"]
        auroc = self.report.confidence.metrics["auroc"]
        return (
            f"Evaluation({str(self.run.folder)!r}, model={self.model!r}, "
            f"questions={self.report.questions}, accuracy={accuracy.value:.3f}, "
            f"auroc={auroc.value:.3f})"
        )

    def plain(self) -> dict[str, Any]:
        """Return the evaluation as data for JSON, as `eval.json` holds it."""
        rows = {"data": self.rows} if self.rows else {}
        return {"run": str(self.run.folder), "model": self.model, **rows, **self.report.plain()}

    def figures(self) -> dict[str, float | None]:
        """Return every number of `plain` by its dotted name, and the usual ones by a short name."""
        return figures(self.plain())

    def require(self, requirements: Sequence[Requirement]) -> None:
        """Raise BelowRequiredError where a figure does not meet its bound."""
        refuse_short(requirements, self.figures())

    def raise_for_failures(self) -> None:
        """Raise StepFailedError where a step of the run failed for all questions, except tuning."""
        rounds = self.run.rounds
        steps = [step for step in failed_steps(rounds) if step.step != "tune"]
        refuse_failed(self.run.folder, rounds, steps)


def evaluate(
    model: ModelLike,
    data: Path | str | Iterable[Gold] | None = None,
    changes: Changes = (),
    *,
    match: str = "exact",
    limit: int | None = None,
    question_column: str = "",
    answers_column: str = "",
    skip_broken: bool = False,
    runs: Path | str = "runs",
    quiet: bool = False,
    requirements: Sequence[Requirement] = (),
) -> Evaluation | ChoiceEvaluation:
    """Measure how often a model is right, and how well its confidence tells right from wrong.

    With `data`, `model` (as for `ask`) answers the questions in a new run of `runs`; without it,
    `model` is a finished run, which is measured as it is. `data` is the path of a file, the name
    of a data set of the hub (`hf:popqa`, `hf:popqa:test`), or questions with gold answers. `limit`
    asks that many, drawn at random, always the same. `match` names the rule that compares answers
    with gold answers. Data in multiple choice is read by log-likelihood, and gives a
    `ChoiceEvaluation`. `requirements` name figures that will be required: an unknown name is
    refused before a model is loaded.

    Raises RecipeError for data that cannot be read or measured. A step that fails for all questions
    does not raise: see `Evaluation.raise_for_failures`.
    """
    rule, overrides, folder = match_named(match), overrides_of(changes), Path(runs)
    if data is None:
        if overrides or limit or question_column or answers_column or skip_broken:
            raise RecipeError(
                "--set, --limit and the options for columns change the questions, so they need "
                "--data."
            )
        return evaluate_run(_finished(model, folder), rule, requirements)
    refuse_not_applied(overrides)
    # Mistakes in the data and in names of figures are found before a model loads.
    questions = _questions(data, folder, limit, question_column, answers_column, skip_broken)
    who = answerer(model)
    if questions.choices:
        return evaluate_choices(who, questions.choices, overrides, limit, requirements)
    if requirements:
        refuse_unknown(requirements, _figure_names(who, overrides))
    table = questions.table()
    try:
        run = closed_book(
            who,
            questions.source,
            len(table.questions),
            overrides,
            folder,
            name=questions.name,
            quiet=quiet,
            pinned={"data": table.plain()},
        )
    except NothingAnsweredError:  # there is nothing to measure
        raise
    except StepFailedError as failed:  # the run has results all the same
        run = failed.folder
    return evaluate_run(run, rule, requirements)


def evaluate_run(
    folder: Path, match: Match, requirements: Sequence[Requirement] = ()
) -> Evaluation:
    """Measure a finished run, and store the results in its folder.

    Raises RecipeError for a run without an answer that has a gold answer, and for a requirement of
    an unknown figure; NothingAnsweredError for a run whose questions all failed.
    """
    with closing(Store(folder, write=False)) as store:
        meta, rounds = store.meta(), list(store.rounds())
        # The run's recipe may have patterns of its own for declining.
        with declining_as_in(folder):
            report = measures.evaluate(rounds, match)
        # Only if every question failed; single steps are for `raise_for_failures`.
        refuse_failed(folder, rounds, ())
        if not report.questions:
            raise RecipeError(
                f"no question of {folder} that was answered has a gold answer. If it was stopped: "
                f"selfloop resume {folder}"
            )
        model = meta.get("model", {}).get("name", "")
        evaluation = Evaluation(Run(folder), model, report, match, meta.get("data"))
        refuse_unknown(requirements, evaluation.figures())
        return _stored(store, evaluation)


def _stored(store: Store, evaluation: Evaluation) -> Evaluation:
    """Return the evaluation with the files that could be written into the run's folder."""
    figures_file, answers_file = store.files.evaluation, store.files.evaluated_answers
    files, missing_extra, store_error = list[Path](), "", ""
    try:
        store.save_file(figures_file, to_json(evaluation.plain(), indent=2).decode() + "\n")
        files.append(figures_file)
        save(answers_file, evaluation.report.columns())
        files.append(answers_file)
    except MissingExtraError as error:
        missing_extra = str(error)
    except StoreError as error:  # the folder may be read-only
        store_error = f"the results could not be stored in the run's folder: {error}"
    return replace(
        evaluation, files=tuple(files), missing_extra=missing_extra, store_error=store_error
    )


def _finished(model: ModelLike, runs: Path) -> Path:
    """Return the folder of a run that is measured as it is."""
    if isinstance(model, Run):
        return model.folder
    name = str(model)
    if not any(RunFolder(folder).is_run for folder in (Path(name), runs / name)):
        raise RecipeError(
            f"no run {name}. To measure a recipe or a model, give --data FILE or --data {HUB}NAME "
            "too."
        )
    return run_folder(name, runs)


@dataclass(frozen=True)
class _Questions:
    """The questions of an evaluation: an entry of `ask.sources`, and the name of the run."""

    source: dict[str, Any]
    name: str
    path: Path | None = None
    choices: Sequence[Mapping[str, Any]] = ()

    def table(self) -> Table:
        """Return the questions, each once, as the run's source will take them."""
        if self.path is None:
            table = question_data.read_hub(self.source["name"], self.source["split"])
        else:
            columns = question_data.Columns(
                self.source["question_column"], self.source["answers_column"]
            )
            skip_broken = self.source["skip_broken"]
            table = question_data.read(self.path, "eval", columns, skip_broken=skip_broken)
        return table.sampled(self.source["limit"])


def _questions(
    data: Path | str | Iterable[Gold],
    runs: Path,
    limit: int | None,
    question_column: str,
    answers_column: str,
    skip_broken: bool,
) -> _Questions:
    source: dict[str, Any] = {"kind": DATASET_SOURCE, "limit": limit}
    if isinstance(data, str) and data.startswith(HUB):
        name, _, split = data.removeprefix(HUB).partition(":")
        source |= {"name": name, "split": split}
        return _Questions(source, _run_name(name), None, choice_rows(None, name, split))
    if isinstance(data, Path | str):
        path = kept_input(Path(data), runs)
        stem = "stdin" if str(data) == "-" else Path(data).stem
    else:
        path = kept_rows(map(_as_row, data), runs)
        stem = "data"
    source |= {
        "path": str(path.absolute()),
        "skip_broken": skip_broken,
        "question_column": question_column,
        "answers_column": answers_column,
    }
    return _Questions(source, _run_name(stem), path, choice_rows(path))


def _run_name(data: str) -> str:
    """Return the name of an evaluation's run: of the data's name, the characters a folder has."""
    return f"eval-{re.sub('[^A-Za-z0-9._-]+', '-', data)[:MAX_NAME]}"


def _as_row(row: Gold) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    question, gold = row
    return {"question": question, "answers": [gold] if isinstance(gold, str) else list(gold)}


def _figure_names(who: Answerer, overrides: tuple[str, ...]) -> set[str]:
    """Return the names of the figures of an evaluation, without asking the model."""
    recipe = read(who.recipe, (*who.overrides, *overrides), who.base, text=who.text).recipe
    return figure_names(name for name, _ in numbered(recipe.detectors))
