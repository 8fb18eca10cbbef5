"""Progress of long work: the worker reports to a task, and an observer gets a line now and then.

    with progress.task("hashing model.gguf", size, "bytes") as task:
        for block in blocks:
            task.advance(len(block))

Tasks nest: a line names the outermost task first. The first line comes when the outermost task has
taken `FIRST_LINE_S` seconds, so short work is never shown. A thread asks for the lines, so they
come even while one call of a backend takes an hour.
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

# Until the outermost task's first line, and between the first lines. Later the pause is a share of
# the time so far: a run of days writes hundreds of lines, not tens of thousands.
FIRST_LINE_S = 30.0
PAUSE_SHARE = 0.1
MAX_PAUSE_S = 600.0
TICK_S = 1.0  # between two looks at the clock
MAX_NAME = 60  # terminal cells of a task's name or note in a line

SECONDS_BY_UNIT = {"s": 1, "min": 60, "h": 3600}
BYTES = "bytes"  # the unit that is shown as kB, MB, GB

Item = TypeVar("Item")
Clock = Callable[[], float]
Show = Callable[[str], None]
"""Shows one line, without its end. It is called from a thread of its own."""


@dataclass(eq=False)
class Task:
    """One piece of work. `total` and `done` are in `unit`, a noun in the plural.

    A total of 0 is not known yet. `measure` returns `done` for work that cannot report by itself,
    such as the size of a file that grows. The rate is measured from a base: (`done`, time) at the
    first moment at which both were known.
    """

    name: str
    total: float
    unit: str
    clock: Clock
    measure: Callable[[], float] | None = None
    note: str = ""
    done: float = 0.0
    started: float = field(init=False)
    _base: tuple[float, float] | None = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()
        # A task without a total gets its base from the first report: the time before it may be
        # spent on preparations.
        self._base = (0.0, self.started) if self.total else None

    def advance(self, count: float = 1.0) -> None:
        """Note that `count` more is done."""
        self.done += count

    def skip(self, count: float = 1.0) -> None:
        """Note work that was done before this task began: it counts as done and took no time."""
        self.done += count
        base_done, base_time = self._base or (0.0, self.started)
        self._base = base_done + count, base_time

    def count(self, done: float, total: float, unit: str, note: str = "") -> None:
        """Note how far the work is; for work whose total was not known at its beginning."""
        self.done, self.total, self.unit, self.note = done, total, unit, note
        self._base = self._base or (done, self.clock())

    def rate(self, now: float) -> float | None:
        """Return units per second; None as long as it cannot be measured."""
        base_done, base_time = self._base or (0.0, self.started)
        if self.done <= base_done or now <= base_time:
            return None
        return (self.done - base_done) / (now - base_time)

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds left at the rate so far; None as long as it cannot be measured."""
        rate = self.rate(now)
        if rate is None or not self.done < self.total:
            return None
        return (self.total - self.done) / rate


@dataclass(eq=False)
class Audience:
    """The function that shows the lines, or None to show none.

    `eq=False` compares by identity: the same function may be given twice, and each block of code
    removes its own.
    """

    show: Show | None


class Monitor:
    """The tasks at work in this process, and the audience that shows them.

    Tasks and audiences are stacks: the first task is the outermost, and the last audience gets the
    lines. A lock guards both, for a thread reads them.
    """

    def __init__(self, clock: Clock = monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._tasks: list[Task] = []
        self._audiences: list[Audience] = []
        self._due: dict[Task, float] = {}  # time of the next line, by outermost task
        self._busy = threading.Event()  # set while a task is open: without one the thread sleeps
        self._thread: threading.Thread | None = None

    def begin(
        self,
        name: str,
        total: float = 0,
        unit: str = "",
        measure: Callable[[], float] | None = None,
    ) -> Task:
        """Open a task. The caller closes it with `end`."""
        task = Task(name, total, unit, self.clock, measure)
        with self._lock:
            self._tasks.append(task)
            watched = bool(self._audiences)
        # Without an audience the thread need not wake up; `_start` sets the event for a later one.
        if watched:
            self._busy.set()
        return task

    def end(self, task: Task) -> None:
        """Close a task and all tasks inside it that are still open."""
        with self._lock:
            # It may be gone already, with the task that it was opened in.
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
        """Give the lines of a block of code to `show`, in place of the audience before.

        With None nobody gets them.
        """
        audience = Audience(show)
        with self._lock:
            self._audiences.append(audience)
        self._start()
        try:
            yield
        finally:
            with self._lock:
                self._audiences.remove(audience)

    def due_line(self) -> str | None:
        """Return the line that is due now; None if none is."""
        with self._lock:
            tasks = tuple(self._tasks)  # a copy: workers open and close tasks meanwhile
        if not tasks:
            return None
        now, outermost = self.clock(), tasks[0]
        due = self._due.get(outermost, outermost.started + FIRST_LINE_S)
        if now < due:
            return None
        pause = max(FIRST_LINE_S, PAUSE_SHARE * (now - outermost.started))
        self._due[outermost] = now + min(MAX_PAUSE_S, pause)
        for task in tasks:
            if task.measure:
                with suppress(OSError):  # the file may be moved to its place at this moment
                    # never backwards, and never beyond the total: files may be larger than expected
                    task.done = max(task.done, min(task.measure(), task.total or float("inf")))
        return describe(tasks, now)

    def tick(self) -> None:
        """Show the line that is due now, if one is."""
        with self._lock:
            show = self._audiences[-1].show if self._audiences else None
        if show is None:
            return
        line = self.due_line()
        if line is None:
            return
        with suppress(OSError, ValueError):  # the stream was closed, or nobody reads the pipe
            show(line)

    def _start(self) -> None:
        if self._tasks:
            self._busy.set()
        if self._thread is None or not self._thread.is_alive():
            # A daemon does not keep the process alive. A fork has none, and makes its own.
            self._thread = threading.Thread(
                target=self._beat, name="selfloop-progress", daemon=True
            )
            self._thread.start()

    def _beat(self) -> None:
        pause = threading.Event()
        while True:
            self._busy.wait()
            pause.wait(TICK_S)
            self.tick()


def counted(name: str, items: Iterable[Item], unit: str, total: int) -> Iterator[Item]:
    """Yield the items and count them in a task: each is done when the next one is asked for."""
    with task(name, total, unit) as counting:
        for item in items:
            yield item
            counting.advance()


def describe(tasks: Sequence[Task], now: float) -> str:
    """Return one line about tasks, the outermost first, at the time `now`.

    A task without a unit has no count: it only adds its name.
    """
    parts: list[str] = []
    names: list[str] = []
    for task in tasks:
        if task.name:
            names.append(printable(task.name, MAX_NAME))
        if task.unit:
            count = _describe_count(task, now)
            parts.append(f"{', '.join(names)}: {count}" if names else count)
            names = []
    if names:
        parts.append(", ".join(names))
    return "; ".join([*parts, f"{duration(now - tasks[0].started)} so far"])


def _describe_count(task: Task, now: float) -> str:
    """Return the amount done, the rate, the note, and the time left."""
    pieces = [_amount(task.done, task.total, task.unit)]
    rate, left = task.rate(now), task.seconds_left(now)
    if rate is not None:
        pieces.append(_speed(rate, task.unit))
    if task.note:
        pieces.append(printable(task.note, MAX_NAME))
    if left is not None:
        pieces.append(f"{duration(left)} left")
    return " · ".join(pieces)


def _amount(done: float, total: float, unit: str) -> str:
    if unit == BYTES:
        return f"{size(done)} of {size(total)}" if total else size(done)
    return f"{done:,.0f} of {total:,.0f} {unit}" if total else f"{done:,.0f} {unit}"


def _speed(rate: float, unit: str) -> str:
    """Return a rate per second, minute or hour: the first by which it is 1 or more."""
    if unit == BYTES:
        return f"{size(rate)}/s"
    per = "h"
    for name, seconds in SECONDS_BY_UNIT.items():
        if rate * seconds >= 1:
            per = name
            break
    number = rate * SECONDS_BY_UNIT[per]
    # 9.95 is the least number that would be written as "10.0": from there on without a decimal
    return f"{number:,.0f} {unit}/{per}" if number >= 9.95 else f"{number:.1f} {unit}/{per}"


def size_of(path: Path) -> Callable[[], float]:
    """Return a function that measures a file, or all files below a folder, in bytes.

    It returns 0 as long as there are none.
    """

    def measure() -> float:
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    return measure


MONITOR = Monitor()
begin, end, task, shown_by = MONITOR.begin, MONITOR.end, MONITOR.task, MONITOR.shown_by
