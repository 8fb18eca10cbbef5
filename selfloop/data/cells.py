"""One cell of a row: as text, or as the texts of a list, in whatever notation a program wrote the
list.

A list of answers is read from JSON, Python's and numpy's notation (`["a"]`, `['a', 'b']`,
`array(['a' 'b'])`), from `a|b`, from WebQuestions' `(list (description "a"))`, and from the
mappings of SQuAD and TriviaQA.
"""

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

MAX_LIST_CHARACTERS = 1_000_000  # of a cell that may be a list
MAX_DEPTH = 50  # of lists within lists
MAX_DIGITS = 4000  # of a number: Python refuses to read 4,300 as an integer

# The parts of a mapping that hold answers: SQuAD's `text`, TriviaQA's `Value`, `Aliases` and so on.
ANSWER_PARTS = ("value", "text", "texts", "answer", "answers", "aliases", "normalizedaliases")
NO_ANSWER = "<unk>"  # TriviaQA's test split has this in place of an answer

# one token of a notation: a quoted text, a mark of punctuation, or a word
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""  # either quote, and its escapes
    r"""|(?P<mark>[\[\](){}:,])|(?P<word>[^\s\[\](){}:,'"]+))""",
    re.DOTALL,
)
_WORDS = {
    "null": None,
    "None": None,
    "nan": None,
    "NaN": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
# names that may stand before a list or a text: numpy's notation
_CALLS = {"array", "np.array", "numpy.array", "np.str_", "numpy.str_", "list", "tuple", "set"}
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_DESCRIPTION = re.compile(r'\(\s*description\s+(?:"((?:[^"\\]|\\.)*)"|([^()"]*?))\s*\)')
_IS_DESCRIBED = re.compile(r"\(\s*list\b|\(\s*description\b")


def is_nothing(value: Any) -> bool:
    """Return whether a cell is empty: null, NaN, or text of white space alone."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any) -> str:
    """Return a single value as text: 8 is "8", true is "true", null is empty.

    Raises ValueError for a list or a mapping.
    """
    if is_nothing(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()  # UnicodeDecodeError is a ValueError
    if isinstance(value, list | tuple | set | Mapping):
        kind = "a mapping" if isinstance(value, Mapping) else "a list"
        raise ValueError(f"{kind} stands where a text is wanted")
    return str(value)


def texts(value: Any) -> list[str]:
    """Return the answers that a cell holds, each once and in order, none of them empty.

    Raises ValueError for a mapping without a part that holds answers.
    """
    return [text for text in dict.fromkeys(_each_text(value)) if text]


def _each_text(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _texts_in_text(value.strip())
    elif isinstance(value, Mapping):
        yield from _texts_of_parts(value)
    elif isinstance(value, list | tuple | set):
        for item in value:
            nested = isinstance(item, list | tuple | Mapping)
            yield from _each_text(item) if nested else [text_of(item)]
    else:
        yield text_of(value)


def _texts_in_text(text: str) -> Iterator[str]:
    if _IS_DESCRIBED.match(text):
        for quoted, bare in _DESCRIPTION.findall(text):
            yield (re.sub(r"\\(.)", r"\1", quoted) or bare).strip()
        return
    # a list in some notation, then texts between bars, then one text
    listed = listed_in(text)
    if listed is not None:
        yield from _each_text(listed)
        return
    parts = [part.strip() for part in text.split("|")]
    yield from parts if all(parts) else [text]  # "|x|" and "a||b" are no lists


def _texts_of_parts(parts: Mapping[Any, Any]) -> Iterator[str]:
    by_name = {re.sub(r"[\s_-]", "", str(name)).casefold(): value for name, value in parts.items()}
    known = [name for name in ANSWER_PARTS if name in by_name]
    if parts and not known:
        names = ", ".join(map(str, parts))
        raise ValueError(
            f"an answer is a mapping of {names:.80}, and none of these is known to hold answers"
        )
    for name in known:
        for text in _each_text(by_name[name]):
            if text != NO_ANSWER:
                yield text


def evened(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns, each with as many values as there are rows and of one type, as a
    table wants them.

    A column of numbers alone, of truth values alone or of texts alone keeps its type. All other
    columns are written as JSON.
    """
    names: dict[str, None] = {}  # an ordered set
    for row in rows:
        names |= dict.fromkeys(row)
    columns = {}
    for name in names:
        columns[name] = _one_type([row.get(name) for row in rows])
    return columns


def _one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    # Parquet and Arrow have no integers of more than 64 bits
    whole = all(abs(value) < 2**63 for value in values if isinstance(value, int))
    if kinds in ({str}, {bool}, {float}) or (kinds == {int} and whole):
        return values
    if kinds == {int, float}:
        return [value if value is None else float(value) for value in values]
    return [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in values
    ]


def is_list(value: Any) -> bool:
    """Return whether a cell holds several answers: a list or a mapping, or the text of one."""
    if isinstance(value, str):
        text = value.strip()
        listed = listed_in(text)
        quoted = isinstance(listed, list) and all(isinstance(item, str) for item in listed)
        return quoted or isinstance(listed, Mapping) or _IS_DESCRIBED.match(text) is not None
    return isinstance(value, list | tuple | set | Mapping)


def listed_in(text: str) -> list[Any] | dict[Any, Any] | None:
    """Return the list or the mapping that a text is the notation of, None for any other text."""
    if len(text) > MAX_LIST_CHARACTERS or not (
        text[:1] in _CLOSES or text.startswith(("array(", "np.", "numpy."))
    ):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = _Notation(text).read()
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list | dict) else None


def is_cut_list(value: Any) -> bool:
    """Return whether a text begins as a list does and is none: it may have been cut off."""
    return (
        isinstance(value, str)
        and value.strip().startswith(("[", "{"))
        and listed_in(value.strip()) is None
    )


class _Notation:
    """Reads a list or a mapping in the notation of Python or numpy. Nothing is evaluated."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._next = 0
        # all tokens first: a text that is no notation is refused before anything is built
        position, end = 0, len(text.rstrip())
        while position < end:
            token = _TOKEN.match(text, position)
            if token is None:
                raise ValueError("not the notation of a list")
            self._tokens.append((str(token.lastgroup), token[str(token.lastgroup)]))
            position = token.end()

    def read(self) -> Any:
        """Return the value that the whole text denotes.

        Raises ValueError for anything else than a list or a mapping.
        """
        value = self._read_value(0)
        if self._next < len(self._tokens):
            raise ValueError("there is more after the list")
        return value

    def _next_token(self) -> tuple[str, str]:
        if self._next >= len(self._tokens):
            raise ValueError("the list is cut off")
        self._next += 1
        return self._tokens[self._next - 1]

    def _read_value(self, depth: int) -> Any:
        kind, token = self._next_token()
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if kind == "quoted":
            return _unquoted(token)
        if kind == "word":
            return self._called(depth) if token in _CALLS else _word(token)
        if token not in _CLOSES:
            raise ValueError(f"{token} stands where a value is wanted")
        items, is_mapping = self._items(_CLOSES[token], depth)
        if is_mapping:
            return dict(zip(items[::2], items[1::2], strict=True))
        if token == "(" and not (len(items) > 1 and all(isinstance(item, str) for item in items)):
            raise ValueError("brackets around something that is no list of texts")
        return items

    def _items(self, closes: str, depth: int) -> tuple[list[Any], bool]:
        """Return the values up to a closing bracket, and whether colons separate them, as in a
        mapping: then keys and values alternate."""
        items: list[Any] = []
        colons = 0
        while True:
            if self._next >= len(self._tokens):
                raise ValueError("the list is cut off")
            mark = self._tokens[self._next][1] if self._tokens[self._next][0] == "mark" else ""
            if mark == closes:
                self._next += 1
                break
            # commas may be missing, as in numpy's 'a' 'b', or stand last
            if mark in (",", ":"):
                self._next += 1
                colons += mark == ":"
                continue
            items.append(self._read_value(depth + 1))
        if colons and (
            closes != "}"
            or len(items) != 2 * colons
            or not all(isinstance(k, str) for k in items[::2])
        ):
            raise ValueError("a colon stands where none is wanted")
        return items, bool(colons)

    def _called(self, depth: int) -> Any:
        """Return the first argument of `array(...)`; the others say which type it has."""
        if self._next_token()[1] != "(":
            raise ValueError("a name stands where a value is wanted")
        value = self._read_value(depth + 1)
        # such as dtype=object: skipped
        while self._next_token()[1] != ")":
            pass
        return value


def _unquoted(token: str) -> str:
    if "\\" not in token:
        return token[1:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" is no escape in Python, which warns of it
        try:
            return str(ast.literal_eval(token))
        except (ValueError, SyntaxError):
            return token[1:-1]


def _word(token: str) -> Any:
    if token in _WORDS:
        return _WORDS[token]
    number = re.fullmatch(r"[-+]?\d[\d_]*|[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?", token)
    if number is None or len(token) > MAX_DIGITS:
        raise ValueError("a word without quotes stands in the list")
    return int(token) if re.fullmatch(r"[-+]?\d+", token) else float(token)
