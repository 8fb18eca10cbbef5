"""Every command reports an odd argument in a line, without a traceback, and does nothing else."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import RECIPE, Selfloop

from selfloop.cli import LONGEST

Write = Callable[[Mapping[str, str | bytes]], Path]
SHAPES = [
    ("run", "{}"),
    ("run", "r.yaml", "--runs", "{}"),
    ("resume", "{}"),
    ("check", "{}"),
    ("plan", "{}"),
    ("show", "{}"),
    ("rescore", "{}", "--set", "decide.belief=0.9"),
    ("ask", "{}", "Who was it?"),
    ("eval", "{}"),
    ("score", "{}", "q.jsonl"),
    ("report", "{}"),
    ("compare", "{}", "r"),
    ("dataset", "{}", "--to", "jsonl"),
    ("export", "{}", "--to", "gguf"),
    ("rollback", "{}", "--to", "0"),
    ("calibrate", "{}", "--labels", "q.jsonl"),
    ("plugins", "{}"),
    ("recipes", "{}"),
    ("new", "plugin", "{}", "--kind", "detector"),
    ("new", "recipe", "n.yaml", "--for", "knowledge", "--model", "{}"),
    ("new", "recipe", "n.yaml", "--model", "scripted", "--questions", "{}"),
]
ODD = [
    "",
    "-",
    "nowhere",
    "a_file",
    "loop",
    "dangling",
    "deep.yaml",
    "a\udc80b",
    "\x1b[31m",
    "x" * 300,
    "x" * 100_000,
]
EXPECTED = {  # what is an odd name, and no mistake
    ("new plugin", "nowhere"),
    ("new plugin", "a_file"),
    ("new plugin", "loop"),
    ("new plugin", "dangling"),
    ("run --runs", "-"),
    ("run --runs", "nowhere"),
    ("run --runs", "a\udc80b"),
    ("run --runs", "\x1b[31m"),
    ("new recipe --questions", "a_file"),
    ("new recipe --questions", "deep.yaml"),
}


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ascii(odd[:12]))
def test_an_odd_argument_is_one_message(odd: str, write: Write, selfloop: Selfloop) -> None:
    folder = write(
        {"r.yaml": RECIPE, "q.jsonl": '{"question": "Who?", "answer": "x"}\n', "a_file": "x\n"}
    )
    write({"deep.yaml": "x: " + "[" * 3000})
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("gone")
    for shape in SHAPES:
        name = " ".join(
            part for part in shape[:2] if part in ("new", "recipe", "plugin") or part == shape[0]
        )
        name += f" {shape[-2]}" if shape[-2] in ("--questions", "--runs") else ""
        said = selfloop(*(part.replace("{}", odd) for part in shape))
        if (name, odd) not in EXPECTED:
            assert said.code != 0, (shape, said)
            assert said.err.strip(), shape
            assert all(
                len(line) <= LONGEST + 500
                for line in said.err.splitlines()
                if line.startswith("selfloop: ")
            )


@pytest.mark.parametrize(
    "command",
    [
        ("run", "r.yaml", "--quiet", "--runs", ""),
        ("report", "runs/r", "--out", ""),
        ("compare", "runs/r", "runs/r", "--out", ""),
        ("beliefs", "--export", ""),
        ("dataset", "runs/r", "--to", "jsonl", "--out", ""),
        ("new", "recipe", ""),
        ("models", ""),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_this_folder(
    command: tuple[str, ...], write: Write, selfloop: Selfloop
) -> None:
    """It is a variable of a script that was not set."""
    folder = write({"r.yaml": RECIPE})
    assert selfloop("run", "r.yaml", "--quiet").code == 0
    before = sorted(folder.rglob("*"))
    said = selfloop(*command)
    assert said.code == 2
    assert "it is empty" in said.err
    assert sorted(folder.rglob("*")) == before


def test_a_home_behind_an_equals_sign_is_the_home(
    write: Write, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell replaces the ~ in --runs=~/runs, and a folder called ~ is nobody's wish."""
    folder = write({"r.yaml": RECIPE})
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert selfloop("run", "r.yaml", "--quiet", "--runs=~/mine").code == 0
    assert (folder / "home/mine/r").is_dir()
    assert not (folder / "~").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"HOME": None},
        {"HOME": "/proc/nope"},
        {"HOME": ""},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "1"},
        {"COLUMNS": "many"},
        {"SELFLOOP_CACHE": "/proc/nope"},
        {"TERM": "dumb"},
    ],
    ids=str,
)
def test_an_odd_environment_changes_nothing(
    variables: Mapping[str, str | None], write: Write
) -> None:
    folder = write(
        {
            "r.yaml": RECIPE.replace("[blank_slate]", "[{kind: file, path: q.txt}]"),
            "q.txt": "Who was 東京?\n",
        }
    )
    environment = {
        name: value for name, value in (os.environ | variables).items() if value is not None
    }
    for command in (("run", "r.yaml", "--set", "observers=[console]"), ("show", "r"), ("models",)):
        done = subprocess.run(
            [sys.executable, "-m", "selfloop.cli", *command],
            capture_output=True,
            cwd=folder,
            env=environment,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")


DEEP = "[" * 200_000
READERS = [
    ("show", "runs/x"),
    ("resume", "runs/x"),
    ("eval", "runs/x"),
    ("report", "runs/x"),
    ("beliefs", "runs/x"),
    ("rescore", "runs/x", "--set", "decide.belief=0.9"),
    ("dataset", "runs/x", "--to", "jsonl", "--out", "ds"),
    ("ask", "runs/x", "Who was it?"),
    ("compare", "runs/x", "runs/x"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "content"),
    [
        *[("meta.value", content) for content in ("{", DEEP, "null", "3", '{"a": 1}')],
        *[("sessions.versions", content) for content in ("{", DEEP)],
        *[("attempts.data", content) for content in ("{", DEEP, "null", "3", '{"a": 1}')],
        *[("completions.data", content) for content in ("{", "null", '{"a": 1}')],
    ],
    ids=lambda text: text[:16],
)
def test_a_damaged_record_of_a_run_is_one_message(
    column: str, content: str, write: Write, selfloop: Selfloop
) -> None:
    folder = write({"r.yaml": RECIPE})
    assert selfloop("run", "r.yaml", "--quiet", "--set", "name=x").code == 0
    table, _, name = column.partition(".")
    with sqlite3.connect(folder / "runs/x/run.sqlite") as db:
        db.execute(f"UPDATE {table} SET {name} = ?", (content,))
    codes = []
    for command in READERS:
        said = selfloop(*command)  # a traceback fails here
        codes.append(said.code)
        assert said.err.count("\n") <= 1 or said.code == 0, said.err
    assert 5 in codes or table == "completions"


@pytest.mark.slow
@pytest.mark.extra("report")
@pytest.mark.parametrize(
    "content",
    [
        "",
        DEEP,
        '{"event": "StepStarted", "time": "x"}',
        '{"event": "StepStarted", "time": "2020-01-01T00:00:00"}\n'
        '{"event": "RunEnded", "time": "2020-01-01T00:00Z"}',
        '{"event": 3, "time": 4}\n'
        '{"event": "TrainingStep", "time": "2020-01-01T00:00:00Z", "round": [], "loss": {}}',
    ],
    ids=lambda text: text[:24],
)
def test_a_damaged_log_of_a_run_leaves_its_report(
    content: str, write: Write, selfloop: Selfloop
) -> None:
    folder = write({"r.yaml": RECIPE})
    assert selfloop("run", "r.yaml", "--quiet").code == 0
    (folder / "runs/r/events.jsonl").write_text(content)
    assert selfloop("report", "r").code == 0
    assert selfloop("compare", "r", "r").code == 0
