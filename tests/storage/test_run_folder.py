"""The names of a run's files stand in one place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from selfloop.storage.run_folder import RunFolder, runs_in

ROOT = Path(__file__).parents[2]
OWNER = ROOT / "selfloop" / "storage" / "run_folder.py"
NAMES = (
    "run.sqlite", "run.sqlite-wal", "run.lock", "events.jsonl", "report.html", "eval.json",
    "eval.parquet", "calibration.json", "calibration-labels.json", "diversity.jsonl", "gate.json",
    "recipe.yaml", "tensorboard", "mlruns",
)  # fmt: skip
# A name as a whole, or as the end of a path, but not within a sentence of help.
LITERAL = re.compile(rf"(?:\S*/)?(?:{'|'.join(map(re.escape, NAMES))})|adapters/.*|\S*/round-")
# Files of the same name that are no part of a run.
ELSEWHERE = {
    ("plugins/scaffold/plugin.py", "recipe.yaml"): "a new plugin's recipe",
    ("plugins/scaffold/plugin.py", "/recipe.yaml"): "the same, in a command to copy",
    ("plugins/scaffold/recipe.py", "recipe.yaml"): "a template",
    ("plugins/scaffold/__init__.py", "recipe.yaml"): "where a new recipe is written",
    ("selfloop/api/recipes.py", "recipe.yaml"): "what a recipe without a file is called",
    ("plugins/observers/trackers/__init__.py", "tensorboard"): "the component's name",
    ("plugins/observers/trackers/tensorboard.py", "tensorboard"): "the extra's name",
    ("plugins/observers/trackers/metrics.py", "tune/round-"): "a figure's name",
}


def literals(path: Path) -> Iterator[str]:
    """Yield the text constants of a file that are no docstrings, parts of f-strings among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


def test_the_names_are_literals_nowhere_else() -> None:
    offenders = []
    for path in (*ROOT.glob("selfloop/**/*.py"), *ROOT.glob("plugins/**/*.py")):
        place = path.relative_to(ROOT).as_posix()
        for text in literals(path):
            if LITERAL.fullmatch(text) and (place, text) not in ELSEWHERE and path != OWNER:
                offenders.append(f"{place}: {text}")
    assert offenders == [], "use selfloop.storage.run_folder"


def test_the_measure_measures(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        '"""run.sqlite"""\nx = f"adapters/round-{1:03}/gate.json"\ny = a / "run.lock"\n'
    )
    names = [text for text in literals(file) if LITERAL.fullmatch(text)]
    assert sorted(names) == ["/gate.json", "adapters/round-", "run.lock"]


def test_tuned_rounds_are_found_in_order(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.tuned_rounds() == []
    for number in (1000, 2, 10):
        folder.adapter(number).mkdir(parents=True)
    (folder.adapters / "round-x").mkdir()
    assert folder.tuned_rounds() == [2, 10, 1000]


def test_a_run_is_a_folder_with_a_database(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    RunFolder(tmp_path / "a").database.touch()
    (tmp_path / "b").mkdir()
    assert list(runs_in(tmp_path)) == [tmp_path / "a"]
    assert RunFolder(tmp_path / "a").is_run and not RunFolder(tmp_path / "b").is_run
    assert list(runs_in(tmp_path / "nowhere")) == []
