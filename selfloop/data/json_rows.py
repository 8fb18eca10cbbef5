"""Rows in JSON: an object a line, an array of objects, or an object that holds rows in one of the
usual ways."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selfloop.data import layouts
from selfloop.data.raw import Broken, Raw, Row

LINES = (".jsonl", ".ndjson", ".jsonlines")
FORM = '{"question": "...", "answers": ["..."]}'
DEEP = "it is nested too deeply"


def parsed(text: str) -> Any:
    """Return the value of a text in JSON. Raises ValueError, for a key that stands twice too."""
    try:
        return json.loads(
            text, object_pairs_hook=_mapping, parse_int=_integer, parse_constant=lambda name: None
        )
    except RecursionError:
        raise ValueError(DEEP) from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.60} stands twice")
    return mapping


def _integer(digits: str) -> int | str:
    # Python refuses to read a number of 4,300 digits
    return int(digits) if len(digits) < 1000 else digits


def looks_like_json(text: str) -> bool:
    """Return whether a text begins like JSON: an object, or an array of objects or texts."""
    start = text.lstrip()
    if re.match(r'\{\s*"', start):
        return True
    return re.match(r'\[\s*(\{\s*("|\})|"|\])', start) is not None


def read(text: str, suffix: str, is_question: Callable[[str], bool]) -> Raw:
    """Return the rows of a JSON text.

    Raises ValueError for a document that is not JSON or holds no rows.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        return Raw("JSONL" if suffix in LINES else "JSON", "line")
    # JSONL if the first line alone is an object and not a whole document of rows
    first = _attempt(lines[0][1])
    if isinstance(first, Mapping) and (len(lines) > 1 or not _holds_rows(first, is_question)):
        return _read_lines(lines)
    try:
        document = parsed(text)
    except json.JSONDecodeError as error:
        if suffix in LINES:
            return _read_lines(lines)
        raise ValueError(f"line {error.lineno}: this is not JSON: {error.msg}") from error
    except ValueError:
        if suffix in LINES:
            return _read_lines(lines)
        raise
    if suffix in LINES and not isinstance(document, Mapping | list):
        return _read_lines(lines)
    return _rows_of(document, is_question)


def _holds_rows(document: Mapping[str, Any], is_question: Callable[[str], bool]) -> bool:
    """Return whether an object is a whole document, not one row."""
    raw = _rows_of(document, is_question)
    return bool(raw.layout) or len(raw.rows) != 1 or raw.rows[0].cells is not document


def _attempt(line: str) -> Any:
    try:
        return parsed(line)
    except ValueError:
        return None


def _read_lines(lines: Sequence[tuple[int, str]]) -> Raw:
    raw = Raw("JSONL", "line")
    for number, line in lines:
        try:
            value = parsed(line)
        except json.JSONDecodeError as error:
            raw.broken.append(
                Broken(number, f"each line is {FORM}: {error.msg}, column {error.colno}")
            )
        except ValueError as error:
            raw.broken.append(Broken(number, f"each line is {FORM}: {error}"))
        else:
            if isinstance(value, Mapping):
                raw.rows.append(Row(number, value))
            else:
                kind = type(value).__name__ if value is not None else "null"
                raw.broken.append(
                    Broken(number, f"each line is {FORM}: this is a {kind}, not an object")
                )
    return raw


# --- one document


def _rows_of(document: Any, is_question: Callable[[str], bool]) -> Raw:
    original = layouts.flattened(document)
    if original is not None:
        return original
    if isinstance(document, list):
        return _array(document)
    if not isinstance(document, Mapping):
        raise ValueError(f"it holds a single {type(document).__name__}, no rows. Rows are {FORM}")
    if any(map(is_question, document)):
        return _question_object(document, is_question)
    # pandas, orient="split"
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):
        return _split_table(document["columns"], document["data"])
    # an object around one list of rows; "features" of the hub's server describes columns
    lists = [name for name, value in document.items() if _is_rows(value) and name != "features"]
    if len(lists) == 1:
        return _array(document[lists[0]])
    if len(lists) > 1:
        raise ValueError(
            f"it holds several lists of rows: {', '.join(lists)[:200]}. Save one of them as a file"
        )
    if _is_object_of_rows(document, is_question):
        return _array([{"id": name, **value} for name, value in document.items()])
    return _array([document])


def _is_object_of_rows(document: Mapping[str, Any], is_question: Callable[[str], bool]) -> bool:
    """Return whether all values of an object are objects, and one of them has a question."""
    rows = list(document.values())
    if not all(isinstance(row, Mapping) for row in rows):
        return False
    return any(any(map(is_question, row)) for row in rows)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _array(items: Sequence[Any]) -> Raw:
    raw = Raw("JSON", "row")
    if items and all(isinstance(item, str) for item in items):
        raw.rows = [Row(number, {"question": item}) for number, item in enumerate(items, 1)]
        return raw
    for number, item in enumerate(items, 1):
        if isinstance(item, Mapping):
            wrapped = item.get("row")  # of the data set server of the hub
            raw.rows.append(Row(number, wrapped if isinstance(wrapped, Mapping) else item))
        else:
            raw.broken.append(
                Broken(
                    number, f"each row is {FORM}: this is a {type(item).__name__}, not an object"
                )
            )
    return raw


def _question_object(document: Mapping[str, Any], is_question: Callable[[str], bool]) -> Raw:
    """Return the one row that an object is, or the rows of one that holds columns, as pandas writes
    it: lists, or objects by row number."""
    column = next(name for name in document if is_question(name))
    values = document[column]
    is_numbered = isinstance(values, Mapping) and all(key.isdecimal() for key in values)
    if not (isinstance(values, list) or is_numbered):
        return _array([document])
    if any(
        type(value) is not type(values) or len(value) != len(values) for value in document.values()
    ):
        raise ValueError(
            f"the column {column!r:.60} has {len(values)} values, and another has not as many"
        )
    if isinstance(values, Mapping):
        if any(value.keys() != values.keys() for value in document.values()):
            raise ValueError("its columns do not number the same rows")
        order = list(values)
        columns = [list(map(value.__getitem__, order)) for value in document.values()]
    else:
        columns = list(document.values())
    rows = []
    for cells in zip(*columns, strict=True):
        rows.append(dict(zip(document, cells, strict=True)))
    return _array(rows)


def _split_table(columns: Sequence[Any], data: Sequence[Any]) -> Raw:
    names = [str(name) for name in columns]
    if any(not isinstance(cells, list) or len(cells) != len(names) for cells in data):
        raise ValueError(f"a row has not as many values as there are columns, {len(names)}")
    return _array([dict(zip(names, cells, strict=True)) for cells in data])
