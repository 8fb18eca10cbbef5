"""The picture on a terminal."""

from contextlib import ExitStack
from time import monotonic

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from selfloop import progress
from selfloop.events import ComponentFailed, Event, RoundEnded, RunEnded, RunStarted

from .._run_progress import RunProgress
from .picture import REFRESH_S, picture
from .wording import heading, round_line, run_line, trouble_line


def forced_console() -> Console:
    """Return a console that draws also where rich sees no terminal: `mode: live` says so."""
    return Console(force_terminal=True, highlight=False)


class LiveRenderer:
    """Draws a picture of the round at work four times a second, below the lines that stay."""

    def __init__(self, console: Console, questions: int, clock: progress.Clock = monotonic) -> None:
        self._console = console
        self._progress = RunProgress(questions, clock)
        self._open = ExitStack()
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=1 / REFRESH_S,
            transient=True,
        )

    def on_event(self, event: Event) -> None:
        """Count the event; print the lines that stay when the picture is gone."""
        self._progress.count(event)
        match event:
            case RunStarted():
                self._print_styled(heading(event), "bold")
                # the picture shows long work from now on
                self._open.enter_context(progress.shown_by(None))
                self._live.start()
            case RoundEnded():
                self._print_styled(round_line(event, self._progress))
            case ComponentFailed():
                self._print_styled(trouble_line(event), "red")
            case RunEnded():
                self._live.stop()
                self._print_styled(run_line(event, self._progress))
            case _:
                pass

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()
        self._open.close()

    def _print_styled(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style=style))

    def _picture(self) -> RenderableType:
        """Return the picture. Rich's own thread calls this too."""
        return picture(self._progress, *self._console.size)
