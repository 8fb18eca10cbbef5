"""Prints beliefs, histories and changes of beliefs, for `selfloop beliefs`."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import click

from selfloop import Outcome
from selfloop.evaluation.belief_history import (
    Change,
    Entry,
    FinalAnswer,
    Flip,
    RunLedger,
    belief_flips,
    histories,
    question_key,
)
from selfloop.text.answers import UNKNOWN
from selfloop.text.display import cells, printable
from selfloop.text.units import plural

from .ledgers import contains

PIPED_WIDTH = 180  # cells of a line where no terminal shows it
MIN_WIDTH = 60  # cells; a terminal of fewer wraps
# A terminal of fewer cells has the run and round of a belief on a line of its own.
MIN_WIDTH_OF_ONE_LINE = 100
MAX_RIGHT = 70  # cells of the run and round of a belief
NOTE = "      "  # the indent of a line below a belief
CHANGES: Mapping[Change, str] = {
    "lost": "no longer held",
    "found": "now held",
    "changed": "another answer",
}
Plain = dict[str, Any]


def print_beliefs(
    rows: Sequence[FinalAnswer], runs: Sequence[RunLedger], merge: bool, as_json: bool
) -> None:
    """Print a line for each belief and each declined question."""
    if as_json:
        _print_json([plain_row(row, merge) for row in rows])
        return
    click.echo(f"{counted(rows, joined_by=', ')} in {_names(runs)}")
    for row in rows:
        left = f"  {_confidence(row.outcome)}  "
        right = f"({_place(row, len(runs) > 1, merge)})"
        click.echo(_line(left, row.outcome.question.text, row.answer, right))


def plain_row(row: FinalAnswer, merge: bool) -> Plain:
    """Return a row as data for JSON; of merged runs with the numbers that agree and differ."""
    counts = {"runs_agree": row.agree, "runs_differ": row.differ} if merge else {}
    return row.plain() | counts


def counted(rows: Sequence[FinalAnswer], *, joined_by: str) -> str:
    """Return the number of beliefs, and that of the declined questions if there are any."""
    beliefs = sum(row.is_belief for row in rows)
    text = plural(beliefs, "belief")
    if beliefs < len(rows):
        text += f'{joined_by}{len(rows) - beliefs} "{UNKNOWN}"'
    return text


def _place(row: FinalAnswer, has_several_runs: bool, merge: bool) -> str:
    """Return where a belief is from, and how many runs agree with it."""
    place = f"round {row.outcome.round}"
    if has_several_runs:
        place = f"{row.run.name}, {place}"
    if merge and row.agree + row.differ > 1:
        place += f"; {plural(row.agree, 'run')} {'agrees' if row.agree == 1 else 'agree'}"
        if row.differ:
            place += f", {row.differ} {'differs' if row.differ == 1 else 'differ'}"
    return place


class _History(NamedTuple):
    """The outcomes of a question and its variants in one run; `question` is as first asked."""

    question: str
    run: RunLedger
    entries: list[Entry]


def print_histories(runs: Sequence[RunLedger], text: str, as_json: bool) -> None:
    """Print the histories of the questions that contain a text, those of all runs together.

    A question is shown too if one of its variants contains the text.
    """
    # Questions that ask for the same in other words are shown together, across runs.
    by_question: dict[object, list[_History]] = {}
    for run in runs:
        for question, entries in histories(run.entries).items():
            texts = [entry.outcome.question.text for entry in entries]
            if contains(text, question, *texts):
                history = _History(question, run, entries)
                by_question.setdefault(question_key(question), []).append(history)
    if as_json:
        _print_json(_plain_histories(by_question))
        return
    if not by_question:
        searched = printable(text, 60)
        click.echo(f"no question that contains {searched!r} was asked in {_names(runs)}")
    for group in by_question.values():
        click.echo(printable(group[0].question, _width()))
        for history in group:
            # By identity: the same outcome may stand twice in a history.
            changes = {id(flip.after): flip.change for flip in belief_flips(history.entries)}
            for entry in history.entries:
                _print_entry(history, entry, changes.get(id(entry)))


def _plain_histories(by_question: Mapping[object, Sequence[_History]]) -> list[Plain]:
    plain = []
    for group in by_question.values():
        for history in group:
            outcomes = [_plain_entry(entry) for entry in history.entries]
            plain.append(
                {"question": history.question, "run": history.run.name, "outcomes": outcomes}
            )
    return plain


def _print_entry(history: _History, entry: Entry, change: Change | None) -> None:
    outcome, width = entry.outcome, _width()
    run = f"{printable(history.run.name, 40)}, round {entry.round}"
    left = f"  {run}  {_confidence(outcome)} {outcome.decision:9} "
    mark = f"  <- {CHANGES[change]}" if change else ""
    room = width - cells(left) - len(mark)  # the answer is cut, never the mark
    click.echo(left + printable(outcome.answer or "(no answer)", room) + mark)
    notes = []
    if outcome.question.text != history.question:
        notes.append(f"asked: {outcome.question.text}")
    # The usual reason only repeats the confidence.
    if outcome.confidence is None or outcome.reason != f"confidence {outcome.confidence:.2f}":
        notes.append(outcome.reason)
    for note in notes:
        if note:
            click.echo(NOTE + printable(note, width - len(NOTE)))


def print_flips(runs: Sequence[RunLedger], search: str | None, as_json: bool) -> None:
    """Print every change of a belief, with the reason; with `search` those about a text."""
    flips = list[tuple[RunLedger, Flip]]()
    for run in runs:
        for flip in belief_flips(run.entries):
            if search is None or _is_about(flip, search):
                flips.append((run, flip))
    if as_json:
        _print_json([_plain_flip(run, flip) for run, flip in flips])
        return
    counts = []
    for change, text in CHANGES.items():
        count = sum(flip.change == change for _, flip in flips)
        counts.append(f"{count} {text}")
    click.echo(f"{', '.join(counts)}; in {_names(runs)}")
    for run, flip in flips:
        _print_flip(run, flip)


def _print_flip(run: RunLedger, flip: Flip) -> None:
    before, after = flip.before.outcome, flip.after.outcome
    # Of a belief that was lost the earlier answer is shown.
    answer = before.answer if flip.change == "lost" else after.answer
    if flip.change == "changed":
        answer = f"{answer}, before: {before.answer}"
    confidences = [_confidence(outcome).strip() or "?" for outcome in (before, after)]
    right = f"{' -> '.join(confidences)}  ({run.name}, round {flip.after.round})"
    click.echo(_line(f"  {CHANGES[flip.change]:14}  ", after.question.text, answer, right))
    if after.question.text != before.question.text:
        earlier = printable(before.question.text, _width() - 20)
        click.echo(f"{NOTE}asked before: {earlier}")
    click.echo(NOTE + printable(after.reason, _width() - len(NOTE)))


def _is_about(flip: Flip, text: str) -> bool:
    for entry in (flip.before, flip.after):
        if contains(text, entry.outcome.question.text, entry.outcome.answer):
            return True
    return False


def _plain_flip(run: RunLedger, flip: Flip) -> Plain:
    return {
        "run": run.name,
        "what": flip.change,
        "why": flip.after.outcome.reason,
        "before": _plain_entry(flip.before),
        "after": _plain_entry(flip.after),
    }


def _plain_entry(entry: Entry) -> Plain:
    """Return an outcome as data, with the round in which it came about."""
    plain = asdict(entry.outcome)
    question = plain.pop("question")
    about = {key: question[key] for key in ("source", "topic", "variant", "variant_of")}
    return {"question": question["text"], **plain, **about, "round": entry.round}


def _print_json(rows: Sequence[Plain]) -> None:
    click.echo(json.dumps(rows, indent=2))  # ASCII: none of its characters acts on a terminal


def _confidence(outcome: Outcome) -> str:
    return "    " if outcome.confidence is None else f"{outcome.confidence:.2f}"


def _names(runs: Sequence[RunLedger]) -> str:
    return printable(runs[0].name, 60) if len(runs) == 1 else plural(len(runs), "run")


def _width() -> int:
    """Return the cells of a line."""
    if not sys.stdout.isatty():
        return PIPED_WIDTH
    return max(MIN_WIDTH, shutil.get_terminal_size().columns)


def _line(left: str, question: str, answer: str, right: str) -> str:
    """Return a line of the terminal's width; on a narrow terminal `right` is below it."""
    width, right = _width(), printable(right, MAX_RIGHT)
    room = width - cells(left) - cells(" — ")
    if width < MIN_WIDTH_OF_ONE_LINE:
        end = f"\n{NOTE}{printable(right, width - len(NOTE))}"
    else:
        end = f"  {right}"
        room -= cells(end)
    # Of a long question and a long answer, the question has two thirds of the room.
    beside_question = room - cells(printable(question, room))
    answer = printable(answer, max(room // 3, beside_question)) or "(empty)"
    return f"{left}{printable(question, room - cells(answer))} — {answer}{end}"
