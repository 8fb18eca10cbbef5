"""The observer `console`: what a person sees while a run goes on.

On a terminal, a live picture of the round at work, below the lines that stay: one for each round
that ended and for each trouble. In a notebook the same, in one output of the cell that is replaced.
Elsewhere plain lines, which fit a log; of what takes longer than half a minute they say now and
then how far it is (`selfloop.progress`). The summary of the run is the CLI's.

A `Tally` counts what the events say; `Lines`, `Live` and `Cell` show it. Rich is imported for the
pictures alone.
"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import StringIO
from time import monotonic
from typing import TYPE_CHECKING, Literal, TextIO

from selfloop import progress
from selfloop.events import (
    AttemptEnded,
    BatchLearnt,
    CompletionDone,
    Event,
    RoundEnded,
    RunEnded,
    RunStarted,
    StepStarted,
    Trouble,
)
from selfloop.protocols import Component, Observer
from selfloop.records import Attempt, Decision, ModelInfo
from selfloop.registry.hookspecs import hookimpl
from selfloop.text.display import cells, duration, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress_bar import ProgressBar
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

Mode = Literal["auto", "live", "plain", "quiet"]

COLOURS: dict[Decision, str] = {
    "belief": "green",
    "declined": "yellow",
    "undecided": "cyan",
    "dropped": "bright_black",
    "failed": "red",
}
WIDE = 80  # columns from which a question and its answer share a line
NARROWEST = 40  # columns of a terminal that shows the picture with no figure cut
TALL = 24  # rows from which all steps of the round are shown, and not only the one at work
VERDICT = 17  # cells of a confidence and a decision
MESSAGE = 300  # cells of a failure's message
OFTEN = 0.25  # seconds from one picture to the next
PAGE = (100, TALL)  # cells and rows of a picture in a notebook


@dataclass
class Step:
    """One step of the round at work: how many attempts it has, and what the model did or learnt for it so far."""

    name: str
    attempts: int
    usual: float = 0.0  # completions for each attempt in the round before; 0: not known
    clock: progress.Clock = monotonic
    started: float = field(init=False)
    ended: float | None = None
    completions: int = 0
    replayed: int = 0
    tokens: int = 0
    learnt: BatchLearnt | None = None  # last, in a tune
    loss: float = 0.0  # over about the last ten batches
    # the first batch since the tune began or went on, and when it was learnt
    began: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Return how long the step took, or takes so far."""
        return (self.clock() if self.ended is None else self.ended) - self.started

    @property
    def rate(self) -> float:
        """Return generated tokens a second; what is replayed takes no time and does not count."""
        return self.tokens / max(self.seconds, 1e-3)

    @property
    def share(self) -> float | None:
        """Return how much of the step is done, in [0, 1]; None where that cannot be told."""
        if self.ended is not None:
            return 1.0
        if self.learnt:
            return self.learnt.done / max(self.learnt.of, 1)
        done, wanted = self.completions + self.replayed, self.attempts * (self.usual or 1.0)
        return done / wanted if 0 < done < wanted else None

    @property
    def left(self) -> float | None:
        """Return the seconds that the step still takes, if it goes on as it did; None where that cannot be told."""
        first, at = self.began
        if self.learnt is None:
            return (
                self.seconds / self.share - self.seconds
                if self.share and self.share > 0.05
                else None
            )
        if not first < self.learnt.done < self.learnt.of:
            return None
        return (
            (self.clock() - at) / (self.learnt.done - first) * (self.learnt.of - self.learnt.done)
        )

    def learn(self, batch: BatchLearnt) -> None:
        """Note that a batch was learnt."""
        self.loss = 0.9 * self.loss + 0.1 * batch.loss if self.learnt else batch.loss
        self.began = self.began if self.learnt else (batch.done, self.clock())
        self.learnt = batch


class Tally:
    """Counts what the events of a run say."""

    def __init__(self, questions: int, clock: progress.Clock = monotonic) -> None:
        self.questions, self.clock = questions, clock
        self.run = RunStarted("", "", 0, 0, ModelInfo(""))
        self.round = 0
        self.started = self.round_started = clock()
        self.steps: list[Step] = []
        self.counts: Counter[Decision] = Counter()  # of this round
        self.total: Counter[Decision] = Counter()  # of all rounds since the run started or went on
        self.shown: tuple[Attempt, ...] = ()
        self._usual: dict[str, float] = {}
        self._took: float | None = None  # the last round that ended

    @property
    def left(self) -> float | None:
        """Return the seconds that the run still takes if each round takes as long as the last that ended."""
        if self._took is None:
            return None
        to_come = self.run.rounds - self.round
        return max(0.0, self._took - (self.clock() - self.round_started)) + to_come * self._took

    @property
    def step(self) -> Step | None:
        """Return the step at work."""
        return self.steps[-1] if self.steps and self.steps[-1].ended is None else None

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case CompletionDone():
                self._take_completion(event)
            case BatchLearnt():
                if step := self.step:
                    step.learn(event)
            case AttemptEnded(attempt=attempt):
                self._take_attempt(attempt)
            case StepStarted():
                self.end_step()
                self._take_step(event)
            case RunStarted():
                self.run = event
            case RoundEnded():
                self.end_step()
                self._took = self.clock() - self.round_started
            case RunEnded():
                self.end_step()
            case Trouble():
                pass

    def end_step(self) -> None:
        """Stop the clock of the step at work; no event of its own says that a step ended."""
        if step := self.step:
            step.ended = self.clock()
            self._usual[step.name] = (step.completions + step.replayed) / max(step.attempts, 1)

    def _take_step(self, event: StepStarted) -> None:
        if event.round != self.round:
            self.round, self.round_started = event.round, self.clock()
            self.steps, self.counts = [], Counter()
        self.steps.append(
            Step(event.step, event.attempts, self._usual.get(event.step, 0.0), self.clock)
        )

    def _take_completion(self, event: CompletionDone) -> None:
        if (step := self.step) is None:
            return
        if event.replayed:
            step.replayed += 1
        else:
            step.completions += 1
            step.tokens += event.tokens

    def _take_attempt(self, attempt: Attempt) -> None:
        if attempt.decision is None:
            return
        self.counts[attempt.decision] += 1
        self.total[attempt.decision] += 1
        # the dropped ones would push out all others
        if attempt.decision != "dropped" and self.questions > 0:
            self.shown = (*self.shown, attempt)[-self.questions :]


class Quiet:
    """Shows trouble, and nothing else.

    Long work has its lines shown by `show`, until the observer is closed.
    """

    def __init__(self, stream: TextIO, show: progress.Show | None = None) -> None:
        self._stream = stream
        self._open = ExitStack()
        self._open.enter_context(progress.shown_by(show))

    def notice(self, event: Event) -> None:
        """Print a line if something failed."""
        if isinstance(event, Trouble):
            self._say(_trouble(event))

    def close(self) -> None:
        """Show no progress from now on. Each line was flushed as it was written."""
        self._open.close()

    def _say(self, line: str) -> None:
        """Print one line, with "?" for what the stream cannot encode."""
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        self._stream.flush()


class Lines(Quiet):
    """Plain lines: the start and end of each step and round, the first questions of each round, trouble."""

    def __init__(self, stream: TextIO, questions: int, clock: progress.Clock = monotonic) -> None:
        super().__init__(stream, show=self._say)
        self._tally = Tally(questions, clock)

    def notice(self, event: Event) -> None:
        """Count the event, and print it where it is worth a line."""
        tally = self._tally
        if isinstance(event, StepStarted | RoundEnded | RunEnded) and (step := tally.step):
            tally.end_step()
            self._say(f"round {tally.round}/{tally.run.rounds} {_step_line(step)}")
        tally.take(event)
        match event:
            case RunStarted():
                self._say(_heading(event))
            case StepStarted():
                self._say(
                    f"round {event.round}/{tally.run.rounds} {event.step}: "
                    f"{_many(event.attempts, 'question')}"
                )
            case AttemptEnded(attempt=attempt) if self._is_among_first(attempt):
                self._say(f"  {_attempt_line(attempt)}")
            case RoundEnded():
                self._say(_round_line(event, tally))
            case RunEnded():
                self._say(_run_line(event, tally))
            case _:
                super().notice(event)

    def _is_among_first(self, attempt: Attempt) -> bool:
        counts = self._tally.counts
        return (
            attempt.decision != "dropped"
            and counts.total() - counts["dropped"] <= self._tally.questions
        )


class Live:
    """A picture of the round at work, drawn four times a second, below the lines that stay."""

    def __init__(
        self, console: "Console", questions: int, clock: progress.Clock = monotonic
    ) -> None:
        from rich import live

        self._console = console
        self._tally = Tally(questions, clock)
        self._open = ExitStack()
        self._live = live.Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=1 / OFTEN,
            transient=True,
        )

    def notice(self, event: Event) -> None:
        """Count the event; print what should stay when the picture is gone."""
        self._tally.take(event)
        match event:
            case RunStarted():
                self._say(_heading(event), "bold")
                # the picture shows it from now on
                self._open.enter_context(progress.shown_by(None))
                self._live.start()
            case RoundEnded():
                self._say(_round_line(event, self._tally))
            case Trouble():
                self._say(_trouble(event), "red")
            case RunEnded():
                self._live.stop()
                self._say(_run_line(event, self._tally))
            case _:
                pass

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()
        self._open.close()

    def _say(self, line: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(line, style=style))

    def _picture(self) -> "RenderableType":
        """Return the picture. Rich's own thread calls this too, so it reads and never changes."""
        return _picture(self._tally, *self._console.size)


class Cell:
    """The picture in a notebook: one output, replaced as events come; in the end only the lines
    that stay are in it.

    `show` is given the whole output as HTML each time.
    """

    def __init__(
        self, show: Callable[[str], None], questions: int, clock: progress.Clock = monotonic
    ) -> None:
        self._show = show
        self._tally = Tally(questions, clock)
        self._lines: list[tuple[str, str]] = []
        self._shown = float("-inf")

    def notice(self, event: Event) -> None:
        """Count the event; show what came of it, at once if it is a line that stays."""
        self._tally.take(event)
        told = len(self._lines)
        match event:
            case RunStarted():
                self._lines.append((_heading(event), "bold"))
            case RoundEnded():
                self._lines.append((_round_line(event, self._tally), ""))
            case Trouble():
                self._lines.append((_trouble(event), "red"))
            case RunEnded():
                self._lines.append((_run_line(event, self._tally), ""))
            case _:
                pass
        if len(self._lines) > told or self._tally.clock() - self._shown >= OFTEN:
            self._draw(at_work=not isinstance(event, RunEnded))

    def close(self) -> None:
        """Leave only the lines, also where the run's end was not told."""
        self._draw(at_work=False)

    def _draw(self, *, at_work: bool) -> None:
        from rich.console import Console
        from rich.text import Text

        page = Console(
            file=StringIO(), record=True, force_jupyter=False, width=PAGE[0], highlight=False
        )
        for line, style in self._lines:
            page.print(Text(line, style=style), soft_wrap=True)
        if at_work:
            page.print(_picture(self._tally, *PAGE))
        self._show(
            page.export_html(
                inline_styles=True, code_format='<pre style="line-height: normal">{code}</pre>'
            )
        )
        self._shown = self._tally.clock()


def _picture(tally: Tally, width: int, height: int) -> "RenderableType":
    """Return the picture of the round at work."""
    from rich.console import Group

    steps, shown, gap = tuple(tally.steps), tally.shown, [""]
    if height < TALL:
        steps, shown, gap = steps[-1:], shown[-1:], []
    above = (_rule(tally), _steps_table(steps, width))
    return Group(*above, *gap, _counts_table(tally), *gap, *_questions(shown, width), *gap)


def _rule(tally: Tally) -> "Rule":
    from rich.rule import Rule
    from rich.text import Text

    title = f"round {tally.round} of {tally.run.rounds}" if tally.round else "starting"
    pieces = [title, duration(tally.clock() - tally.round_started)]
    pieces += [f"about {duration(tally.left)} left in all"] if tally.left else []
    return Rule(Text(" · ".join(pieces)), align="left", style="bright_black")


def _steps_table(steps: tuple[Step, ...], width: int) -> "Table":
    """Return a row for each step: name, bar, what was done, seconds."""
    from rich.table import Table

    table, wide = Table.grid(padding=(0, 2, 0, 0)), width >= WIDE
    for step in steps:
        bar = _bar(step, min(30, width - 73) if wide else width - 27)
        table.add_row(step.name, bar, *_step_cells(step, wide=wide))
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def _bar(step: Step, width: int) -> "ProgressBar":
    """Return a bar; it moves to and fro where nobody can tell how much there is to do."""
    from rich.progress_bar import ProgressBar

    share = step.share
    return ProgressBar(
        total=1.0,
        completed=share or 0.0,
        width=width,
        pulse=share is None,
        complete_style="blue",  # rich's own is red, which here means trouble
        finished_style="bright_black",
        pulse_style="blue",
    )


def _step_cells(step: Step, *, wide: bool) -> tuple[str, ...]:
    done = step.completions + step.replayed
    if step.learnt:
        if not wide:
            return "", _left(step) or duration(step.seconds)
        batches = f"{step.learnt.done:,}/{step.learnt.of:,} batches"
        return batches, _left(step), duration(step.seconds), f"loss {step.loss:.3f}"
    if not wide:
        return str(done or ""), duration(step.seconds)
    completions = " · ".join(filter(None, (_many(done, "completion") if done else "", _left(step))))
    speed = f"{step.rate:,.0f} tok/s" if step.tokens else "replayed" if step.replayed else ""
    return _many(step.attempts, "question"), completions, duration(step.seconds), speed


def _counts_table(tally: Tally) -> "Table":
    """Return the counts of this round, and below them those of all rounds seen if there are more."""
    from rich.columns import Columns
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    rows = {"this round": tally.counts}
    if tally.total != tally.counts:
        rows["since resume" if tally.run.done else "all rounds"] = tally.total
    for label, counts in rows.items():
        pieces = [
            Text(piece, style=COLOURS[decision]) for decision, piece in _counted(counts).items()
        ]
        table.add_row(Text(label, style="bright_black"), Columns(pieces, padding=(0, 2)))
    table.columns[0].no_wrap = True
    return table


def _questions(shown: tuple[Attempt, ...], width: int) -> "Iterator[Text]":
    """Yield each question with its answer, confidence and decision: on one line, or on two if it is narrow."""
    from rich.text import Text

    half = (width - VERDICT) // 2
    for attempt in shown:
        question, verdict = (
            attempt.question.text,
            (_verdict(attempt), COLOURS[attempt.decision or "undecided"]),
        )
        if width >= WIDE:
            lines = [Text.assemble(verdict, _padded(question, half), _said(attempt, half))]
        else:
            lines = [
                Text(_short(question, width)),
                Text.assemble(verdict, _said(attempt, width - VERDICT)),
            ]
        for line in lines:
            line.no_wrap, line.overflow = True, "crop"
            yield line


def _heading(event: RunStarted) -> str:
    model = event.model
    facts = ", ".join(filter(None, (model.architecture, _magnitude(model.parameters))))
    about = f"{model.name} ({facts})" if facts else model.name
    done = f" · {event.done} of {_many(event.rounds, 'round')} done" if event.done else ""
    return printable(f"run {event.name} · {about} · {event.folder}{done}")


def _step_line(step: Step) -> str:
    """Return what an ended step did."""
    pieces = [duration(step.seconds)]
    if step.completions:
        pieces.append(
            f"{_many(step.completions, 'completion')} · {step.tokens:,} tokens · {step.rate:,.0f} "
            "tok/s"
        )
    if step.replayed:
        pieces.append(f"{step.replayed:,} replayed")
    if step.learnt:
        pieces.append(_learnt_line(step))
    return f"{step.name} ended: {' · '.join(pieces)}"


def _learnt_line(step: Step) -> str:
    """Return how far a tune is."""
    assert step.learnt
    batches = f"{step.learnt.done:,} of {_many(step.learnt.of, 'batch')}"
    return " · ".join(filter(None, (batches, f"loss {step.loss:.3f}", _left(step))))


def _left(step: Step) -> str:
    return "" if step.ended is not None or step.left is None else f"{duration(step.left)} left"


def _round_line(event: RoundEnded, tally: Tally) -> str:
    counts = Counter(a.decision for a in event.round.attempts if a.decision)
    time = duration(tally.clock() - tally.round_started)
    return f"round {event.round.number}/{tally.run.rounds} ended: {' · '.join(_counted(counts).values())} · {time}"


def _run_line(event: RunEnded, tally: Tally) -> str:
    """Return how the run ended; the message of its failure is the CLI's to print."""
    return f"run {event.outcome} · {duration(tally.clock() - tally.started)}"


def _attempt_line(attempt: Attempt) -> str:
    question = _short(attempt.question.text, 80)
    return f"{_verdict(attempt)}{question} -> {_said(attempt, 60)}"


def _trouble(event: Trouble) -> str:
    failure = event.failure
    who = printable(f"{failure.step}: {failure.component}")
    return f"trouble in {who}: {printable(failure.type)}: {_short(failure.message, MESSAGE)}"


def _said(attempt: Attempt, width: int) -> str:
    """Return the answer; of a failed attempt, why it failed."""
    return _short(attempt.reason if attempt.decision == "failed" else attempt.answer, width)


def _short(text: str, width: int) -> str:
    return printable(text, width) or "(empty)"


def _padded(text: str, width: int) -> str:
    short = _short(text, width - 2)
    return short + " " * (width - cells(short))


def _verdict(attempt: Attempt) -> str:
    """Return confidence and decision in a column of `VERDICT` cells."""
    confidence = "–" if attempt.confidence is None else f"{attempt.confidence:.2f}"
    return f"{confidence:>4}  {attempt.decision or 'undecided':<11}"


def _counted(counts: Counter[Decision]) -> dict[Decision, str]:
    """Return each decision with its count, in a fixed order, so that lines can be compared by eye."""
    plural = "beliefs" if counts["belief"] != 1 else "belief"
    return {d: f"{counts[d]:,} {plural if d == 'belief' else d}" for d in COLOURS}


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('ch') else 's'}"


def _magnitude(number: int) -> str:
    """Return a number of parameters as people say it: 135M, 1.2B."""
    if number < 1_000_000:
        return f"{number:,}" if number else ""
    return f"{number / 1e9:.1f}B" if number >= 1_000_000_000 else f"{number / 1e6:.0f}M"


def build(*, questions: int = 3, mode: Mode = "auto") -> Observer:
    """Make the observer for stdout. `questions` are shown at a time; `quiet` leaves only trouble.

    `auto` is `live` on a terminal that can draw it and in a notebook, and `plain` elsewhere; `live`
    forces the picture. Plain lines say of what takes longer than half a minute, now and then, how
    far it is.
    """
    if mode == "quiet":
        return Quiet(sys.stdout)
    if mode != "plain" and _is_cell(sys.stdout):
        return Cell(_output(), questions)
    if mode == "plain" or (mode == "auto" and not _can_draw(sys.stdout)):
        return Lines(sys.stdout, questions)
    from rich.console import Console

    return Live(Console(force_terminal=True, highlight=False), questions)


def _is_cell(stream: TextIO) -> bool:
    """Return whether what is printed goes into the cell of a notebook."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def _output() -> Callable[[str], None]:
    """Return what shows HTML in the cell at work, each time in place of the last."""
    from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]

    handle = display(HTML(""), display_id=True)
    return lambda html: handle.update(HTML(html))


def _can_draw(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that moves its cursor, and shows the picture and its characters."""
    if shutil.get_terminal_size().columns < NARROWEST:
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
