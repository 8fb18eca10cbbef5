"""A model may write anything: neither the display nor the store breaks, on the way in or out."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import Query, Selfloop

pytestmark = pytest.mark.slow

HOSTILE = {
    "control sequences": "\x1b]0;pwned\x07\x1b[2J\x1b[31mred\x1b[0m\r\x08\x9b1m\x00",
    "a million characters": "x" * 1_000_000,
    "pieces of characters": "caf\ufffd \udc80\ud800 half",
    "text turned around": "\u202eevil\u202c \u2066hidden\u2069",
    "markup and templates": "[bold red]{question} ${x} %s {0} {{draft}}[/] "
    "<script>alert(1)</script>",
    "nothing": "",
}
RECIPE = """
rounds: 2
backend: {kind: scripted, script: script.json, context: 10000000}
ask:
  {questions: 3, max_turns: 2, sources: [blank_slate, topics],
   scorers: [{kind: novelty, min_score: 0}]}
answer: {samples: 2, max_tokens: 2000000, stop: []}
"""
# what may act on a terminal: any control character but the newline, and what turns text around
ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_neither_display_nor_store_breaks(
    text: str, write: Callable[[Mapping[str, str]], Path], selfloop: Selfloop, query: Query
) -> None:
    script = {
        r"(Check|Answer|Corrected answer|Examples):\s*$": [text, f"a {text} b"],
        "": [f"What {text} is this?", text],
    }
    folder = write({"script.json": json.dumps(script), "recipe.yaml": RECIPE})
    said = selfloop("run", "recipe.yaml")
    assert said.code in (0, 7), said.err  # 7: of nothing, no question can be made
    shown = selfloop("show", "recipe", "--question", "")
    for out in (said.out, said.err, shown.out, shown.err):
        assert not ACTS.search(out), repr(ACTS.search(out))
        assert max(map(len, out.splitlines()), default=0) < 1000
        assert "Traceback" not in out
    run = folder / "runs/recipe"
    assert query(run, "PRAGMA integrity_check") == [("ok",)]
    assert all(json.loads(line) for line in (run / "events.jsonl").read_text().splitlines())
    assert selfloop("resume", run).code == said.code


def test_what_the_model_wrote_is_stored_as_it_was(
    write: Callable[[Mapping[str, str]], Path], selfloop: Selfloop, query: Query
) -> None:
    text = HOSTILE["control sequences"]
    script = {r"Answer:\s*$": [text], "": ["What is the capital of Egypt?"]}
    folder = write({"script.json": json.dumps(script), "recipe.yaml": RECIPE})
    assert selfloop("run", "recipe.yaml").code == 0
    drafts = query(folder / "runs/recipe", "SELECT data FROM attempts")
    assert {json.loads(data)["draft"]["text"] for (data,) in drafts} == {text}


def test_model_text_is_never_filled_in(
    write: Callable[[Mapping[str, str]], Path], selfloop: Selfloop
) -> None:
    """A question that looks like a prompt's field reaches the model as it is."""
    script = {
        r"Question: What is \{draft\} or \{question\}\?\nAnswer:\s*$": ["as it is"],
        "": ["What is {draft} or {question}?"],
    }
    write({"script.json": json.dumps(script), "recipe.yaml": RECIPE})
    assert "as it is" in selfloop("run", "recipe.yaml").out
