"""selfloop from Python: what `selfloop.run` takes, what a `Run` tells, and what it costs to import."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import RECIPE, Selfloop

import selfloop as library
from selfloop.errors import MissingExtra, RecipeError, StoreError
from selfloop.records import Attempt, Completion, Question, Round
from selfloop.storage.store import Store

DATA: dict[str, Any] = {
    "rounds": 2,
    "backend": "scripted",
    "ask": {"questions": 4, "sources": ["topics"]},
    "answer": {"samples": 4},
}


@pytest.fixture
def run(work: Path) -> library.Run:
    return library.run(DATA, quiet=True)


def asked(run: library.Run) -> list[str]:
    return [attempt.question.text for ended in run.rounds for attempt in ended.attempts]


def test_a_recipe_is_a_file_or_text_or_data(write: Any) -> None:
    folder = write({"deep/mine.yaml": RECIPE, "deep/text.yaml": ""})
    runs = [
        library.run(recipe, quiet=True)
        for recipe in ("deep/mine.yaml", folder / "deep/mine.yaml", RECIPE)
    ]
    assert [run.folder for run in runs] == [
        Path("runs/mine"),
        Path("runs/mine-2"),
        Path("runs/recipe"),
    ]
    assert (runs[2].folder / "recipe.yaml").read_text() == RECIPE
    data = library.run(
        {"name": "data", **DATA}, {"rounds": 1}, runs=folder / "elsewhere", quiet=True
    )
    assert data.folder == folder / "elsewhere" / "data" and len(data.rounds) == 1
    assert (data.folder / "recipe.yaml").read_text().splitlines()[:3] == [
        "name: data",
        "rounds: 1",
        "backend: scripted",
    ]


def test_changes_are_laid_over_the_recipe(work: Path) -> None:
    script = work / "script.json"
    script.write_text('{"": ["Who wrote Hamlet?"]}')
    run = library.run(
        RECIPE, {"backend": {"kind": "scripted", "script": script}, "ask.questions": 1}, quiet=True
    )
    assert asked(run)[0] == "Who wrote Hamlet?" and run.recipe["ask"]["questions"] == 1


def test_paths_of_a_recipe_that_is_no_file_are_relative_to_where_one_works(write: Any) -> None:
    write({"own.txt": "What is mine?\n"})
    sources = [{"kind": "file", "path": "own.txt"}]
    run = library.run(DATA, {"ask.sources": sources, "ask.questions": 1}, quiet=True)
    assert asked(run)[0] == "What is mine?"
    assert len(run.resume(quiet=True).rounds) == 2


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("gone.yaml", "cannot read the recipe gone.yaml: No such file"),
        (Path("gone.yaml"), "cannot read the recipe gone.yaml: No such file"),
        (
            "rounds: 0\nbackend: scripted\nask: {sources: [topics]}",
            "recipe.yaml: 1 mistake\n  line 1: rounds: must be",
        ),
        ("rounds: [\n", "recipe.yaml: line 2: this is not YAML"),
        ({**DATA, "bckend": 1}, "bckend: unknown key. Did you mean 'backend'?"),
        ({("a", 1): 2}, "every key of a recipe must be plain text"),
    ],
)
def test_mistakes_of_a_recipe(recipe: Any, message: str, work: Path) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        library.run(recipe, quiet=True)
    assert not (work / "runs").exists()


@pytest.mark.parametrize("there", ["a file", "a link that leads nowhere"])
def test_a_folder_for_runs_that_cannot_be(there: str, work: Path) -> None:
    """Elsewhere, with a limit: it once tried run-2, run-3 and so on for ever."""
    runs = work / "elsewhere"
    runs.write_text("mine") if there == "a file" else runs.symlink_to(work / "gone")
    code = f"import selfloop; selfloop.run({DATA!r}, runs='elsewhere', quiet=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (
        "cannot make the run's folder elsewhere/recipe: File exists. Choose another with --runs."
        in done.stderr
    )


def test_a_run_tells_what_the_command_line_tells(run: library.Run, selfloop: Selfloop) -> None:
    shown = json.loads(selfloop("show", run.folder, "--json").out)["attempts"]
    assert asked(run) == [attempt["question"]["text"] for attempt in shown]
    held = json.loads(selfloop("beliefs", run.folder, "--declined", "--json").out)
    assert {b.question.text for b in run.beliefs} == {
        row["question"] for row in held if row["decision"] == "belief"
    }
    assert {o.question.text for o in run.declined} == {
        row["question"] for row in held if row["decision"] == "declined"
    }
    assert run.beliefs and run.declined
    assert (run.model["name"], run.decide.belief, run.report) == (
        "scripted",
        0.6,
        run.folder / "report.html",
    )


def test_a_run_is_opened_and_resumed(run: library.Run, selfloop: Selfloop) -> None:
    again = library.open(str(run.folder))
    assert again == run
    recipe = run.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rounds: 2", "rounds: 3"))
    assert len(again.rounds) == 2 and len(again.resume(quiet=True).rounds) == 3
    with pytest.raises(StoreError, match=r"no run in nowhere"):
        library.open("nowhere")


def test_quiet_is_quiet_and_else_there_is_progress(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library.run(RECIPE, quiet=True)
    assert capsys.readouterr().out == ""
    library.run(RECIPE)
    assert "round 1/1 ended" in capsys.readouterr().out


def test_every_row_has_every_verifier(run: library.Run) -> None:
    rows = run.rows()
    assert len(rows) == len({row["question"] for row in rows})
    names = ["agreement", "sequence_probability", "meaning_probability", "pmi", "combined", "echo"]
    assert all(list(row["verdicts"]) == names for row in rows)


def test_a_table_of_pandas(run: library.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pip install 'selfloop\[pandas\]'"):
        run.frame()
    monkeypatch.setitem(
        sys.modules, "pandas", SimpleNamespace(json_normalize=lambda rows: ("table", rows))
    )
    assert run.frame() == ("table", run.rows())


def test_the_table_has_a_column_for_each_verifier(run: library.Run) -> None:
    pytest.importorskip("pandas", reason="pip install 'selfloop[pandas]'")
    frame = run.frame()
    assert list(frame["question"]) == [row["question"] for row in run.rows()]
    assert {"verdicts.agreement", "verdicts.combined"} <= set(frame.columns)


def test_what_a_notebook_shows_of_a_run_is_text(work: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[2J\u202e & \"'"
    store = Store(work / hostile.replace("/", ""), write=True)
    store.save_file("recipe.yaml", "backend: scripted\n")
    many = [Question(f"{hostile} {i}", "x") for i in range(12)]
    # more than the question again, which is no answer
    answer = Completion(f"Marie Curie of Warsaw {hostile}")
    attempts = [Attempt(q, draft=answer, decision="belief", confidence=0.5) for q in many]
    store.save_round(Round(1, tuple(attempts)))
    store.close()
    shown = library.open(store.folder)._repr_html_()
    assert set(re.findall(r"</?(\w+)", shown)) == {"p", "table", "tr", "th", "td"}
    assert (
        shown.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 20 and "and 2 beliefs more" in shown
    )
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "<td>1</td><td>12</td>" in shown


def test_importing_it_is_light_and_its_names_are_there() -> None:
    code = (
        "import sys, selfloop\n"
        "heavy = {'pydantic', 'numpy', 'rich', 'ruamel', 'torch'} & set(sys.modules)\n"
        "print(heavy or 'light', selfloop.run.__name__, selfloop.open.__name__, "
        "selfloop.Run.__name__)\n"
        "print({name for name in selfloop.__all__ if not hasattr(selfloop, name)})\n"
        "selfloop.ran"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "light run open Run\nset()\n"
    assert "AttributeError: module 'selfloop' has no attribute 'ran'" in done.stderr
