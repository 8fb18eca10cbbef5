"""Each recipe of the folder is right, says how it is run, and runs: on the script, which is enough
to see that.
"""

from pathlib import Path

import pytest
from conftest import Selfloop

from selfloop.config.defaults import DETECTORS
from selfloop.config.recipe import read

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
COOKBOOK = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
SHORT = ("ask.questions=6", "rounds=2", "observers=[]", "tuner=null")

# its few-shot selector groups the pairs with scikit-learn
KNOWLEDGE = pytest.param(ROOT / "recipes/knowledge.yaml", marks=pytest.mark.extra("stats"))

each = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
each_that_can_run = pytest.mark.parametrize(
    "recipe",
    [KNOWLEDGE if path.stem == "knowledge" else path for path in RECIPES],
    ids=lambda path: path.stem,
)


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 8


@each
def test_it_opens_with_its_command_and_what_it_is_for(recipe: Path) -> None:
    lines = recipe.read_text(encoding="utf-8").splitlines()
    command, space, purpose = lines[:3]
    assert command.startswith(f"# selfloop run {recipe.stem}")
    assert space == "#"
    assert len(purpose) > 40
    assert "" in lines[3:12], "the comment ends before the recipe begins"
    assert read(recipe).recipe.name == recipe.stem


@each
def test_it_judges_by_the_default_detectors_or_by_others_on_purpose(recipe: Path) -> None:
    """One list: what ends in `echo` is what a recipe has that names no detectors."""
    kinds = tuple(spec.kind for spec in read(recipe, ("backend=scripted",)).recipe.detectors)
    assert kinds == DETECTORS or "echo" not in kinds


def test_a_recipe_that_names_no_detectors_has_those_that_its_backend_can_serve(work: Path) -> None:
    plain = "rounds: 1\nbackend: {0}\nask: {{sources: [blank_slate]}}\n"
    plugin = (
        "from selfloop import Component, hookimpl\nfrom selfloop.testing import "
        "Limited\n@hookimpl\n"
        "def selfloop_backends():\n    return [Component('poor', lambda: Limited(['logprobs']), "
        "gives={'logprobs'})]\n"
    )
    (work / "poor.py").write_text(plugin)
    (work / "full.yaml").write_text(plain.format("scripted"))
    (work / "less.yaml").write_text(plain.format("poor") + "plugins: [poor.py]\n")
    full, less = (read(work / name).recipe for name in ("full.yaml", "less.yaml"))
    assert [spec.kind for spec in full.detectors] == list(DETECTORS)
    assert [spec.kind for spec in less.detectors] == [kind for kind in DETECTORS if kind != "pmi"]


@each
def test_the_cookbook_has_it(recipe: Path) -> None:
    assert f"](../recipes/{recipe.name})" in COOKBOOK


@each_that_can_run
def test_nothing_is_wrong_with_it(recipe: Path, selfloop: Selfloop) -> None:
    """Its own backend is put off, for its model may not be here; every other option is checked as
    it stands.
    """
    said = selfloop("check", recipe, "--set", "backend=scripted")
    # of question files, no warnings
    accounts = [line for line in said.err.splitlines() if ": JSONL, " not in line]
    assert (said.code, accounts) == (0, [])
    assert said.out.startswith(f"{recipe} can run: ")


@pytest.mark.slow
@each_that_can_run
def test_it_runs_and_finds_something_out(recipe: Path, selfloop: Selfloop, work: Path) -> None:
    changes = [part for change in ("backend=scripted", *SHORT) for part in ("--set", change)]
    said = selfloop("run", recipe, *changes)
    assert said.code == 0, said.text
    assert f"Run saved to runs/{recipe.stem}." in said.out
    assert "failures: selfloop show" not in said.out
    assert "verdicts" in selfloop("show", recipe.stem, "--json").out


def test_a_mistake_in_one_would_be_seen(selfloop: Selfloop, work: Path) -> None:
    (work / "wrong.yaml").write_text(
        RECIPES[0].read_text(encoding="utf-8") + "detectorz: [agreement]\n"
    )
    assert selfloop("check", "wrong.yaml", "--set", "backend=scripted").code == 2
