"""Tables on the terminal.

Where a table is wider than the terminal, its rows become lines: no figure is ever cut.
"""

import shutil
from collections.abc import Sequence

import click

from selfloop.text.display import cells, printable

PIPED = 1000  # columns where no terminal shows the output: nothing is wrapped, so `grep` finds it
GAP = "   "  # between columns
INDENT = "  "


def terminal_width() -> int:
    """Return the columns of the terminal, or of the variable COLUMNS, else `PIPED`."""
    return shutil.get_terminal_size((PIPED, 24)).columns


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    left: int = 1,
    header: bool = True,
    last_is_bold: bool = False,
) -> None:
    """Print rows under the names of their columns.

    The first `left` columns are text, the others figures. All cells are made safe for a terminal
    here. Without `header` the names are printed only where rows become lines.
    """
    names = [printable(name) for name in columns]
    table = [list(map(printable, row)) for row in rows]
    if title:
        click.secho(title, bold=True)
    measured = [names, *table] if header else table
    widths = [max(map(cells, column)) for column in zip(*measured, strict=True)]
    total = sum(widths) + len(GAP) * (len(widths) - 1)
    # Cutting a cell could cut a figure, so a table that is too wide becomes lines.
    if len(INDENT) + total > terminal_width():
        _print_lines(names, table)
        return
    if header:
        click.echo(("\n" if title else "") + _aligned(names, widths, left))
        click.echo(f" {'─' * (total + 2)}")
    for number, row in enumerate(table, 1):
        click.secho(_aligned(row, widths, left), bold=last_is_bold and number == len(table))
    click.echo()


def _aligned(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = []
    for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
        # `str.ljust` counts characters, and a Chinese one takes two cells.
        space = " " * (width - cells(cell))
        padded.append(cell + space if number < left else space + cell)
    return (INDENT + GAP.join(padded)).rstrip()


def _print_lines(names: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    """Print each row as its first cell, and each other cell below it after its column's name."""
    for row in table:
        print_wrapped(f"{names[0]} {row[0]}".strip(), more=INDENT)
        for name, cell in zip(names[1:], row[1:], strict=True):
            if cell:
                print_wrapped(f"{name} {cell}".strip(), first=INDENT, more=INDENT * 2)
    click.echo()


def print_wrapped(text: str, *, first: str = "", more: str = "") -> None:
    """Print a text over as many lines as it needs; see `wrapped`."""
    for line in wrapped(text, first=first, more=more):
        click.echo(line)


def wrapped(text: str, *, first: str = "", more: str = "") -> list[str]:
    """Return the lines of a text; the first begins with `first`, the others with `more`.

    It breaks at spaces only: a name or a figure stays whole.
    """
    width = terminal_width()
    lines, line, is_empty = [], first, True
    for word in text.split():
        if not is_empty and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line, is_empty = more, True
        line += word if is_empty else f" {word}"
        is_empty = False
    return [*lines, line]
