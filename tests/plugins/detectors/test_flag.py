"""The flag: how likely the model is to decline, against how likely its answer is to begin."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from selfloop_plugins.detectors.flag import WITHOUT_DECLINING, Flag

from selfloop import Claim, Completion, Question, Verdict
from selfloop.errors import RequestError
from selfloop.records import Continuation, Request
from selfloop.testing import ScriptedBackend, verify_context
from selfloop.text.answers import UNKNOWN

QUESTION = Question("What is the capital of Egypt?", "test")
NAN, INF = float("nan"), float("inf")


class Declining(ScriptedBackend):
    """Begins an answer, and declines, with the log-probabilities it is given."""

    def __init__(self, answer: Any, declining: Any) -> None:
        super().__init__()
        self.answer, self.declining = answer, declining
        self.requests: list[Request] = []
        self.texts: list[Continuation] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Any]]:
        self.requests += requests
        for index in range(len(requests)):
            is_refused = isinstance(self.answer, RequestError)
            completion = self.answer if is_refused else Completion("C", (1,), self.answer)
            yield index, completion

    def loglikelihood(self, pairs: Sequence[Continuation]) -> list[Any]:
        self.texts += pairs
        return [self.declining] * len(pairs)


def verdict_with(backend: ScriptedBackend, answer: str = "Cairo") -> Verdict:
    (verdict,) = Flag().verify([Claim(QUESTION, Completion(answer))], verify_context(backend))
    assert isinstance(verdict, Verdict)
    return verdict


@pytest.mark.parametrize(
    ("answer", "declining", "confidence"),
    [
        (math.log(0.6), math.log(0.2), 0.75),  # .6 / (.6 + .2)
        (math.log(0.1), math.log(0.3), 0.25),
        (-2.0, -2.0, 0.5),
        (-1.0, -INF, 1.0),
        (-INF, -1.0, 0.0),
    ],
)
def test_confidence_is_the_share_of_answering(
    answer: float, declining: float, confidence: float
) -> None:
    # only the first token of declining counts: the second is sure once it has begun
    verdict = verdict_with(Declining((answer,), (declining, -0.01)))
    assert verdict.confidence == pytest.approx(confidence)
    assert verdict.reason.startswith(f'"{UNKNOWN}" begins with probability ')


def test_one_token_is_drawn_as_if_declining_were_impossible() -> None:
    backend = Declining((-1.0,), (-2.0,))
    verdict_with(backend)
    (request,) = backend.requests
    assert request.sampling.max_tokens == 1
    assert request.sampling.decline_bias == WITHOUT_DECLINING
    (text,) = backend.texts
    assert text.prompt == request.prompt
    assert str(text.text).strip() == UNKNOWN


def test_the_answer_that_is_judged_does_not_matter() -> None:
    backend = Declining((-1.0,), (-2.0,))
    assert verdict_with(backend, "Cairo") == verdict_with(backend, "Giza")


@pytest.mark.parametrize(
    ("answer", "declining", "reason"),
    [
        ((), (-1.0,), "the model would say nothing"),
        ((-1.0,), (), "the model would say nothing"),
        ((NAN,), (-1.0,), "a log-probability is not a number"),
        ((-INF,), (-INF,), "a log-probability is not a number"),
        (RequestError("too long"), (-1.0,), "too long"),
        ((-1.0,), RequestError("too long"), "too long"),
    ],
)
def test_it_abstains_where_it_cannot_compare(answer: Any, declining: Any, reason: str) -> None:
    assert verdict_with(Declining(answer, declining)) == Verdict("flag", None, reason)
