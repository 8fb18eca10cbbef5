"""Kill it anywhere: what a run was when it ended does not depend on how often it was stopped."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Query, Selfloop

pytestmark = pytest.mark.slow

RECIPE = """\
rounds: 2
backend: {kind: scripted, delay: 0.01}
ask: {questions: 3, sources: [blank_slate, topics]}
answer: {samples: 2}
critique: plain
"""
KILLS = 20
MOST = 30.0  # seconds that anything here may take

Write = Callable[[Mapping[str, str]], Path]


def start(runs: str, *command: str, **kwargs: Any) -> subprocess.Popen[str]:
    command = command or ("run", "recipe.yaml")
    line = [sys.executable, "-m", "selfloop.cli", *command, "--runs", runs]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def stored(run: Path) -> int:
    """Return how many completions lie in a run's database; 0 if there is none yet."""
    try:
        db = sqlite3.connect(f"{(run / 'run.sqlite').absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        return int(db.execute("SELECT count(*) FROM completions").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        db.close()


def wait(process: subprocess.Popen[str], run: Path, completions: int) -> None:
    """Wait until so many completions are stored, or the process is through."""
    end = time.monotonic() + MOST
    while stored(run) < completions and process.poll() is None and time.monotonic() < end:
        time.sleep(0.004)


def killed(number: int, completions: int) -> tuple[Path, int]:
    """Kill a run when it has about so many completions; return its folder and how it ended."""
    run = Path(f"runs-{number}/recipe")
    process = start(f"runs-{number}")
    wait(process, run, completions)
    time.sleep(number % 5 * 0.002)  # not always right after a completion
    process.kill()
    process.communicate()
    return run, process.returncode


RECORDS = {
    "attempts": "SELECT round, position, question, answer, decision, confidence, reason, data"
    " FROM attempts ORDER BY 1, 2",
    "verdicts": "SELECT a.round, a.position, v.detector, v.candidate, v.confidence, v.reason"
    " FROM verdicts v JOIN attempts a ON a.id = v.attempt ORDER BY 1, 2, 3, 4",
    "completions": "SELECT key, sample, step, text, data FROM completions ORDER BY 1, 2",
    "rounds": "SELECT number, adapter FROM rounds ORDER BY 1",
    "failures": "SELECT round, step, component, type, message FROM failures ORDER BY 1, 2, 3, 4, 5",
}


@pytest.fixture
def whole(write: Write, selfloop: Selfloop) -> Iterator[Path]:
    """A run that nobody stopped; how slow the model is does not matter."""
    write({"recipe.yaml": RECIPE})
    assert selfloop("run", "recipe.yaml", "--runs", "whole", "--set", "backend.delay=0").code == 0
    yield Path("whole/recipe")


def test_kill_anywhere(whole: Path, selfloop: Selfloop, query: Query) -> None:
    expected = {name: query(whole, sql) for name, sql in RECORDS.items()}
    total = len(expected["completions"])
    assert total > KILLS
    assert {step for _, _, step, _, _ in expected["completions"]} == {
        "ask",
        "answer",
        "critique",
        "revise",
    }
    moments = [1 + i * (total - 1) // KILLS for i in range(KILLS)]
    with ThreadPoolExecutor(5) as pool:
        ended = list(pool.map(killed, range(KILLS), moments))
    assert sum(code == -signal.SIGKILL for _, code in ended) >= KILLS - 2
    for run, code in ended:
        before = stored(run)
        recipe = run / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("0.01", "0"))
        assert selfloop("resume", run).code == 0
        assert {name: query(run, sql) for name, sql in RECORDS.items()} == expected
        sessions = dict(query(run, "SELECT session, count(*) FROM completions GROUP BY session"))
        assert sessions.get(1, 0) == before, "what was stored before the kill was generated then"
        assert sum(sessions.values()) == total
        assert set(sessions) <= {1, 2}
        assert code == 0 or before < total or 2 not in sessions


def test_kill_again_and_again(whole: Path, query: Query) -> None:
    run = Path("runs/recipe")
    total, process = stored(whole), start("runs")
    for completions in (4, 12, 20, 28):
        wait(process, run, completions)
        process.kill()
        process.communicate()
        process = start("runs", "resume", "recipe")
    out, err = process.communicate(timeout=MOST)
    assert (process.returncode, err) == (0, "")
    assert "Run saved to runs/recipe" in out
    assert stored(run) == total
    assert all(query(run, sql) == query(whole, sql) for sql in RECORDS.values())
    assert query(run, "SELECT count(*) FROM sessions") == [(5,)]


def test_resume_of_a_run_that_is_done_changes_nothing(
    whole: Path, selfloop: Selfloop, query: Query
) -> None:
    before = {name: query(whole, sql) for name, sql in RECORDS.items()}
    said = selfloop("resume", whole)
    assert said.code == 0
    assert "2 of 2 rounds done" in said.out
    assert {name: query(whole, sql) for name, sql in RECORDS.items()} == before


def test_a_resumed_run_keeps_its_name(whole: Path, write: Write, selfloop: Selfloop) -> None:
    write({"other.yaml": RECIPE.replace("0.01", "0")})
    assert "run other ·" in selfloop("run", "other.yaml").out
    assert "run other ·" in selfloop("resume", "other").out


def test_only_one_process_works_on_a_run(write: Write, selfloop: Selfloop, query: Query) -> None:
    write({"recipe.yaml": RECIPE.replace("0.01", "0.03")})
    run = Path("runs/recipe")
    first = start("runs")
    wait(first, run, 3)
    first.kill()
    first.communicate()
    second = start("runs", "resume", "recipe")
    wait(second, run, 8)
    said = selfloop("resume", run)
    assert said.code == 6
    assert "another process is working on runs/recipe. Wait for it, or stop it first." in said.err
    _, err = second.communicate(timeout=MOST)
    assert (second.returncode, err) == (0, "")
    assert query(run, "SELECT count(*) FROM sessions") == [(2,)]


@pytest.mark.skipif(
    sys.platform == "win32", reason="there Ctrl-C is no signal that can be sent to one process"
)
def test_ctrl_c(whole: Path, selfloop: Selfloop, query: Query) -> None:
    run = Path("runs/recipe")
    # whoever runs the tests in the background may have SIGINT ignored, which a child would inherit
    process = start("runs", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait(process, run, 10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=MOST)
    assert process.returncode == 130
    assert err.strip().endswith(
        f"stopped; the finished work is stored. Go on: selfloop resume {run}"
    )
    assert "Traceback" not in out + err
    assert '"outcome": "stopped"' in (run / "events.jsonl").read_text().splitlines()[-1]
    assert selfloop("resume", run).code == 0
    assert all(query(run, sql) == query(whole, sql) for sql in RECORDS.values())
