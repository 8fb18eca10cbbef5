"""Other answers of the base, and how likely each is correct."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'selfloop[tune]'")
pytest.importorskip("peft", reason="pip install 'selfloop[tune]'")

from selfloop_plugins.tuners.lora.other_answers import other_answers
from selfloop_plugins.tuners.lora.training_examples import TrainingExample

from selfloop import Completion, Request
from selfloop.errors import RequestError


class Sampler:
    """Gives the same answers, in turn, to every question."""

    def __init__(self, answers: Sequence[str], finish: str = "stop") -> None:
        self._answers, self._finish = answers, finish

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        for i, request in enumerate(requests):
            for sample in range(request.n):
                text = self._answers[sample % len(self._answers)]
                finish: Any = self._finish
                yield i, Completion(text, (1,), finish=finish, sample=sample)


def others(answers: Sequence[str], p_correct: float, finish: str = "stop") -> dict[str, float]:
    sampler = Sampler(answers, finish)
    examples = [TrainingExample("Who?", "Ada", p_correct)]
    found = other_answers(sampler, examples, lambda question: Request(question), 7)  # type: ignore[arg-type]
    return {example.answer: example.p_correct for example in found}


def test_an_answer_drawn_less_often_is_less_likely_correct() -> None:
    drawn = ["Ada", "ada.", "Bob", "bob", "Cleo", "I don't know"]
    # three times Ada with the loop's own
    assert others(drawn, 0.6) == pytest.approx({"Bob": 0.4, "Cleo": 0.2})
    assert others(drawn, 0.9) == pytest.approx({"Bob": 0.1, "Cleo": 0.1}), "not above 1 - p"


def test_no_other_answer_is_likelier_right_than_wrong() -> None:
    assert others(["Bob"], 0.5) == pytest.approx({"Bob": 0.49})


def test_answers_that_do_not_end_are_left_out() -> None:
    assert others(["Bob"], 0.5, "length") == {}
