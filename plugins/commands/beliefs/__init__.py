"""`selfloop beliefs`: the beliefs of models, over the rounds of a run and across runs.

ledgers.py    reads the outcomes of runs
rendering.py  prints beliefs, histories and changes
exporting.py  writes beliefs to a file

`selfloop.evaluation.belief_history` answers the questions that they ask of a ledger.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import click
from selfloop_plugins._shared.output import force_option, refuse_taken

from selfloop import hookimpl
from selfloop.cli.options import FilePath, as_json, complete_run, runs_dir
from selfloop.evaluation.belief_history import (
    FinalAnswer,
    RunLedger,
    final_answers,
    group_by_question,
    merge_runs,
)
from selfloop.text.display import printable

from . import exporting, rendering
from .ledgers import contains, ledgers_of


@dataclass(frozen=True)
class Selection:
    """Which beliefs of the runs to show: a row each, or with `merge` a row a question."""

    search: str | None
    min_confidence: float | None
    declined: bool
    merge: bool

    @property
    def is_narrowed(self) -> bool:
        """Whether an option chooses among beliefs."""
        return self.min_confidence is not None or self.declined or self.merge

    def rows(self, runs: list[RunLedger]) -> list[FinalAnswer]:
        """Return the selected answers, those of the same question together, the surest first."""
        answers = []
        for run in runs:
            for answer in final_answers(run, declined=self.declined):
                if self._matches(answer):
                    answers.append(answer)
        groups = group_by_question(answers)
        if self.merge:
            return [merge_runs(group) for group in groups]
        return list(chain.from_iterable(groups))

    def _matches(self, answer: FinalAnswer) -> bool:
        # The bound is for beliefs: the confidence in a declined question is low by its nature.
        confidence = answer.outcome.confidence or 0.0
        bound = self.min_confidence
        if answer.is_belief and bound is not None and confidence < bound:
            return False
        if self.search is None:
            return True
        return contains(self.search, answer.outcome.question.text, answer.answer)


@click.command("beliefs")
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@click.option("--search", metavar="TEXT", help="Only questions and answers that contain TEXT.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Only beliefs of at least this confidence.",
)
@click.option(
    "--declined", is_flag=True, help='Declined questions too, with "I don\'t know" as the answer.'
)
@click.option(
    "--merge",
    is_flag=True,
    help="One row a question, with the surest answer and the number of runs that agree.",
)
@click.option(
    "--history",
    metavar="TEXT",
    help="Every outcome of the questions that contain TEXT, with reasons.",
)
@click.option(
    "--flipped", is_flag=True, help="Every belief that was lost, gained or changed, with reasons."
)
@click.option(
    "--export",
    type=FilePath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write them to FILE, .jsonl or .parquet.",
)
@click.option(
    "--form",
    type=click.Choice(exporting.FORM_NAMES),
    help="Of a row of FILE: all columns (the default), chat messages, or prompt and completion.",
)
@force_option
@runs_dir
@as_json
def command(
    names: tuple[str, ...],
    search: str | None,
    min_confidence: float | None,
    declined: bool,
    merge: bool,
    history: str | None,
    flipped: bool,
    export: Path | None,
    form: str | None,
    force: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """Show the beliefs of each RUN (a folder, or a name in --runs); without RUN, of all in --runs.

    Each line is a belief after the run's last round: its confidence, the question, the answer and
    the round of the answer.

    \b
    Examples:
      selfloop beliefs
      selfloop beliefs quickstart --min-confidence 0.8 --export beliefs.jsonl --form chat
    """
    selection = Selection(search, min_confidence, declined, merge)
    _refuse_conflicts(selection, history, flipped, export)
    _refuse_export_options(export, form, as_json)
    # Refused before runs are read, which may take long.
    if export:
        refuse_taken(
            export,
            "export of beliefs",
            force=force,
            ours=exporting.is_earlier,
            option="--export",
        )
    ledgers, unreadable = ledgers_of(names, runs)
    if history is not None:
        rendering.print_histories(ledgers, history, as_json)
    elif flipped:
        rendering.print_flips(ledgers, search, as_json)
    elif export:
        exporting.write_rows(export, selection.rows(ledgers), form or "plain", merge)
    else:
        rendering.print_beliefs(selection.rows(ledgers), ledgers, merge, as_json)
    # The readable runs were shown first.
    if unreadable:
        raise unreadable


def _refuse_conflicts(
    selection: Selection, history: str | None, flipped: bool, export: Path | None
) -> None:
    """Raise UsageError for options that exclude each other."""
    views = {"--history": history is not None, "--flipped": flipped, "--export": bool(export)}
    chosen = [option for option, is_chosen in views.items() if is_chosen]
    if len(chosen) > 1:
        raise click.UsageError(
            f"{' and '.join(chosen)} do not go together: run the command once for each."
        )
    if selection.is_narrowed and (history is not None or flipped):
        raise click.UsageError(
            "--min-confidence, --declined and --merge choose beliefs: leave them out where "
            f"{chosen[0]} is."
        )
    if selection.search is not None and history is not None:
        raise click.UsageError("--history TEXT searches by itself: leave --search out.")


def _refuse_export_options(export: Path | None, form: str | None, as_json: bool) -> None:
    """Raise UsageError for options of an export that is not made, or that cannot be."""
    if form and not export:
        raise click.UsageError("--form sets the rows of --export: give --export FILE too.")
    if export and as_json:
        raise click.UsageError("--export writes to a file, --json prints: give one of them.")
    if export and export.suffix.lower() not in exporting.WRITERS:
        raise click.UsageError(
            f"--export writes {' and '.join(exporting.WRITERS)} files, not "
            f"{printable(export.name)!r}."
        )


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
