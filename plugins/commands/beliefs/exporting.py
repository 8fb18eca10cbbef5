"""Writes beliefs to a file, for `selfloop beliefs --export`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from selfloop_plugins._shared.output import is_noted, note_written, writing

from selfloop.evaluation.belief_history import FinalAnswer
from selfloop.storage import atomic
from selfloop.text.display import encodable, printable

from .rendering import Plain, counted, plain_row

MARK = "beliefs"  # by which an earlier export is recognised


def write_rows(file: Path, rows: Sequence[FinalAnswer], form: str, merge: bool) -> None:
    """Write the rows to a file, whole or not at all, and print their number.

    `form` is one of `FORM_NAMES`. Raises SelfloopError where there is no row.
    """
    from selfloop.errors import SelfloopError

    if not rows:
        raise SelfloopError(
            f"no belief to write, so {file} was not made. See all answers with: selfloop beliefs "
            "--declined"
        )
    plain = [FORMS[form](row, merge) for row in rows]
    WRITERS[file.suffix.lower()](file, plain)
    note_written(file, MARK)
    click.echo(f"wrote {counted(rows, joined_by=' and ')} to {printable(str(file))}")


def is_earlier(file: Path) -> bool:
    """Return whether a file is an earlier export of beliefs, which may be replaced."""
    return is_noted(file, MARK)


def _chat(row: FinalAnswer, merge: bool) -> Plain:
    messages = [
        {"role": "user", "content": row.outcome.question.text},
        {"role": "assistant", "content": row.answer},
    ]
    return {"messages": messages}


def _prompt_row(row: FinalAnswer, merge: bool) -> Plain:
    return {"prompt": row.outcome.question.text, "completion": row.answer}


FORMS: Mapping[str, Callable[[FinalAnswer, bool], Plain]] = {
    "plain": plain_row,
    "chat": _chat,
    "prompt": _prompt_row,
}
FORM_NAMES = list(FORMS)


def _jsonl(file: Path, rows: Sequence[Plain]) -> None:
    lines = [encodable(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows]
    with writing(file, "--export"):
        atomic.write_text(file, "".join(lines))


def _parquet(file: Path, rows: Sequence[Plain]) -> None:
    from selfloop.storage.parquet import save

    columns = {}
    for name in rows[0]:
        columns[name] = [row[name] for row in rows]
    save(file, columns)


WRITERS: Mapping[str, Callable[[Path, Sequence[Plain]], None]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
