"""Files of `selfloop new` and `selfloop recipes --out` run, whatever their names are."""

from pathlib import Path

import pytest
from conftest import Selfloop

from selfloop.config.yaml_source import Source

pytestmark = pytest.mark.slow

QUESTIONS = "What is the capital of Egypt?\nWho wrote Emma?\n"
NAMES = [
    "questions-of-22-chars.txt",
    "a-question-file-with-a-name-that-is-much-longer-than-the-column-of-the-comments-in-a-recipe.txt",
    "with spaces in it.txt",
    "#1.txt",
    "a #1.txt",
    "it's.txt",
    'so "called".txt',
    "a: b.txt",
    "back\\slash.txt",
    "C:\\new\\table.txt",
    "東京 😀.txt",
    "~home.txt",
    "- x.txt",
    "[a].txt",
    "{a}.txt",
    "{{ a }}.txt",
    "*x.txt",
    "%x.txt",
    "!x.txt",
    "a\nb: c.txt",
    "a\tb.txt",
    "a\x85b\u2028c.txt",
    "1e5",
    "null",
    "true",
    "2001-01-01",
    "0x10",
    "'",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_recipe_for_a_question_file_of_any_name_runs(
    name: str, work: Path, selfloop: Selfloop
) -> None:
    (work / name).write_text(QUESTIONS)
    said = selfloop("new", "recipe", "r.yaml", "--model", "scripted", "--questions", name)
    assert said.code == 0, said.err
    (spec,) = Source(work / "r.yaml").data["ask"]["sources"]
    assert (work / spec["path"]).samefile(work / name)
    ran = selfloop("run", "r.yaml", "--quiet")
    assert ran.code == 0, ran.err
    assert selfloop("show", "r", "--question", "Emma").out.count("Who wrote Emma?") == 1


@pytest.mark.parametrize(
    "name", ["a\nrounds: 7\n.yaml", "über #1.yaml", "東京.yaml", "con.yaml", "-.yaml"], ids=ascii
)
@pytest.mark.parametrize("purpose", ["knowledge", "decline"])
def test_a_recipe_of_any_name_is_checked_and_runs(
    name: str, purpose: str, work: Path, selfloop: Selfloop
) -> None:
    said = selfloop("new", "recipe", "--model", "scripted", "--for", purpose, "--", name)
    assert said.code == 0, said.err
    assert Source(work / name).data["rounds"] == 2
    checked = selfloop("check", "--set", "tuner=null", "--", name)
    assert checked.code == 0, checked.err


@pytest.mark.parametrize(
    "name", ["m #1.gguf", "a: b.gguf", "hf:x.gguf", "m\n- x.gguf", "über 😀.gguf"], ids=ascii
)
def test_a_model_file_of_any_name_is_named_in_the_recipe(
    name: str, work: Path, selfloop: Selfloop
) -> None:
    (work / name).write_bytes(b"GGUF\x03" + bytes(30))
    said = selfloop("new", "recipe", "r.yaml", "--model", name, "--for", "knowledge")
    assert said.code == 0, said.err
    assert Path(Source(work / "r.yaml").data["backend"]["model"]).samefile(work / name)
    assert selfloop("check", "r.yaml").code == 0


def test_a_name_that_is_no_text_is_refused(work: Path, selfloop: Selfloop) -> None:
    (work / "a\udc80.txt").write_text(QUESTIONS)
    said = selfloop("new", "recipe", "r.yaml", "--model", "scripted", "--questions", "a\udc80.txt")
    assert said.code == 2
    assert "is not UTF-8 text" in said.err
    assert not (work / "r.yaml").exists()


@pytest.mark.parametrize("name", ["a\nrounds: 7\n.yaml", "a b #1.yaml"], ids=ascii)
def test_a_copy_of_a_recipe_may_have_any_name(name: str, work: Path, selfloop: Selfloop) -> None:
    assert selfloop("recipes", "quickstart", "--out", name).code == 0
    assert selfloop("check", name).code == 0
