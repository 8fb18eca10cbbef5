"""The observer `console`: shows a person how a run goes on.

On a terminal it draws a live picture of the round at work, below lines that stay: one for each
round that ended and for each failure. In a notebook it draws the same picture into one output of
the cell. Elsewhere it prints plain lines, which fit a log; of work that takes longer than half a
minute they report now and then how far it is (`selfloop.progress`). The command line prints the
summary of the run, not this observer.

wording.py    events and counts as short texts
lines.py      plain lines
picture.py    the picture of the round at work, by rich
live.py       the picture on a terminal
notebook.py   the picture in a notebook

Rich is imported by the last three alone, and they only where a picture is drawn.
"""

import os
import shutil
import sys
from collections.abc import Callable
from typing import Literal, TextIO

from selfloop.protocols import Component, Observer
from selfloop.registry.hookspecs import hookimpl

from .lines import LineRenderer, QuietRenderer

Mode = Literal["auto", "live", "plain", "quiet"]

MIN_COLUMNS = 40  # of a terminal that shows the picture with no figure cut


def build(*, questions: int = 3, mode: Mode = "auto") -> Observer:
    """Make the observer for stdout. `questions` are shown at a time; `quiet` leaves only trouble.

    `auto` is `live` on a terminal that can draw it and in a notebook, and `plain` elsewhere; `live`
    forces the picture. Plain lines show, now and then, the progress of work that takes longer than
    half a minute.
    """
    if mode == "quiet":
        return QuietRenderer(sys.stdout)
    if mode != "plain" and _is_notebook(sys.stdout):
        from .notebook import NotebookRenderer

        return NotebookRenderer(_cell_output(), questions)
    if mode == "plain" or (mode == "auto" and not can_draw(sys.stdout)):
        return LineRenderer(sys.stdout, questions)
    from .live import LiveRenderer, forced_console

    return LiveRenderer(forced_console(), questions)


def _is_notebook(stream: TextIO) -> bool:
    """Return whether a notebook shows the stream in the output of a cell."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def _cell_output() -> Callable[[str], None]:
    """Return a function that shows HTML in the cell at work, each time in place of the last."""
    from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]

    handle = display(HTML(""), display_id=True)
    return lambda html: handle.update(HTML(html))


def can_draw(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that moves its cursor and has room and characters."""
    if shutil.get_terminal_size().columns < MIN_COLUMNS:
        return False
    utf = (stream.encoding or "").lower().startswith("utf")
    return utf and stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


@hookimpl
def selfloop_observers() -> list[Component]:
    """Offer `console`."""
    return [
        Component(
            "console",
            build,
            doc="shows the run: live on a terminal and in a notebook, as plain lines elsewhere",
            interactive=True,
        )
    ]
