"""How far long work is: whoever does the work reports, and whoever shows it gets a line now and
then.

    with progress.task("hashing model.gguf", size, "bytes") as task:
        for block in blocks:
            task.advance(len(block))

A task inside another is shown behind it. The first line comes when the outermost task has taken
`FIRST` seconds, so short work is never shown. A thread asks for the lines: they come too while one
call of a backend takes an hour.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TypeVar

from selfloop.text.display import printable
from selfloop.text.units import duration, size

# seconds from the beginning of the outermost task to its first line, and between lines at first
FIRST = 30.0
GROWTH = 0.1  # of the time so far: between lines later
LONGEST = 600.0  # seconds between lines at most
TICK = 1.0  # seconds between two looks at the clock
NAME = 60  # cells of a task's name in a line

SECONDS = {"s": 1, "min": 60, "h": 3600}
BYTES = "bytes"  # a unit that is shown as kB, MB, GB

Item = TypeVar("Item")
Clock = Callable[[], float]
Show = Callable[[str], None]
"""Shows one line, without its end. It is called from a thread of its own."""


@dataclass(eq=False)
class Task:
    """One piece of work. `total` and `done` are in `unit`, a noun in the plural; a total of 0 is
    not known yet.

    `measure` returns what is done, for work that cannot say it by itself: the size of a file that
    grows.
    """

    name: str
    total: float
    unit: str
    clock: Clock
    measure: Callable[[], float] | None = None
    note: str = ""
    done: float = 0.0
    started: float = field(init=False)
    # done, and when: the rate is measured from here
    _base: tuple[float, float] | None = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()
        self._base = (0.0, self.started) if self.total else None

    def advance(self, count: float = 1.0) -> None:
        """Note that so much more is done."""
        self.done += count

    def skip(self, count: float = 1.0) -> None:
        """Note what was done before this task began: it counts as done, and took no time."""
        self.done += count
        base_done, base_time = self._base or (0.0, self.started)
        self._base = base_done + count, base_time

    def count(self, done: float, total: float, unit: str, note: str = "") -> None:
        """Note how far the work is, where its total was not known at its beginning."""
        self.done, self.total, self.unit, self.note = done, total, unit, note
        self._base = self._base or (done, self.clock())

    def rate(self, now: float) -> float | None:
        """Return units a second; None where that cannot be told yet."""
        base_done, base_time = self._base or (0.0, self.started)
        if self.done <= base_done or now <= base_time:
            return None
        return (self.done - base_done) / (now - base_time)

    def left(self, now: float) -> float | None:
        """Return the seconds that are left if the work goes on at this rate; None where that cannot be told."""
        rate = self.rate(now)
        if rate is None or not self.done < self.total:
            return None
        return (self.total - self.done) / rate


@dataclass(eq=False)
class Audience:
    """Who has the lines; without `show` nobody has."""

    show: Show | None


class Monitor:
    """The tasks at work in this process, and who shows them."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._tasks: list[Task] = []
        self._audiences: list[Audience] = []
        self._due: dict[Task, float] = {}
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(
        self,
        name: str,
        total: float = 0,
        unit: str = "",
        measure: Callable[[], float] | None = None,
    ) -> Task:
        """Open a task; whoever opens one closes it with `end`."""
        task = Task(name, total, unit, self.clock, measure)
        with self._lock:
            self._tasks.append(task)
            watched = bool(self._audiences)
        if watched:
            self._busy.set()
        return task

    def end(self, task: Task) -> None:
        """Close a task, and whatever was opened inside it and left open."""
        with self._lock:
            if task in self._tasks:
                del self._tasks[self._tasks.index(task) :]
            self._due.pop(task, None)
            if not self._tasks:
                self._busy.clear()

    @contextmanager
    def task(
        self,
        name: str,
        total: float = 0,
        unit: str = "",
        measure: Callable[[], float] | None = None,
    ) -> Iterator[Task]:
        """Open a task for a block of code."""
        task = self.begin(name, total, unit, measure)
        try:
            yield task
        finally:
            self.end(task)

    @contextmanager
    def shown_by(self, show: Show | None) -> Iterator[None]:
        """Let `show` have the lines meanwhile, in place of whoever had them before; None: nobody has them."""
        audience = Audience(show)
        with self._lock:
            self._audiences.append(audience)
        self._start()
        try:
            yield
        finally:
            with self._lock:
                self._audiences.remove(audience)

    def line(self) -> str | None:
        """Return the line that is due now, if one is."""
        with self._lock:
            tasks = tuple(self._tasks)
        if not tasks:
            return None
        now, outermost = self.clock(), tasks[0]
        due = self._due.get(outermost, outermost.started + FIRST)
        if now < due:
            return None
        self._due[outermost] = now + min(LONGEST, max(FIRST, GROWTH * (now - outermost.started)))
        for task in tasks:
            if task.measure:
                with suppress(OSError):  # a file that is moved to its place at this moment
                    task.done = max(task.done, min(task.measure(), task.total or float("inf")))
        return described(tasks, now)

    def tick(self) -> None:
        """Show the line that is due now, if one is."""
        audiences = self._audiences
        show = audiences[-1].show if audiences else None
        if show is None or (line := self.line()) is None:
            return
        with suppress(OSError, ValueError):  # a stream that was closed, or a pipe that nobody reads
            show(line)

    def _start(self) -> None:
        if self._tasks:
            self._busy.set()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._beat, name="selfloop-progress", daemon=True
            )
            self._thread.start()

    def _beat(self) -> None:
        pause = threading.Event()
        while True:
            self._busy.wait()
            pause.wait(TICK)
            self.tick()


def counted(name: str, items: Iterable[Item], unit: str, total: int) -> Iterator[Item]:
    """Yield the items, and count them in a task of their own: each is done when the next one is asked for."""
    with task(name, total, unit) as at_work:
        for item in items:
            yield item
            at_work.advance()


def described(tasks: Sequence[Task], now: float) -> str:
    """Return one line about tasks, the outermost first.

    A task without a count only adds its name.
    """
    parts: list[str] = []
    names: list[str] = []
    for task in tasks:
        if task.name:
            names.append(printable(task.name, NAME))
        if task.unit:
            parts.append(_joined(names, _counted(task, now)))
            names = []
    if names:
        parts.append(", ".join(names))
    return "; ".join([*parts, f"{duration(now - tasks[0].started)} so far"])


def _joined(names: Sequence[str], counted: str) -> str:
    return f"{', '.join(names)}: {counted}" if names else counted


def _counted(task: Task, now: float) -> str:
    """Return how much of a task is done, how fast, and how long the rest takes."""
    pieces = [_of(task.done, task.total, task.unit)]
    if (rate := task.rate(now)) is not None:
        pieces.append(_speed(rate, task.unit))
    if task.note:
        pieces.append(printable(task.note, NAME))
    if (left := task.left(now)) is not None:
        pieces.append(f"{duration(left)} left")
    return " · ".join(pieces)


def _of(done: float, total: float, unit: str) -> str:
    if unit == BYTES:
        return f"{size(done)} of {size(total)}" if total else size(done)
    return f"{done:,.0f} of {total:,.0f} {unit}" if total else f"{done:,.0f} {unit}"


def _speed(rate: float, unit: str) -> str:
    """Return a rate by the second, the minute or the hour, so that it is no small fraction."""
    if unit == BYTES:
        return f"{size(rate)}/s"
    per = next((name for name, seconds in SECONDS.items() if rate * seconds >= 1), "h")
    number = rate * SECONDS[per]
    return f"{number:,.0f} {unit}/{per}" if number >= 9.95 else f"{number:.1f} {unit}/{per}"


def size_of(path: Path) -> Callable[[], float]:
    """Return what measures a file, or all files below a folder, in bytes; 0 as long as there are none."""

    def measured() -> float:
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    return measured


MONITOR = Monitor()
begin, end, task, shown_by = MONITOR.begin, MONITOR.end, MONITOR.task, MONITOR.shown_by
