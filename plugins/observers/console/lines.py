"""Plain lines, for logs and for terminals that draw nothing."""

from contextlib import ExitStack
from time import monotonic
from typing import TextIO

from selfloop import progress
from selfloop.events import (
    AttemptEnded,
    ComponentFailed,
    Event,
    RoundEnded,
    RunEnded,
    RunStarted,
    StepStarted,
)
from selfloop.records import Attempt
from selfloop.text.units import plural

from .._run_progress import RunProgress
from .wording import (
    attempt_line,
    heading,
    round_line,
    run_line,
    step_line,
    trouble_line,
)


class QuietRenderer:
    """Prints failures, and nothing else.

    With `show`, long work (`selfloop.progress`) is shown by it until the observer is closed.
    """

    def __init__(self, stream: TextIO, show: progress.Show | None = None) -> None:
        self._stream = stream
        self._open = ExitStack()
        self._open.enter_context(progress.shown_by(show))

    def on_event(self, event: Event) -> None:
        """Print a line if something failed."""
        if isinstance(event, ComponentFailed):
            self._print_line(trouble_line(event))

    def close(self) -> None:
        """Show no progress from now on. Each line was flushed as it was written."""
        self._open.close()

    def _print_line(self, line: str) -> None:
        """Print one line, with "?" for characters that the stream cannot encode."""
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        self._stream.flush()


class LineRenderer(QuietRenderer):
    """Prints the start and end of each step and round, each round's first questions, failures."""

    def __init__(self, stream: TextIO, questions: int, clock: progress.Clock = monotonic) -> None:
        super().__init__(stream, show=self._print_line)
        self._progress = RunProgress(questions, clock)

    def on_event(self, event: Event) -> None:
        """Count the event, and print it if it is worth a line."""
        self._print_ended_step(event)
        self._progress.count(event)
        match event:
            case RunStarted():
                self._print_line(heading(event))
            case StepStarted():
                questions = plural(event.attempts, "question")
                self._print_line(f"{self._round(event.round)} {event.step}: {questions}")
            case AttemptEnded(attempt=attempt) if self._is_among_first(attempt):
                self._print_line(f"  {attempt_line(attempt)}")
            case RoundEnded():
                self._print_line(round_line(event, self._progress))
            case RunEnded():
                self._print_line(run_line(event, self._progress))
            case _:
                super().on_event(event)

    def _print_ended_step(self, event: Event) -> None:
        """Print the line about the step at work, if this event ends it."""
        step = self._progress.step
        if step and isinstance(event, StepStarted | RoundEnded | RunEnded):
            self._progress.end_step()
            self._print_line(f"{self._round(self._progress.round)} {step_line(step)}")

    def _round(self, number: int) -> str:
        return f"round {number}/{self._progress.run.rounds}"

    def _is_among_first(self, attempt: Attempt) -> bool:
        """Return whether an attempt is one of the first of its round; dropped ones do not count."""
        counts = self._progress.counts
        kept = counts.total() - counts["dropped"]
        return attempt.decision != "dropped" and kept <= self._progress.questions
