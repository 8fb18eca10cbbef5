"""Questions in plain text, one a line, without the marks of lists and titles before them."""

import re
from collections.abc import Sequence

from selfloop.data.raw import Raw, Row, places

SUFFIXES = ("", ".txt", ".text", ".md", ".markdown", ".lst", ".list", ".questions")
_MARKS = re.compile(r"(?:#{1,6}|>|[-*+•◦▪‣–—](?:[ \t]+\[[ xX]\])?)[ \t]+")
_NUMBER = re.compile(r"\(?(\d{1,4})[.):][ \t]+")
_FENCE = re.compile(r"(```|~~~)")
# the line below a table's head
_TABLE = re.compile(r"\n[ \t]*\|?[ \t:]*-{2,}[ \t:]*\|[-|: \t]*(\n|$)")
_RULE = re.compile(r"[-=*_~|: \t]+")  # lines across, and below titles and heads of tables


def read(text: str) -> Raw:
    """Return each line that is not empty as a row with a `question`.

    Raises ValueError for a Markdown table.
    """
    raw = Raw("text", "line")
    underline = _TABLE.search(text)
    if underline:
        place = text.count("\n", 0, underline.start()) + 2
        raise ValueError(f"line {place}: this is a Markdown table. Save it as CSV")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    texts, marked = list[tuple[int, str]](), list[int]()
    for number, line in lines:
        if not line:
            continue
        if _RULE.fullmatch(line) or _FENCE.match(line):
            raw.empty.append(number)
            continue
        bare = _without_marks(line)
        if bare != line:
            marked.append(number)
        texts.append((number, bare))
    counted = _list_numbers([_leading_number(bare) for _, bare in texts])
    for (number, bare), is_counted in zip(texts, counted, strict=True):
        if is_counted:
            bare = _NUMBER.sub("", bare, count=1).strip()
            marked.append(number)
        raw.rows.append(Row(number, {"question": bare}))
    if marked:
        numbers = sorted(set(marked))
        raw.notes.append(
            f"marks of lists and titles are left off {len(numbers):,} times "
            f"({places('line', numbers)})"
        )
    return raw


def _without_marks(line: str) -> str:
    """Return a line without the marks of quotations, titles and lists, which may be nested."""
    mark = _MARKS.match(line)
    while mark and mark.end() < len(line):
        line = line[mark.end() :].strip()
        mark = _MARKS.match(line)
    return line


def _leading_number(line: str) -> int | None:
    number = _NUMBER.match(line)
    return int(number[1]) if number and number.end() < len(line) else None


def _list_numbers(numbers: Sequence[int | None]) -> list[bool]:
    """Return for each line whether its number counts the items of a list: "2. Bundesliga" alone
    does not.

    A list begins with 0 or 1 or goes on by one; where all lines are numbered, they are one.
    """
    present = [number for number in numbers if number is not None]
    whole = len(present) == len(numbers) > 1
    counted, before = list[bool](), -1
    following = iter([*present[1:], -1])
    for number in numbers:
        if number is None:
            counted.append(False)
            continue
        after = next(following)
        counted.append(whole or number in (0, 1, before + 1) or after == number + 1)
        before = number
    return counted
