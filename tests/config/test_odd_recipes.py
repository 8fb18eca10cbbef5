"""Recipes that a stranger may have written, values as they are typed, and the names of runs."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from conftest import RECIPE, Selfloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfloop.config.yaml_source import Source
from selfloop.errors import RecipeError
from selfloop.storage.run_names import MAX_CHARACTERS, fitting, mistake

Write = Callable[[Mapping[str, str | bytes]], Path]
BASE = Path("r.yaml")


def set_to(typed: str) -> Any:
    """Return what `--set x=TYPED` makes of a recipe."""
    return Source(BASE, (f"x={typed}",), RECIPE).data["x"]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("3", 3),
        (" 3 ", 3),
        ("-0.5", -0.5),
        ("1e5", 1e5),
        ("3.231636523820481e-16", 3.231636523820481e-16),
        ("~", "~"),
        ("true", True),
        ("null", None),
        ("yes", "yes"),
        ("no", "no"),
        ("a #1.txt", "a #1.txt"),
        ("#1", "#1"),
        ("a: b", "a: b"),
        ("a=b", "a=b"),
        ("12:30", "12:30"),
        ("2001-12-14 21:59:43", "2001-12-14 21:59:43"),
        ("*x", "*x"),
        ("&x y", "&x y"),
        ("!x", "!x"),
        ("| x", "| x"),
        ("- x", "- x"),
        ("? x", "? x"),
        ("@x", "@x"),
        ("%x", "%x"),
        ("---", "---"),
        ("C:\\new\\tab", "C:\\new\\tab"),
        ("it's", "it's"),
        ("a\nb", "a\nb"),
        ("a\tb", "a\tb"),
        ("Frage für 東京 😀", "Frage für 東京 😀"),
        ("[a, b]", ["a", "b"]),
        ("{a: 1}", {"a": 1}),
        ("[]", []),
        ('"007"', "007"),
        ("'null'", "null"),
        ('""', ""),
        (json.dumps("😀"), "😀"),
        ('["\\n"]', ["\n"]),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_a_value_is_taken_as_typed(typed: str, value: Any) -> None:
    taken = set_to(typed)
    assert (taken, type(taken)) == (value, type(value))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "pieces"),
    [
        ("", ("there is no value", "x=null")),
        ("  ", ("there is no value",)),
        ("[1", ("begins with [",)),
        ("[a] #1", ("something follows", "--set 'x=\"[a] #1\"'")),
        ('"a" b', ("something follows", '--set \'x="\\"a\\" b"\'')),
        ("'90s", ("begins with '",)),
        ("{a: 1, a: 2}", ("duplicate key",)),
        ("[*a]", ("undefined alias",)),
        ("[!!python/none x]", ("no tags",)),
        ("a\udc80", ("not UTF-8",)),
        ("[" * 3000, ("begins with [",)),
        ("[" * 3000 + "]" * 3000, ("nested",)),
        ("9" * 25, ("64 bits",)),
    ],
)
def test_what_cannot_be_taken_as_typed_is_refused_with_how_to_write_it(
    typed: str, pieces: tuple[str, ...]
) -> None:
    with pytest.raises(RecipeError) as refused:
        set_to(typed)
    assert [piece for piece in pieces if piece not in str(refused.value)] == [], refused.value


def test_spaces_around_the_key_do_not_matter() -> None:
    assert Source(BASE, ("rounds = 3", "answer . samples=5"), RECIPE).data["rounds"] == 3


@pytest.mark.parametrize("override", ["rounds", "=3", " =3", "ask..turns=3", "ask.=3", ".ask=3"])
def test_a_key_without_a_name_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match="write it as --set key=value"):
        Source(BASE, (override,), RECIPE)


@given(st.text(max_size=40))
@example("1e5")
@example("x: #")
@example("\x85\u2028\ufeff\x00")
def test_an_overridden_recipe_reads_again_as_it_ran(typed: str) -> None:
    """What is stored as the recipe of a run is read again when it is resumed."""
    try:
        source = Source(BASE, (f"x={typed}",), RECIPE)
    except RecipeError:
        return
    assert Source(BASE, (), source.text()).data == source.data


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@given(_JSON)
@settings(max_examples=60)
def test_a_value_given_as_json_is_that_value(value: Any) -> None:
    """`selfloop.run(recipe, {key: value})` lays values over a recipe as JSON."""
    source = Source(BASE, (f"x={json.dumps(value)}",), RECIPE)
    assert source.data["x"] == value
    assert Source(BASE, (), source.text()).data == source.data


@given(
    st.text(
        alphabet=st.characters(codec="utf-8") | st.sampled_from("[]{}:,-&*!|>'\"#%@`?\n \t~<."),
        max_size=60,
    )
)
@settings(max_examples=150)
@example("a: &x [*x]")
@example("<<: 5")
@example("%YAML 9.9\n---\na: 1")
@example('a: "\\ud83d"')
def test_any_text_is_a_recipe_or_a_mistake(text: str) -> None:
    try:
        data = Source(BASE, (), text).data
    except RecipeError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(data)


def test_a_value_set_below_an_alias_changes_nothing_else() -> None:
    text = RECIPE + "critique: &part\n  kind: brief\n  words: 1\ntuner: *part\n"
    data = Source(BASE, ("tuner.words=2",), text).data
    assert (data["critique"], data["tuner"]) == (
        {"kind": "brief", "words": 1},
        {"kind": "brief", "words": 2},
    )


def test_a_value_set_below_merged_keys_changes_nothing_else() -> None:
    text = RECIPE + "base: &base\n  a: {b: 1}\nother:\n  <<: *base\n"
    source = Source(BASE, ("other.a.b=2",), text)
    assert (source.data["base"], source.data["other"]) == ({"a": {"b": 1}}, {"a": {"b": 2}})
    assert Source(BASE, (), source.text()).data == source.data


def test_what_is_none_can_be_given_parts() -> None:
    assert Source(BASE, ("tuner.kind=lora",), RECIPE + "tuner: null\n").data["tuner"] == {
        "kind": "lora"
    }


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
BROKEN: list[tuple[str, str | bytes, str]] = [
    ("nested 3,000 deep, in brackets", "x: " + "[" * 3000 + "]" * 3000, "nested more than"),
    (
        "nested 900 deep, by indentation",
        "\n".join(" " * n + "a:" for n in range(900)),
        "nested more than",
    ),
    ("nested 3,000 deep, as lists", "x: \n" + "- " * 3000, "nested more than"),
    ("a billion laughs", LAUGHS, "aliases"),
    ("a long text, often", f"x: &x {'a' * 100_000}\ny: [{', '.join(['*x'] * 1000)}]\n", "aliases"),
    ("an alias of what it stands in", "x: &x [*x]\n", "*x stands in the value"),
    ("100 MB", b"x: " + b"a" * 100_000_000, "more than"),
    ("binary", bytes(range(256)) * 10, "not UTF-8"),
    ("UTF-16", "rounds: 1\n".encode("utf-16"), "not UTF-8"),
    ("Latin-1", "name: é\n".encode("latin-1"), "not UTF-8"),
    ("NUL", RECIPE + "x: a\x00b\n", "not YAML"),
    ("escape", RECIPE + "x: a\x1b[31mb\n", "not YAML"),
    ("tabs", "ask:\n\tquestions: 2\n", "line 2: this is not YAML"),
    ("duplicate keys", RECIPE + "rounds: 2\n", 'duplicate key "rounds"'),
    ("several documents", RECIPE + "---\n" + RECIPE, "line 5: a second document"),
    ("a tag", RECIPE + "x: !!python/object:os.system ls\n", "no tags"),
    ("a set", RECIPE + "x: !!set {a, b}\n", "no tags"),
    ("bytes", RECIPE + "x: !!binary aGk=\n", "no tags"),
    ("a list as key", RECIPE + "? [a]\n: 1\n", "plain text"),
    ("half a character", RECIPE + 'x: "\\ud83d"\n', "half a character"),
    ("a number of 100 digits", RECIPE + f"seed: {'9' * 100}\n", "line 5: seed: this number"),
    ("a number of 10,000 digits", RECIPE + f"seed: {'9' * 10_000}\n", "not YAML"),
    ("empty", "", "is a mapping"),
    ("a list", "- a\n", "is a mapping"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "piece"), [pytest.param(*case[1:], id=case[0]) for case in BROKEN]
)
def test_a_broken_recipe_is_one_line(
    content: str | bytes, piece: str, write: Write, selfloop: Selfloop
) -> None:
    write({"r.yaml": content})
    started = monotonic()
    said = selfloop("check", "r.yaml")
    assert monotonic() - started < 20
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("selfloop: ") and piece in said.err and len(said.err) < 400


def test_half_a_character_twice_is_one_as_json_writes_it() -> None:
    assert Source(BASE, (), RECIPE + 'x: "\\ud83d\\ude00"\n').data["x"] == "😀"


def test_a_byte_order_mark_is_no_part_of_a_recipe(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": b"\xef\xbb\xbf" + RECIPE.encode()})
    assert selfloop("check", "r.yaml").code == 0


def test_many_mistakes_are_not_all_listed(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE + "".join(f"k{n}: 1\n" for n in range(500))})
    said = selfloop("check", "r.yaml")
    assert "500 mistakes" in said.err and "and 460 more" in said.err


@pytest.mark.parametrize(
    ("typed", "advice"), [("007", "--set 'name=\"007\"'"), ("true", "--set 'name=\"true\"'")]
)
def test_what_is_no_text_says_how_it_is_written_as_text(
    typed: str, advice: str, write: Write, selfloop: Selfloop
) -> None:
    write({"r.yaml": RECIPE})
    said = selfloop("check", "r.yaml", "--set", f"name={typed}")
    assert said.code == 2
    assert advice in said.err


def test_a_recipe_says_it_too(write: Write, selfloop: Selfloop) -> None:
    write({"r.yaml": RECIPE + "name: 7\n"})
    assert (
        'line 5: name: must be text, not 7. In quotes it is text: "7"'
        in selfloop("check", "r.yaml").err
    )


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my recipe.yaml", "my-recipe"),
        ("Über.yaml", "Uber"),
        ("con.yaml", "run-con"),
        ("LPT1.old.yaml", "run-LPT1.old"),
        ("...yaml", "run"),
        (".yaml", "yaml"),
        ("-x.yaml", "x"),
        ("x..yaml", "x"),
        ("東京.yaml", "run"),
        ("план 2.yaml", "2"),
        ("n" * 200 + ".yaml", "n" * MAX_CHARACTERS),
        ("a\nb.yaml", "a-b"),
        ("$(x)'\".yaml", "x"),
        ("quick_start.v2.yaml", "quick_start.v2"),
    ],
)
def test_the_name_of_a_file_is_made_fit_for_a_run(
    file: str, name: str, write: Write, selfloop: Selfloop
) -> None:
    folder = write({file: RECIPE})
    said = selfloop("run", f"./{file}", "--quiet")
    assert said.code == 0, said.err
    assert [path.name for path in (folder / "runs").iterdir()] == [name]


def test_a_name_that_was_made_fit_is_said(
    write: Write, selfloop: Selfloop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write({"my recipe.yaml": RECIPE, "mine.yaml": RECIPE})
    selfloop("run", "my recipe.yaml", "--quiet")
    assert "the run is called my-recipe" in caplog.text
    caplog.clear()
    selfloop("run", "mine.yaml", "--quiet")
    assert "is called" not in caplog.text


@pytest.mark.parametrize(
    "name", ["my recipe", "Über", "con", "nul.x", "..", "a/b", "x.", "", "n" * 81, "-x"]
)
def test_a_name_that_is_written_is_held_to(name: str, write: Write, selfloop: Selfloop) -> None:
    folder = write({"r.yaml": RECIPE + f"name: {json.dumps(name, ensure_ascii=False)}\n"})
    said = selfloop("run", "r.yaml")
    assert said.code == 2
    assert "line 5: name: " in said.err
    assert not (folder / "runs").exists()


@given(st.text(max_size=200))
def test_every_fitted_name_fits(stem: str) -> None:
    name = fitting(stem)
    assert mistake(name) == "" and len(name) <= MAX_CHARACTERS + len("run-")
    assert fitting(name) == name or len(name) > MAX_CHARACTERS


def test_a_run_with_a_fitted_name_is_resumed_under_it(write: Write, selfloop: Selfloop) -> None:
    write({"my recipe.yaml": RECIPE})
    selfloop("run", "my recipe.yaml", "--quiet")
    assert selfloop("resume", "my-recipe", "--quiet").out.strip() == "runs/my-recipe"
