"""A finding of `selfloop doctor`, and how it is printed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import click

from selfloop.cli.tables import print_wrapped, terminal_width, wrapped
from selfloop.text.display import printable

# ok: works. note: worth knowing. slow: works slowly. wrong: will not work.
Level = Literal["ok", "note", "slow", "wrong"]
COLOURS: Mapping[Level, str] = {
    "ok": "green",
    "note": "bright_black",
    "slow": "yellow",
    "wrong": "red",
}
LEVEL_WIDTH, TOPIC_WIDTH = 6, 16  # cells
MIN_COLUMNS = 72  # a terminal of fewer columns has the text on a line of its own
MAX_TEXT = 400  # cells


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact about a topic. `mend` is the fix; it is empty where none is needed."""

    topic: str
    said: str
    level: Level = "ok"
    mend: str = ""


def print_finding(finding: Finding) -> None:
    """Print a finding in columns, or on a narrow terminal as lines."""
    is_wide = terminal_width() >= MIN_COLUMNS
    indent = " " * (LEVEL_WIDTH + TOPIC_WIDTH if is_wide else 2)
    level = finding.level.ljust(LEVEL_WIDTH) if is_wide else finding.level
    level = click.style(level, fg=COLOURS[finding.level])
    first, *more = wrapped(printable(finding.said, MAX_TEXT), first=indent, more=indent)
    if is_wide:
        # The level and the topic take the place of the indent.
        click.echo(f"{level}{finding.topic:{TOPIC_WIDTH}}{first[len(indent) :]}")
    else:
        click.echo(f"{level} {finding.topic}\n{first}")
    for line in more:
        click.echo(line)
    if finding.mend:
        print_wrapped(f"-> {printable(finding.mend, MAX_TEXT)}", first=indent, more=indent)
