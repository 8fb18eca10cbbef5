"""The plugin's own tests: selfloop's contracts, and what is particular to it."""

import pytest
import selfloop_doubt
from selfloop_doubt import Budgeted, Hedging

from selfloop.plugin import Claim, Completion, Question, Request, RequestError, Sampling
from selfloop.testing import BackendContract, DetectorContract, ScriptedBackend, verify_context


class TestHedging(DetectorContract):
    component = selfloop_doubt.selfloop_detectors()[0]


class TestBudgeted(BackendContract):
    def backend(self) -> Budgeted:
        return Budgeted(budget=10_000, inner=ScriptedBackend())


@pytest.mark.parametrize(
    ("answer", "confidence"),
    [
        ("Cairo", None),
        ("", None),
        ("I think Cairo", 0.5),
        ("Perhaps it might be Cairo", 0.25),
        ("mighty", None),
    ],
)
def test_each_hedge_halves_confidence(answer: str, confidence: float | None) -> None:
    claim = Claim(Question("What is the capital of Egypt?", "test"), Completion(answer))
    (verdict,) = Hedging().verify([claim], verify_context())
    assert verdict.confidence == confidence
    assert verdict.reason


def test_a_spent_budget_refuses_what_is_left() -> None:
    backend = Budgeted(budget=6, inner=ScriptedBackend())
    requests = [Request("Answer:", Sampling(0.7, max_tokens=2), n=3, seed=s) for s in range(4)]
    results = [result for _, result in backend.generate(requests)]
    refused = [result for result in results if isinstance(result, RequestError)]
    assert 3 <= len(results) - len(refused) <= 6
    assert {str(error) for error in refused} == {"the token budget of 6 is spent"}
    assert all(isinstance(result, RequestError) for _, result in backend.generate(requests))
