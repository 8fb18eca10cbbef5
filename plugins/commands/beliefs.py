"""`selfloop beliefs`: what models held true, across the rounds of a run and across runs; what flipped, and why."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click
from selfloop_plugins._shared.output import (
    force_option,
    is_noted,
    note_written,
    refuse_taken,
    writing,
)

from selfloop import Outcome, Past, Round, hookimpl
from selfloop.cli.options import FilePath, as_json, complete_run, run_folder, runs_dir
from selfloop.contradictions import agree, origin
from selfloop.history import WITHOUT_ANSWER, most_confident
from selfloop.storage import atomic
from selfloop.text.answers import UNKNOWN
from selfloop.text.display import cells, encodable, printable
from selfloop.text.gist import gist

WIDE = 180  # cells of a line where it is no terminal that shows it
# a terminal of fewer cells wraps; below that, what belongs to a row has a line of its own
LEAST, NARROW = 60, 100
Change = Literal["lost", "found", "changed"]
CHANGES: dict[Change, str] = {
    "lost": "no longer held",
    "found": "now held",
    "changed": "another answer",
}
Plain = dict[str, Any]


class Entry(NamedTuple):
    """What became of a question, and in which round it became so; `outcome.round` is when the answer was given."""

    round: int
    outcome: Outcome


class Flip(NamedTuple):
    """What was held of a question, and what is held of it since."""

    what: Change
    before: Entry
    after: Entry


@dataclass(frozen=True, slots=True)
class Run:
    """One run's ledger, in the order in which things became so."""

    name: str
    model: str
    entries: tuple[Entry, ...]


class Row(NamedTuple):
    """A belief, or a question that was declined, as its run left it; with how many runs agree, if it stands for all."""

    run: Run
    outcome: Outcome
    agree: int = 1
    differ: int = 0

    @property
    def known(self) -> bool:
        """Return whether there is an answer to it."""
        return self.outcome.decision == "belief"

    @property
    def answer(self) -> str:
        """Return the answer that is held, or that there is none."""
        return self.outcome.answer if self.known else UNKNOWN

    def plain(self) -> Plain:
        """Return the row as data."""
        question = self.outcome.question
        return {
            "question": question.text,
            "answer": self.answer,
            "confidence": self.outcome.confidence,
            "round": self.outcome.round,
            "run": self.run.name,
            "model": self.run.model,
            "source": question.source,
            "topic": question.topic,
            "decision": self.outcome.decision,
        }


def entries_of(rounds: Iterable[Round]) -> list[Entry]:
    """Return what became of the questions of these rounds, in the order in which it became so."""
    became = (
        (ended.number, Past(ended.number - 1).with_attempts(ended.attempts).outcomes)
        for ended in rounds
    )
    return [Entry(number, outcome) for number, outcomes in became for outcome in outcomes]


def flips(entries: Iterable[Entry]) -> Iterator[Flip]:
    """Yield each change from held to not held, from not held to held, and from one answer to
    another, in order.

    What is asked for the first time in other words is compared with what it rewords, if it became a
    belief.
    """
    last: dict[str, Entry] = {}
    for after in entries:
        outcome = after.outcome
        if outcome.decision in WITHOUT_ANSWER:
            continue
        before = last.get(outcome.question.text)
        if (
            before is None
            and outcome.question.variant == "reworded"
            and outcome.decision == "belief"
        ):
            before = last.get(outcome.question.variant_of)
        last[outcome.question.text] = after
        if before and (what := _change(before.outcome, outcome)):
            yield Flip(what, before, after)


def _change(before: Outcome, after: Outcome) -> Change | None:
    held, holds = before.decision == "belief", after.decision == "belief"
    if held != holds:
        return "found" if holds else "lost"
    return "changed" if holds and not agree(before.answer, after.answer) else None


def histories(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return what became of each question that was asked, and of those that reword or reverse it, under its text."""
    asked = [entry for entry in entries if entry.outcome.decision != "dropped"]
    # as first asked
    known = {entry.outcome.question.text: entry.outcome.question for entry in reversed(asked)}
    found: dict[str, list[Entry]] = {}
    for entry in asked:
        found.setdefault(
            origin(entry.outcome.question, known, ("reworded", "reversed")), []
        ).append(entry)
    return found


def held(run: Run, declined: bool = False) -> list[Row]:
    """Return what a run holds true after its last round, and with `declined` what it does not know.

    Of beliefs whose questions ask for the same in other words, the surest stands for all.
    """
    last = {
        e.outcome.question.text: e.outcome
        for e in run.entries
        if e.outcome.decision not in WITHOUT_ANSWER
    }
    once = {
        outcome.question.text
        for outcome in most_confident(o for o in last.values() if o.decision == "belief")
    }
    kept = ("declined",) if declined else ()
    return [Row(run, o) for text, o in last.items() if text in once or o.decision in kept]


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows with those of the same question together, the surest first."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        text = row.outcome.question.text
        found.setdefault(gist(text) or text, []).append(row)
    return sorted(
        (sorted(own, key=_surest) for own in found.values()), key=lambda own: _surest(own[0])
    )


def _surest(row: Row) -> tuple[bool, float]:
    return not row.known, -(row.outcome.confidence or 0.0)


def merged(group: Sequence[Row]) -> Row:
    """Return the surest row of one question, with the number of runs that agree with it, and that hold another."""
    best = group[0]
    same = {
        row.run.name for row in group if row.known == best.known and agree(row.answer, best.answer)
    }
    return best._replace(agree=len(same), differ=len({row.run.name for row in group} - same))


@click.command("beliefs")
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@click.option("--search", metavar="TEXT", help="Only questions and answers that contain TEXT.")
@click.option(
    "--least",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Only beliefs of at least this confidence.",
)
@click.option(
    "--declined", is_flag=True, help='Also what was declined, with "I don\'t know" as the answer.'
)
@click.option(
    "--merge", is_flag=True, help="One row a question, with the surest answer; how many runs agree."
)
@click.option(
    "--history", metavar="TEXT", help="All that became of the questions that contain TEXT, and why."
)
@click.option(
    "--flipped", is_flag=True, help="What was held and is not any more, or the reverse, and why."
)
@click.option(
    "--export",
    type=FilePath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write them to FILE, .jsonl or .parquet.",
)
@click.option(
    "--form",
    type=click.Choice(["plain", "chat", "prompt"]),
    help="Of a row of FILE: all columns (the default), chat messages, or prompt and completion.",
)
@force_option
@runs_dir
@as_json
def command(
    names: tuple[str, ...],
    search: str | None,
    least: float | None,
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
    """Show what models hold true after each RUN (a folder, or a name in --runs); without RUN, after
    all in --runs.

    Each line is a belief: how sure the run is of it, the question, the answer and the round in
    which it was given.

    \b
    Examples:
      selfloop beliefs
      selfloop beliefs quickstart --least 0.8 --export beliefs.jsonl --form chat
    """
    _check(
        history,
        flipped,
        export,
        form,
        as_json,
        rows_only=bool(least is not None or declined or merge),
        find=search,
    )
    if export:
        refuse_taken(export, "export of beliefs", force=force, ours=_is_earlier, option="--export")
    found, lost = _library(names, runs)
    if history is not None:
        _show_histories(found, history, as_json)
    elif flipped:
        _show_flips(found, search, as_json)
    else:
        rows = [row for run in found for row in held(run, declined) if _wanted(row, search, least)]
        groups = grouped(rows)
        rows = (
            [merged(group) for group in groups]
            if merge
            else [row for group in groups for row in group]
        )
        if export:
            _write(export, rows, form or "plain", merge)
        else:
            _show(rows, found, merge, as_json)
    if lost:
        raise lost


def _check(
    history: str | None,
    flipped: bool,
    export: Path | None,
    form: str | None,
    as_json: bool,
    *,
    rows_only: bool,
    find: str | None,
) -> None:
    """Refuse what does not go together."""
    chosen = [
        n
        for n, on in (
            ("--history", history is not None),
            ("--flipped", flipped),
            ("--export", export),
        )
        if on
    ]
    if len(chosen) > 1:
        raise click.UsageError(
            f"{' and '.join(chosen)} do not go together: run the command once for each."
        )
    if rows_only and (history is not None or flipped):
        raise click.UsageError(
            f"--least, --declined and --merge choose beliefs: leave them out where {chosen[0]} is."
        )
    if find is not None and history is not None:
        raise click.UsageError("--history TEXT searches by itself: leave --search out.")
    if form and not export:
        raise click.UsageError("--form says how --export writes a row: give --export FILE too.")
    if export and as_json:
        raise click.UsageError("--export writes to a file, --json prints: give one of them.")
    if export and export.suffix.lower() not in WRITERS:
        raise click.UsageError(
            f"--export writes {' and '.join(WRITERS)} files, not {printable(export.name)!r}."
        )


def _library(names: Sequence[str], runs: Path) -> "tuple[list[Run], Exception | None]":
    """Return the runs' ledgers, and what to raise in the end: one run that cannot be read does not hide the others."""
    from selfloop.errors import StoreError

    folders = list(dict.fromkeys(run_folder(name, runs) for name in names)) or _all(runs)
    twice = len({folder.name for folder in folders}) < len(folders)
    found, broken = list[Run](), list[StoreError]()
    for folder in folders:
        try:
            found.append(_read(folder, str(folder) if twice else folder.name))
        except StoreError as error:
            broken.append(error)
            if names:
                raise
    if broken and not found:
        raise broken[0]
    left = f"{len(broken)} of {len(folders)} runs left out:\n" + "\n".join(map(str, broken))
    return found, StoreError(left) if broken else None


def _all(runs: Path) -> list[Path]:
    from selfloop.errors import StoreError
    from selfloop.storage.store import DATABASE

    try:
        found = (
            sorted(folder for folder in runs.iterdir() if (folder / DATABASE).is_file())
            if runs.is_dir()
            else []
        )
    except OSError as error:
        raise StoreError(
            f"cannot read {runs}: {error.strerror}. Give another folder with --runs."
        ) from error
    if not found:
        raise StoreError(
            f"no run in {runs}. Make one with `selfloop run RECIPE`, or say where they are with "
            "--runs."
        )
    return found


def _read(folder: Path, name: str) -> Run:
    from contextlib import closing

    from selfloop.errors import StoreError
    from selfloop.storage.store import DATABASE, Store

    with closing(Store(folder, write=False)) as store:
        try:
            model = store.meta().get("model", {}).get("name", "")
            entries = entries_of(store.rounds())
        except ValueError as error:  # what is stored is not JSON, or no record
            raise StoreError(
                f"{folder / DATABASE} is damaged: {str(error).splitlines()[0]}. Restore the file, "
                "or name other runs."
            ) from error
    return Run(encodable(name), encodable(str(model)), tuple(entries))


def _wanted(row: Row, search: str | None, least: float | None) -> bool:
    """Return whether a row is asked for; `least` is about beliefs, for one is unsure of what is declined."""
    sure = not row.known or least is None or (row.outcome.confidence or 0.0) >= least
    return sure and (search is None or _holds(search, row.outcome.question.text, row.answer))


def _holds(text: str, *among: str) -> bool:
    return any(text.casefold() in one.casefold() for one in among)


def _show(rows: Sequence[Row], runs: Sequence[Run], merge: bool, as_json: bool) -> None:
    if as_json:
        _print_json([_told(row, merge) for row in rows])
        return
    known = sum(row.known for row in rows)
    declined = f', {len(rows) - known} "{UNKNOWN}"' if known < len(rows) else ""
    click.echo(f"{_many(known, 'belief')}{declined} in {_named(runs)}")
    for row in rows:
        where = (
            f"{row.run.name}, round {row.outcome.round}"
            if len(runs) > 1
            else f"round {row.outcome.round}"
        )
        if merge and row.agree + row.differ > 1:
            where += f"; {_many(row.agree, 'run')} agree{'s' * (row.agree == 1)}"
            where += f", {row.differ} differ{'s' * (row.differ == 1)}" if row.differ else ""
        click.echo(
            _line(f"  {_sure(row.outcome)}  ", row.outcome.question.text, row.answer, f"({where})")
        )


def _told(row: Row, merge: bool) -> Plain:
    return row.plain() | ({"runs_agree": row.agree, "runs_differ": row.differ} if merge else {})


def _show_histories(runs: Sequence[Run], text: str, as_json: bool) -> None:
    """Show the histories of the questions that contain `text`, or a variant of which does, runs side by side."""
    found: dict[object, list[tuple[str, Run, list[Entry]]]] = {}
    for run in runs:
        for first, entries in histories(run.entries).items():
            if _holds(text, first, *(entry.outcome.question.text for entry in entries)):
                found.setdefault(gist(first) or first, []).append((first, run, entries))
    if as_json:
        told = [(first, run, entries) for own in found.values() for first, run, entries in own]
        _print_json(
            [
                {"question": q, "run": run.name, "outcomes": list(map(_became, own))}
                for q, run, own in told
            ]
        )
        return
    if not found:
        click.echo(f"no question that contains {printable(text, 60)!r} was asked in {_named(runs)}")
    for own in found.values():
        click.echo(printable(own[0][0], _width()))
        for first, run, entries in own:
            flipped = {id(flip.after): flip.what for flip in flips(entries)}
            for entry in entries:
                _show_entry(first, run, entry, flipped.get(id(entry)))


def _show_entry(first: str, run: Run, entry: Entry, what: Change | None) -> None:
    outcome, width = entry.outcome, _width()
    head = (
        f"  {printable(run.name, 40)}, round {entry.round}  {_sure(outcome)} {outcome.decision:9} "
    )
    mark = f"  <- {CHANGES[what]}" if what else ""
    click.echo(
        head + printable(outcome.answer or "(no answer)", width - cells(head) - len(mark)) + mark
    )
    notes = [f"asked: {outcome.question.text}"] if outcome.question.text != first else []
    if outcome.confidence is None or outcome.reason != f"confidence {outcome.confidence:.2f}":
        notes.append(outcome.reason)
    for note in filter(None, notes):
        click.echo(f"      {printable(note, width - 6)}")


def _show_flips(runs: Sequence[Run], search: str | None, as_json: bool) -> None:
    found = [
        (run, flip)
        for run in runs
        for flip in flips(run.entries)
        if search is None or _about(flip, search)
    ]
    if as_json:
        _print_json([_flip(run, flip) for run, flip in found])
        return
    counts = [(sum(flip.what == what for _, flip in found), text) for what, text in CHANGES.items()]
    click.echo(f"{', '.join(f'{count} {text}' for count, text in counts)}; in {_named(runs)}")
    for run, (what, (_, before), (number, after)) in found:
        sure = f"{_sure(before).strip() or '?'} -> {_sure(after).strip() or '?'}  ({run.name}, round {number})"
        answer = before.answer if what == "lost" else after.answer
        if what == "changed":
            answer = f"{answer}, before: {before.answer}"
        click.echo(_line(f"  {CHANGES[what]:14}  ", after.question.text, answer, sure))
        if after.question.text != before.question.text:
            click.echo(f"      asked before: {printable(before.question.text, _width() - 20)}")
        click.echo(f"      {printable(after.reason, _width() - 6)}")


def _about(flip: Flip, text: str) -> bool:
    return any(
        _holds(text, one.outcome.question.text, one.outcome.answer)
        for one in (flip.before, flip.after)
    )


def _flip(run: Run, flip: Flip) -> Plain:
    before, after = _became(flip.before), _became(flip.after)
    return {
        "run": run.name,
        "what": flip.what,
        "why": flip.after.outcome.reason,
        "before": before,
        "after": after,
    }


def _became(entry: Entry) -> Plain:
    """Return an entry as data, with the round in which it became so."""
    told = asdict(entry.outcome)
    question = told.pop("question")
    kept = {key: question[key] for key in ("source", "topic", "variant", "variant_of")}
    return {"question": question["text"], **told, **kept, "round": entry.round}


def _print_json(found: list[Plain]) -> None:
    click.echo(json.dumps(found, indent=2))  # ASCII: no character of it acts on a terminal


def _sure(outcome: Outcome) -> str:
    return "    " if outcome.confidence is None else f"{outcome.confidence:.2f}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _named(runs: Sequence[Run]) -> str:
    return printable(runs[0].name, 60) if len(runs) == 1 else _many(len(runs), "run")


def _width() -> int:
    """Return the cells of a line."""
    import shutil
    import sys

    return max(LEAST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDE


def _line(left: str, question: str, answer: str, right: str) -> str:
    """Return a line of the terminal's width, or two: of a long question and a long answer the question has more."""
    width, right = _width(), printable(right, 70)
    if narrow := width < NARROW:
        right = f"\n      {printable(right, width - 6)}"
    room = width - cells(left) - 3 - (0 if narrow else cells(right) + 2)
    short = printable(answer, max(room // 3, room - cells(printable(question, room)))) or "(empty)"
    return (
        f"{left}{printable(question, room - cells(short))} — {short}{'' if narrow else '  '}{right}"
    )


FORMS: dict[str, Callable[[Row, bool], Plain]] = {
    "plain": _told,
    "chat": lambda row, _: {
        "messages": [
            {"role": "user", "content": row.outcome.question.text},
            {"role": "assistant", "content": row.answer},
        ]
    },
    "prompt": lambda row, _: {"prompt": row.outcome.question.text, "completion": row.answer},
}


def _write(file: Path, rows: Sequence[Row], form: str, merge: bool) -> None:
    """Write the rows, whole or not at all."""
    from selfloop.errors import SelfloopError

    if not rows:
        raise SelfloopError(
            f"no belief to write, so there is no {file}. What there is: selfloop beliefs --declined"
        )
    WRITERS[file.suffix.lower()](file, [FORMS[form](row, merge) for row in rows])
    note_written(file, "beliefs")
    known = sum(row.known for row in rows)
    declined = f' and {len(rows) - known} "{UNKNOWN}"' if known < len(rows) else ""
    click.echo(f"wrote {_many(known, 'belief')}{declined} to {printable(str(file))}")


def _is_earlier(file: Path) -> bool:
    return is_noted(file, "beliefs")


def _jsonl(file: Path, rows: Sequence[Plain]) -> None:
    lines = [encodable(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows]
    with writing(file, "--export"):
        atomic.write_text(file, "".join(lines))


def _parquet(file: Path, rows: Sequence[Plain]) -> None:
    from selfloop.storage.parquet import save

    save(file, {name: [row[name] for row in rows] for name in rows[0]})


WRITERS: dict[str, Callable[[Path, Sequence[Plain]], None]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
