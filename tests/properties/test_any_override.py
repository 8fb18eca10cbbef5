"""Any value that YAML can write, set by `--set`: it comes back as typed, also when stored."""

from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from selfloop.config.yaml_source import Source, override
from selfloop.errors import RecipeError

RECIPE = (
    "rounds: 1\nbackend: {kind: scripted, model: m}\n"
    "ask:\n  questions: 2\n  sources:\n    - blank_slate\n"
)
PATH = Path("recipe.yaml")

WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "yes",
            "no",
            "on",
            "~",
            "null",
            "1:20",
            "0x1f",
            "1e3",
            "- a",
            "a: b",
            "a #b",
            "'",
            '"',
            "&a",
            "*a",
            "!t",
            "|",
            ">",
            "%",
            "@",
            "{}",
            "[",
            "2024-01-01",
            "=",
            "<<",
            "😀",
            "",
        ]
    ),
)
WHOLE = st.integers(-(2**63), 2**64 - 1)  # what a recipe may hold
PLAIN = st.one_of(st.none(), st.booleans(), WHOLE, st.floats(allow_nan=False), WORDS)
VALUES = st.recursive(
    PLAIN,
    lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(WORDS, part, max_size=3)),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["rounds", "backend.model", "ask.questions", "ask.sources.0", "decide.belief", "new.key"]
)


def typed(value: Any) -> str:
    """Return a value as YAML writes it on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10**6
    yaml.allow_unicode = True
    yaml.dump({"value": value}, out := StringIO())
    return out.getvalue().strip().removeprefix("{value: ").removesuffix("}")


def at(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


@settings(max_examples=40)
@given(KEYS, VALUES)
def test_a_value_that_yaml_wrote_comes_back_as_typed(key: str, value: Any) -> None:
    source = Source(PATH, [f"{key}={typed(value)}"], text=RECIPE)
    assert at(source.data, key) == value
    assert type(at(source.data, key)) is type(value)


@given(KEYS, VALUES)
@example("backend.model", "😀.gguf")
@example("backend.model", "\x7f\x85\u2028\ufeff.gguf")
def test_a_value_that_the_library_sets_comes_back_as_it_is(key: str, value: Any) -> None:
    """So do `ask`, `score` and `eval`, with the paths of models and questions."""
    source = Source(PATH, [override(key, value)], text=RECIPE)
    assert at(source.data, key) == value


@settings(max_examples=25)  # ruamel takes long to write
@given(KEYS, VALUES)
def test_the_recipe_as_run_says_the_same_when_it_is_read_again(key: str, value: Any) -> None:
    source = Source(PATH, [f"{key}={typed(value)}"], text=RECIPE)
    again = Source(PATH, text=source.text())
    assert again.data == source.data


@settings(max_examples=25)
@given(KEYS, VALUES)
def test_what_is_not_set_stays_as_it_is(key: str, value: Any) -> None:
    source = Source(PATH, [f"{key}={typed(value)}"], text=RECIPE)
    plain = Source(PATH, text=RECIPE).data
    top = key.split(".")[0]
    assert {name: part for name, part in source.data.items() if name != top} == {
        name: part for name, part in plain.items() if name != top
    }


@given(st.text(max_size=30), st.text(max_size=30))
@example("rounds", "!!int x")
@example("rounds", "!!float x")
@example("rounds", "!!timestamp x")
@example("rounds", "!!binary x")
@example("rounds", "!!set {a, a}")
@example("rounds", "*none")
@example("rounds", "&a [*a]")
@example("rounds", "{<<: 1}")
@example("rounds", "{<<: [1]}")
@example("rounds", "{[a]: 1}")
@example("rounds", "2024-13-45")
@example("ask.sources.0.", "1")
@example("ask.sources.²", "1")
@example("rounds", "\x00")
@example("rounds", "\ud800")
def test_whatever_is_typed_is_taken_or_refused(key: str, value: str) -> None:
    """Nothing but a RecipeError, which is one line with what to do."""
    with suppress(RecipeError):
        source = Source(PATH, [f"{key}={value}"], text=RECIPE)
        Source(PATH, text=source.text())
