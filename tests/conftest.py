"""What the tests share: a folder of its own for each, and the command line, run in this process."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selfloop.cli import main

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


Selfloop = Callable[..., Said]
Query = Callable[..., list[Any]]


@pytest.fixture
def reports() -> None:
    """Let runs of this test write their `report.html`."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty folder to work in, with no cache, no accepted licence and no runs elsewhere.

    Runs draw no report unless a test asks for `reports`: a second each, of hundreds of runs.
    """
    if "reports" not in request.fixturenames:
        monkeypatch.setattr("selfloop_plugins.report.observer.Reporter.notice", lambda self, event: None)
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
