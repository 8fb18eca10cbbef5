"""`ask` and `score`: one round over given questions, by a recipe or a model alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Query, Selfloop
from tuned_run import PLUGIN
from tuned_run import RECIPE as TUNED

from selfloop.storage.store import Store

Write = Callable[[Any], Path]

SURE = {
    r"France\?\nAnswer:\s*$": ["Paris"],
    r"Answer:\s*$": ["Giza", "Nile", "Oslo", "Peru", "Rome", "Bonn", "Kyiv"],
}
RECIPE = """\
backend: {kind: scripted, script: world.json}
ask: {sources: [blank_slate]}
answer: {samples: 4}
critique: none
detectors: [agreement]
"""
KNOWN, UNKNOWN = "What is the capital of France?", "What is the capital of Zorvania?"


@pytest.fixture
def world(write: Write) -> Path:
    return write({"recipe.yaml": RECIPE, "world.json": json.dumps(SURE)})


def test_ask_says_what_the_model_knows_and_that_it_does_not_know(
    world: Path, selfloop: Selfloop
) -> None:
    said = selfloop("ask", "recipe.yaml", KNOWN, UNKNOWN)
    assert said.code == 0, said.err
    known, unknown = said.out.split("\n\n")
    assert known.splitlines() == [
        KNOWN,
        "Paris",
        "  confidence 1.00",
        "  4 more samples: Paris ×4",
    ]
    assert unknown.splitlines()[:2] == [UNKNOWN, "I don't know"]
    assert "  best guess (confidence " in unknown
    assert not (world / "runs").exists(), "asking leaves nothing behind"


def test_ask_in_json(world: Path, selfloop: Selfloop) -> None:
    (one,) = json.loads(selfloop("ask", "recipe.yaml", KNOWN, "--json").out)
    assert (one["answer"], one["known"], one["confidence"], one["samples"]) == (
        "Paris",
        True,
        1.0,
        {"Paris": 4},
    )
    both = json.loads(selfloop("ask", "recipe.yaml", KNOWN, UNKNOWN, "--json").out)
    assert [each["question"] for each in both] == [KNOWN, UNKNOWN]
    assert both[0] == one
    assert (both[1]["answer"], both[1]["known"]) == ("I don't know", False) and both[1]["guess"]


def test_ask_goes_by_the_threshold(world: Path, selfloop: Selfloop) -> None:
    (said,) = json.loads(
        selfloop(
            "ask", "recipe.yaml", UNKNOWN, "--json", "--set", "decide={belief: 0.0001, declined: 0}"
        ).out
    )
    assert said["decision"] in ("belief", "declined")
    assert said["known"] is (said["confidence"] > 0)


@pytest.mark.parametrize(
    "question", ["{question}", "a\nQuestion: b\nAnswer: c", "\x1b[2J", "é\u2028x", "--", "None"]
)
def test_a_question_is_data(question: str, world: Path, selfloop: Selfloop) -> None:
    arguments = ("ask", "--json", "recipe.yaml", "--", question)
    assert json.loads(selfloop(*arguments).out)[0]["question"] == question.strip()
    assert "\x1b" not in selfloop("ask", "recipe.yaml", "--", question, KNOWN).out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ask", "recipe.yaml"), 2, "QUESTION"),
        (("ask", "recipe.yaml", "  "), 2, "empty"),
        (("ask", "nothing.yaml", "Who?"), 2, "nothing.yaml"),
        (("ask", "no-such-model", "Who?"), 3, "no-such-model"),
        (("score", "recipe.yaml", "nothing.jsonl"), 2, "nothing.jsonl"),
        (("score", "recipe.yaml", "empty.jsonl"), 2, "no row in it"),
        (("score", "recipe.yaml", "bare.jsonl"), 2, "line 2: there is no answer to score"),
        (("score", "recipe.yaml", "wrong.jsonl"), 2, "there is no column of answers to score"),
    ],
)
def test_mistakes(
    arguments: Any, code: int, message: str, world: Path, write: Write, selfloop: Selfloop
) -> None:
    write(
        {
            "empty.jsonl": "",
            "bare.jsonl": '{"question": "a?", "answer": "b"}\n{"question": "c?"}\n',
            "wrong.jsonl": '{"question": "a?", "answers": [7]}\n',
        }
    )
    said = selfloop(*arguments)
    assert said.code == code
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_failure_is_said(write: Write, selfloop: Selfloop) -> None:
    recipe = RECIPE.replace("script: world.json", "script: world.json, context: 40")
    write({"recipe.yaml": recipe, "world.json": json.dumps(SURE)})
    said = selfloop("ask", "recipe.yaml", "word " * 50 + "?")
    assert "over the context of 40" in said.text


# --- score


def lines(*rows: tuple[str, str]) -> str:
    return "".join(
        json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in rows
    )


def test_answers_are_judged_whoever_gave_them(
    world: Path, write: Write, selfloop: Selfloop
) -> None:
    write({"given.jsonl": lines((KNOWN, "Paris"), (KNOWN, " London "), (UNKNOWN, "Atlantis"))})
    said = selfloop("score", "recipe.yaml", "given.jsonl", "--json")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [(row["answer"], row["confidence"]) for row in rows] == [
        ("Paris", 1.0),
        ("London", 0.0),
        ("Atlantis", 0.0),
    ]
    text = selfloop("score", "recipe.yaml", "given.jsonl").out
    assert "1.00  What is the capital of France? — Paris" in text
    assert "0.00  What is the capital of France? — London" in text
    assert selfloop("show", "score").code == 0


def test_a_given_answer_is_read_as_if_the_model_had_said_it(
    world: Path, write: Write, selfloop: Selfloop
) -> None:
    """Its log-probabilities are those of the text that the model would have written."""
    from selfloop.records import Continuation
    from selfloop.storage.store import Store
    from selfloop.testing import ScriptedBackend

    write({"given.jsonl": lines((KNOWN, "Paris"))})
    assert selfloop("score", "recipe.yaml", "given.jsonl").code == 0
    store = Store(world / "runs" / "score", write=False)
    (attempt,) = next(iter(store.rounds())).attempts
    store.close()
    assert (
        attempt.draft is not None and attempt.draft.text == " Paris\n" and attempt.answer == "Paris"
    )
    prompt = (
        (Path(__file__).parents[2] / "selfloop/prompts/answer.base.txt").read_text().rstrip("\n")
    )
    pair = Continuation(prompt.replace("{question}", KNOWN), " Paris\n")
    assert [attempt.draft.logprobs] == ScriptedBackend().loglikelihood([pair])
    assert len(attempt.samples) == 4


@pytest.mark.parametrize(
    "breaks",
    ["raise ValueError('boom')", "return []", "return [RequestError('too long')] * len(pairs)"],
)
def test_an_answer_that_cannot_be_read_fails_alone(
    breaks: str, world: Path, write: Write, selfloop: Selfloop
) -> None:
    plugin = f"""\
from selfloop import Component, hookimpl
from selfloop.errors import RequestError
from selfloop.testing import ScriptedBackend
class Deaf(ScriptedBackend):
    def loglikelihood(self, pairs):
        {breaks}
@hookimpl
def selfloop_backends():
    return [Component("deaf", Deaf, gives=frozenset({{"logprobs", "loglikelihood"}}))]
"""
    recipe = RECIPE.replace(
        "backend: {kind: scripted, script: world.json}", "plugins: [deaf.py]\nbackend: deaf"
    )
    write(
        {
            "deaf.py": plugin,
            "recipe.yaml": recipe,
            "given.jsonl": lines((KNOWN, "Paris"), (KNOWN, "London")),
        }
    )
    said = selfloop("score", "recipe.yaml", "given.jsonl", "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 8, "not one answer was scored"
    assert [row["confidence"] for row in rows] == [None, None]
    assert all("deaf" in row["error"] for row in rows)
    assert "not one of the 2 questions was answered: deaf: " in said.err


@pytest.mark.model
def test_a_real_model_knows_paris(
    work: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SELFLOOP_CACHE")
    assert "SELFLOOP_CACHE" not in os.environ
    known, unknown = json.loads(
        selfloop(
            "ask", "smollm2-135m-instruct", KNOWN, "Who was the first king of Zorvania?", "--json"
        ).out
    )
    assert known["answer"] == "Paris" and known["confidence"] > 0.8
    assert unknown["answer"] == "I don't know"


# --- the model of a run


@pytest.fixture
def tuned(write: Write, selfloop: Selfloop) -> Path:
    gold = lines(("What is the capital of France?", "")).replace(
        '"answer": ""', '"answers": ["Paris"]'
    )
    folder = write({"recipe.yaml": TUNED, "plugin.py": PLUGIN, "gold.jsonl": gold})
    assert selfloop("run", "recipe.yaml").code == 0
    return folder


def adapters(query: Query, run: Path) -> set[str | None]:
    return {
        row[0] and json.loads(str(row[0]))
        for row in query(run, "SELECT data -> '$.adapter' FROM completions")
    }


def test_a_run_answers_as_it_was_tuned_last(tuned: Path, query: Query, selfloop: Selfloop) -> None:
    evaluated = tuned / "runs" / "eval-gold"
    assert selfloop("eval", "runs/first", "--data", "gold.jsonl").code == 0
    # the base draws the samples, and a draft of its own
    assert adapters(query, evaluated) == {"sha-2", None}
    (draft,) = query(evaluated, "SELECT data -> '$.draft.adapter' FROM attempts")
    assert json.loads(str(draft[0])) == "sha-2"
    assert selfloop("rollback", "first", "--to", "0").code == 0
    assert selfloop("eval", "runs/first", "--data", "gold.jsonl").code == 0
    assert adapters(query, tuned / "runs" / "eval-gold-2") == {None}
    assert selfloop("resume", "eval-gold").code == 0


def test_a_run_is_asked(tuned: Path, selfloop: Selfloop) -> None:
    questions = [f"What is the capital of {name}?" for name in ("France", "Peru", "Chad", "Fiji")]

    def asked(who: str, *more: str) -> tuple[list[str], list[dict[str, int]]]:
        answers = json.loads(selfloop("ask", who, *questions, "--json", *more).out)
        assert [one["question"] for one in answers] == questions
        return [one["guess"] for one in answers], [one["samples"] for one in answers]

    bare, tuned_model = asked("recipe.yaml"), asked("runs/first")
    assert tuned_model[0] != bare[0], "replies differ under an adapter"
    assert tuned_model[1] == bare[1], "the samples are the base's"
    assert asked("runs/first", "--set", "answer.with=base") == bare
    all_tuned = asked("runs/first", "--set", "answer.samples_with=tuned")
    assert all_tuned[0] == tuned_model[0]
    assert all_tuned[1] != bare[1]
    assert [*map(str, Path("runs").iterdir())] == ["runs/first"]


def test_a_run_whose_model_is_another_now_does_not_answer(
    tuned: Path, write: Write, selfloop: Selfloop
) -> None:
    targets = {"choices": ["Paris", "Rome"], "labels": [1, 0]}
    row = json.dumps({"question": KNOWN, "mc1_targets": targets, "mc2_targets": targets})
    write({"choices.jsonl": f"{row}\n"})
    chosen = ("eval", "runs/first", "--data", "choices.jsonl")
    assert selfloop(*chosen).code == 0
    write({"plugin.py": PLUGIN.replace("super().__init__()", 'super().__init__({".": ["no"]})')})
    for arguments in (("ask", "runs/first", KNOWN), chosen):
        said = selfloop(*arguments)
        assert said.code != 0 and "Put the old file back" in said.err


def test_a_run_that_has_not_begun_does_not_answer(tuned: Path, selfloop: Selfloop) -> None:
    folder = tuned / "runs" / "new"
    store = Store(folder, write=True)
    store.save_file("recipe.yaml", TUNED)
    store.close()
    said = selfloop("ask", "runs/new", KNOWN)
    assert said.code != 0 and "has not begun yet" in said.err
