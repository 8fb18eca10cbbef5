"""The observers `console` and `jsonl`, driven by hand-made events whose text is hostile."""

import contextlib
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Clock
from rich.console import Console
from selfloop_plugins.observers import console, jsonl
from selfloop_plugins.observers._run_progress import RunProgress, StepProgress
from selfloop_plugins.observers.console.lines import LineRenderer
from selfloop_plugins.observers.console.live import LiveRenderer
from selfloop_plugins.observers.console.notebook import NotebookRenderer

from selfloop.cli import _Stderr
from selfloop.events import (
    AttemptEnded,
    CompletionDone,
    ComponentFailed,
    Event,
    RoundEnded,
    RunEnded,
    RunStarted,
    StepStarted,
    TrainingStep,
)
from selfloop.protocols import Observer
from selfloop.records import Attempt, Completion, Decision, Failure, ModelInfo, Question, Round

OSC, CLEAR, UP = "\x1b]0;pwned\x07", "\x1b[2J", "\x1b[9A"
# The escapes that rich itself writes: colours, and for the picture: erase line, up, show and hide
# the cursor.
RICH = re.compile(r"\x1b\[[\d;]*m|\x1b\[2K|\x1b\[1A|\x1b\[\?25[hl]")
MODEL = ModelInfo("SmolLM2", "llama", 134_515_008, capabilities=frozenset({"logprobs", "chat"}))


def attempt(
    question: str, answer: str, decision: Decision, confidence: float | None = None
) -> Attempt:
    draft = Completion(answer, tokens=(1, 2), logprobs=(-0.1, float("-inf")))
    return Attempt(
        Question(question, "frame"),
        draft=draft,
        decision=decision,
        confidence=confidence,
        reason=f"because{OSC}",
    )


ATTEMPTS = (
    attempt("What is the capital of France?", "Paris", "belief", 0.97),
    attempt(f"Who{OSC} wrote{CLEAR} it?", f"I don't{UP} know\r\n", "declined"),
    attempt("[bold red]markup[/] \u202etxet \udc80", "[/]" + "x" * 1_000_000, "undecided", 0.5),
    attempt("", "", "failed"),
    attempt("a fragment", "", "dropped"),
)


def events(rounds: int = 1) -> Iterator[Event]:
    yield RunStarted(f"first{OSC}", "runs/first", rounds, 0, MODEL)
    for number in range(1, rounds + 1):
        yield StepStarted(number, "ask", 5)
        yield CompletionDone("ask", 9, True)
        yield StepStarted(number, "answer", 5)
        for _ in range(15):
            yield CompletionDone("answer", 8, False)
        yield StepStarted(number, "decide", 5)
        for ended in ATTEMPTS:
            yield AttemptEnded(number, ended)
        yield ComponentFailed(
            number, Failure("tune", "lora", "RuntimeError", f"out of\nmemory{CLEAR}")
        )
        yield RoundEnded(Round(number, ATTEMPTS))
    yield RunEnded("runs/first", "done")


def play(observer: Observer, told: Iterator[Event]) -> None:
    for event in told:
        observer.on_event(event)
    observer.close()
    observer.close()


def lines(questions: int = 3, rounds: int = 1) -> list[str]:
    stream = io.StringIO()
    play(LineRenderer(stream, questions), events(rounds))
    return stream.getvalue().splitlines()


def drawn(
    width: int, height: int = 30, *, until: type[Event] | None = None, rounds: int = 2
) -> str:
    """Return the raw output of the live observer, with a picture drawn before the event `until`."""
    stream = io.StringIO()
    terminal = Console(
        force_terminal=True, file=stream, width=width, height=height, _environ={"TERM": "xterm"}
    )
    observer = LiveRenderer(terminal, 3)
    for event in events(rounds):
        if until and isinstance(event, until):
            observer._live.refresh()
        observer.on_event(event)
    observer.close()
    return stream.getvalue()


def harmless(raw: str) -> bool:
    rest = RICH.sub("", raw)
    return not re.search(
        r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", rest
    )


def test_lines_tell_steps_questions_trouble_and_counts() -> None:
    told = [
        re.sub(r"[\d.,]+ (tok/s|m?s)\b", r"# \1", line).replace("# ms", "# s") for line in lines()
    ]
    shown = "[bold red]markup[/] �txet � -> [/]" + "x" * 56 + "…"
    assert told == [
        "run first�]0;pwned� · SmolLM2 (llama, 135M) · runs/first",
        "round 1/1 ask: 5 questions",
        "round 1/1 ask ended: # s · 1 replayed",
        "round 1/1 answer: 5 questions",
        "round 1/1 answer ended: # s · 15 completions · 120 tokens · # tok/s",
        "round 1/1 decide: 5 questions",
        "  0.97  belief     What is the capital of France? -> Paris",
        "     –  declined   Who�]0;pwned� wrote�[2J it? -> I don't�[9A know",
        f"  0.50  undecided  {shown}",
        "trouble in tune: lora: RuntimeError: out of memory�[2J",
        "round 1/1 decide ended: # s",
        "round 1/1 ended: 1 belief · 1 declined · 1 undecided · 1 dropped · 1 failed · # s",
        "run done · # s",
    ]


def test_lines_show_as_many_questions_of_each_round_as_asked_for() -> None:
    assert sum(" -> " in line for line in lines(questions=2, rounds=3)) == 6
    assert not any(" -> " in line for line in lines(questions=0))


def test_lines_fit_a_stream_that_cannot_encode_them() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    play(LineRenderer(stream, 3), events())
    assert b"-> Paris" in raw.getvalue()


def test_quiet_shows_trouble_alone(capsys: pytest.CaptureFixture[str]) -> None:
    play(console.build(mode="quiet"), events())
    assert capsys.readouterr().out == "trouble in tune: lora: RuntimeError: out of memory�[2J\n"


def test_auto_is_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    play(console.build(), events())
    out = capsys.readouterr().out
    assert "round 1/1 ended: 1 belief" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("width", [10, 20, 40, 80, 120, 300])
@pytest.mark.parametrize("height", [5, 12, 40])
def test_the_picture_holds_no_escape_but_richs_own(width: int, height: int) -> None:
    raw = drawn(width, height, until=RoundEnded)
    assert harmless(raw)
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h") == 1


@pytest.mark.parametrize("width", [40, 120])
def test_the_picture_shows_counts_and_the_last_questions(width: int) -> None:
    text = " ".join(RICH.sub("", drawn(width, until=RoundEnded)).split())
    for piece in (
        "this round",
        "1 belief",
        "1 declined",
        "all rounds",
        "2 beliefs",
        "round 2 of 2",
    ):
        assert piece in text
    for piece in (
        "Who�]0;pwned� wrote�[2J it?",
        "[bold red]markup[/] �",
        "(empty)",
        "because�]0;pwned",
    ):
        assert piece in text


def test_a_low_terminal_shows_the_step_at_work_only() -> None:
    text = RICH.sub("", drawn(80, 12, until=AttemptEnded))
    assert "decide " in text
    assert "answer " not in text.split("decide ")[-1]


def test_lines_that_stay_are_there_after_the_picture() -> None:
    raw = drawn(120)
    tail = RICH.sub("", raw)
    assert "round 1/2 ended: 1 belief · 1 declined" in tail
    assert "trouble in tune: lora: RuntimeError: out of memory�[2J" in tail
    assert tail.rstrip().splitlines()[-1].startswith("run done")


def test_close_gives_the_terminal_back_in_the_middle_of_a_run() -> None:
    stream = io.StringIO()
    observer = LiveRenderer(Console(force_terminal=True, file=stream, width=80), 3)
    before = sys.stdout, sys.stderr
    threads = set(threading.enumerate())
    for _, event in zip(range(8), events(), strict=False):
        observer.on_event(event)
    observer.close()
    assert stream.getvalue().count("\x1b[?25h") == 1
    assert (sys.stdout, sys.stderr) == before
    written = stream.getvalue()
    for thread in set(threading.enumerate()) - threads:  # the one that draws anew
        thread.join(60)
        assert not thread.is_alive()
    assert stream.getvalue() == written
    observer.close()
    assert stream.getvalue() == written


def test_no_color_is_respected() -> None:
    stream = io.StringIO()
    terminal = Console(force_terminal=True, file=stream, width=80, no_color=True)
    play(LiveRenderer(terminal, 3), events())
    assert not re.search(r"\x1b\[[\d;]*3\dm", stream.getvalue())


def test_completions_are_only_counted() -> None:
    stream = io.StringIO()
    observer = LineRenderer(stream, 3)
    observer.on_event(StepStarted(1, "answer", 10))
    written = stream.getvalue()
    for _ in range(10_000):
        observer.on_event(CompletionDone("answer", 8, False))
    assert stream.getvalue() == written


def test_progress_learns_how_many_completions_a_step_takes() -> None:
    tally = RunProgress(3)
    tally.count(StepStarted(1, "answer", 10))
    for _ in range(50):
        tally.count(CompletionDone("answer", 8, False))
    assert tally.steps[0].share is None  # more completions than questions: nobody can tell
    tally.count(StepStarted(2, "answer", 10))
    for _ in range(20):
        tally.count(CompletionDone("answer", 8, False))
    assert tally.steps[0].share == pytest.approx(0.4)


def learning(clock: Clock, observer: Observer, first: int, last: int, of: int) -> None:
    """Let a tune learn a batch every two seconds."""
    observer.on_event(RunStarted("first", "runs/first", 1, 0, MODEL))
    observer.on_event(StepStarted(1, "tune", 9))
    for done in range(first, last + 1):
        clock.now += 2
        observer.on_event(TrainingStep(1, done, of, 1.0 / done))


def test_a_tune_that_ended_tells_its_batches_and_loss(clock: Clock) -> None:
    stream = io.StringIO()
    observer = LineRenderer(stream, 3, clock)
    learning(clock, observer, 1, 2000, 2000)
    observer.on_event(RoundEnded(Round(1, ATTEMPTS)))
    told = stream.getvalue().splitlines()
    assert told[1:3] == [
        "round 1/1 tune: 9 questions",
        "round 1/1 tune ended: 1 h 07 min · 2,000 of 2,000 batches · loss 0.001",
    ]


def test_a_tune_that_goes_on_tells_the_time_left_by_what_it_learnt_itself(clock: Clock) -> None:
    stream = io.StringIO()
    terminal = Console(force_terminal=True, file=stream, width=100, _environ={"TERM": "xterm"})
    observer = LiveRenderer(terminal, 3, clock)
    learning(clock, observer, 51, 60, 100)
    observer._live.refresh()
    observer.close()
    assert "60/100 batches  1 min 20 s left" in RICH.sub("", stream.getvalue())


@pytest.mark.parametrize(
    ("width", "parts"), [(100, ["120/480 batches", "12 min 00 s left", "loss 0.0"]), (40, ["left"])]
)
def test_the_picture_shows_how_far_a_tune_is(width: int, parts: list[str], clock: Clock) -> None:
    stream = io.StringIO()
    terminal = Console(force_terminal=True, file=stream, width=width, _environ={"TERM": "xterm"})
    observer = LiveRenderer(terminal, 3, clock)
    learning(clock, observer, 1, 120, 480)
    observer._live.refresh()
    observer.close()
    (row,) = {
        line.strip()
        for line in RICH.sub("", stream.getvalue()).splitlines()
        if line.strip().startswith("tune ")
    }
    assert all(part in row for part in parts) and len(row) <= width


@pytest.mark.parametrize(
    "batch",
    [TrainingStep(1, 0, 0, float("nan")), TrainingStep(1, 5, 2, 0.1), TrainingStep(1, -1, 9, 1)],
)
def test_a_tuner_that_tells_nonsense_breaks_nothing(batch: TrainingStep) -> None:
    told = [StepStarted(1, "tune", 9), batch, batch, RoundEnded(Round(1, ATTEMPTS))]
    terminal = Console(
        force_terminal=True, file=io.StringIO(), width=100, _environ={"TERM": "xterm"}
    )
    for observer in (LineRenderer(io.StringIO(), 3), LiveRenderer(terminal, 3)):
        for event in (RunStarted("first", "runs/first", 1, 0, MODEL), *told):
            observer.on_event(event)
            if isinstance(observer, LiveRenderer):
                observer._live.refresh()
        observer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False)])
def test_auto_on_a_terminal(term: str, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, outer = os.openpty()
    monkeypatch.setenv("TERM", term)
    with os.fdopen(outer, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        observer = console.build()
        monkeypatch.undo()
        observer.close()
    os.close(inner)
    assert isinstance(observer, LiveRenderer) is live


# --- in a notebook


def pages(told: Iterator[Event]) -> list[str]:
    """Return all that one output of a cell showed, one after the other, at each event."""
    shown: list[str] = []
    observer = NotebookRenderer(shown.append, 3)
    for event in told:
        observer._drawn_at = float("-inf")
        observer.on_event(event)
    observer.close()
    return shown


def test_a_cell_shows_the_picture_while_the_run_is_at_work_and_then_what_stays() -> None:
    shown = pages(events(2))
    at_work = [re.sub(r"<[^>]*>", "", page) for page in shown]
    assert any("round 2 of 2 ·" in page and "15 completions" in page for page in at_work)
    assert any("0.97  belief     What is the capital of France?" in page for page in at_work)
    last = [re.sub(r"[\d.]+ m?s$", "# s", line) for line in at_work[-1].strip().splitlines()]
    assert last == [
        "run first�]0;pwned� · SmolLM2 (llama, 135M) · runs/first",
        "trouble in tune: lora: RuntimeError: out of memory�[2J",
        "round 1/2 ended: 1 belief · 1 declined · 1 undecided · 1 dropped · 1 failed · # s",
        "trouble in tune: lora: RuntimeError: out of memory�[2J",
        "round 2/2 ended: 1 belief · 1 declined · 1 undecided · 1 dropped · 1 failed · # s",
        "run done · # s",
    ]


def test_a_cell_shows_no_markup_of_a_model() -> None:
    attack = attempt(
        "Who <b>wrote</b> <script>alert(1)</script> & it?", "<img src=x>", "belief", 0.5
    )
    shown = pages(
        iter(
            [
                RunStarted("<i>run</i>", "x", 1, 0, MODEL),
                StepStarted(1, "decide", 1),
                AttemptEnded(1, attack),
            ]
        )
    )
    whole = "".join(shown)
    assert "&lt;script&gt;" in whole and "&lt;img" in whole and "&lt;i&gt;run" in whole
    assert set(re.findall(r"</?(\w+)", whole)) == {"pre", "span"}
    assert harmless(whole)


def test_a_cell_is_drawn_four_times_a_second_at_most(clock: Clock) -> None:
    shown: list[str] = []
    observer = NotebookRenderer(shown.append, 3, clock)
    observer.on_event(StepStarted(1, "answer", 10))
    for _ in range(1000):
        clock.now += 0.001
        observer.on_event(CompletionDone("answer", 8, False))
    assert 4 <= len(shown) <= 5


def test_auto_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `print` writes to there is of ipykernel; IPython is played by a module of its name."""
    shown: list[str] = []

    def display(html: str, display_id: bool) -> Any:
        shown.append(html)
        return SimpleNamespace(update=shown.append)

    module = SimpleNamespace(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stdout", stream)
    for mode in ("auto", "live"):
        play(console.build(mode=mode), events())
        assert shown[0] == "" and "run done" in shown[-1]
    assert stream.getvalue() == ""
    play(console.build(mode="plain"), events())
    assert "run done" in stream.getvalue()


def test_jsonl_writes_one_object_a_line(tmp_path: Path) -> None:
    play(jsonl.build(folder=tmp_path), events())
    raw = (tmp_path / "events.jsonl").read_bytes()
    assert raw.isascii()
    rows = [json.loads(line) for line in raw.splitlines()]
    assert [row["event"] for row in rows[:4]] == [
        "RunStarted",
        "StepStarted",
        "StepStarted",
        "StepStarted",
    ]
    assert rows[0]["model"]["capabilities"] == ["chat", "logprobs"]
    assert rows[0]["time"].endswith("+00:00")
    undecided = rows[6]["attempt"]
    assert undecided["question"]["text"] == ATTEMPTS[2].question.text
    assert undecided["draft"]["logprobs"] == [-0.1, None]
    ended = next(row for row in rows if row["event"] == "RoundEnded")["round"]
    assert ended["number"] == 1
    assert ended["counts"] == dict.fromkeys(
        ("belief", "declined", "undecided", "dropped", "failed"), 1
    )
    assert rows[-1] | {"time": ""} == {
        "event": "RunEnded", "time": "", "folder": "runs/first", "outcome": "done", "error": ""
    }  # fmt: skip


def test_jsonl_holds_completions_if_asked(tmp_path: Path) -> None:
    play(jsonl.build(folder=tmp_path, file="logs/all.jsonl", completions=True), events())
    assert (tmp_path / "logs/all.jsonl").read_text().count('"CompletionDone"') == 16


def test_jsonl_appends_and_ends_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"event": "RunStarted", "ti')
    play(jsonl.build(folder=tmp_path), events())
    play(jsonl.build(folder=tmp_path), events())
    torn, *rest = file.read_text().splitlines()
    assert torn == '{"event": "RunStarted", "ti'
    assert [json.loads(line)["event"] for line in rest].count("RunEnded") == 2


def test_jsonl_flushes_each_line(tmp_path: Path) -> None:
    observer = jsonl.build(folder=tmp_path)
    observer.on_event(StepStarted(1, "ask", 5))
    assert (tmp_path / "events.jsonl").read_text().endswith("}\n")
    observer.close()


def test_the_time_left_goes_by_the_round_before(clock: Clock) -> None:
    stream = io.StringIO()
    observer = LiveRenderer(
        Console(force_terminal=True, file=stream, width=100, _environ={"TERM": "xterm"}), 3, clock
    )
    observer.on_event(RunStarted("first", "runs/first", 3, 0, MODEL))
    observer.on_event(StepStarted(1, "answer", 10))
    assert observer._progress.seconds_left is None  # nothing to go by
    clock.now += 60
    observer.on_event(RoundEnded(Round(1, ATTEMPTS)))
    observer.on_event(StepStarted(2, "answer", 10))
    clock.now += 15
    assert observer._progress.seconds_left == pytest.approx(45 + 60)
    observer._live.refresh()
    observer.close()
    assert "round 2 of 3 · 15.0 s · about 1 min 45 s left in all" in RICH.sub("", stream.getvalue())


def test_a_step_says_what_is_left_once_it_can_tell(clock: Clock) -> None:
    step = StepProgress("answer", 10, usual=4.0, clock=clock)
    clock.now += 10
    step.completions = 1
    assert step.seconds_left is None  # of 40: too few to go by
    step.completions = 10
    assert step.seconds_left == pytest.approx(30)


def test_what_is_logged_stays_above_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """The live picture takes over `sys.stderr`: a handler must look it up each time."""
    handler = _Stderr()
    taken = io.StringIO()
    with contextlib.redirect_stderr(taken):
        handler.emit(logging.LogRecord("selfloop.tune", logging.INFO, "", 0, "epoch 1/3", (), None))
    assert taken.getvalue() == "epoch 1/3\n" and capsys.readouterr().err == ""
