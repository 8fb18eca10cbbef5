"""Plays a run that writes every kind of file, and kills it, or fills the disk, at each thing that
it does to one.

    python tests/state/driver.py kill FOLDER [few]
    python tests/state/driver.py full FOLDER [few]      # FOLDER lies on a small disk of its own

Events are what the process asks of the system: to open a file for writing, to flush it, to rename
it, and to change the database. They are counted below the code that is tested (an audit hook, and
`os` itself), so that a file which is written in another way is met too. At each event a fork of
this process dies, or finds the disk full; another fork resumes the run. Printed is one JSON object:
the points tried, and those whose run did not end as the undisturbed one.
"""

import json
import os
import resource
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

# sums of a few numbers; threads only wait
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

QUESTIONS = 24  # a round: a probe learns from no fewer than 20
RECIPE = f"""\
rounds: 2
plugins: [parts.py]
backend: scripted
ask: {{questions: {QUESTIONS}, sources: [{{kind: file, path: asked.jsonl}}], scorers: []}}
answer: {{samples: 3}}
detectors:
  - agreement
  - sequence_probability
  - meaning_probability
  - {{kind: question_probe, min_answers: 20}}
  - {{kind: combined, min_answers: 20}}
tuner: filed
observers: [jsonl, diversity, report, tracked]
"""
PARTS = '''
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from selfloop import Component, hookimpl
from selfloop.records import Adapter
from selfloop.storage import atomic
from selfloop_plugins import models
from selfloop_plugins.observers.trackers.tracker import tracker_id
from selfloop_plugins.tuners.lora import checkpoint, tuner


class Saved:
    """Writes files as peft does."""

    def __init__(self, weights):
        self.weights = weights

    def save_pretrained(self, folder):
        save_file(self.weights, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text("{}")


class Filed:
    """Trains a handful of numbers, with the checkpoints and the files of the tuner `lora`."""

    def tune(self, context):
        weights = {"a": torch.nn.Parameter(torch.arange(6.0))}
        optimizer = torch.optim.AdamW(weights.values(), lr=0.1)
        folder, name = context.folder / "checkpoint", str(context.round)
        done, begun, best = checkpoint.load_checkpoint(folder, name, weights, optimizer)
        for epoch in range(len(done) + 1, 3):
            begun = begun or checkpoint.BegunEpoch()
            for _ in range(len(begun.losses), 2):
                optimizer.zero_grad()
                loss = (weights["a"] ** 2).sum()
                loss.backward()
                optimizer.step()
                begun.losses.append(loss.item())
                checkpoint.save_checkpoint(folder, name, done, begun, weights, best, optimizer)
            best = checkpoint.copied(weights)
            done.append(checkpoint.EpochResult(epoch, sum(begun.losses), 0.0, 0.0))
            begun = None
            checkpoint.save_checkpoint(folder, name, done, begun, weights, best, optimizer)
        atomic.write_text(context.folder / "gate.json", json.dumps([one.loss for one in done]))
        path = tuner._write_adapter(Saved(best), context.folder, None)
        return Adapter(str(path), models.sha256(path), context.round)


class Tracked:
    def __init__(self, *, folder: Path) -> None:
        self.file = folder / "tracked.id"

    def on_event(self, event):
        tracker_id(self.file, "[0-9a-f]{8}", lambda: "0123abcd")

    def close(self):
        pass


@hookimpl
def selfloop_tuners():
    return [Component("filed", Filed, doc="writes what the tuner lora writes")]


@hookimpl
def selfloop_observers():
    return [Component("tracked", Tracked, doc="keeps an id as trackers do")]
'''
RECORDS = (
    "SELECT round, position, question, answer, decision, confidence, reason, data FROM attempts "
    "ORDER BY 1, 2",
    "SELECT a.round, a.position, v.detector, v.candidate, v.confidence, v.reason FROM verdicts v"
    " JOIN attempts a ON a.id = v.attempt ORDER BY 1, 2, 3, 4",
    "SELECT key, sample, step, text, data FROM completions ORDER BY 1, 2",
    "SELECT key, step, data FROM readings ORDER BY 1",
    "SELECT number, adapter FROM rounds ORDER BY 1",
    "SELECT round, step, component, type, message FROM failures ORDER BY 1, 2, 3, 4, 5",
)
# files that must be the same too, byte for byte
FILES = ("recipe.yaml", "calibration.json", "question_probe.json", "tracked.id", "report.html")
FILES += tuple(
    f"adapters/round-00{n}/{name}"
    for n in (1, 2)
    for name in ("gate.json", "adapter_model.safetensors")
)
SHOWN = 10  # bytes of a file that are written before a process is killed in the midst of it
CHANGES = ("BEGIN", "COMMIT", "INSERT", "DELETE", "CREATE", "PRAGMA journal_mode")

Disturb = Callable[[str, str, object], None]


class Watch:
    """Counts events below a folder, and calls `disturb` at one of them."""

    def __init__(self, below: Path) -> None:
        self.below = str(below)
        self.events: list[tuple[str, str]] = []
        self.at = -1
        self.disturb: Disturb = lambda *_: None
        self.recording = False

    def event(self, kind: str, path: str, what: object = None) -> None:
        if not self.recording or not path.startswith(self.below):
            return
        self.events.append((kind, label(path)))
        if len(self.events) - 1 == self.at:
            self.recording = False
            self.disturb(kind, path, what)

    def install(self) -> None:
        """Listen from now on, in this process and its forks."""
        sys.addaudithook(self._opened)
        for name in ("replace", "rename", "link", "fsync"):
            setattr(os, name, self._watched(name, getattr(os, name)))
        connect = sqlite3.connect
        watch = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                watch.changed(sql)
                return super().execute(sql, *values)

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                watch.changed(sql)
                return super().executemany(sql, *values)

            def executescript(self, sql: str) -> sqlite3.Cursor:
                watch.changed(sql)
                return super().executescript(sql)

        sqlite3.connect = lambda *args, **options: connect(*args, factory=Connection, **options)  # type: ignore

    def changed(self, sql: str) -> None:
        if sql.startswith(CHANGES):
            self.event("sql", f"{self.below}/{' '.join(sql.split()[:3])}")

    def _opened(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
            self.event(
                "open", os.path.realpath(os.fspath(args[0])) if not isinstance(args[0], int) else ""
            )

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(what: Any, *args: Any, **options: Any) -> Any:
            path = (
                str(Path(f"/proc/self/fd/{what}").readlink())
                if isinstance(what, int)
                else os.path.realpath(what)
            )
            self.event(name, path, what)
            done = call(what, *args, **options)
            self.event(f"{name}d", path)  # right after it
            return done

        return watched


def label(path: str) -> str:
    """Return a file's name, a temporary one as the name of what it becomes."""
    name = Path(path).name
    return (
        f"{name[1:].split('.')[0]}(part)"
        if name.startswith(".") and name.endswith(".part")
        else name
    )


# --- what is done at an event


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_the_midst(kind: str, path: str, what: object) -> None:
    """Die while the file is written: of a file being opened after some bytes, of one being flushed
    with half of it.
    """
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    if kind == "fsync" and isinstance(what, int) and Path(path).is_file():
        os.ftruncate(what, size // 2)
        kill()
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + SHOWN, resource.RLIM_INFINITY))


def fill(folder: Path) -> None:
    """Leave no byte of the disk."""
    with (folder / "filler").open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


# --- runs


def forked(work: Callable[[], object]) -> tuple[int, str]:
    """Do something in a fork; return its exit code, or minus the signal that killed it, and what it
    printed.
    """
    output = os.memfd_create("output")  # in memory, for the disk may be full
    process = os.fork()
    if process:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with os.fdopen(output, "rb") as file:
            file.seek(0)
            return code, file.read().decode(errors="replace")
    code = 99
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:  # noqa: BLE001  a fork must not go on in the parent's code
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def play(runs: Path) -> None:
    """Run the recipe, or go on with the run."""
    from selfloop.cli import main

    run = runs / "recipe"
    begun = (run / "recipe.yaml").is_file()
    if not begun:
        shutil.rmtree(run, ignore_errors=True)  # killed before anything was asked
    main(["resume", str(run)] if begun else ["run", "recipe.yaml", "--runs", str(runs)])


def outcome(run: Path) -> dict[str, object]:
    """Return all records of a run, its files, and what is left half written."""
    db = sqlite3.connect(run / "run.sqlite")
    found: dict[str, object] = {sql: db.execute(sql).fetchall() for sql in RECORDS}
    db.close()
    for name in FILES:
        found[name] = (run / name).read_bytes() if (run / name).is_file() else None
    found["left over"] = sorted(str(path.relative_to(run)) for path in run.rglob("*.part"))
    return found


def points(events: list[tuple[str, str]]) -> list[int]:
    """Return the first and the last event of each kind for each file, in order."""
    first: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], int] = {}
    for number, event in enumerate(events):
        first.setdefault(event, number)
        last[event] = number
    return sorted({*first.values(), *last.values()})


FEW = (  # what the tests try, once for each file: the moments that differ most
    ("open", "midst"),
    ("fsync", "midst"),
    ("replace", "before"),
    ("sql", "before"),
    ("open", "full"),
    ("sql", "full"),
)


def is_tried(event: tuple[str, str], way: str, few: bool, seen: set[tuple[str, str]]) -> bool:
    """Return whether a point is tried: all of them, or `few`, one for each file and moment."""
    kind, name = event
    if way == "midst" and kind not in ("open", "fsync"):
        return False
    if not few:
        return True
    is_new = (f"{kind} {way}", name) not in seen
    seen.add((f"{kind} {way}", name))
    is_write = kind != "fsync" or name.endswith(("(part)", ".safetensors"))
    return is_new and is_write and (kind, way) in FEW


def main(mode: str, folder: Path, *, few: bool = False) -> None:
    os.chdir(folder)
    Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    Path("parts.py").write_text(PARTS, encoding="utf-8")
    asked = [
        json.dumps({"question": f"Which town is number {n} on the list?"})
        for n in range(2 * QUESTIONS)
    ]
    Path("asked.jsonl").write_text("\n".join(asked), encoding="utf-8")

    import numpy as np  # noqa: F401  imported once, before the forks
    import scipy.optimize  # noqa: F401
    import torch
    from selfloop_plugins.detectors import combined, probes  # noqa: F401
    from selfloop_plugins.report import page
    from selfloop_plugins.tuners.lora import checkpoint, tuner  # noqa: F401

    from selfloop import cli, runner  # noqa: F401

    torch.set_num_threads(1)
    # drawing takes a second
    page.page = lambda run, live="": f"<!doctype html><p>{len(run.rounds)} rounds"
    watch = Watch(folder.resolve() / "runs")
    watch.install()

    def recorded() -> None:
        watch.recording = True
        try:
            play(Path("runs"))
        finally:
            Path("events.json").write_text(json.dumps(watch.events))

    with suppress(SystemExit), redirect_stdout(StringIO()):
        play(Path("warm"))  # what is read and built once is there before the forks
    shutil.rmtree("warm")
    code, said = forked(recorded)
    assert code == 0, said
    events = [(kind, name) for kind, name in json.loads(Path("events.json").read_text())]
    whole = outcome(Path("runs/recipe"))
    shutil.rmtree("runs")
    ways: dict[str, Disturb] = {"before": kill, "midst": kill_in_the_midst}
    if mode == "full":
        ways = {"full": lambda *_: fill(folder)}
    tried, wrong, seen = list[str](), list[str](), set[tuple[str, str]]()
    for number in points(events):
        kind, name = events[number]
        for way, disturb in ways.items():
            if not is_tried(events[number], way, few, seen):
                continue
            point = f"{kind} {name} #{number} {way}"
            tried.append(point)
            problem = disturbed(watch, number, disturb, whole)
            if problem:
                wrong.append(f"{point}: {problem}")
    print(json.dumps({"tried": tried, "wrong": wrong}))


def disturbed(watch: Watch, number: int, disturb: Disturb, whole: dict[str, object]) -> str:
    """Disturb one run and resume it; return what is wrong with how it ended, or nothing."""

    def attempt() -> None:
        watch.at, watch.disturb, watch.recording = number, disturb, True
        play(Path("runs"))

    runs, filler = Path("runs"), Path("filler")
    code, said = forked(attempt)
    filled = filler.exists()
    filler.unlink(missing_ok=True)
    problem = ""
    if filled and (
        code not in (0, 5) or (code == 5 and "Free some space" not in said) or "Traceback" in said
    ):
        problem = f"the full disk ended it with {code}: {said[-800:]}"
    if not filled and code not in (0, -signal.SIGKILL, -signal.SIGXFSZ):
        problem = f"it was to be killed, and ended with {code}: {said[-800:]}"
    code, said = forked(lambda: play(runs))
    if code != 0:
        problem += f" the resumed run ended with {code}: {said[-800:]}"
    else:
        ended = outcome(runs / "recipe")
        differ = [name for name in whole if ended[name] != whole[name]]
        if differ:
            problem += f" other records: {differ}"
    shutil.rmtree(runs, ignore_errors=True)
    return problem


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), few="few" in sys.argv[3:])
