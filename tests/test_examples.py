"""The examples run as they say, and the package among them is a plugin like any other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Selfloop

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DOUBT = ROOT / "examples" / "selfloop-doubt"

pytest.importorskip(
    "selfloop_doubt", reason="pip install --no-deps -e examples/selfloop-doubt (`make test` does)"
)


def python(*args: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_as_a_library(work: Path) -> None:
    script = ROOT / "examples" / "as_a_library.py"
    out = python(str(script), cwd=work)
    assert "round 1: " in out
    assert "round 2: " in out
    assert sum(line.startswith("  0.") for line in out.splitlines()) == sum(
        int(line.split()[2])
        for line in out.splitlines()
        if line.startswith("round") and " believed" in line
    )
    assert list(work.iterdir()) == [], "it leaves nothing behind"


def test_the_notebook(work: Path) -> None:
    """Its code runs from the first cell to the last, and nobody's outputs are in it."""
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    names: dict[str, Any] = {}
    for cell in code:
        exec("".join(cell["source"]), names)
    assert names["run"].folder == Path("runs/notebook")
    assert len(names["run"].rounds) == 2 and names["run"].beliefs and names["run"].declined


def test_the_package_passes_its_own_tests(work: Path) -> None:
    assert " passed" in python("-m", "pytest", "-p", "no:cacheprovider", str(DOUBT), cwd=work)


def test_the_package_is_listed_with_where_it_comes_from(selfloop: Selfloop) -> None:
    said = selfloop("plugins", "budgeted", "hedging")
    assert said.text.count("from doubt (selfloop-doubt 0.1.0)") == 2
    assert "option budget: int >= 1 (required)\n" in said.out
    assert "wraps another backend: option inner\n" in said.out
    assert "option inner: component (required)\n" in said.out


def test_the_package_works_in_a_run(selfloop: Selfloop, work: Path) -> None:
    assert selfloop("run", DOUBT / "recipe.yaml", "--runs", work).code == 0
    shown = json.loads(selfloop("show", work / "recipe", "--json").out)
    ended = {attempt["decision"] for attempt in shown["attempts"]}
    assert {"failed", "declined"} <= ended, "the budget is spent in the middle of the answers"
    verdicts = [
        v
        for attempt in shown["attempts"]
        for v in attempt["verdicts"]
        if v["detector"] == "hedging"
    ]
    assert {v["reason"] for v in verdicts} == {"no hedge words, which says nothing"}
    assert (
        "answer budgeted: RequestError: the token budget of 250 is spent"
        in selfloop("show", work / "recipe", "--failures").out
    )
    assert "plugin doubt" in shown["sessions"][0]


def test_a_run_that_ran_out_of_budget_is_not_asked_again(selfloop: Selfloop, work: Path) -> None:
    """A round that ended is kept as it ended."""
    selfloop("run", DOUBT / "recipe.yaml", "--runs", work)
    before = selfloop("show", work / "recipe").out
    assert selfloop("resume", work / "recipe").code == 0
    assert selfloop("show", work / "recipe").out == before


def test_options_of_the_wrapped_backend_are_checked_before_a_run(selfloop: Selfloop) -> None:
    change = "backend.inner={kind: scripted, contxt: 5}"
    said = selfloop("check", DOUBT / "recipe.yaml", "--set", change)
    assert (said.code, said.out) == (2, "")
    assert f"--set {change}: backend.inner.contxt: unknown key. Did you mean 'context'?" in said.err
