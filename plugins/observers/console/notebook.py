"""The picture in a notebook."""

from collections.abc import Callable
from io import StringIO
from time import monotonic

from rich.console import Console
from rich.text import Text

from selfloop import progress
from selfloop.events import ComponentFailed, Event, RoundEnded, RunEnded, RunStarted

from .._run_progress import RunProgress
from .picture import REFRESH_S, TALL_ROWS, picture
from .wording import heading, round_line, run_line, trouble_line

PAGE = (100, TALL_ROWS)  # cells and rows of the picture


class NotebookRenderer:
    """Draws the picture into one output of a cell, which is replaced as events come.

    In the end only the lines that stay are in it. `show` gets the whole output as HTML each time.
    """

    def __init__(
        self, show: Callable[[str], None], questions: int, clock: progress.Clock = monotonic
    ) -> None:
        self._show = show
        self._progress = RunProgress(questions, clock)
        self._lines: list[tuple[str, str]] = []  # with their styles
        self._drawn_at = float("-inf")

    def on_event(self, event: Event) -> None:
        """Count the event, and draw: at once for a line that stays, else a few times a second."""
        self._progress.count(event)
        line = self._line_that_stays(event)
        if line:
            self._lines.append(line)
        if line or self._progress.clock() - self._drawn_at >= REFRESH_S:
            self._draw(at_work=not isinstance(event, RunEnded))

    def close(self) -> None:
        """Leave only the lines, also if no event said that the run ended."""
        self._draw(at_work=False)

    def _line_that_stays(self, event: Event) -> tuple[str, str] | None:
        """Return the line that stays of an event, with its style, if there is one."""
        match event:
            case RunStarted():
                return heading(event), "bold"
            case RoundEnded():
                return round_line(event, self._progress), ""
            case ComponentFailed():
                return trouble_line(event), "red"
            case RunEnded():
                return run_line(event, self._progress), ""
            case _:
                return None

    def _draw(self, *, at_work: bool) -> None:
        # Rich escapes its exports: a model's answer is text, never HTML.
        page = Console(
            file=StringIO(), record=True, force_jupyter=False, width=PAGE[0], highlight=False
        )
        for line, style in self._lines:
            page.print(Text(line, style=style), soft_wrap=True)
        if at_work:
            page.print(picture(self._progress, *PAGE))
        html = page.export_html(
            inline_styles=True, code_format='<pre style="line-height: normal">{code}</pre>'
        )
        self._show(html)
        self._drawn_at = self._progress.clock()
