"""Runs side by side: their figures, and the questions that more than one of them was asked."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import click
from selfloop_plugins._shared.output import writing

from selfloop import Attempt
from selfloop.api.builtin import RunAnswer, SharedQuestion
from selfloop.cli.tables import print_table
from selfloop.storage import atomic
from selfloop.text.display import printable
from selfloop.text.gist import gist

from ._packages import require_packages
from .figures import DECISIONS
from .page import embedded_figures, render_page, tiles
from .run_summary import RunSummary

SIDE_BY_SIDE = ("rounds", "growth", "confidence", "risk", "reliability", "gates")  # figures
MAX_PAGE_QUESTIONS = 200  # on the page, those that differ first
MAX_TERMINAL_QUESTIONS = 8  # that differ
VALUE_WIDTH = 40  # terminal cells of a value in a table, such as a model's name
QUESTION_WIDTH = 100
ANSWER_WIDTH = 60


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    rows    of the table of figures: a label, and a value for each run
    shared  questions of several runs, those that differ first
    """

    runs: tuple[RunSummary, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    shared: tuple[SharedQuestion, ...]

    @property
    def differing(self) -> list[SharedQuestion]:
        """Return the shared questions on which the runs differ."""
        return [question for question in self.shared if question.differs]


def compare_runs(runs: Sequence[RunSummary]) -> Comparison:
    """Return the comparison of runs; where two have the same name, each is called by its path."""
    has_same_names = len({run.name for run in runs}) < len(runs)
    names = tuple(str(run.folder) if has_same_names else run.name for run in runs)
    return Comparison(tuple(runs), names, _table_rows(runs), _shared_questions(runs))


def _table_rows(runs: Sequence[RunSummary]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the figures; a row that no run has is left out."""
    columns = [_run_figures(run) for run in runs]
    labels: dict[str, None] = {}  # an ordered set: labels in the order of the first run that has it
    for column in columns:
        labels |= dict.fromkeys(column)
    rows = []
    for label in labels:
        rows.append((label, tuple(column.get(label, "") for column in columns)))
    return tuple(rows)


def _run_figures(run: RunSummary) -> dict[str, str]:
    """Return the figures of one run by label, as text."""
    asked = len(run.last_attempts)
    figures = {
        "model": str(run.model.get("name", "")),
        "rounds": f"{len(run.rounds)} of {run.rounds_planned}",
        "questions": f"{asked:,}",
    }
    for decision in DECISIONS:
        count = run.count_decision(decision)
        figures[decision] = f"{count:,} ({count / asked:.0%})" if asked else "0"
    figures["dropped"] = f"{sum(ended.count('dropped') for ended in run.rounds):,}"
    figures["adapters"] = str(sum(ended.adapter is not None for ended in run.rounds))
    for value, label, role in tiles(run):
        if not role and label != "rounds":  # those with a role are above, with their shares
            figures[label] = value
    if run.measured:
        policy, metrics = run.measured.policies["run"], run.measured.confidence.metrics
        estimates = {
            "correct": policy["correct"],
            "wrong": policy["wrong"],
            "AUROC": metrics["auroc"],
            "ECE": metrics["ece"],
        }
        for name, estimate in estimates.items():
            if not isnan(estimate.value):  # without right answers there is no AUROC
                interval = f"{estimate.low:.2f}–{estimate.high:.2f}"
                figures[f"{name} by gold"] = f"{estimate.value:.2f} ({interval})"
    return figures


def _shared_questions(runs: Sequence[RunSummary]) -> tuple[SharedQuestion, ...]:
    """Return the questions that more than one run was asked, in whatever words, those that differ
    first, and the surest first among them."""
    attempts: dict[object, dict[int, Attempt]] = {}  # by meaning, then by the run's number
    for number, run in enumerate(runs):
        for _, attempt in run.last_attempts:
            text = attempt.question.text
            attempts.setdefault(gist(text) or text, {})[number] = attempt
    shared = []
    for by_run in attempts.values():
        if len(by_run) > 1:
            text = next(iter(by_run.values())).question.text
            answers = [_run_answer(by_run.get(number)) for number in range(len(runs))]
            shared.append(SharedQuestion(text, tuple(answers)))
    return tuple(sorted(shared, key=_by_difference_then_confidence))


def _by_difference_then_confidence(question: SharedQuestion) -> tuple[bool, float]:
    return not question.differs, -max(answer.confidence or 0 for answer in question.answers)


def _run_answer(attempt: Attempt | None) -> RunAnswer:
    if attempt is None:
        return RunAnswer()
    return RunAnswer(str(attempt.decision), attempt.answer, attempt.confidence)


def print_comparison(comparison: Comparison, *, as_json: bool) -> None:
    """Print a comparison: the table, and the first questions that differ."""
    if as_json:
        click.echo(json.dumps(_comparison_data(comparison), indent=2))
        return
    rows = []
    for label, values in comparison.rows:
        rows.append([label, *(printable(value, VALUE_WIDTH) for value in values)])
    print_table(["", *comparison.names], rows)
    differing = comparison.differing
    click.echo(
        f"{len(comparison.shared):,} questions were asked in more than one run; on "
        f"{len(differing):,} they differ."
    )
    for question in differing[:MAX_TERMINAL_QUESTIONS]:
        click.echo(f"  {printable(question.question, QUESTION_WIDTH)}")
        for name, answer in zip(comparison.names, question.answers, strict=True):
            if not answer.decision:
                continue
            confidence = "    " if answer.confidence is None else f"{answer.confidence:.2f}"
            text = printable(answer.answer, ANSWER_WIDTH)
            click.echo(f"    {confidence} {answer.decision:9} {printable(name)}: {text}")


def _comparison_data(comparison: Comparison) -> dict[str, Any]:
    return {
        "runs": [str(run.folder) for run in comparison.runs],
        "figures": {label: list(values) for label, values in comparison.rows},
        "shared": [
            {**asdict(question), "differs": question.differs} for question in comparison.shared
        ],
    }


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as a page, whole or not at all. Raises StoreError for the disk."""
    text = _page(comparison)
    with writing(path):
        atomic.write_text(path, text, parents=True)
    return path


def _page(comparison: Comparison) -> str:
    require_packages("selfloop compare --out")
    columns = [embedded_figures(run, str(k)) for k, run in enumerate(comparison.runs)]
    figure_rows = []
    for name in SIDE_BY_SIDE:
        row = [column.get(name) for column in columns]
        if any(row):
            figure_rows.append(row)
    return render_page(
        "compare.html",
        "none.js",
        "compare",
        comparison=comparison,
        figure_rows=figure_rows,
        shared=comparison.shared[:MAX_PAGE_QUESTIONS],
        differ=len(comparison.differing),
    )
