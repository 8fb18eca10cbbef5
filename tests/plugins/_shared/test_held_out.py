"""The split of a run's questions, which the tuner and the export share."""

import pytest
from selfloop_plugins._shared.held_out import (
    HELD_OUT_PERIOD,
    is_held_out,
    p_correct,
    telling_outcomes,
)
from selfloop_plugins.tuners.lora.training_examples import training_examples

from selfloop import History, Outcome, Question


def outcome(text: str, answer: str, confidence: float | None = 0.5, number: int = 1) -> Outcome:
    return Outcome(Question(text, "test"), "undecided", answer, confidence, number)


HISTORY = History(
    2, tuple(outcome(f"What is the capital of isle {i}?", f"Town {i}") for i in range(200))
)


def test_the_tuner_holds_out_the_same_questions() -> None:
    """It teaches none of those that an export is measured on."""
    taught, held_out = training_examples(HISTORY, decline_share=None, match_form=False, seed=1)
    expected = [o.question.text for o in telling_outcomes(HISTORY) if is_held_out(o.question)]
    assert [example.question for example in held_out] == expected
    assert not {example.question for example in taught} & set(expected)
    assert len(expected) == pytest.approx(200 / HELD_OUT_PERIOD, abs=15)


def test_the_last_answer_that_shows_knowledge_counts() -> None:
    later = (
        outcome("What is the capital of isle 1?", "Port", 0.9, 2),
        outcome("What is mango made of?", "mango"),
        outcome("Who was Blorgo?", "I don't know", 0.9),
        Outcome(Question("Who failed?", "test"), "failed", "Anna", None, 2),
    )
    found = {o.question.text: o for o in telling_outcomes(History(2, (*HISTORY.outcomes, *later)))}
    assert found["What is the capital of isle 1?"].answer == "Port"
    assert "What is mango made of?" not in found and "Who failed?" not in found
    assert p_correct(found["Who was Blorgo?"]) == 0, "it declined"
    assert p_correct(found["What is the capital of isle 1?"]) == 0.9
    assert p_correct(outcome("Who?", "Anna", None)) == 0
