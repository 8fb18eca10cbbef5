"""Components that wrap another: checked with its lines, built after it, with its capabilities."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import Query, Selfloop

from selfloop.config.assembly import build_component, check, prompts
from selfloop.config.components import backend_capabilities
from selfloop.config.inputs import inputs
from selfloop.config.recipe import read
from selfloop.errors import PluginError

Write = Callable[[Mapping[str, str | bytes]], Path]

PLUGIN = '''
from pathlib import Path
from selfloop.plugin import *
from selfloop.testing import ScriptedBackend

HERE = Path(__file__).parent
BUILT = []


class Passing:
    """Passes everything on to another backend."""

    def __init__(self, *, inner: Backend, note: str = "", fail: bool = False) -> None:
        BUILT.append(f"passing {note} around {type(inner).__name__}")
        if fail:
            raise RuntimeError("the wrapper is broken")
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Small(ScriptedBackend):
    """A backend with few capabilities, and an option of each sort that is looked at."""

    def __init__(self, *, context: int = 2048, file: Path | None = None) -> None:
        super().__init__(context=context)
        BUILT.append("small")
        self.file = file

    def close(self) -> None:
        BUILT.append("small is closed")


def check_small(*, context: int = 2048, file: Path | None = None) -> None:
    if context == 7:
        raise RecipeError("7 is an unlucky context")


class Halved:
    """Half the confidence of another detector, or of none."""

    def __init__(self, *, of: Detector | None = None, by: float = 2.0) -> None:
        self.of, self.by = of, by

    def verify(self, claims, context):
        if self.of is None:
            return [Verdict("halved", 0.5) for claim in claims]
        verdicts = self.of.verify(claims, context)
        return [Verdict("halved", v.confidence and v.confidence / self.by) for v in verdicts]


class Needy:
    def __init__(self, *, words: tuple[str, ...] = ()) -> None:
        pass

    def verify(self, claims, context):
        return [Verdict("needy", 0.8) for claim in claims]


@hookimpl
def selfloop_backends():
    gives = frozenset({"logprobs", "chat", "attentions"})
    return [
        Component("passing", Passing, wraps="inner", gives=gives, needs=frozenset({"chat"})),
        Component("small", Small, gives=frozenset({"logprobs", "chat"}), check=check_small,
                  extra="of-small"),
        Component("mute", Small, gives=frozenset({"logprobs"})),
    ]


@hookimpl
def selfloop_detectors():
    return [
        Component("halved", Halved, wraps="of"),
        Component("needy", Needy, needs=frozenset({"attentions"}), prompts=HERE / "needy"),
    ]
'''
RECIPE = """\
rounds: 1
plugins: [wrap.py]
ask: {questions: 2, sources: [topics]}
observers: [jsonl]
"""
NESTED = """\
backend:
  kind: passing
  note: outer
  inner:
    kind: passing
    note: middle
    inner:
      kind: small
      context: 512
"""


@pytest.fixture
def recipe(write: Write) -> Callable[[str], Path]:
    """Write a recipe that begins with RECIPE (four lines), and the plugin beside it."""

    def _recipe(text: str) -> Path:
        files = {"wrap.py": PLUGIN, "needy/needy.base.txt": "{question}", "r.yaml": RECIPE + text}
        return write(files) / "r.yaml"

    return _recipe


# the recipe after its first four lines, and the mistake
MISTAKES = {
    "unknown inner kind": (
        "backend:\n  kind: passing\n  inner:\n    kind: smal\n",
        "line 8: backend.inner.kind: no backend named 'smal'. Did you mean 'small'?",
    ),
    "unknown inner kind, written short": (
        "backend:\n  kind: passing\n  inner: smal\n",
        "line 7: backend.inner.kind: no backend named 'smal'. Did you mean 'small'?",
    ),
    "a detector is not a backend": (
        "backend:\n  kind: passing\n  inner: agreement\n",
        "line 7: backend.inner.kind: no backend named 'agreement'.",
    ),
    "unknown inner option": (
        "backend:\n  kind: passing\n  inner:\n    kind: small\n    contxt: 5\n",
        "line 9: backend.inner.contxt: unknown key. Did you mean 'context'? Known: context, file.",
    ),
    "wrong type of an inner option": (
        "backend:\n  kind: passing\n  inner:\n    kind: small\n    context: many\n",
        'line 9: backend.inner.context: must be a valid integer, not "many".',
    ),
    "no inner component": ("backend: passing\n", "line 5: backend.inner: is missing. Add it."),
    "no inner kind": (
        "backend:\n  kind: passing\n  inner: {context: 5}\n",
        "line 7: backend.inner.kind: is missing. Add it.",
    ),
    "a number": (
        "backend:\n  kind: passing\n  inner: 3\n",
        "line 7: backend.inner: must be a mapping of keys to values, not 3.",
    ),
    "a list": (
        "backend:\n  kind: passing\n  inner: [small]\n",
        'line 7: backend.inner: must be a mapping of keys to values, not ["small"].',
    ),
    "nothing where one is needed": (
        "backend:\n  kind: passing\n  inner: none\n",
        "line 7: backend.inner.kind: no backend named 'none'.",
    ),
    "deep inside": (
        NESTED.replace("512", "0.5"),
        "line 13: backend.inner.inner.context: must be a valid integer, not 0.5.",
    ),
    "an inner detector": (
        "backend: scripted\ndetectors:\n  - agreement\n  - kind: halved\n"
        "    of: {kind: needy, word: a}\n",
        "line 9: detectors.1.of.word: unknown key. Did you mean 'words'?",
    ),
    "capabilities of the inner backend": (
        "backend:\n  kind: passing\n  inner: mute\ndetectors: [agreement]\n",
        "line 7: backend.inner: the backend passing needs chat, which the backend mute lacks. "
        "It has: logprobs.",
    ),
    "capabilities that do not get through": (
        "backend:\n  kind: passing\n  inner: small\ndetectors:\n  - needy\n",
        "line 9: detectors.0: the detector needy needs attentions, which the backend passing "
        "lacks. It has: chat, logprobs.",
    ),
    "needs of an inner detector": (
        "backend: small\ndetectors:\n  - kind: halved\n    of: needy\n",
        "line 8: detectors.0.of: the detector needy needs attentions, which the backend small",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_in_the_inner_component_has_its_line(
    text: str, message: str, recipe: Callable[[str], Path], selfloop: Selfloop
) -> None:
    recipe(text)
    said = selfloop("check", "r.yaml")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n  ") == 1, "one mistake is said once"
    assert message in said.err


def test_keys_of_the_loop_are_not_options_of_an_inner_component(
    recipe: Callable[[str], Path], write: Write, selfloop: Selfloop
) -> None:
    scorer = (
        "from selfloop.plugin import *\nclass Same:\n    def __init__(self, *, of: Scorer): ...\n"
        "    def score(self, questions, context): return []\n"
        "@hookimpl\ndef selfloop_scorers(): return [Component('same', Same, wraps='of')]\n"
    )
    write({"same.py": scorer, "s.yaml": RECIPE.replace("wrap.py", "same.py")})
    change = "ask.scorers=[{kind: same, min_score: 0.5, of: {kind: novelty, min_score: 0.5}}]"
    said = selfloop("check", "s.yaml", "--set", "backend=scripted", "--set", change)
    assert "ask.scorers.0.of.min_score: unknown key." in said.err
    assert "ask.scorers.0.minimum" not in said.err


def test_an_inner_backend_is_checked_without_a_model(
    recipe: Callable[[str], Path], selfloop: Selfloop
) -> None:
    recipe(NESTED.replace("512", "7"))
    said = selfloop("check", "r.yaml")
    assert (said.code, said.err) == (2, "selfloop: 7 is an unlucky context\n")


def test_an_override_reaches_the_inner_component(
    recipe: Callable[[str], Path], selfloop: Selfloop
) -> None:
    recipe("backend: {kind: passing, inner: small}\n")
    assert selfloop("check", "r.yaml", "--set", "backend.inner.context=9").code == 0
    said = selfloop("check", "r.yaml", "--set", "backend.inner.context=x")
    assert "--set backend.inner.context=x: backend.inner.context: must be a valid" in said.err


def test_the_innermost_is_built_first_and_handed_on(recipe: Callable[[str], Path]) -> None:
    loaded = read(recipe(NESTED))
    check(loaded)
    backend = build_component(loaded, "backend", loaded.recipe.backend, Path("run"))
    module = sys.modules["selfloop_file_plugin_wrap"]
    assert module.BUILT == ["small", "passing middle around Small", "passing outer around Passing"]
    assert type(backend.inner.inner) is module.Small
    assert backend.describe().context == 512


def test_a_wrapper_that_cannot_be_built_leaves_no_model_open(recipe: Callable[[str], Path]) -> None:
    loaded = read(recipe(NESTED.replace("note: outer", "fail: true")))
    with pytest.raises(PluginError, match=r"the backend passing cannot be built: RuntimeError"):
        build_component(loaded, "backend", loaded.recipe.backend, Path("run"))
    module = sys.modules["selfloop_file_plugin_wrap"]
    # the middle one passes `close` on
    assert module.BUILT[-1] == "small is closed"


def test_capabilities_are_those_that_every_layer_has(recipe: Callable[[str], Path]) -> None:
    loaded = read(recipe(NESTED))
    gives = backend_capabilities(loaded.recipe.backend, loaded.catalog)
    assert gives == {"logprobs", "chat"}
    # none of the default detectors is taken that needs more
    for spec in loaded.recipe.detectors:
        assert loaded.catalog.find("detector", spec.kind).needs <= gives


def test_prompts_and_files_of_inner_components_are_the_runs(recipe: Callable[[str], Path]) -> None:
    path = recipe(
        "backend:\n  kind: passing\n  inner: {kind: small, file: words.txt}\n"
        "detectors: [{kind: halved, of: needy}]\n"
    )
    (path.parent / "words.txt").write_text("a b c")
    loaded = read(path)
    assert "needy" in prompts(loaded).names
    assert inputs(loaded).keys() == {
        "plugins.0",
        "backend.inner.file",
        "detectors.0.of (its prompts)",
    }


@pytest.mark.parametrize(
    ("detector", "confidences"),
    [
        ("{kind: halved, of: {kind: halved, by: 1.0}}", {0.25}),
        ("{kind: halved, of: none}", {0.5}),
        ("halved", {0.5}),
    ],
)
def test_a_wrapped_detector_judges_in_a_run(
    detector: str,
    confidences: set[float],
    recipe: Callable[[str], Path],
    selfloop: Selfloop,
    query: Query,
) -> None:
    """A wrapper may do without an inner component where its parameter has None as default."""
    recipe(f"backend: {{kind: passing, inner: small}}\ndetectors: [{detector}]\n")
    assert selfloop("run", "r.yaml").code == 0
    rows = query(Path("runs/r"), "SELECT DISTINCT confidence FROM verdicts")
    assert {confidence for (confidence,) in rows} == confidences
    assert selfloop("resume", "runs/r").code == 0


def test_a_wrapper_must_name_one_of_its_options(write: Write, selfloop: Selfloop) -> None:
    code = PLUGIN.replace('wraps="of"', 'wraps="off"')
    write({"wrap.py": code, "r.yaml": f"{RECIPE}backend: scripted\n"})
    said = selfloop("check", "r.yaml")
    assert said.code == 4
    assert "Component 'halved' whose wraps is 'off', which its build does not take." in said.err


def test_plugins_shows_what_wraps(selfloop: Selfloop) -> None:
    rows = json.loads(selfloop("plugins", "--json").out)["components"]
    wrapping = {row["name"]: row["wraps"] for row in rows if row.get("wraps")}
    assert wrapping in ({}, {"budgeted": "inner"}), "budgeted, where the example is installed"
