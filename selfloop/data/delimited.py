"""CSV with commas, semicolons or tabs, with and without quotes.

A quote that opens and never closes must not swallow the rows after it: where the quotes of a line
do not come out, the line is read without them, and if it has not as many cells as the header then,
it is broken.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from selfloop.data.raw import Broken, Raw, Row, places
from selfloop.text.units import plural

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
ONE_COLUMN = "\x1f"  # in place of a delimiter where there is one column: it stands in no text
_SEPARATOR_LINE = re.compile(r"sep=(.)$")  # the first line of a file of Excel


class Record(NamedTuple):
    """The cells of one record, how many lines it takes, and whether its quotes are plain text."""

    cells: list[str]
    lines: int
    bare_quotes: bool = False


class BrokenRecordError(Exception):
    """A line that is no record of as many cells as the header has."""


def delimiter_of(line: str, suffix: str, is_question: Callable[[str], bool]) -> str:
    """Return the delimiter of a header: the one that gives a column of questions, or else the most
    columns."""
    # a .tsv is separated by tabs, whatever commas its header has
    order = [*DELIMITERS] if suffix != ".tsv" else ["\t", ",", ";"]
    names = {delimiter: _header_cells(line, delimiter) for delimiter in order}
    for delimiter in order:
        if any(map(is_question, names[delimiter])):
            return delimiter if len(names[delimiter]) > 1 else ONE_COLUMN
    most = max(order, key=lambda delimiter: len(names[delimiter]))
    return most if len(names[most]) > 1 else ONE_COLUMN


def _header_cells(line: str, delimiter: str) -> list[str]:
    with _long_cells():
        try:
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            cells = line.split(delimiter)
    return [cell.strip() for cell in cells]


def is_header(line: str, is_question: Callable[[str], bool]) -> bool:
    """Return whether a line names columns, one of them that of the questions."""
    return any(any(map(is_question, _header_cells(line, delimiter))) for delimiter in DELIMITERS)


def read(text: str, suffix: str, is_question: Callable[[str], bool]) -> Raw:
    """Return the rows of a text whose first line names the columns.

    Raises ValueError for a header that is none.
    """
    lines = text.removesuffix("\n").split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip()), None)
    if start is None:
        return Raw("CSV", "line")
    separator = _SEPARATOR_LINE.match(lines[start].strip('" \t'))
    if separator and start + 1 < len(lines) and separator[1] in DELIMITERS:
        start += 1
    delimiter = delimiter_of(lines[start], suffix, is_question)
    header = _header(_header_cells(lines[start], delimiter))
    kind = "one column" if delimiter == ONE_COLUMN else f"separated by {DELIMITERS[delimiter]}"
    raw = Raw(f"CSV, {kind}", "line")
    with _long_cells():
        # strictly first; only a file that breaks the rules is read line by line, and mended
        records = _sound_records(lines, start + 1, delimiter, len(header))
        if records is None:
            records = list(_mended_records(lines, start + 1, delimiter, len(header)))
        else:
            raw.notes += _doubtful(lines, records, delimiter, len(header))
    bare = list[int]()
    for number, record in records:
        if isinstance(record, BrokenRecordError):
            raw.broken.append(Broken(number, str(record)))
            continue
        cells = [cell if cell.strip() else None for cell in record.cells]
        if not any(cells):
            raw.empty.append(number)
            continue
        if [cell.strip() for cell in record.cells] == header:
            raw.headers.append(number)
            continue
        if record.bare_quotes:
            bare.append(number)
        cells += [None] * (len(header) - len(cells))
        raw.rows.append(Row(number, dict(zip(header, cells, strict=False))))
    if bare:
        raw.notes.append(f"quotes that do not pair are read as they stand ({places('line', bare)})")
    return raw


def _header(names: Sequence[str]) -> list[str]:
    """Return the names of the columns; one without a name, such as an index, is called by its
    number."""
    header = [name or f"column_{place}" for place, name in enumerate(names, 1)]
    while header and not names[len(header) - 1]:
        header.pop()  # a delimiter at the end of the line names nothing
    for name in header:
        if header.count(name) > 1:
            raise ValueError(f"line 1: two columns are called {name!r:.60}. Rename one")
    return header


Numbered = tuple[int, Record | BrokenRecordError]


def _sound_records(
    lines: list[str], start: int, delimiter: str, width: int
) -> list[Numbered] | None:
    """Return all records with the numbers of their lines; None if the file breaks the rules of
    quotes anywhere."""
    reader = csv.reader((f"{line}\n" for line in lines[start:]), delimiter=delimiter, strict=True)
    records, number = list[Numbered](), start + 1
    try:
        for cells in reader:
            following = start + reader.line_num + 1
            if cells and (len(cells) < width or _surplus(cells, width)):
                return None
            if cells:
                records.append((number, Record(cells, following - number)))
            number = following
    except csv.Error:
        return None
    return records


def _doubtful(
    lines: list[str], records: Sequence[Numbered], delimiter: str, width: int
) -> list[str]:
    """Return a note on quoted texts over several lines, each of which could be a row if the quotes
    were strays."""
    doubtful = [
        number
        for number, record in records
        if isinstance(record, Record)
        and _could_be_rows(lines[number - 1 : number - 1 + record.lines], delimiter, width)
    ]
    if not doubtful:
        return []
    return [
        f"lines within quotes are one text, though each could be a row ({places('line', doubtful)})"
    ]


def _could_be_rows(spanned: Sequence[str], delimiter: str, width: int) -> bool:
    return len(spanned) > 1 < width and all(len(line.split(delimiter)) == width for line in spanned)


def _mended_records(lines: list[str], start: int, delimiter: str, width: int) -> Iterator[Numbered]:
    """Yield each record with the number of its first line; blank lines are none."""
    place = start
    while place < len(lines):
        if not lines[place].strip(" "):
            place += 1
            continue
        try:
            record: Record | BrokenRecordError = _record(lines, place, delimiter, width)
        except BrokenRecordError as error:
            record = error
        yield place + 1, record
        place += record.lines if isinstance(record, Record) else 1


def _record(lines: list[str], place: int, delimiter: str, width: int) -> Record:
    line = lines[place]
    if '"' not in line:
        return _fitting(Record(line.split(delimiter), 1), width)
    for skips_spaces in (False, True):
        quoted = _quoted(lines, place, delimiter, skips_spaces)
        if quoted is None or _surplus(quoted.cells, width):
            continue
        if quoted.lines == 1:
            return quoted
        spanned = lines[place : place + quoted.lines]
        if len(quoted.cells) < width:
            continue  # a quote that swallows rows comes out with too few cells
        if not _could_be_rows(spanned, delimiter, width):
            return quoted
        if delimiter != "\t":
            last = place + quoted.lines
            raise BrokenRecordError(
                f"a quote opens here and closes in line {last}, over whole rows. Double it, or "
                "close it"
            )
    # no way of reading the quotes fits: take them as text, if the cells come out right
    bare = line.split(delimiter)
    if len(bare) != width and (len(bare) < width or _surplus(bare, width)):
        raise BrokenRecordError(
            f"its quotes do not pair, and without them it has {plural(len(bare), 'cell')}, "
            f"not {width}. Mend "
            "them"
        )
    return Record(bare, 1, bare_quotes=True)


def _quoted(lines: list[str], place: int, delimiter: str, skips_spaces: bool) -> Record | None:
    """Return the record that begins in a line, by the strict rules of quotes; None if it breaks
    them."""
    following = (f"{lines[i]}\n" for i in range(place, len(lines)))
    reader = csv.reader(following, delimiter=delimiter, strict=True, skipinitialspace=skips_spaces)
    try:
        cells = next(reader)
    except csv.Error:
        return None
    return Record(cells, reader.line_num)


def _surplus(cells: Sequence[str], width: int) -> bool:
    """Return whether there is anything in cells for which there is no column."""
    return any(cell.strip() for cell in cells[width:])


def _fitting(record: Record, width: int) -> Record:
    if _surplus(record.cells, width):
        advice = "Put quotes around a text that holds the delimiter"
        raise BrokenRecordError(
            f"it has {plural(len(record.cells), 'cell')}, and the header names {width}. {advice}"
        )
    return record


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells of any length; its limit is one for the whole process."""
    # the largest value that a C long of 32 bits can hold, as on Windows
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
