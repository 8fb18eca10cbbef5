"""The command line as a person sees it: what is printed where, and with which exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from shlex import split

import pytest
from conftest import RECIPE, Query, Selfloop

from selfloop import __version__
from selfloop.cli import COMMANDS
from selfloop.config.bundled import names
from selfloop.records import Failure
from selfloop.storage.run_folder import RECIPE as RECIPE_FILE
from selfloop.storage.store import Store

Write = Callable[[Mapping[str, str]], Path]

QUESTIONS = """\
What is the capital of Egypt?
Which planet is the largest one?
Who painted the ceiling of the chapel?
What is it?
What is the capital of Egypt, then?
"""
# replies that decide: the draft and most samples agree, or none do, or there is no answer
SCRIPT = {
    r"Egypt\?\nAnswer:\s*$": ["Cairo"],
    r"planet is the largest one\?\nAnswer:\s*$": ["I don't know"],
    r"chapel\?\nAnswer:\s*$": [f"painter {i}" for i in range(200)],
    r"": ["The answer is right."],
}
FIXED = """\
rounds: 2
backend: {kind: scripted, script: script.json}
ask:
  questions: 2
  sources: [{kind: file, path: questions.txt}]
  scorers: [{kind: well_formed, min_score: 1}, {kind: novelty, min_score: 0.25}]
answer: {samples: 6}
critique: none
detectors: [agreement]
"""


@pytest.fixture
def run(write: Write, selfloop: Selfloop) -> Path:
    """A run whose every answer is known."""
    folder = write(
        {"questions.txt": QUESTIONS, "script.json": json.dumps(SCRIPT), "fixed.yaml": FIXED}
    )
    assert selfloop("run", "fixed.yaml").code == 0
    return folder / "runs/fixed"


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


# --- help


def test_help_names_every_command(selfloop: Selfloop) -> None:
    said = selfloop("--help")
    assert (said.code, said.err) == (0, "")
    named = [
        line.split()[0]
        for line in said.out.split("Commands:\n")[1].splitlines()
        if line[2:3] != " "
    ]
    more = ["beliefs", "calibrate", "compare", "dataset", "doctor", "export", "models"]
    more += ["new", "recipes", "report", "rollback", "view"]
    assert named == [*COMMANDS, *more], "a plugin's come last"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name: str, selfloop: Selfloop) -> None:
    said = selfloop(name, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: selfloop {name} ")


def test_version(selfloop: Selfloop) -> None:
    assert selfloop("--version").out == f"selfloop, version {__version__}\n"


@pytest.mark.parametrize(
    "args", [("rum",), ("run",), ("run", "--no-such"), ("show", "x", "--only", "maybe"), ("show",)]
)
def test_wrong_use_is_said_with_the_usage(args: tuple[str, ...], selfloop: Selfloop) -> None:
    said = selfloop(*args)
    assert (said.code, said.out) == (2, "")
    assert "Usage: selfloop" in said.err
    assert "Error: " in said.err


@pytest.mark.parametrize(
    "args",
    [
        ("run", "LONG"),
        ("check", "LONG.yaml"),
        ("show", "LONG"),
        ("ask", "LONG", "Who was it?"),
        ("new", "recipe", "LONG", "--model", "scripted"),
        ("new", "recipe", "--model", "LONG", "--for", "knowledge"),
        ("new", "plugin", "LONG", "--kind", "source"),
        ("recipes", "dry-run", "--out", "LONG"),
    ],
    ids=" ".join,
)
def test_what_the_system_refuses_is_said(args: tuple[str, ...], selfloop: Selfloop) -> None:
    """A question in place of a model, for one, may be longer than any file's name."""
    said = selfloop(*(arg.replace("LONG", "what" * 80) for arg in args))
    assert (said.code, said.out) == (5, "")
    assert said.err.startswith(f"selfloop: {'selfloop-' * ('plugin' in args)}whatwhat")
    assert (
        ": File name too long. Give another file or folder, or see who may use this one" in said.err
    )


# --- run


def test_run_ends_with_a_summary(run: Path, selfloop: Selfloop) -> None:
    said = selfloop("run", "fixed.yaml")
    shown = lines(said.out)
    start = shown.index("Results")
    assert shown[start + 1] == "round asked belief undecided declined failed revised dropped"
    assert shown[start + 3 : start + 5] == ["1 2 1 0 1 0 0 0", "2 1 0 0 1 0 0 2"]
    assert shown[start + 5 :] == [
        "dropped 1 by `novelty`, 1 by `well_formed`",
        "1.00 What is the capital of Egypt? — Cairo",
        "Run saved to runs/fixed-2. Inspect it with: selfloop show runs/fixed-2",
    ]
    assert said.err == ""


def test_no_figure_of_the_summary_is_cut(
    run: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table, found, _ = selfloop("run", "fixed.yaml").out.partition("  dropped ")
    assert found and "…" not in table[table.index("Results") :]


def test_what_to_type_next_can_be_typed(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    said = selfloop("run", "r.yaml", "--runs", "my runs")
    command = next(line for line in said.out.splitlines() if "Inspect it with" in line).partition(
        "Inspect it with: "
    )[2]
    _, *words = split(command)
    assert words == ["show", "my runs/r"] and selfloop(*words).code == 0


def test_a_quiet_run_says_where_it_lies_and_no_more(run: Path, selfloop: Selfloop) -> None:
    said = selfloop("run", "fixed.yaml", "--quiet")
    assert (said.code, said.out, said.err) == (0, "runs/fixed-2\n", "")
    assert selfloop("resume", "fixed-2", "--quiet").out == "runs/fixed-2\n"


def test_run_json_is_json_alone(run: Path, selfloop: Selfloop) -> None:
    said = selfloop("run", "fixed.yaml", "--json")
    found = json.loads(said.out)
    assert said.err == ""
    assert found["run"] == "runs/fixed-2"
    assert [(r["asked"], r["belief"], r["declined"]) for r in found["rounds"]] == [
        (2, 1, 1),
        (1, 0, 1),
    ]
    assert found["beliefs"] == [
        {"question": "What is the capital of Egypt?", "answer": "Cairo", "confidence": 1.0}
    ]
    assert found["dropped"] == {"well_formed": 1, "novelty": 1}
    assert found["failures"] == 0


def test_the_summary_counts_what_revisions_change(write: Write, selfloop: Selfloop) -> None:
    recipe = "rounds: 1\nbackend: scripted\ncritique: plain\n"
    recipe += "ask: {questions: 6, sources: [blank_slate]}\n"
    write({"revised.yaml": recipe})
    found = json.loads(selfloop("run", "revised.yaml", "--json").out)
    assert found["flips"] and all(n["accepted"] <= n["revisions"] for n in found["flips"].values())
    flip, n = next(iter(found["flips"].items()))
    shown = selfloop("run", "revised.yaml").out
    assert f"revisions: {n['revisions']} {flip} ({n['accepted']} accepted)" in shown
    assert f"flip {flip}" in " ".join(
        selfloop("show", "runs/revised", "--question", "?").out.split()
    )


def test_a_run_never_writes_into_another(run: Path, selfloop: Selfloop) -> None:
    before = (run / "run.sqlite").read_bytes()
    for number in (2, 3):
        assert f"runs/fixed-{number}" in selfloop("run", "fixed.yaml").out
    assert (run / "run.sqlite").read_bytes() == before


def test_the_same_recipe_gives_the_same_run(run: Path, selfloop: Selfloop, query: Query) -> None:
    sql = "SELECT data FROM attempts ORDER BY id"
    assert selfloop("run", "fixed.yaml").code == 0
    assert query(run, sql) == query(run.with_name("fixed-2"), sql)


def test_the_recipe_is_kept_as_run(write: Write, selfloop: Selfloop) -> None:
    folder = write({"r.yaml": "# why\n" + RECIPE})
    assert (
        selfloop(
            "run",
            "r.yaml",
            "--set",
            "answer.samples=3",
            "--set",
            "backend.delay=0",
            "--set",
            "name=x",
        ).code
        == 0
    )
    kept = (folder / "runs/x/recipe.yaml").read_text()
    assert kept.startswith("# why\n")
    assert "answer: {samples: 3}" in kept
    assert "name: x" in kept
    assert selfloop("check", "runs/x/recipe.yaml").code == 0


def test_runs_can_lie_elsewhere(
    write: Write, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write({"r.yaml": RECIPE})
    monkeypatch.setenv("SELFLOOP_RUNS", "a/b")
    assert selfloop("run", "r.yaml").code == 0
    assert selfloop("run", "r.yaml", "--runs", "c").code == 0
    assert sorted(str(p.parent.relative_to(folder)) for p in folder.rglob("run.sqlite")) == [
        "a/b/r",
        "c/r",
    ]
    assert (
        selfloop("show", "r").code
        == selfloop("resume", "r").code
        == selfloop("show", "c/r").code
        == 0
    )


def test_paths_are_relative_to_the_recipe_also_when_resumed(
    write: Write, selfloop: Selfloop, query: Query
) -> None:
    folder = write(
        {
            "deep/questions.txt": QUESTIONS,
            "deep/script.json": json.dumps(SCRIPT),
            "deep/fixed.yaml": FIXED,
        }
    )
    assert selfloop("run", "deep/fixed.yaml", "--set", "rounds=1").code == 0
    recipe = folder / "runs/fixed/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rounds: 1", "rounds: 2"))
    assert selfloop("resume", "fixed").code == 0
    assert query(folder / "runs/fixed", "SELECT count(*) FROM rounds") == [(2,)]


@pytest.mark.parametrize("chat", [True, False])
def test_chat_and_base_models_run(chat: bool, write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE})
    said = selfloop("run", "r.yaml", "--json", "--set", f"backend.chat={str(chat).lower()}")
    assert said.code == 0
    assert json.loads(said.out)["rounds"][0]["asked"] == 2


# --- show


def test_show_rounds(run: Path, selfloop: Selfloop) -> None:
    shown = selfloop("show", "fixed").out.splitlines()
    assert shown == [
        "round 1: 1 belief, 1 declined, 0 undecided, 0 dropped, 0 failed",
        "  1.00 belief    What is the capital of Egypt? — Cairo",
        "       declined  Which planet is the largest one? — I don't know  (the model declined)",
        "round 2: 0 belief, 1 declined, 0 undecided, 2 dropped, 0 failed",
        shown[4],
    ]
    assert shown[4].startswith("  0.00 declined  Who painted the ceiling of the chapel? — painter ")
    assert shown[4].endswith("  (confidence 0.00)")


def test_show_only(run: Path, selfloop: Selfloop) -> None:
    assert lines(selfloop("show", run, "--only", "dropped").out)[1:] == [
        "round 2: 0 belief, 1 declined, 0 undecided, 2 dropped, 0 failed",
        "dropped What is it? (well_formed: points at something unsaid ('it'))",
        "dropped What is the capital of Egypt, then? (novelty: like 'What is the capital of "
        "Egypt?')",
    ]


def test_show_a_question(run: Path, selfloop: Selfloop) -> None:
    shown = lines(selfloop("show", run, "--question", "LARGEST").out)
    assert shown[:2] == ["round 1", "question Which planet is the largest one? (from file)"]
    assert "score well_formed 1.00" in shown
    assert sum(line.startswith('sample "I don\'t know"') for line in shown) == 6
    assert shown[-1] == "declined I don't know (draft; the model declined)"
    assert (
        selfloop("show", run, "--question", "no\nsuch").out
        == "none of these questions contains 'no such'\n"
    )


def test_show_json(run: Path, selfloop: Selfloop) -> None:
    found = json.loads(selfloop("show", run, "--json", "--only", "belief").out)
    (attempt,) = found["attempts"]
    assert (attempt["round"], attempt["decision"], attempt["draft"]["text"]) == (
        1,
        "belief",
        "Cairo",
    )
    assert found["pinned"]["name"] == "fixed"
    assert found["sessions"][0]["selfloop"] == __version__


def test_show_failures(run: Path, selfloop: Selfloop) -> None:
    assert selfloop("show", run, "--failures").out == "nothing failed\n"


@pytest.mark.extra("report")
def test_a_run_that_was_stopped_in_its_first_round(work: Path, selfloop: Selfloop) -> None:
    """It has nothing to show, and says so; what went wrong until then is not lost."""
    folder = Path("runs/early")
    with closing(Store(folder, write=True)) as store:
        store.save_file(RECIPE_FILE, RECIPE)
        store.save_failures([Failure("observe", "bad", "RuntimeError", "no server")])
    assert selfloop("show", "early").out.endswith("go on with: selfloop resume runs/early\n")
    assert (
        selfloop("show", "early", "--failures").out
        == "round 0 observe bad: RuntimeError: no server\n"
    )
    assert selfloop("report", "early").code == 0
    assert "observe bad: no server" in (folder / "report.html").read_text("utf-8")


def test_text_of_a_model_moves_no_cursor(write: Write, selfloop: Selfloop) -> None:
    """Escape sequences, line breaks and markup that a model writes are shown, and do nothing."""
    evil = "\x1b[2J\x1b]0;pwned\x07[bold red]\u202eCairo\r"
    write(
        {
            "r.yaml": FIXED.replace("samples: 6", "samples: 2"),
            "script.json": json.dumps({"": [evil]}),
            "questions.txt": QUESTIONS,
        }
    )
    said = selfloop("run", "r.yaml")
    shown = said.text + "".join(
        selfloop("show", "r", *args).text for args in ((), ("--question", "Egypt"))
    )
    assert said.code == 0
    assert "[bold red]" in shown
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(shown)


# --- check, plugins


def test_check(run: Path, selfloop: Selfloop) -> None:
    assert (
        selfloop("check", "fixed.yaml").out
        == "fixed.yaml can run: 2 rounds, 4 questions at most.\n"
    )
    found = json.loads(selfloop("check", "fixed.yaml", "--set", "rounds=3", "--json").out)
    assert (found["name"], found["rounds"], found["answer"]["samples"]) == ("fixed", 3, 6)


KNOWLEDGE = pytest.param("knowledge", marks=pytest.mark.extra("stats"))


@pytest.mark.parametrize("name", [KNOWLEDGE if name == "knowledge" else name for name in names()])
def test_recipes_that_come_with_selfloop_can_run(name: str, selfloop: Selfloop) -> None:
    said = selfloop("check", name, "--accept-license")
    assert said.code == 0, said.err


def test_plugins(selfloop: Selfloop) -> None:
    said = selfloop("plugins", "agreement")
    assert (said.code, said.err) == (0, "")
    assert lines(said.out)[0] == "detector agreement: share of the samples that say the same"
    assert "https://arxiv.org/abs/2203.11171" in said.out
    found = json.loads(selfloop("plugins", "--json").out)
    rows = {(row["kind"], row["name"]): row for row in found["components"]}
    assert ("backend", "llama_cpp") in rows
    assert rows["detector", "sequence_probability"]["needs"] == ["logprobs"]
    assert {o["name"] for o in rows["backend", "scripted"]["options"]} == {
        "script",
        "chat",
        "context",
        "delay",
    }


def test_plugins_of_a_kind(selfloop: Selfloop) -> None:
    found = json.loads(selfloop("plugins", "--kind", "critic", "--json").out)["components"]
    assert {row["kind"] for row in found} == {"critic"}
    assert {row["name"] for row in found} >= {"plain", "independent", "contrast"}
    found = json.loads(selfloop("plugins", "--kind", "command", "--json").out)["components"]
    assert {"beliefs", "new", "recipes"} <= {row["name"] for row in found}


def test_plugins_of_one_plugin(selfloop: Selfloop) -> None:
    shown = json.loads(selfloop("plugins", "file", "--json").out)["components"]
    assert [row["name"] for row in shown] == ["file"]
    shown = json.loads(selfloop("plugins", "export", "--json").out)["components"]
    assert [row["name"] for row in shown] == ["export"], "a component's own name comes first"


def test_a_run_that_is_none_is_said_with_those_that_are(run: Path, selfloop: Selfloop) -> None:
    for command in (
        ["show"],
        ["resume"],
        ["rescore"],
        ["beliefs"],
        ["calibrate"],
        ["export", "--to", "gguf"],
    ):
        said = selfloop(*command, "fixd")
        assert (said.code, said.out) == (5, ""), command
        assert (
            said.err
            == "selfloop: no run in runs/fixd. Did you mean 'fixed'? Runs in runs: fixed.\n"
        )
    said = selfloop("show", "fixed", "--runs", "elsewhere")
    assert said.err == (
        "selfloop: no run in elsewhere/fixed. Give the folder of a run, as `selfloop run` printed "
        "it, or the folder of all runs with --runs.\n"
    )


@pytest.mark.extra("llamacpp")
def test_plugins_say_what_they_need(selfloop: Selfloop) -> None:
    said = lines(selfloop("plugins", "llama_cpp", "sequence_probability", "beliefs").out)
    assert "extra llamacpp: installed" in said
    assert "option model: text (required)" in said
    assert 'option weights: shipped | auto | q4_0 | q8_0 | bf16 | f16 = "shipped"' in said
    assert "needs logprobs" in said
    assert said.count("more in docs/engine.md") == said.count("more in docs/detectors.md") == 1
    assert "help: selfloop beliefs --help" in said


@pytest.mark.parametrize("width", [30, 50, 80, 140])
def test_plugins_fit_the_terminal(
    width: int, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = selfloop("plugins").out.splitlines()
    assert all(len(line) <= width or " " not in line.strip() for line in shown)
    assert ("detector agreement" in shown) == (width < 72)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("agrement",),
            "no component, command or plugin named 'agrement'. Did you mean 'agreement'?",
        ),
        (
            ("agreement", "nothing"),
            "no component, command or plugin named 'nothing'. All of them: selfloop plugins.",
        ),
        (
            ("agreement", "--kind", "critic"),
            "no critic named 'agreement'. Installed: contrast, independent, plain.",
        ),
    ],
)
def test_an_unknown_component_is_an_error(
    args: tuple[str, ...], message: str, selfloop: Selfloop
) -> None:
    said = selfloop("plugins", *args)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


# --- as a process of its own


def test_a_reader_that_goes_away_is_no_error(run: Path) -> None:
    line = f"{sys.executable} -m selfloop.cli show {run} --json | head -c 5"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30)
    assert done.stdout == '{\n  "'
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_no_room_for_what_is_printed_is_said(work: Path) -> None:
    command = [sys.executable, "-m", "selfloop.cli", "recipes"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 5
    assert done.stderr.startswith(
        "selfloop: No space left on device. Give another file or folder, or see"
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_characters(encoding: str, run: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    for command in (["show", str(run)], ["run", "fixed.yaml"], ["run", "fixed.yaml", "--json"]):
        line = [sys.executable, "-m", "selfloop.cli", *command]
        done = subprocess.run(
            line, capture_output=True, encoding=encoding, errors="replace", timeout=30, env=env
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "What is the capital of Egypt?" in done.stdout


@pytest.mark.parametrize("key", ["tuner", "critique", "few_shot"])
def test_none_is_a_word_for_nobody(key: str, write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE + f"{key}: none\n"})
    assert selfloop("check", "r.yaml").code == 0
