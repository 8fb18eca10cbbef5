"""Imports point one way, and start-up is quick."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import QUICK_S, cpu_limit, measured

from selfloop.registry.builtin import ROOMS

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "selfloop").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
# The rooms whose modules are components.
KINDS = set(ROOMS) - {"commands"}
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "gguf",
    "llama_cpp",
    "numpy",
    "pydantic",
    "rich",
    "ruamel",
}

DATA = {f"data.{path.stem}" for path in (ROOT / "selfloop" / "data").glob("[a-z]*.py")}
STEPS = {
    f"steps.{name}" for name in ("answer", "ask", "context", "critique", "decide", "tune", "verify")
}
# What each layer may import of selfloop. `protocols` and below are nouns; `steps` and above are
# verbs.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "storage.atomic": {"errors"},
    "text.display": set(),
    "progress": {"text.display", "text.units"},
    "text.units": set(),
    "system": set(),
    "api.run_folders": {"errors", "storage.run_folder"},
    "config.bundled": {"errors"},
    "evaluation.belief_history": {
        "contradictions",
        "history",
        "records",
        "text.answers",
        "text.gist",
    },
    "text.patterns": set(),
    "text.english": set(),
    "text.english.words": {"text.patterns"},
    "text.english.standalone": {"text.english.words", "text.patterns"},
    "text.english.short_answers": {"text.english.words", "text.patterns"},
    "text.english.forms": {"text.answers", "text.english.words", "text.patterns"},
    "text.english.mentions": {"text.answers"},
    "text.english.rewording": {"text.answers", "text.english.words", "text.patterns"},
    "text.english.sentences": {"text.answers", "text.patterns"},
    "text.english.entities": {"text.answers", "text.english.sentences", "text.patterns"},
    "text.english.likeness": {
        "records",
        "text.answers",
        "text.english.words",
        "text.gist",
        "text.patterns",
    },
    "text.answers": {"text.answers.declining", "text.answers.same"},
    "text.answers.folding": set(),
    "text.answers.figures": {"text.patterns"},
    "text.answers.bounded": {"errors"},
    "text.answers.same": {"text.answers.figures", "text.answers.folding", "text.patterns"},
    "text.answers.declining": {
        "text.answers.bounded",
        "text.answers.folding",
        "text.answers.same",
        "text.patterns",
    },
    "storage.plain_json": set(),
    "storage.run_names": set(),
    "storage.run_folder": set(),
    "storage.schema": set(),
    "storage.pinned": {"errors"},
    "storage.upgrades": {"storage.plain_json", "config.yaml_source"},
    "evaluation.gold": {"text.answers", "text.answers.bounded", "errors", "records"},
    "text.thoughts": {"config.prompts", "records"},
    "text.nonanswers": {
        "records",
        "text.answers",
        "text.english.words",
        "text.patterns",
        "text.thoughts",
    },
    "evaluation.metrics": set(),
    "records": {"errors"},
    "events": {"records"},
    "config.prompts": {"errors", "records"},
    "failed_steps": {"errors", "records"},
    "text.gist": set(),
    "history": {"text.gist", "text.nonanswers", "records"},
    "contradictions": {"history", "records", "text.answers", "text.gist"},
    "protocols": {"errors", "events", "history", "config.prompts", "records"},
    "registry.hookspecs": {"protocols"},
    "registry.isolation": {"text.display"},
    "guard": {"errors", "registry.isolation", "progress", "records"},
    "storage.store": {
        "text.answers",
        "storage.atomic",
        "errors",
        "history",
        "storage.plain_json",
        "storage.run_folder",
        "storage.schema",
        "storage.upgrades",
        "records",
        "text.display",
        "config.yaml_source",
    },
    "data": {"text.answers.bounded", "data", *DATA, "errors", "records", "text.display"},
    "storage.recorder": {
        "errors",
        "events",
        "guard",
        "progress",
        "protocols",
        "records",
        "storage.store",
        "text.display",
    },
    "loop": {*STEPS, "config.assembly", "history", "config.recipe", "records"},
}
# What stands above the steps: nothing but the runner and the command line may know it.
ABOVE = {"loop", "runner", "evaluation.rescoring", "forecast", "api", "cli", "testing", "__main__"}
# What a plugin, ours or anybody's, may import.
PUBLIC = {
    "",
    "text.answers",
    "errors",
    "events",
    "registry.hookspecs",
    "contradictions",
    "history",
    "config.prompts",
    "protocols",
    "records",
}
PUBLIC |= {
    "storage.atomic",
    "text.nonanswers",
    "progress",
    "testing",
    "text.display",
    "text.gist",
    "text.thoughts",
    "text.units",
}
PUBLIC |= {
    "text.patterns",
    "text.english.entities",
    "text.english.forms",
    "text.english.likeness",
    "text.english.mentions",
    "text.english.rewording",
    "text.english.sentences",
    "text.english.short_answers",
    "text.english.standalone",
}
# What commands and loaders may import too: they read runs, recipes and files, say what is
# installed, and measure.
PUBLIC |= {
    "cli",
    "config.bundled",
    "cli.extras",
    "api.builtin",
    "api.run_folders",
    "cli.options",
    "evaluation.belief_history",
    "evaluation.flips",
    "evaluation.gold",
    "registry.manager",
    "evaluation.metrics",
    "evaluation.round_figures",
    "config.recipe",
    "storage.parquet",
}
PUBLIC |= {
    "text.answers.bounded",
    "data",
    "data.hub",
    "evaluation.evaluate",
    "storage.store",
    "storage.plain_json",
    "storage.run_names",
    "storage.pinned",
    "storage.run_folder",
    "system",
    "text.units",
    "cli.tables",
}


def module(path: Path) -> str:
    """Return a file's name within selfloop: `steps`, `cli.run`, or an empty string for the package
    itself.
    """
    return (
        ".".join(path.relative_to(ROOT / "selfloop").with_suffix("").parts)
        .removesuffix("__init__")
        .strip(".")
    )


@cache
def imports(path: Path, *, at_load: bool = False) -> tuple[str, ...]:
    """Return the full names of what a file imports: see `find_imports`."""
    return tuple(find_imports(path, at_load=at_load))


def find_imports(path: Path, *, at_load: bool) -> Iterator[str]:
    """Yield the full names of what a file imports, less what only type checkers see (and less lazy
    ones).
    """
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            place = f"{'.' * node.level}{node.module}." if node.module else "." * node.level
            yield from (f"{place}{name.name}" for name in node.names)
        todo += ast.iter_child_nodes(node)


def stands_above(name: str) -> bool:
    """Return whether a module of selfloop is above the steps, or in a room that is."""
    return any(name == above or name.startswith(f"{above}.") for above in ABOVE)


@cache
def names() -> set[str]:
    return {module(path) for path in CORE}


def used(path: Path) -> set[str]:
    """Return the modules of selfloop that a file imports; an empty string is the package itself."""
    own = [
        name.removeprefix("selfloop").lstrip(".")
        for name in imports(path)
        if name.split(".")[0] == "selfloop"
    ]
    return {
        max((m for m in names() if m == name or name.startswith(f"{m}.") or not m), key=len)
        for name in own
    }


@pytest.mark.slow
def test_help_is_quick_and_imports_nothing_heavy() -> None:
    helped = measured("from selfloop.cli import main; main(['--help'])")
    assert helped.modules & HEAVY == set()
    assert helped.seconds < cpu_limit(QUICK_S)


@pytest.mark.slow
def test_listing_plugins_imports_no_model_library() -> None:
    found = measured("from selfloop.cli import main; main(['plugins'])").modules
    assert found & {"torch", "transformers", "peft", "gguf", "llama_cpp"} == set()


@pytest.mark.parametrize("path", CORE, ids=module)
def test_core_imports_point_down(path: Path) -> None:
    own = used(path)
    if (name := module(path)) in MAY_IMPORT:
        assert own - MAY_IMPORT[name] == set()
    if not stands_above(name):
        assert {m for m in own if stands_above(m)} == set()
    assert not [i for i in imports(path) if i.split(".")[0] in {"selfloop_plugins", "plugins"}]
    assert not [
        i
        for i in imports(path)
        if i.split(".")[0] in {"torch", "transformers", "peft", "llama_cpp"}
    ]


def test_no_cycles() -> None:
    """The package itself stands above its public modules; nothing below may import from it."""
    graph = {module(path): used(path) - {module(path)} for path in CORE}
    del graph[""]
    for own in graph.values():
        own.discard("")
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_use_public_names_only(path: Path) -> None:
    assert used(path) - PUBLIC == set()
    private = [
        name
        for name in imports(path)
        if name.startswith("selfloop.") and name.rpartition(".")[2].startswith("_")
    ]
    assert private == []


def test_every_package_is_installed() -> None:
    """An editable install has what was forgotten here; a wheel has not."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]["packages"]
    there = {path.parent for path in (*CORE, *PLUGINS) if path.name == "__init__.py"}
    names = {
        ".".join(path.relative_to(ROOT).parts).replace("plugins", "selfloop_plugins")
        for path in there
    }
    assert set(said) == names | {"selfloop_recipes"}


def component_of(name: str) -> tuple[str, ...]:
    """Return room and module of a component that registers; nothing for a helper or a command."""
    parts = name.removeprefix("selfloop_plugins.").split(".")
    in_a_room = name.startswith("selfloop_plugins.") and parts[0] in KINDS and len(parts) > 1
    return tuple(parts[:2]) if in_a_room and not parts[1].startswith("_") else ()


def absolute(path: Path, name: str) -> str:
    """Return the full name of an import of a plugin, which may be relative: `..tasks`."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    parts = ["selfloop_plugins", *path.relative_to(ROOT / "plugins").with_suffix("").parts]
    return ".".join([*parts[: len(parts) - dots], name.lstrip(".")])


def test_components_do_not_import_each_other() -> None:
    offenders = []
    for path in PLUGINS:
        parts = path.relative_to(ROOT / "plugins").with_suffix("").parts
        importer = component_of(".".join(["selfloop_plugins", *parts]))
        for name in imports(path):
            imported = component_of(absolute(path, name))
            if importer and imported and importer != imported:
                offenders.append(f"{'.'.join(importer)} -> {'.'.join(imported)}")
    assert offenders == [], "move the shared part into a helper: plugins/_shared, or _name.py"


def test_the_program_fits_on_a_screen() -> None:
    assert len((ROOT / "selfloop/loop.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_the_measures_measure(tmp_path: Path) -> None:
    """A test of these tests: each must be able to fail."""
    file = tmp_path / "some.py"
    file.write_text(
        '"""Doc."""\n\n# why\nfrom typing import TYPE_CHECKING\n'
        "if TYPE_CHECKING:\n    import torch\n"
        'def f():\n    """Doc\n    more."""\n    import peft\n    return """a\n    b"""\n'
    )
    assert set(imports(file)) == {"typing.TYPE_CHECKING", "peft"}
    assert set(imports(file, at_load=True)) == {"typing.TYPE_CHECKING"}


# Folders in `tests/` that mirror no folder of `selfloop/`.
OTHER_TESTS = {"browser", "contracts", "plugins", "properties", "state"}


def folders(path: Path) -> set[str]:
    """Return the names of the folders that have Python files somewhere in them."""
    return {file.relative_to(path).parts[0] for file in path.glob("*/**/*.py")}


def test_tests_mirror_the_source() -> None:
    tests = ROOT / "tests"
    assert folders(tests) - OTHER_TESTS <= folders(ROOT / "selfloop")
    assert folders(tests / "plugins") <= folders(ROOT / "plugins")
    assert list((tests / "plugins").glob("*.py")) == [], "they belong in the folder of their room"


def test_names_of_test_modules_are_unique() -> None:
    """Without packages, pytest imports each by its name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted(names) == sorted(set(names))
