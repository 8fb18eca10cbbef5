"""selfloop from Python: the library's functions, their records, and the cost of importing it."""

import json
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import RECIPE, Selfloop

import selfloop as library
from selfloop.errors import (
    BelowRequiredError,
    MissingExtraError,
    ModelError,
    RecipeError,
    StepFailedError,
    StoreError,
)
from selfloop.evaluation.requirements import Requirement
from selfloop.records import Adapter, Attempt, Completion, Question, Round
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
    attempts = chain.from_iterable(ended.attempts for ended in run.rounds)
    return [attempt.question.text for attempt in attempts]


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
        ("gone.yaml", "cannot read the recipe gone.yaml: there is no such file"),
        (Path("gone.yaml"), "cannot read the recipe gone.yaml: there is no such file"),
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
    again = library.load(str(run.folder))
    assert again == run
    recipe = run.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rounds: 2", "rounds: 3"))
    assert len(again.rounds) == 2 and len(again.resume(quiet=True).rounds) == 3
    with pytest.raises(StoreError, match=r"no run in nowhere"):
        library.load("nowhere")


def test_quiet_is_quiet_and_else_there_is_progress(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library.run(RECIPE, quiet=True)
    assert capsys.readouterr().out == ""
    library.run(RECIPE)
    assert "round 1/1 ended" in capsys.readouterr().out


def test_every_row_has_every_detector(run: library.Run) -> None:
    rows = run.rows()
    assert len(rows) == len({row["question"] for row in rows})
    names = ["agreement", "sequence_probability", "meaning_probability", "pmi", "combined", "echo"]
    assert all(list(row["verdicts"]) == names for row in rows)


def test_a_table_of_pandas(run: library.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'selfloop\[pandas\]'"):
        run.frame()
    monkeypatch.setitem(
        sys.modules, "pandas", SimpleNamespace(json_normalize=lambda rows: ("table", rows))
    )
    assert run.frame() == ("table", run.rows())


def test_the_table_has_a_column_for_each_detector(run: library.Run) -> None:
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
    shown = library.load(store.folder)._repr_html_()
    assert set(re.findall(r"</?(\w+)", shown)) == {"p", "table", "tr", "th", "td"}
    assert (
        shown.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 20 and "and 2 beliefs more" in shown
    )
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "<td>1</td><td>12</td>" in shown


@pytest.mark.slow
def test_importing_it_is_light_and_its_names_are_there() -> None:
    code = (
        "import sys, selfloop\n"
        "heavy = {'pydantic', 'numpy', 'rich', 'ruamel', 'torch'} & set(sys.modules)\n"
        "print(heavy or 'light', selfloop.run.__name__, selfloop.load.__name__, "
        "selfloop.Run.__name__)\n"
        "print({name for name in selfloop.__all__ if not hasattr(selfloop, name)})\n"
        "selfloop.ran"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "light run load Run\nset()\n"
    assert "AttributeError: module 'selfloop' has no attribute 'ran'" in done.stderr


# --- a run is read once


def test_a_run_is_read_and_validated_once(
    run: library.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Store] = []
    rounds = Store.rounds
    monkeypatch.setattr(Store, "rounds", lambda store: reads.append(store) or rounds(store))
    assert run.beliefs and run.declined and run.rows() and run.model and run.rounds
    assert run._repr_html_()
    assert len(reads) == 1


def test_a_run_at_work_is_read_anew_by_reload(run: library.Run) -> None:
    assert len(run.rounds) == 2
    recipe = run.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rounds: 2", "rounds: 3"))
    run.resume(quiet=True)
    assert len(run.rounds) == 2
    assert len(run.reload().rounds) == 3


def test_what_a_run_returns_may_be_changed(run: library.Run) -> None:
    run.rounds.clear()
    assert len(run.rounds) == 2


# --- the other functions

KNOWN, UNKNOWN = "What is the capital of France?", "What is the capital of Zorvania?"
SCRIPT = {
    r"France\?\nAnswer:\s*$": ["Paris"],
    r"Answer:\s*$": ["Giza", "Nile", "Oslo", "Peru", "Rome", "Bonn", "Kyiv"],
}


@pytest.fixture
def recipe(write: Any) -> dict[str, Any]:
    """A recipe as data whose script knows one capital."""
    write({"script.json": json.dumps(SCRIPT)})
    return {
        "backend": {"kind": "scripted", "script": "script.json"},
        "ask": {"questions": 2, "sources": ["blank_slate"]},
        "answer": {"samples": 4},
        "critique": None,
        "detectors": ["agreement"],
    }


def test_ask_answers_one_question_or_several(recipe: Any, work: Path) -> None:
    answer = library.ask(recipe, KNOWN)
    assert (answer.answer, answer.confidence, answer.is_belief) == ("Paris", 1.0, True)
    assert answer.samples == {"Paris": 4} and answer.verdicts == {"agreement": 1.0}
    assert repr(answer).startswith("Answer(question='What is the capital of France?', answer=")
    answers = library.ask(recipe, [UNKNOWN, f"  {KNOWN} ", UNKNOWN])
    assert [one.answer for one in answers] == ["I don't know", "Paris", "I don't know"]
    assert answers[0] == answers[2] and answers[0].guess and not answers[0].is_belief
    assert not (work / "runs").exists(), "asking leaves nothing behind"


def test_ask_says_the_same_as_the_command(recipe: Any, write: Any, selfloop: Selfloop) -> None:
    write({"recipe.yaml": json.dumps(recipe)})
    plain = [answer.plain() for answer in library.ask("recipe.yaml", [KNOWN, UNKNOWN])]
    assert plain == json.loads(selfloop("ask", "recipe.yaml", KNOWN, UNKNOWN, "--json").out)


def test_ask_takes_changes_and_refuses_those_it_cannot_apply(recipe: Any) -> None:
    assert library.ask(recipe, KNOWN, {"answer.samples": 2}).samples == {"Paris": 2}
    assert library.ask(recipe, KNOWN, ["answer.samples=3"]).samples == {"Paris": 3}
    with pytest.raises(RecipeError, match="cannot apply rounds, ask, tuner"):
        library.ask(recipe, KNOWN, {"rounds": 3})
    with pytest.raises(TypeError, match="changes are a mapping or a sequence"):
        library.ask(recipe, KNOWN, "rounds=3")
    with pytest.raises(RecipeError, match="a question is empty"):
        library.ask(recipe, ["Who?", " "])


def test_a_question_that_fails_is_an_error_in_its_answer(recipe: Any) -> None:
    short = recipe | {"backend": recipe["backend"] | {"context": 40}}
    answers = library.ask(short, ["word " * 50 + "?", "Who?"])
    assert "over the context of 40" in answers[0].error and not answers[0].answer
    assert answers[0].plain()["decision"] == "failed"


def test_a_run_and_a_folder_answer(recipe: Any) -> None:
    recipe["ask"] = {"questions": 1, "sources": [{"kind": "file", "path": "own.txt"}]}
    Path("own.txt").write_text(f"{UNKNOWN}\n")
    run = library.run(recipe, quiet=True)
    assert library.ask(run, KNOWN) == library.ask(run.folder, KNOWN)


def test_score_takes_pairs_rows_and_files(recipe: Any, write: Any) -> None:
    pairs = [(KNOWN, "Paris"), (KNOWN, "London")]
    scores = library.score(recipe, pairs, quiet=True)
    assert [scored.confidence for scored in scores] == [1.0, 0.0] and len(scores) == 2
    assert scores.run == library.load("runs/score") and scores.failure is None
    scores.raise_for_failure()
    rows = [{"question": KNOWN, "answer": "Paris", "id": 7, "who": "Ada"}]
    (scored,) = library.score(recipe, rows, quiet=True)
    assert scored.plain()["id"] == 7 and scored.columns == {"id": 7, "who": "Ada"}
    folder = write({"answers.jsonl": json.dumps(rows[0]) + "\n"})
    (same,) = library.score(recipe, folder / "answers.jsonl", quiet=True)
    assert same == scored


def test_a_run_of_rows_can_be_resumed(recipe: Any) -> None:
    """The rows are kept: a run reads its questions again when it goes on."""
    scores = library.score(recipe, [(KNOWN, "Paris")], quiet=True)
    assert len(scores.run.resume(quiet=True).rounds) == 1


def test_score_of_nothing_but_failures_raises_when_asked_to(recipe: Any, write: Any) -> None:
    plugin = (
        "from selfloop import Component, hookimpl\n"
        "from selfloop.testing import ScriptedBackend\n"
        "class Deaf(ScriptedBackend):\n"
        "    def loglikelihood(self, pairs):\n"
        "        raise ValueError('boom')\n"
        "@hookimpl\n"
        "def selfloop_backends():\n"
        "    gives = frozenset({'logprobs', 'loglikelihood'})\n"
        "    return [Component('deaf', Deaf, gives=gives)]\n"
    )
    write({"deaf.py": plugin})
    deaf = recipe | {"backend": "deaf", "plugins": ["deaf.py"]}
    scores = library.score(deaf, [(KNOWN, "Paris")], quiet=True)
    assert "boom" in next(iter(scores)).error
    with pytest.raises(StepFailedError):
        scores.raise_for_failure()


def test_evaluate_asks_or_measures_a_finished_run(recipe: Any, selfloop: Selfloop) -> None:
    gold = [(KNOWN, ["Paris", "paris"]), (UNKNOWN, "Zor")]
    evaluation = library.evaluate(recipe, gold, quiet=True)
    assert isinstance(evaluation, library.Evaluation)
    assert evaluation.figures()["accuracy"] == 0.5 and evaluation.report.questions == 2
    assert "questions=2, accuracy=0.500" in repr(evaluation)
    again = library.evaluate(evaluation.run)
    assert again.plain() == evaluation.plain()
    stored = json.loads(selfloop("eval", evaluation.run.folder, "--json").out)
    assert stored == json.loads((evaluation.run.folder / "eval.json").read_text())
    evaluation.raise_for_failures()
    evaluation.require([Requirement("accuracy", 0.5)])
    with pytest.raises(BelowRequiredError, match=r"accuracy is 0\.5"):
        evaluation.require([Requirement("accuracy", 0.6)])


def test_an_unknown_figure_is_refused_before_a_model_is_asked(recipe: Any, work: Path) -> None:
    with pytest.raises(RecipeError, match="there is no figure acuracy"):
        library.evaluate(recipe, [(KNOWN, "Paris")], requirements=[Requirement("acuracy", 1)])
    assert not (work / "runs" / "eval-data").exists()


def test_evaluate_reads_multiple_choice(recipe: Any) -> None:
    targets = {"choices": ["Paris", "Rome"], "labels": [1, 0]}
    row = {"question": KNOWN, "mc1_targets": targets, "mc2_targets": targets}
    evaluation = library.evaluate(recipe, [row])
    assert isinstance(evaluation, library.ChoiceEvaluation)
    assert evaluation.questions == 1 and 0 <= evaluation.mc1.value <= 1


def test_evaluate_needs_data_for_what_is_not_a_run(recipe: Any) -> None:
    with pytest.raises(RecipeError, match="no run nowhere"):
        library.evaluate("nowhere")
    with pytest.raises(RecipeError, match="so they need --data"):
        library.evaluate("nowhere", limit=3)


def test_rescore_and_compare(run: library.Run) -> None:
    strict = run.rescore({"decide.belief": 0.999})
    assert strict == library.load("runs/recipe-rescored")
    assert strict.decide.belief == 0.999 and asked(strict) == asked(run)
    comparison = library.compare(run, strict)
    assert len(comparison.names) == 2 and "belief" in comparison.figures
    assert {one.question for one in comparison.questions} <= {*asked(run)}
    assert "<table>" in comparison._repr_html_()
    with pytest.raises(TypeError, match="two runs or more"):
        library.compare(run)


@pytest.mark.extra("stats")
def test_plan_and_check(work: Path, selfloop: Selfloop) -> None:
    plan = library.plan(DATA, {"rounds": 1}, seconds=0.1)
    assert plan.seconds > 0 and plan.plain()["sample"]["rounds"] == 1
    assert repr(plan).startswith("Plan('recipe', seconds=")
    assert not list(work.iterdir()), "planning leaves nothing behind"
    assert library.check("quickstart") == json.loads(selfloop("check", "quickstart", "--json").out)
    with pytest.raises(RecipeError, match="Did you mean 'quickstart'"):
        library.check("quickstrat")


def test_a_recipe_that_comes_with_selfloop_is_run_by_its_name(work: Path) -> None:
    run = library.run("dry-run", {"rounds": 1, "ask.questions": 2}, quiet=True)
    assert run.folder == Path("runs/dry-run")


def test_export_writes_the_tuned_model(run: library.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no adapter"):
        library.export(run, "adapter")
    calls: list[Any] = []

    def written(*args: Any, **options: Any) -> Any:
        from selfloop_plugins.export.check import NotMeasured
        from selfloop_plugins.export.targets import Written

        calls.append((args, options))
        return Written(
            Path("out"), Adapter("adapters/round-002", "sha", round=2), NotMeasured("it")
        )

    monkeypatch.setattr("selfloop_plugins.export.targets.write_export", written)
    check = {"questions": 0, "reason": "it"}
    export = library.export(run, "gguf", weights="q8_0")
    assert export == library.Export(Path("out"), "gguf", 2, check)
    options = {"kind": "q8_0", "number": None, "force": False, "questions": 100}
    assert calls == [((run.folder, "gguf", None), options)]


def test_rows_of_a_data_set(run: library.Run) -> None:
    assert library.dataset(run) == run.rows()
    taught = library.dataset(run.folder, "sft", only=["declined"])
    assert taught and all(row["completion"] == "I don't know" for row in taught)


def test_a_summary_is_that_of_the_command(run: library.Run, selfloop: Selfloop) -> None:
    assert run.summary() == json.loads(selfloop("resume", run.folder, "--json").out)


def test_questions_are_gathered_once(
    recipe: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command counts them, the source checks them and hands them out: one file, read once."""
    from selfloop import data

    gathers: list[str] = []
    gathered = data.questions_table
    monkeypatch.setattr(
        data,
        "questions_table",
        lambda *args, **more: gathers.append(args[1]) or gathered(*args, **more),
    )
    write({"gold.jsonl": json.dumps({"question": KNOWN, "answers": ["Paris"]}) + "\n"})
    library.evaluate(recipe, "gold.jsonl", quiet=True)
    assert len(gathers) == 1
    write({"answers.jsonl": json.dumps({"question": KNOWN, "answer": "Paris"}) + "\n"})
    library.score(recipe, "answers.jsonl", quiet=True)
    assert len(gathers) == 2
