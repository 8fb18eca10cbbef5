"""Flips: what a revision changes, with gold answers and without."""

from dataclasses import replace

import pytest

from selfloop.evaluation.flips import counts, flip
from selfloop.records import Attempt, Completion, Question


def attempt(
    draft: str | None, revision: str | None, *samples: str, gold: str = "", pattern: str = ""
) -> Attempt:
    question = Question(
        "What is the capital of Egypt?", "test", gold=(gold,) if gold else (), gold_pattern=pattern
    )
    texts = [None if text is None else Completion(text) for text in (draft, revision)]
    return Attempt(
        question, draft=texts[0], revision=texts[1], samples=tuple(map(Completion, samples))
    )


@pytest.mark.parametrize(
    ("draft", "revision", "expected"),
    [
        ("Cairo", "Giza", "right -> wrong"),
        ("Giza", " cairo.", "wrong -> right"),
        ("Giza", "Luxor", "wrong -> wrong"),
        ("Giza", "", "wrong -> wrong"),
        ("Cairo", " the CAIRO.", ""),
        ("Cairo", None, ""),
        (None, "Cairo", ""),
        (None, None, ""),
    ],
)
def test_with_gold_answers(draft: str | None, revision: str | None, expected: str) -> None:
    assert flip(attempt(draft, revision, gold="Cairo")) == expected
    assert flip(attempt(draft, revision, "Giza", "Giza", gold="Cairo")) == expected, (
        "samples have no say"
    )


def test_two_right_answers() -> None:
    either = replace(attempt("Cairo", "Al-Qahira").question, gold=("Cairo", "al-Qahira"))
    assert flip(replace(attempt("Cairo", "Al-Qahira"), question=either)) == "right -> right"


def test_by_a_pattern() -> None:
    assert flip(attempt("in Cairo", "Giza", pattern="cairo")) == "right -> wrong"
    assert (
        flip(attempt("I don't know if it is Cairo", "Cairo", pattern="cairo")) == "wrong -> right"
    )


@pytest.mark.parametrize(
    ("draft", "revision", "samples", "expected"),
    [
        ("Cairo", "Giza", ("Cairo", "cairo", "Giza"), "agree -> disagree"),
        ("Giza", "Cairo", ("Cairo", "the Cairo.", "Giza"), "disagree -> agree"),
        ("Cairo", "Giza", ("Cairo", "Giza"), "agree -> agree"),
        ("Luxor", "Giza", ("Cairo",), "disagree -> disagree"),
        ("Cairo", "I don't know", ("idk", "unknown", "Cairo"), "disagree -> agree"),
        ("Cairo", "Giza", ("", "I'm not sure", "Cairo"), "disagree -> disagree"),
        ("Cairo", "Giza", (), ""),
    ],
)
def test_without_gold_answers(
    draft: str, revision: str, samples: tuple[str, ...], expected: str
) -> None:
    assert flip(attempt(draft, revision, *samples)) == expected


def test_counts_all_revisions_or_the_accepted_ones() -> None:
    lost, won = attempt("Cairo", "Giza", gold="Cairo"), attempt("Giza", "Cairo", gold="Cairo")
    attempts = [
        lost,
        lost,
        won,
        replace(won, chosen="revision"),
        attempt("Cairo", "cairo", gold="Cairo"),
    ]
    assert counts(attempts) == {"right -> wrong": 2, "wrong -> right": 2}
    assert counts(attempts, accepted=True) == {"wrong -> right": 1}
    assert counts([]) == counts([attempt(None, None)]) == {}


def test_a_model_that_writes_prompt_parts_changes_nothing() -> None:
    hostile = "{question} === user \x00 Cairo"
    assert flip(attempt(hostile, "Cairo", hostile, hostile)) == "agree -> disagree"
