"""Tables on the terminal.

Where one is wider than the terminal its rows become lines: no figure is ever cut.
"""

import shutil
from collections.abc import Sequence

import click

from selfloop.text.display import cells, printable

PIPED = 1000  # columns of what is no terminal: nothing is wrapped, so that `grep` finds it
GAP = "   "  # between columns
INDENT = "  "


def terminal_width() -> int:
    """Return the columns of the terminal, or of COLUMNS; where there is neither, lines are as long as they are."""
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
    """Print rows under the names of their columns; the first `left` columns are text, the others
    figures.

    What is printed is made safe for a terminal here. Without `header` the names stand only where a
    row becomes lines.
    """
    names = [printable(name) for name in columns]
    table = [[printable(cell) for cell in row] for row in rows]
    if title:
        click.secho(title, bold=True)
    widths = [
        max(map(cells, column)) for column in zip(*([names] if header else []), *table, strict=True)
    ]
    total = sum(widths) + len(GAP) * (len(widths) - 1)
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
        space = " " * (width - cells(cell))
        padded.append(cell + space if number < left else space + cell)
    return (INDENT + GAP.join(padded)).rstrip()


def _print_lines(names: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    """Print each row as its first cell, and below that a line for each of the others, with its column's name."""
    for row in table:
        print_wrapped(f"{names[0]} {row[0]}".strip(), more=INDENT)
        for name, cell in zip(names[1:], row[1:], strict=True):
            if cell:
                print_wrapped(f"{name} {cell}".strip(), first=INDENT, more=INDENT * 2)
    click.echo()


def print_wrapped(text: str, *, first: str = "", more: str = "") -> None:
    """Print text over as many lines as it needs, opened by `first`, the others by `more`."""
    for line in wrapped(text, first=first, more=more):
        click.echo(line)


def wrapped(text: str, *, first: str = "", more: str = "") -> list[str]:
    """Return the lines of a text. It breaks at spaces only: a name or a figure stays whole."""
    width = terminal_width()
    lines, line, is_empty = [], first, True
    for word in text.split():
        if not is_empty and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line, is_empty = more, True
        line += word if is_empty else f" {word}"
        is_empty = False
    return [*lines, line]
