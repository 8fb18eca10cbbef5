"""What the tests share: a folder of its own for each, and the command line, run in this process."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from selfloop.cli import extras, main

# xdist sets the width of its workers' terminal; without one, selfloop prints as wide as it likes.
os.environ.pop("COLUMNS", None)

# A tuner that trains before a backend `hf` loads would give that one less exact products of BF16.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

# The same examples each time, so that a test that fails is one that somebody broke. To look for new
# ones: HYPOTHESIS_PROFILE=search pytest tests/properties
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "search", settings.get_profile("tests"), derandomize=False, max_examples=2000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))

RECIPE = """\
rounds: 1
backend: scripted
ask: {questions: 2, sources: [blank_slate]}
answer: {samples: 2}
"""


@dataclass(frozen=True)
class Said:
    """What a person sees of a command: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@cache
def _lacks(extra: str) -> bool:
    return bool(extras.missing(extra))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `extra("NAME")` where a package of that extra is not installed."""
    for marker in item.iter_markers("extra"):
        for extra in marker.args:
            if _lacks(extra):
                pytest.skip(f"needs the extra {extra}: {extras.pip(extra)}")


Selfloop = Callable[..., Said]
Query = Callable[..., list[Any]]

# CPU seconds that are plenty for a command which imports nothing heavy
QUICK_S = 0.5


def cpu_limit(seconds: float) -> float:
    """Return the seconds of CPU that code may take, given those that are plenty on a fast machine.

    Four times as many, twelve while coverage traces: only time that grows without bound is a fault,
    not a slow machine.
    """
    return 4 * seconds * (3 if sys.gettrace() else 1)


@dataclass(frozen=True)
class Measured:
    """What a bit of Python printed in a process of its own, what it imported, and the seconds of
    CPU it took.
    """

    stdout: str
    modules: set[str]
    seconds: float


def measured(code: str, **env: str) -> Measured:
    """Run a bit of Python elsewhere.

    CPU seconds, for the clock on the wall depends on who else is at work.
    """
    counting = (
        f"import contextlib, json, os, sys\nwith contextlib.suppress(SystemExit):\n    {code}\n"
        "print(json.dumps([list(sys.modules), sum(os.times()[:2])]), file=sys.stderr)"
    )
    # as installed
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", counting]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, env=given | env
    )
    # Other packages may have warned before.
    modules, seconds = json.loads(done.stderr.splitlines()[-1])
    return Measured(done.stdout, {name.split(".")[0] for name in modules}, seconds)


class Clock:
    """A clock that begins at 0 and is moved by hand: no test depends on how long the machine has
    been up.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reports() -> None:
    """Let runs of this test write their `report.html`."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty folder to work in, with no cache, no accepted licence and no runs elsewhere.

    Runs draw no report unless a test asks for `reports`: a second each, of hundreds of runs.
    """
    if "reports" not in request.fixturenames:
        monkeypatch.setattr(
            "selfloop_plugins.report.observer.Reporter.on_event", lambda self, event: None
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFLOOP_CACHE", str(tmp_path / "cache"))
    for name in ("SELFLOOP_ACCEPT_LICENSE", "SELFLOOP_RUNS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def write(work: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    """Write files by name, and return the folder."""

    def _write(files: Mapping[str, str | bytes]) -> Path:
        for name, content in files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return work

    return _write


@pytest.fixture
def selfloop(work: Path, capsys: pytest.CaptureFixture[str]) -> Selfloop:
    """Run `selfloop ARGS`; anything but a clean exit (a traceback) fails the test."""

    def _selfloop(*args: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        said = capsys.readouterr()
        return Said(int(left.value.code or 0), said.out, said.err)

    return _selfloop


@pytest.fixture
def query() -> Query:
    """Ask a run's database."""

    def _query(run: Path, sql: str, *values: object) -> list[Any]:
        db = sqlite3.connect(f"{(run / 'run.sqlite').resolve().as_uri()}?mode=ro", uri=True)
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    return _query
