"""`selfloop calibrate`: labels of one run calibrate another, but never their own questions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Selfloop

from selfloop.records import Attempt, Completion, Question, Round, Verdict
from selfloop.storage.store import Store

Write = Callable[[Any], Path]

RECIPE = """\
name: after
rounds: 1
backend: scripted
ask: {questions: 60, sources: [{kind: file, path: asked.txt}], scorers: []}
answer: {samples: 4}
critique: none
detectors: [agreement, sequence_probability, {kind: combined, calibration: labels.json}]
"""


def made(folder: Path, right: list[bool], chances: list[float]) -> None:
    """Store a run in which `agreement` said `chances`, and another detector nothing that tells."""
    store = Store(folder, write=True)
    store.begin_session({})
    attempts = [
        Attempt(
            Question(f"question {i}?", "file", gold=("yes",)),
            draft=Completion("yes" if good else "no"),
            verdicts=(
                Verdict("agreement", chance),
                Verdict("silent", None, "-"),
                Verdict("combined", 0.5),
            ),
            decision="belief",
        )
        for i, (good, chance) in enumerate(zip(right, chances, strict=True))
    ]
    store.save_round(Round(1, tuple(attempts)))
    store.close()


def drawn(n: int) -> tuple[list[bool], list[float]]:
    """Return labels, and chances that are too sure of themselves."""
    luck = np.random.default_rng(1)
    true = luck.random(n)
    over = 1 / (1 + np.exp(-3 * np.log(true / (1 - true))))
    return (luck.random(n) < true).tolist(), over.tolist()


@pytest.mark.slow
@pytest.mark.extra("stats")
@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_it_mends_what_is_too_sure(method: str, work: Path, selfloop: Selfloop) -> None:
    right, chances = drawn(2000)
    made(work / "run", right, chances)
    said = selfloop("calibrate", "run", "--method", method, "--out", "labels.json")
    assert said.code == 0, said.err
    error = float(said.out.split("ECE ")[1].split()[0])
    off = abs(np.array(chances) - right).mean()
    assert error < 0.04 < off
    stored = json.loads((work / "labels.json").read_text())
    assert stored["detectors"] == ["agreement"] and len(stored["questions"]) == 2000
    assert bool(stored["steps"]) is (method == "isotonic")


@pytest.mark.extra("stats")
def test_a_question_it_was_fitted_on_is_not_judged(write: Write, selfloop: Selfloop) -> None:
    work = write({"recipe.yaml": RECIPE, "asked.txt": "question 3?\nquestion 7000?\n"})
    made(work / "run", *drawn(100))
    assert selfloop("calibrate", "run", "--out", "labels.json").code == 0
    assert selfloop("run", "recipe.yaml").code == 0
    attempts = json.loads(selfloop("show", "after", "--json").out)["attempts"]
    found = {a["question"]["text"]: a["verdicts"][-1] for a in attempts}
    assert found["question 3?"]["confidence"] is None
    assert "fitted on this question" in found["question 3?"]["reason"]
    assert 0 < found["question 7000?"]["confidence"] < 1


@pytest.mark.parametrize(
    ("right", "message"),
    [([True] * 50, "50 of them right"), ([True, False] * 5, "It takes 30"), ([], "0 answers")],
)
def test_too_little_to_fit_on(
    right: list[bool], message: str, work: Path, selfloop: Selfloop
) -> None:
    made(work / "run", right, [0.5] * len(right))
    said = selfloop("calibrate", "run")
    assert said.code == 2 and message in said.err
    assert [path.name for path in (work / "run").glob("calibration*")] == []


@pytest.mark.extra("stats")
def test_what_cannot_be_read_or_written(work: Path, selfloop: Selfloop) -> None:
    assert "no run in" in selfloop("calibrate", "nowhere").err
    made(work / "run", *drawn(100))
    said = selfloop("calibrate", "run", "--out", "no/such/folder/labels.json")
    assert said.code != 0 and "Choose another place with --out" in said.err
