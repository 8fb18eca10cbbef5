"""Question data: the one reader for every command and source, whatever the format.

    table = read(Path("questions.csv"), "eval")
    table.questions     the questions with their gold answers, each once
    table.summary()     the columns by part, and the outcome of every row

files.py        bytes, unpacked and decoded
raw.py          rows as they stand in a file: delimited.py, json_rows.py, plain_text.py, arrow.py
layouts.py      the nested files of TriviaQA and SQuAD
cells.py        the texts of one cell, in whatever notation a list is
columns.py      which column has which part
table.py        rows to questions, and an account of all that were left out or merged
hub.py          data sets of the Hugging Face hub

Nothing heavy is imported here; pyarrow is, where Parquet or a folder of `datasets` is read.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from selfloop.data import arrow, columns, delimited, files, hub, json_rows, plain_text
from selfloop.data.cells import evened
from selfloop.data.columns import Columns
from selfloop.data.files import is_stream
from selfloop.data.hub import fetch
from selfloop.data.raw import Broken, Raw, Row
from selfloop.data.table import WITHOUT_GOLD, LeftOut, Table, Use, questions_table, sample
from selfloop.errors import RecipeError

__all__ = [
    "WITHOUT_GOLD",
    "Columns",
    "LeftOut",
    "Table",
    "Use",
    "evened",
    "fetch",
    "is_stream",
    "read",
    "read_hub",
    "rows",
    "sample",
]

MAX_CACHED_BYTES = 64 * 1024**2  # of a file whose rows are kept while a model runs
# suffixes, by which a format is chosen where the text itself does not show it
PACKED = (".gz", ".gzip")
CSV = (".csv", ".tsv", ".tab")
JSON = (".json", *json_rows.LINES)
KINDS = (
    "text (.txt, .md), JSONL, JSON, CSV, TSV, Parquet, Arrow, each of them also as .gz, or a "
    "folder of `datasets`"
)


def read(
    path: Path,
    use: Use = "ask",
    wanted: Columns | None = None,
    *,
    split: str = "",
    skip_broken: bool = False,
    source: str = "",
) -> Table:
    """Return the questions of a file, of a folder that `datasets` saved, or of standard input
    (`-`).

    `use` is the purpose of the rows, `wanted` are the columns that the user names. `source` is the
    source that the questions name; by default the data set whose form the file has, or "dataset".
    With `skip_broken`, lines that are no rows are left out and counted.

    Raises RecipeError, with the line, for unreadable data, and MissingExtraError for Parquet
    without pyarrow.
    """
    wanted = wanted or Columns()

    def gather() -> Table:
        raw = _raw(path, split, wanted.question, skip_broken)
        return questions_table(raw, str(path), use, wanted, skip_broken=skip_broken, source="")

    stamp = _stamp(path)
    if stamp is None:
        return _with_source(gather(), source)
    table = _last_table.get((stamp, split, use, wanted, skip_broken), gather)
    # The same file may have been named by another path, relative or absolute.
    table = replace(table, where=str(path))
    return _with_source(table, source)


def read_hub(name: str, split: str = "") -> Table:
    """Return the questions of a data set of the hub that have gold answers.

    Raises as `hub.known` and `hub.fetch`.
    """
    place = hub.known(name)
    cells = fetch(place.repository, place.config, split or place.split)
    raw = Raw(
        "the Hugging Face hub", "row", [Row(number, row) for number, row in enumerate(cells, 1)]
    )
    return questions_table(raw, place.repository, "eval", Columns(), skip_broken=False, source=name)


def rows(path: Path, split: str = "") -> list[dict[str, Any]]:
    """Return the rows of a file as they stand, a mapping of columns each. Raises as `read`."""
    raw = _raw(path, split, "", False)
    if raw.broken:
        number, why = raw.broken[0]
        raise RecipeError(f"{path}, {raw.unit} {number}: {why:.300}. Mend it.")
    if not raw.rows:
        raise RecipeError(f"{path}: there is no row in it. Give a file that has some.")
    return [dict(row.cells) for row in raw.rows]


def _with_source(table: Table, source: str) -> Table:
    """Return the table with questions that say where they come from."""
    name = source or table.layout or "dataset"
    return replace(
        table, questions=tuple(replace(question, source=name) for question in table.questions)
    )


# A stamp of a file: its path, inode, time of change and size.
Stamp = tuple[str, int, int, int]
V = TypeVar("V")


class _Last(Generic[V]):
    """The value that was made last, by its key.

    A command needs the rows of a file more than once: it counts the questions, and the source
    checks them before the run and hands them out in it.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._value: V | None = None

    def get(self, key: object, make: Callable[[], V]) -> V:
        """Return the value of a key; make it if it is not that of the last call."""
        if self._value is None or self._key != key:
            self._value = make()
            self._key = key
        return self._value


_last_raw = _Last[Raw]()
_last_table = _Last[Table]()


def _stamp(path: Path) -> Stamp | None:
    """Return the stamp by which a file's rows are remembered; None for one that is not."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if is_stream(path) or status.st_size > MAX_CACHED_BYTES:
        return None
    return str(path.absolute()), status.st_ino, status.st_mtime_ns, status.st_size


def _raw(path: Path, split: str, question: str, skip_broken: bool) -> Raw:
    """Return the rows of a file; those of the file that was read last are remembered."""

    def read_file() -> Raw:
        return _read_raw(path, split, question, skip_broken)

    stamp = _stamp(path)
    if stamp is None:
        return read_file()
    return _last_raw.get((stamp, split, question, skip_broken), read_file)


def _read_raw(path: Path, split: str, question: str, skip_broken: bool) -> Raw:
    try:
        if path.is_dir():
            return _folder(path, split)
        return _file(path, question, skip_broken)
    except OSError as error:  # a name that is too long, a folder that nobody may look into
        raise files.unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:
        why = str(error)
        # "FILE, line 3: ..." where the reader names a line, else "FILE: ..."
        join = ", " if why.startswith("line ") else ": "
        raise RecipeError(f"{path}{join}{why:.500}. Mend it, or give another file.") from error


def _folder(path: Path, split: str) -> Raw:
    if arrow.is_saved(path):
        return arrow.folder(path, split)
    if (path / "dataset_info.json").is_file():
        raise RecipeError(
            f"cannot read {path}: its state.json is missing. Save the data set anew: save_to_disk()"
        )
    raise RecipeError(
        f"cannot read {path}: it is a folder, and none that `datasets` saved. Give a file in it."
    )


def _file(path: Path, question: str, skip_broken: bool) -> Raw:
    data = files.content(path)
    # the first bytes tell a file's format; a suffix may be wrong
    if data.startswith(files.PARQUET):
        return arrow.parquet(path, data)
    if data.startswith(files.ARROW) or _suffix(path) == ".arrow":
        return arrow.file(path, data)
    files.refuse_foreign(path, data)
    no_text = list[int]()
    if skip_broken:
        data, no_text = files.without_broken_lines(data)
    raw = _text_rows(path, files.decoded(path, data), question)
    raw.broken += [Broken(number, "this is not UTF-8") for number in no_text]
    return raw


def _text_rows(path: Path, text: str, question: str) -> Raw:
    """Return the rows of a text. Its content tells the format, and then its suffix."""
    suffix = _suffix(path)

    def is_question(name: str) -> bool:
        return columns.is_question(name, question)

    filled_lines = (line.strip() for line in text.split("\n") if line.strip())
    first = next(filled_lines, "")
    if not first:
        return Raw("text", "line")
    is_csv = suffix in CSV and delimited.is_header(first, is_question)
    if json_rows.looks_like_json(text) and not is_csv:  # a header may begin like JSON
        return json_rows.read(text, suffix, is_question)
    has_header = delimited.is_header(first, is_question)
    if suffix in CSV or (has_header and suffix not in JSON):
        return delimited.read(text, suffix, is_question)
    if suffix in JSON:  # by its name; its text has spoken for neither, unless it has a header
        if has_header:
            return delimited.read(text, "", is_question)
        return json_rows.read(text, suffix, is_question)
    # neither JSON nor a header: lines of text, unless the suffix promises something else
    if suffix not in plain_text.SUFFIXES:
        raise RecipeError(f"{path}: files of the kind {suffix} are not read. Give {KINDS}.")
    return plain_text.read(text)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return Path(name).suffix
