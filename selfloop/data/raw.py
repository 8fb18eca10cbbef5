"""Rows as they stand in a file, before anybody knows which column is which."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Cells = Mapping[str, Any]


class Row(NamedTuple):
    """The number of a line (or row, in a file without lines), from 1, and its cells by column."""

    number: int
    cells: Cells


class Broken(NamedTuple):
    """A line that is no row, and why."""

    number: int
    why: str


@dataclass
class Raw:
    """The rows of a file.

    `form` is its format for people, and `unit` the unit of the numbers: "line" or "row". `empty`
    are the numbers of rows without a cell, and `headers` those of rows that name the columns again,
    as files that were put together have them. `layout` is the name of a data set whose own form
    this is. `notes` are facts that a person should know: how something was read that could have
    been meant otherwise.
    """

    form: str
    unit: str
    rows: list[Row] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    headers: list[int] = field(default_factory=list)
    layout: str = ""
    notes: list[str] = field(default_factory=list)

    def columns(self) -> tuple[str, ...]:
        """Return the names of all columns, in the order in which they come up."""
        names: dict[str, None] = {}  # an ordered set
        for row in self.rows:
            names |= dict.fromkeys(row.cells)
        return tuple(names)


def places(unit: str, numbers: Iterable[int], most: int = 3) -> str:
    """Return the first numbers of lines or rows for people: "lines 3, 7, 9, ..."."""
    listed = list(numbers)
    noun = f"{unit}s" if len(listed) > 1 else unit
    more = ", ..." if len(listed) > most else ""
    return f"{noun} {', '.join(map(str, listed[:most]))}{more}"
