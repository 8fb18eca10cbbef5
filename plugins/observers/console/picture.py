"""The picture of the round at work: a rule, the steps, the counts, and the last questions."""

from collections.abc import Iterator, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from selfloop.records import Attempt, Decision
from selfloop.text.units import duration, plural

from .._run_progress import RunProgress, StepProgress
from .wording import (
    VERDICT_CELLS,
    answer,
    decision_counts,
    padded,
    short,
    time_left,
    verdict,
)

COLOURS: dict[Decision, str] = {
    "belief": "green",
    "declined": "yellow",
    "undecided": "cyan",
    "dropped": "bright_black",
    "failed": "red",
}
WIDE_COLUMNS = 80  # from which a question and its answer share a line
TALL_ROWS = 24  # from which all steps of the round are shown, and not only the one at work
# cells beside a step's bar, in a wide and in a narrow picture, and the most of a bar itself
BESIDE_WIDE_BAR, BESIDE_NARROW_BAR, MAX_BAR = 73, 27, 30
REFRESH_S = 0.25  # from one picture to the next


def picture(progress: RunProgress, width: int, height: int) -> RenderableType:
    """Return the picture of the round at work, for a terminal of `width` by `height` cells.

    A renderer's thread may call this while events come: it reads `progress` and never changes it.
    """
    # a copy: the list may grow meanwhile
    steps, attempts, gap = tuple(progress.steps), progress.last_attempts, [""]
    if height < TALL_ROWS:
        steps, attempts, gap = steps[-1:], attempts[-1:], []
    above = (_rule(progress), _steps_table(steps, width))
    return Group(
        *above, *gap, _counts_table(progress), *gap, *_question_lines(attempts, width), *gap
    )


def _rule(progress: RunProgress) -> Rule:
    running = progress.round > 0
    title = f"round {progress.round} of {progress.run.rounds}" if running else "starting"
    pieces = [title, duration(progress.clock() - progress.round_started)]
    seconds_left = progress.seconds_left
    if seconds_left:
        pieces.append(f"about {duration(seconds_left)} left in all")
    return Rule(Text(" · ".join(pieces)), align="left", style="bright_black")


def _steps_table(steps: Sequence[StepProgress], width: int) -> Table:
    """Return a row for each step: name, bar, work done, seconds."""
    table, wide = Table.grid(padding=(0, 2, 0, 0)), width >= WIDE_COLUMNS
    for step in steps:
        bar_width = min(MAX_BAR, width - BESIDE_WIDE_BAR) if wide else width - BESIDE_NARROW_BAR
        table.add_row(step.name, _bar(step, bar_width), *_step_cells(step, wide=wide))
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def _bar(step: StepProgress, width: int) -> ProgressBar:
    """Return a bar; it moves to and fro if the share that is done is unknown."""
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


def _step_cells(step: StepProgress, *, wide: bool) -> tuple[str, ...]:
    """Return the cells beside a step's bar: four, or two if there is less room."""
    time = duration(step.seconds)
    if step.last_batch:
        if not wide:
            return "", time_left(step) or time
        batches = f"{step.last_batch.done:,}/{step.last_batch.of:,} batches"
        return batches, time_left(step), time, f"loss {step.loss:.3f}"
    done = step.completions + step.replayed
    if not wide:
        return str(done or ""), time
    completions = plural(done, "completion") if done else ""
    work = " · ".join(filter(None, (completions, time_left(step))))
    return plural(step.attempts, "question"), work, time, _speed(step)


def _speed(step: StepProgress) -> str:
    if step.tokens:
        return f"{step.rate:,.0f} tok/s"
    return "replayed" if step.replayed else ""


def _counts_table(progress: RunProgress) -> Table:
    """Return the counts of this round, and below them those of all rounds if there are more."""
    table = Table.grid(padding=(0, 2, 0, 0))
    rows = {"this round": progress.counts}
    if progress.total != progress.counts:
        rows["since resume" if progress.run.done else "all rounds"] = progress.total
    for label, counts in rows.items():
        pieces = [
            Text(piece, style=COLOURS[decision])
            for decision, piece in decision_counts(counts).items()
        ]
        table.add_row(Text(label, style="bright_black"), Columns(pieces, padding=(0, 2)))
    table.columns[0].no_wrap = True
    return table


def _question_lines(attempts: Sequence[Attempt], width: int) -> Iterator[Text]:
    """Yield each question with its answer, confidence and decision.

    They share a line in a wide picture, and take two in a narrow one.
    """
    half = (width - VERDICT_CELLS) // 2
    for attempt in attempts:
        question = attempt.question.text
        coloured = (verdict(attempt), COLOURS[attempt.decision or "undecided"])
        if width >= WIDE_COLUMNS:
            lines = [Text.assemble(coloured, padded(question, half), answer(attempt, half))]
        else:
            below = Text.assemble(coloured, answer(attempt, width - VERDICT_CELLS))
            lines = [Text(short(question, width)), below]
        for line in lines:
            line.no_wrap, line.overflow = True, "crop"
            yield line
