"""Prints the summary that ends a run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import click

from selfloop.api.summary import run_summary
from selfloop.cli.tables import print_table, terminal_width
from selfloop.errors import StepFailedError
from selfloop.text.display import printable

MAX_REASONS = 4  # of each scorer
MAX_BELIEFS = 5
# Cells of a belief's line. It is as wide as the terminal between these two.
MIN_WIDTH, MAX_WIDTH = 40, 160
# Verbs that open a scorer's reason, as it is written of one question -> of several
PLURAL_VERBS = {"asks": "ask", "points": "point"}
COLUMNS = ("round", "asked", "belief", "undecided", "declined", "failed", "revised", "dropped")


def print_summary_of(play: Callable[[], Path], *, as_json: bool, quiet: bool = False) -> None:
    """Print the summary of the run whose folder `play` returns, also where a step of it failed.

    Raises the StepFailedError of such a step.
    """
    try:
        folder = play()
    except StepFailedError as failed:
        print_summary(failed.folder, as_json=as_json, quiet=quiet)
        raise
    print_summary(folder, as_json=as_json, quiet=quiet)


def print_summary(folder: Path, *, as_json: bool, quiet: bool = False) -> None:
    """Print the summary of a run as JSON, or as a table with its surest beliefs and its path.

    With `quiet` only the path and the number of failures are printed.
    """
    summary = run_summary(folder)
    show = f"selfloop show {quote(summary['run'])}"
    failures = f"{summary['failures']} failures: {show} --failures"
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    if quiet:
        click.echo(printable(summary["run"]))
        if summary["failures"]:  # not on standard output, which is the path alone
            click.echo(failures, err=True)
        return
    rows = []
    for counts in summary["rounds"]:
        rows.append([str(counts[column]) for column in COLUMNS])
    print_table(COLUMNS, rows, title="Results", left=0)
    for line in (dropped_line(summary["dropped_for"]), revisions_line(summary["flips"])):
        if line:
            click.echo(f"  {printable(line)}")
    _print_beliefs(summary["beliefs"][:MAX_BELIEFS])
    for line in failed_lines(summary):
        click.secho(f"  {printable(line)}", fg="red")
    if summary["failures"]:
        click.echo(printable(failures))
    saved = f"Run saved to {summary['run']}. Inspect it with: {show}"
    click.echo("\n" + printable(saved))
    for page in sorted(folder.glob("*.html")):  # observers write pages for people
        click.echo(printable(f"Page: {page}"))


def _print_beliefs(beliefs: list[dict[str, Any]]) -> None:
    # Eight cells are for the confidence and the spaces around it.
    width = max(MIN_WIDTH, min(MAX_WIDTH, terminal_width() - 8))
    for belief in beliefs:
        line = printable(f"{belief['question']} — {belief['answer']}", width)
        click.echo(f"  {belief['confidence']:.2f}  {line}")


def dropped_line(reasons: Mapping[str, Mapping[str, int]]) -> str:
    """Return how many questions each scorer dropped, with the reasons if there are several.

    "dropped 16 by `answerable` (11 ask for a description, 5 ...), 2 by `novelty`"
    """
    pieces = []
    for scorer, counts in reasons.items():  # the one that dropped most comes first
        commonest = list(counts.items())[:MAX_REASONS]
        named = [_counted(reason, count) for reason, count in commonest if reason]
        if len(counts) > MAX_REASONS:
            named.append("...")
        # With a single reason the scorer's name says enough.
        detail = f" ({', '.join(named)})" if len(counts) > 1 and named else ""
        pieces.append(f"{sum(counts.values()):,} by `{scorer}`{detail}")
    return f"dropped {', '.join(pieces)}" if pieces else ""


def _counted(reason: str, count: int) -> str:
    verb, space, rest = reason.partition(" ")
    if count > 1:
        verb = PLURAL_VERBS.get(verb, verb)
    return f"{count:,} {verb}{space}{rest}"


def revisions_line(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return how many revisions made each change, and how many of them were accepted."""
    pieces = [
        f"{number['revisions']:,} {change} ({number['accepted']:,} accepted)"
        for change, number in counts.items()
    ]
    return f"revisions: {', '.join(pieces)}" if pieces else ""


def failed_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return a line for each step and each detector that failed for all answers of a round."""
    lines = []
    for step in summary["failed_steps"]:
        name = step["step"]
        outcome = (
            "the tuner made no adapter" if name == "tune" else f"{name} failed for every question"
        )
        lines.append(f"round {step['round']}: {outcome}: {step['cause']}")
    for step in summary["failed_detectors"]:
        lines.append(
            f"round {step['round']}: a detector failed for every answer, others decided: "
            f"{step['cause']}"
        )
    return lines
