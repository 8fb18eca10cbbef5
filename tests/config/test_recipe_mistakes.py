"""Every known mistake of a user: the exit code, and a message with the fact and the advice."""

import sqlite3
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import RECIPE, Query, Selfloop
from filelock import FileLock

from selfloop.storage.store import Store

GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
CUT_OFF = b"GGUF" + struct.pack("<IQQ", 3, 5, 9) + b"\0" * 100
FILES = {
    "fields.txt": "{question} {draft}",
    "syntax.py": "def x(:\n",
    "raises.py": "1 / 0\n",
    "misspelt.py": "from selfloop import hookimpl\n@hookimpl\n"
    "def selfloop_detector():\n    return []\n",
    "bare.py": "def selfloop_detectors():\n    return []\n",
    "number.py": "from selfloop import hookimpl\n@hookimpl\n"
    "def selfloop_detectors():\n    return [3]\n",
    "twin.py": "from selfloop import Component, hookimpl\n@hookimpl\ndef selfloop_detectors():\n"
    "    return [Component('agreement', object)]\n",
    "looker.py": "from selfloop import Component, hookimpl\n@hookimpl\ndef selfloop_detectors():\n"
    "    return [Component('looker', object, needs=frozenset({'attentions'}))]\n",
    "bare_backend.py": "from selfloop import Component, hookimpl\n"
    "class Tuner:\n    def tune(self, context): ...\n@hookimpl\n"
    "def selfloop_backends():\n    return [Component('plain', object)]\n"
    "@hookimpl\ndef selfloop_tuners():\n    return [Component('tiny', Tuner)]\n",
    "text.gguf": "hello world",
    "short.gguf": GGUF[:8],
    "old.gguf": b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
    "cut.gguf": CUT_OFF,
    "bad.jsonl": '{"question": "Who?"}\n{oops\n',
    "bad.json": "[1]",
    "a_file": "",
}


def swap(old: str, new: str) -> str:
    assert old in RECIPE
    return RECIPE.replace(old, new)


def backend(text: str) -> str:
    return swap("scripted", text)


def model(name: str) -> str:
    return backend(f"{{kind: llama_cpp, model: {name}}}")


Case = tuple[str, str | bytes, tuple[str, ...], int, tuple[str, ...]]
SET = "--set"
CASES: list[Case] = [
    # the recipe as a text
    ("empty", "", (), 2, ("mapping of keys to values", "`rounds: 2`")),
    ("a list", "- a\n", (), 2, ("mapping of keys to values",)),
    ("not UTF-8", b"name: caf\xe9\n", (), 2, ("not UTF-8 text", "recipe.yaml")),
    ("not YAML", RECIPE + "x: [1\n", (), 2, ("line 6", "not YAML", "expected ',' or ']'")),
    ("a tab", "a:\n\tb: 1\n", (), 2, ("line 2", "not YAML", "'\\t'")),
    ("a NUL", b"a: \x00\n", (), 2, ("not YAML", "#x0000")),
    ("a key twice", RECIPE + "rounds: 2\n", (), 2, ("line 5", 'duplicate key "rounds"')),
    ("two documents", RECIPE + "---\na: 1\n", (), 2, ("line 5", "a second document")),
    ("a list as key", RECIPE + "? [a, b]\n: 1\n", (), 2,
     ("recipe.yaml", "key of a recipe must be plain text")),
    ("a date as key", RECIPE + "2020-01-01: x\n", (), 2, ("line 5: 2020-01-01: unknown key",)),
    ("a number as key", RECIPE + "1: x\n", (), 2, ("1: unknown key",)),
    ("contains itself", RECIPE + "prompts: &a {x: *a}\n", (), 2,
     ("line 5", "*a stands in the value that it names")),
    # keys and values
    ("unknown key", RECIPE + "ruonds: 3\n", (), 2,
     ("line 5: ruonds", "Did you mean 'rounds'?", "1 mistake")),
    ("unknown inner key", swap("questions", "qestions"), (), 2,
     ("line 3: ask.qestions", "Did you mean 'questions'?")),
    ("text for a number", swap("1", "one"), (), 2, ("line 1: rounds", "integer", '"one"')),
    ("true for a number", swap("1", "true"), (), 2, ("line 1: rounds", "integer", "true")),
    ("a fraction", swap("1", "1.5"), (), 2, ("line 1: rounds", "integer", "1.5")),
    ("text in place of a list of numbers", swap("2}\n", "many}\n"), (), 2,
     ("line 4: answer.samples", "whole number")),
    ("list for a mapping", swap("{samples: 2}", "[1]"), (), 2,
     ("line 4: answer", "mapping", "[1]")),
    ("mapping for a list", RECIPE + "detectors: {kind: agreement}\n", (), 2,
     ("line 5: detectors", "agreement")),
    ("no backend", swap("backend: scripted\n", ""), (), 2, ("backend: is missing",)),
    ("no sources", swap(", sources: [blank_slate]", ""), (), 2,
     ("line 3: ask.sources: is missing",)),
    ("an empty list of sources", swap("[blank_slate]", "[]"), (), 2,
     ("line 3: ask.sources", "at least 1")),
    ("zero rounds", swap("1", "0"), (), 2, ("line 1: rounds", "greater than or equal to 1", "0")),
    ("negative rounds", swap("1", "-1"), (), 2,
     ("line 1: rounds", "greater than or equal to 1", "-1")),
    ("negative samples", swap("samples: 2", "samples: -1"), (), 2,
     ("line 4: answer.samples: must be a whole number from 0 on, or auto, not -1.",)),
    ("crossed thresholds", RECIPE + "decide: {belief: 0.3, declined: 0.6}\n", (), 2,
     ("line 5: decide", "declined (0.6) must be below belief (0.3)")),
    ("threshold over 1", RECIPE + "decide: {belief: 1.5}\n", (), 2,
     ("decide.belief", "less than or equal to 1")),
    ("threshold below 0", RECIPE + "decide: {declined: -1}\n", (), 2,
     ("decide.declined", "equal to 0")),
    ("threshold not a number", RECIPE + "decide: {belief: .nan}\n", (), 2, ("decide.belief",)),
    ("share of 0", swap("[blank_slate]", "[{kind: blank_slate, weight: 0}]"), (), 2,
     ("sources.0.weight", "than 0")),
    ("endless share", swap("[blank_slate]", "[{kind: blank_slate, weight: .inf}]"), (), 2,
     ("sources.0.weight", "finite")),
    ("minimum in words",
     swap("sources", "scorers: [{kind: novelty, min_score: high}], sources"), (), 2,
     ("ask.scorers.0.min_score", "number", '"high"')),
    ("minimum not a number",
     swap("sources", "scorers: [{kind: novelty, min_score: .nan}], sources"), (), 2,
     ("ask.scorers.0.min_score", "finite")),
    ("a model that is none", RECIPE, (SET, "answer.with=both", SET, "answer.samples_with=1"), 2,
     ("2 mistakes", "answer.with: must be 'base' or 'tuned', not \"both\"",
      "answer.samples_with")),
    ("a key as Python has it", RECIPE, (SET, "answer.with_=base"), 2,
     ("answer.with_: unknown key", "Did you mean 'with'?", "Known: ")),
    ("a detector with a model that is none",
     RECIPE + "detectors: [{kind: echo, with: judge}]\n", (), 2,
     ("line 5: detectors.0.with: must be 'base' or 'tuned'", '"judge"')),
    ("a source has no model of its own",
     swap("[blank_slate]", "[{kind: blank_slate, with: base}]"), (), 2,
     ("ask.sources.0.with: unknown key",)),
    ("a name that is a way", RECIPE + "name: ../x\n", (), 2, ("'../x'", "letters a to z, digits")),
    ("the name of the folder above", RECIPE + "name: ..\n", (), 2,
     ("'..'", "letters a to z, digits")),
    ("two mistakes", swap("1", "0") + "sed: 2\n", (), 2,
     ("2 mistakes", "line 1: rounds", "line 5: sed", "'seed'")),
    ("one mistake hides no other", swap("1", "0").replace("blank_slate", "blank"), (), 2,
     ("2 mistakes", "line 1: rounds", "line 3: ask.sources.0.kind")),
    # components
    ("unknown backend", backend("scripte"), (), 2,
     ("line 2: backend.kind", "no backend named 'scripte'", "Did you mean 'scripted'?",
      "Installed: ", "llama_cpp")),
    ("unknown source", swap("blank_slate", "blank_slat"), (), 2,
     ("sources.0", "'blank_slate'?", "topics")),
    ("unknown scorer", swap("sources", "scorers: [novel], sources"), (), 2,
     ("'novelty'?", "well_formed")),
    ("unknown detector", RECIPE + "detectors: [agrement]\n", (), 2,
     ("line 5", "'agreement'?", "sequence_probability")),
    ("unknown observer", RECIPE + "observers: [consol]\n", (), 2,
     ("observers.0", "'console'?", "jsonl")),
    ("unknown tuner", RECIPE + "tuner: loera\n", (), 2,
     ("tuner.kind", "no tuner named 'loera'", "Installed: ")),
    ("unknown option", backend("{kind: scripted, dely: 1}"), (), 2,
     ("line 2: backend.dely", "'delay'?")),
    ("option of the wrong type", backend("{kind: scripted, delay: fast}"), (), 2,
     ("backend.delay", '"fast"')),
    ("option out of bounds", backend("{kind: scripted, context: 0}"), (), 2,
     ("backend.context", "to 1", "0")),
    ("no model", backend("llama_cpp"), (), 2, ("line 2: backend.model: is missing",)),
    ("a capability that lacks", RECIPE + "plugins: [looker.py]\ndetectors: [looker]\n", (), 2,
     ("line 6: detectors.0", "looker needs attentions", "scripted lacks",
      "It has: adapters, chat, entropies, hidden")),
    ("a tuner without adapters",
     backend("plain") + "plugins: [bare_backend.py]\ndetectors: [agreement]\ntuner: tiny\n",
     (), 2, ("line 7: tuner", "tiny needs adapters", "plain lacks", "It has: none")),
    ("script is no script", backend("{kind: scripted, script: bad.json}"), (), 2,
     ("bad.json", "{pattern: [reply")),
    # --set
    ("set without =", RECIPE, (SET, "rounds"), 2, ("--set rounds", "--set key=value")),
    ("set of a place that is not", RECIPE, (SET, "ask.sources.7.weight=2"), 2,
     ("7 is no position in a list of 1",)),
    ("set of an odd number", RECIPE, (SET, "ask.sources.²=2"), 2, ("² is no position",)),
    ("set inside a number", RECIPE, (SET, "rounds.x=2"), 2, ("rounds is 1", "no parts")),
    ("set to bad YAML", RECIPE, (SET, "rounds=[1"), 2, ("--set rounds=[1", "not YAML")),
    ("set to the wrong type", RECIPE, (SET, "rounds=two"), 2, ("--set rounds=two", "integer")),
    ("set of an unknown key", RECIPE, (SET, "ask.qestions=3"), 2,
     ("--set ask.qestions=3", "'questions'?")),
    # files the recipe names
    ("unknown prompt", RECIPE + "prompts: {anwser: x.txt}\n", (), 2,
     ("line 5: prompts", "'answer'?", "critique")),
    ("no prompt file", RECIPE + "prompts: {answer: x.txt}\n", (), 2,
     ("cannot read x.txt", "UTF-8 text file")),
    ("a field a prompt has not", RECIPE + "prompts: {answer: fields.txt}\n", (), 2,
     ("{draft}", "given {question}")),
    ("no plugin file", RECIPE + "plugins: [no.py]\n", (), 4,
     ("no.py", "no such .py file", "relative to the recipe")),
    ("plugin not Python", RECIPE + "plugins: [syntax.py]\n", (), 4,
     ("syntax.py", "SyntaxError", "line 1")),
    ("plugin that raises", RECIPE + "plugins: [raises.py]\n", (), 4,
     ("raises.py", "ZeroDivisionError")),
    ("plugin hook misspelt", RECIPE + "plugins: [misspelt.py]\n", (), 4,
     ("misspelt.py", "no hook selfloop_detector.", "Did you mean 'selfloop_detectors'?")),
    ("plugin hook bare", RECIPE + "plugins: [bare.py]\n", (), 4,
     ("bare.py", "not decorated with selfloop.hookimpl")),
    ("plugin offers a number", RECIPE + "plugins: [number.py]\n", (), 4,
     ("number.py", "must list Components", "int")),
    ("two of one name", RECIPE + "plugins: [twin.py]\ndetectors: [agreement]\n", (), 2,
     ("two plugins offer", "agreement (selfloop", "and twin.py", "Uninstall")),
    ("no question file", swap("blank_slate", "{kind: file, path: q.txt}"), (), 2,
     ("cannot read", "q.txt")),
    ("bad line of JSON", swap("blank_slate", "{kind: file, path: bad.jsonl}"), (), 2,
     ("bad.jsonl, line 2", '"question"')),
    ("no model file", model("nope.gguf"), (), 3,
     ("no such file: nope.gguf", "known by name: smollm2")),
    ("unknown model", model("gema-3-270m"), (), 3, ("Did you mean 'gemma-3-270m'?",)),
    ("model is a folder", model("."), (), 3, ("is a folder", ".gguf")),
    ("model is a text", model("text.gguf"), (), 3, ("text.gguf is not a GGUF file", "hell")),
    ("model is cut off", model("short.gguf"), (), 3, ("cut off after 8 bytes", "fetch it again")),
    ("model is too old", model("old.gguf"), (), 3, ("GGUF version 1",)),
    ("licence not accepted", model("gemma-3-270m"), (), 3,
     ("Gemma Terms of Use", "https://", "--accept-license")),
    # where it runs
    ("runs under a file", RECIPE, ("--runs", "a_file/x"), 5,
     ("a_file/x", "Not a directory", "--runs")),
    ("runs is a file", RECIPE, ("--runs", "a_file"), 2, ("--runs", "a_file", "is a file")),
    ("runs in a place that takes none", RECIPE, ("--runs", "/proc/nope"), 5,
     ("/proc/nope", "--runs")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "args", "code", "pieces"), [pytest.param(*c[1:], id=c[0]) for c in CASES]
)
def test_mistake(
    recipe: str | bytes,
    args: tuple[str, ...],
    code: int,
    pieces: tuple[str, ...],
    write: Callable[[Mapping[str, str | bytes]], Path],
    selfloop: Selfloop,
) -> None:
    """A mistake is named on stderr, nothing on stdout, and no run is left behind."""
    folder = write({**FILES, "recipe.yaml": recipe})
    said = selfloop("run", "recipe.yaml", *args)
    assert (said.code, said.out) == (code, "")
    assert [piece for piece in pieces if piece not in said.err] == [], said.err
    assert "pydantic" not in said.err
    runs = folder / "runs"
    assert not runs.exists() or not list(runs.iterdir()), "a run that never began is left behind"


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [case for case in CASES if "--runs" not in case[2]], ids=lambda case: case[0]
)
def test_check_says_the_same(
    case: Case, write: Callable[[Mapping[str, str | bytes]], Path], selfloop: Selfloop
) -> None:
    """`selfloop check` finds all that can be known before components are built."""
    late = ("script is no script",)
    _, recipe, args, code, pieces = case
    write({**FILES, "recipe.yaml": recipe})
    said = selfloop("check", "recipe.yaml", *args)
    assert said.code == (0 if case[0] in late else code)
    assert said.code == 0 or all(piece in said.err for piece in pieces)


@pytest.mark.parametrize(
    ("name", "piece"), [("nope.yaml", "there is no such file"), (".", "directory")]
)
def test_no_recipe(name: str, piece: str, selfloop: Selfloop) -> None:
    said = selfloop("run", name)
    assert said.code == 2
    assert f"cannot read the recipe {name}" in said.err
    assert piece in said.err


def test_a_cut_off_model_is_refused_by_the_backend(
    write: Callable[[Mapping[str, str | bytes]], Path], selfloop: Selfloop
) -> None:
    pytest.importorskip("llama_cpp")
    folder = write({"cut.gguf": CUT_OFF, "recipe.yaml": model("cut.gguf")})
    said = selfloop("run", "recipe.yaml")
    assert said.code == 3
    assert "cannot load cut.gguf" in said.err
    assert "fetch it again" in said.err
    assert not list((folder / "runs").iterdir())


def test_a_missing_extra_says_the_pip_line(
    write: Callable[[Mapping[str, str | bytes]], Path],
    selfloop: Selfloop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    for name in [
        name for name in sys.modules if name.startswith("selfloop_plugins.backends.llama_cpp.")
    ]:
        # other tests may have imported it with the package there
        monkeypatch.delitem(sys.modules, name)
    folder = write({"whole.gguf": GGUF, "recipe.yaml": model("whole.gguf")})
    said = selfloop("run", "recipe.yaml")
    assert said.code == 2
    assert (
        "llama-cpp-python, which is not installed. Do: pip install 'selfloop[llamacpp]'" in said.err
    )
    assert not list((folder / "runs").iterdir())


def test_no_permission(
    write: Callable[[Mapping[str, str | bytes]], Path],
    selfloop: Selfloop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Simulated, for tests may run as root, whom nothing is forbidden."""

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    write({"recipe.yaml": RECIPE})
    monkeypatch.setattr(Path, "mkdir", refuse)
    said = selfloop("run", "recipe.yaml")
    assert said.code == 5
    assert "runs/recipe: Permission denied. Choose another with --runs" in said.err


def test_a_prompt_over_the_context_fails_alone(
    write: Callable[[Mapping[str, str | bytes]], Path], selfloop: Selfloop, query: Query
) -> None:
    questions = (
        f"What is the capital of Egypt?\nWhat is {'very ' * 80}old?\nWho painted the ceiling?\n"
    )
    recipe = (
        "rounds: 1\nbackend: {kind: scripted, context: 120}\ncritique: none\n"
        "ask: {questions: 3, scorers: [], sources: [{kind: file, path: q.txt}]}\n"
    )
    folder = write({"q.txt": questions, "recipe.yaml": recipe})
    said = selfloop("run", "recipe.yaml")
    assert said.code == 0
    rows = query(
        folder / "runs/recipe", "SELECT decision = 'failed', reason FROM attempts ORDER BY position"
    )
    assert [failed for failed, _ in rows] == [0, 1, 0]
    assert "over the context of 120" in rows[1][1]
    assert "failures: selfloop show runs/recipe --failures" in said.out
    assert "RequestError" in selfloop("show", "recipe", "--failures").out


def test_nothing_asked(
    write: Callable[[Mapping[str, str | bytes]], Path], selfloop: Selfloop
) -> None:
    write({"recipe.yaml": backend("{kind: scripted, context: 20}")})
    said = selfloop("run", "recipe.yaml")
    assert said.code == 7
    assert "not one question could be asked" in said.err
    assert "over the context of 20" in said.err


@pytest.mark.parametrize("command", ["resume", "show"])
@pytest.mark.parametrize("name", ["nope", "."])
def test_no_run(command: str, name: str, selfloop: Selfloop) -> None:
    said = selfloop(command, name)
    assert said.code == 5
    assert "no run in" in said.err
    assert "Give the folder of a run" in said.err


@pytest.fixture
def run(write: Callable[[Mapping[str, str | bytes]], Path], selfloop: Selfloop) -> Path:
    """A run that is done."""
    folder = write({"recipe.yaml": RECIPE})
    assert selfloop("run", "recipe.yaml").code == 0
    return folder / "runs/recipe"


@pytest.mark.parametrize("command", ["resume", "show"])
def test_newer_database(command: str, run: Path, selfloop: Selfloop) -> None:
    with sqlite3.connect(run / "run.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    said = selfloop(command, "recipe")
    assert said.code == 5
    assert "newer selfloop (schema 99). Update selfloop" in said.err


@pytest.mark.parametrize("command", ["resume", "show"])
def test_damaged_database(command: str, run: Path, selfloop: Selfloop) -> None:
    (run / "run.sqlite").write_bytes(b"no database at all" * 100)
    said = selfloop(command, "recipe")
    assert said.code == 5
    assert "run.sqlite is damaged" in said.err


def test_locked_run(run: Path, selfloop: Selfloop) -> None:
    with FileLock(run / "run.lock"):
        said = selfloop("resume", "recipe")
        assert selfloop("show", "recipe").code == 0, "looking at a run at work is allowed"
    assert said.code == 6
    assert "another process is working on" in said.err
    assert selfloop("resume", "recipe").code == 0


def test_another_model_than_the_run_was_made_with(run: Path, selfloop: Selfloop) -> None:
    (run.parent.parent / "other.json").write_text('{"": ["Who was it, and when?"]}')
    text = (
        (run / "recipe.yaml")
        .read_text()
        .replace("backend: scripted", "backend: {kind: scripted, script: other.json}")
    )
    (run / "recipe.yaml").write_text(text)
    said = selfloop("resume", "recipe")
    assert said.code == 3
    assert "start a new run" in said.err


def test_full_disk(
    write: Callable[[Mapping[str, str | bytes]], Path],
    selfloop: Selfloop,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk fills in the middle of a run: exit 5. With space again, resume loses nothing."""
    folder = write({"recipe.yaml": swap("samples: 2", "samples: 40")})
    assert selfloop("run", "recipe.yaml", "--runs", "whole").code == 0

    migrate = Store._migrate

    def small(store: Store) -> None:
        migrate(store)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 2}")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_migrate", small)
        said = selfloop("run", "recipe.yaml")
    assert said.code == 5
    assert "the disk is full" in said.err
    assert "`selfloop resume runs/recipe`" in said.err
    kept = query(folder / "runs/recipe", "SELECT key, sample, data FROM completions")
    assert kept
    assert selfloop("resume", "recipe").code == 0
    for sql in (
        "SELECT data FROM attempts ORDER BY id",
        "SELECT key, sample, data FROM completions ORDER BY 1, 2",
    ):
        assert query(folder / "runs/recipe", sql) == query(folder / "whole/recipe", sql)
    assert {*kept} <= {*query(folder / "runs/recipe", "SELECT key, sample, data FROM completions")}
