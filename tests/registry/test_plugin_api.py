"""The API of plugins: its version, the signatures of components, and what authors import."""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import Selfloop, measured

from selfloop import events, records
from selfloop import plugin as plugin_module
from selfloop.protocols import CAPABILITIES
from selfloop.registry.hookspecs import PLUGIN_API
from selfloop.registry.manager import HOOKS, load
from selfloop.registry.signatures import (
    CAPABILITY_OF,
    PROTOCOLS,
    mistakes,
    mistakes_of_class,
)
from selfloop.testing import ScriptedBackend

Write = Callable[[Mapping[str, str]], Path]

# A recipe that uses the plugin file, so that nothing but the plugin can be refused.
RECIPE = "rounds: 1\nplugins: [bad.py]\nbackend: scripted\nask: {questions: 2, sources: [topics]}\n"
HEAD = "from selfloop import Component, hookimpl\n"


def plugin(kind: str, method: str, *, build: str = "Bad", more: str = "") -> str:
    """Return a plugin file with one component of a kind."""
    return (
        f"{HEAD}class Bad:\n    {method}\n"
        f"@hookimpl\ndef {HOOKS[kind]}():\n    return [Component('bad', {build}{more})]\n"
    )


# a kind, one of its methods with a wrong signature, and what is said of it
WRONG = {
    "backend": (
        "def describe(self, verbose): pass",
        "the backend bad has describe(self, verbose): missing a required argument: 'verbose'. "
        "Write def describe(self)",
    ),
    "backend generates": (
        "def generate(self): pass",
        "has generate(self): too many positional arguments. Write def generate(self, requests)",
    ),
    "backend reads": (
        "def hidden_states(self, pairs): pass",
        "Write def hidden_states(self, pairs, positions, layer)",
    ),
    "source": (
        "def ask(self): pass",
        "the source bad has ask(self): too many positional arguments. Write def ask(self, context)",
    ),
    "scorer": ("def score(self): pass", "Write def score(self, questions, context)"),
    "detector": (
        "def verify(self, claims): pass",
        "the detector bad has verify(self, claims): too many positional arguments. "
        "Write def verify(self, claims, context)",
    ),
    "detector by keyword": (
        "def verify(self, claims, *, context): pass",
        "Write def verify(self, claims, context)",
    ),
    "detector without self": (
        "def verify(claims, context): pass",
        "Write def verify(self, claims, context)",
    ),
    "critic": ("def critique(self, claims): pass", "Write def critique(self, claims, context)"),
    "few_shot": (
        "def build_prompts(self): pass",
        "Write def build_prompts(self, questions, context)",
    ),
    "tuner": ("def tune(self): pass", "Write def tune(self, context)"),
    "observer": ("def on_event(self, event, more): pass", "Write def on_event(self, event)"),
}


@pytest.mark.parametrize(("name", "row"), WRONG.items(), ids=list(WRONG))
def test_a_class_with_a_wrong_signature_is_refused_when_it_is_loaded(
    name: str, row: tuple[str, str], write: Write, selfloop: Selfloop
) -> None:
    method, message = row
    folder = write({"bad.py": plugin(name.split()[0], method), "recipe.yaml": RECIPE})
    said = selfloop("check", "recipe.yaml")
    assert (said.code, said.out) == (4, "")
    assert said.err.startswith(f"selfloop: plugin bad.py: the {name.split()[0]} bad has ")
    assert message in said.err
    assert not (folder / "runs").exists()


# where a recipe names a component of each kind, and one that a factory function builds wrongly
USES = {
    "backend": RECIPE.replace("scripted", "bad"),
    "source": RECIPE.replace("topics", "bad"),
    "scorer": RECIPE.replace("[topics]", "[topics], scorers: [bad]"),
    "detector": RECIPE + "detectors: [bad]\n",
    "critic": RECIPE + "critique: bad\n",
    "few_shot": RECIPE + "few_shot: bad\n",
    "tuner": RECIPE + "tuner: bad\n",
    "observer": RECIPE + "observers: [bad]\n",
}


@pytest.mark.parametrize("kind", USES)
def test_what_a_factory_builds_is_checked_before_a_model_loads(
    kind: str, write: Write, selfloop: Selfloop
) -> None:
    method, message = WRONG[kind]
    # a backend that is asked for its model would raise this, and nothing else would be said
    code = plugin(kind, method, build="lambda: Bad()")
    folder = write({"bad.py": code, "recipe.yaml": USES[kind]})
    said = selfloop("run", "recipe.yaml")
    assert (said.code, said.out) == (4, "")
    assert f"the {kind} bad built a Bad, which has " in said.err
    assert message.rpartition("Write ")[2] in said.err
    assert not list((folder / "runs").glob("*"))


def test_a_backend_has_the_methods_of_its_capabilities() -> None:
    class Deaf(ScriptedBackend):
        attentions = None  # type: ignore[assignment]

    assert mistakes("backend", Deaf(), {"logprobs"}) == []
    expected = "gives attentions and has no attentions(pairs). Write it"
    assert mistakes("backend", Deaf(), {"attentions"}) == [expected]
    assert set(CAPABILITY_OF.values()) <= CAPABILITIES.keys()


@pytest.mark.parametrize(
    "method",
    [
        "def verify(self, *args): ...",
        "def verify(self, claims, context, extra=1): ...",
        "def verify(self, batch, told): ...",
        "verify = staticmethod(lambda claims, context: [])",
        "verify = classmethod(lambda cls, claims, context: [])",
        "verify = property(lambda self: lambda claims, context: [])",
        "def __init__(self): self.verify = lambda claims, context: []",
        "def __getattr__(self, name): return lambda *args: []",
    ],
)
def test_every_way_to_write_a_method_that_can_be_called_is_taken(method: str) -> None:
    names: dict[str, Any] = {}
    exec(f"class Sound:\n    {method}", names)
    assert mistakes_of_class("detector", names["Sound"]) == []
    assert mistakes("detector", names["Sound"]()) == []


def test_a_method_of_c_is_left_to_the_call() -> None:
    """`dict.update` has no signature that Python can read."""
    odd = type("Odd", (), {"verify": staticmethod(type("x", (dict,), {})().update)})
    assert mistakes("detector", odd()) == []


def test_every_kind_has_its_protocol() -> None:
    assert PROTOCOLS.keys() == HOOKS.keys()


def test_the_built_in_ones_fit() -> None:
    """All that selfloop comes with loads; a test of this test: it can fail."""
    catalog = load()
    assert catalog.broken == {}
    faults = [mistakes_of_class(kind, offer.component.build) for kind, offer in catalog]
    assert len(faults) > 40
    assert not any(faults)


# The version of the API that a plugin was written for.

VERSIONS = {
    "a module for a newer one": ("SELFLOOP_PLUGIN_API = 2\n", "", "SELFLOOP_PLUGIN_API is 2, and"),
    "a component for a newer one": ("", ", api=2", "whose api is 2, and selfloop"),
    "a version that is text": ("SELFLOOP_PLUGIN_API = '1'\n", "", "is '1', not a whole number"),
    "a version of none": ("", ", api=0", "whose api is 0, not a whole number"),
    "a version that is true": ("", ", api=True", "whose api is True, not a whole number"),
}


@pytest.mark.parametrize(("head", "more", "message"), VERSIONS.values(), ids=list(VERSIONS))
def test_a_plugin_for_another_api_is_refused(
    head: str, more: str, message: str, write: Write, selfloop: Selfloop
) -> None:
    code = head + plugin("detector", "def verify(self, claims, context): pass", more=more)
    write({"bad.py": code, "recipe.yaml": RECIPE})
    said = selfloop("check", "recipe.yaml")
    assert (said.code, said.out) == (4, "")
    assert message in said.err
    if "newer" in message or " 2, and" in message:
        assert "has the plugin API 1. Update selfloop: pip install --upgrade selfloop" in said.err


def test_a_newer_api_is_said_before_its_new_hooks(write: Write, selfloop: Selfloop) -> None:
    code = f"{HEAD}SELFLOOP_PLUGIN_API = 7\n@hookimpl\ndef selfloop_routers(): return []\n"
    write({"bad.py": code, "recipe.yaml": RECIPE})
    assert "plugin bad.py: SELFLOOP_PLUGIN_API is 7" in selfloop("check", "recipe.yaml").err


@pytest.mark.parametrize(
    ("head", "more"), [("", ""), (f"SELFLOOP_PLUGIN_API = {PLUGIN_API}\n", ", api=1")]
)
def test_a_plugin_that_says_nothing_is_taken_as_one_for_the_first(
    head: str, more: str, write: Write, selfloop: Selfloop
) -> None:
    code = head + plugin("detector", "def verify(self, claims, context): pass", more=more)
    write({"bad.py": code, "recipe.yaml": RECIPE})
    assert selfloop("check", "recipe.yaml").code == 0


def test_help_does_without_plugins_that_have_no_commands() -> None:
    few, all_of_them = load(commands_only=True), load()
    names = [(plugin, command.name) for plugin, command in all_of_them.commands]
    assert [(plugin, command.name) for plugin, command in few.commands] == names
    assert len(names) > 10
    assert len(few.plugins) < len(all_of_them.plugins) / 2


# The one module that authors import.

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "selfloop-doubt"
FOR_AUTHORS = [
    ROOT / "docs" / "plugins.md",
    *sorted((ROOT / "plugins" / "scaffold" / "templates").glob("*.py.j2")),
    *sorted(EXAMPLE.rglob("*.py")),
]
IMPORT = re.compile(r"^\s*(?:from|import) (selfloop(?:\.\w+)*)\b", re.MULTILINE)


def test_authors_import_one_module() -> None:
    modules = {module for file in FOR_AUTHORS for module in IMPORT.findall(file.read_text("utf-8"))}
    assert modules == {"selfloop.plugin", "selfloop.testing"}
    assert len(FOR_AUTHORS) > 20


def test_the_walk_over_imports_can_fail() -> None:
    text = (
        "import selfloop\nfrom selfloop.records import *\n    from selfloop.cli.options import x\n"
    )
    assert IMPORT.findall(text) == ["selfloop", "selfloop.records", "selfloop.cli.options"]


def test_every_name_for_authors_is_there_and_explained() -> None:
    names = plugin_module.__all__
    assert len(names) == len(set(names))  # ruff sorts them (RUF022)
    assert set(plugin_module.LAZY) <= set(names)
    for name in names:
        assert getattr(plugin_module, name) is not None
    # every kind of component has its protocol here, and every event and record is exported
    assert {protocol.__name__ for protocol in PROTOCOLS.values()} <= set(names)
    assert {event.__name__ for event in get_args(events.Event)} <= set(names)
    own = [
        value
        for value in vars(records).values()
        if getattr(value, "__module__", "") == records.__name__
    ]
    assert {record.__name__ for record in own if is_dataclass(record)} <= set(names)


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = plugin_module.nothing


def test_importing_it_is_quick() -> None:
    """A plugin is imported at each start, so what it imports must not bring pydantic."""
    modules = measured("import selfloop.plugin").modules
    assert not modules & {"pydantic", "numpy", "rich", "ruamel", "click"}


# The core knows no plugin by name.

# Words that name a component and are English too: they count only where a component is meant.
# Words of other meanings: a column, a target of `export`, a folder of a run.
WORDS = {"file", "dataset", "hf", "tensorboard"}
# `defaults` is the one table of names, `builtin` lists folders, and tests are for plugins' authors.
MAY_NAME = ("config/defaults.py", "registry/builtin.py", "testing/")


def components_named(source: str, names: set[str]) -> Iterator[tuple[int, str]]:
    """Yield line and name of each literal that names one of the components."""
    for node in ast.walk(ast.parse(source)):
        meant: list[ast.expr] = []
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            meant = [v for k, v in pairs if isinstance(k, ast.Constant) and k.value == "kind"]
        elif isinstance(node, ast.keyword) and node.arg == "kind":
            meant = [node.value]
        elif isinstance(node, ast.Compare):
            meant = list(node.comparators)
        elif isinstance(node, ast.Constant) and node.value not in WORDS:
            meant = [node]
        for literal in meant:
            if isinstance(literal, ast.Constant) and literal.value in names:
                yield literal.lineno, str(literal.value)


def test_the_core_knows_no_component_by_name() -> None:
    core = ROOT / "selfloop"
    catalog = load()
    names = {
        offer.component.name
        for _, offer in catalog
        if catalog.plugins[offer.plugin].startswith("selfloop ")
    }
    assert len(names) > 40
    for path in sorted(core.rglob("*.py")):
        place = path.relative_to(core).as_posix()
        if not place.startswith(MAY_NAME):
            assert list(components_named(path.read_text("utf-8"), names)) == [], place


def test_the_walk_over_names_can_fail() -> None:
    code = "a = {'kind': 'file', 'file': 'file'}\nb = x.kind == 'file'\nc = ('jsonl', 3)\n"
    assert set(components_named(code, {"file", "jsonl"})) == {
        (1, "file"),
        (2, "file"),
        (3, "jsonl"),
    }


TALKER = """\
from selfloop.plugin import *
from selfloop.testing import ScriptedBackend

class Talker:
    def on_event(self, event):
        if isinstance(event, RoundEnded): print("a round has ended")
    def close(self): pass

ASKED = []

class Tuner:
    def __init__(self, *, epochs: int = 1): pass
    def tune(self, context): return None

def readings(**options):
    ASKED.append(options)
    return 3.0

@hookimpl
def selfloop_backends():
    gives = frozenset({"logprobs", "chat", "adapters"})
    return [Component("bad", ScriptedBackend, gives=gives, docs="https://example.org/bad",
                      advise=lambda info: [f"{info.name} could be larger."])]

@hookimpl
def selfloop_observers():
    return [Component("talker", Talker, interactive=True), Component("other", Talker)]

@hookimpl
def selfloop_tuners():
    return [Component("slow", Tuner, estimate=readings)]
"""


def test_quiet_leaves_out_whatever_shows_the_run(write: Write, selfloop: Selfloop) -> None:
    write({"bad.py": TALKER, "recipe.yaml": RECIPE + "observers: [talker, other]\n"})
    assert selfloop("run", "recipe.yaml").out.count("a round has ended") == 2
    assert selfloop("run", "recipe.yaml", "--quiet").out.count("a round has ended") == 1


@pytest.mark.extra("stats")
def test_plan_asks_backends_and_tuners(write: Write, selfloop: Selfloop) -> None:
    text = RECIPE.replace("scripted", "bad") + "tuner: {kind: slow, epochs: 3}\n"
    write({"bad.py": TALKER, "recipe.yaml": text})
    said = selfloop("plan", "recipe.yaml", "--json")
    plan = json.loads(said.out)
    assert any(warning.endswith(" could be larger.") for warning in plan["warnings"])
    # the estimate has been asked once, for the options of the recipe
    assert sys.modules["selfloop_file_plugin_bad"].ASKED == [{"epochs": 3}]
    assert "tune" in [step["name"] for step in plan["steps"]]
