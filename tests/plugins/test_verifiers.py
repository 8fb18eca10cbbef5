"""The verifiers, against values worked out by hand."""

import math
from typing import Any

import pytest
from selfloop_plugins.agreement import Agreement
from selfloop_plugins.sequence_probability import SequenceProbability

from selfloop import Claim, Completion, Question, Verdict
from selfloop.answers import declines, normalise
from selfloop.testing import ScriptedBackend

QUESTION = Question("What is the capital of Egypt?", "test")
INF, NAN = float("inf"), float("nan")


def judge(verifier: Any, claim: Claim) -> Verdict:
    (verdict,) = verifier.verify([claim], ScriptedBackend())
    assert isinstance(verdict, Verdict)
    return verdict


def claim(answer: str, *samples: str, candidate: Any = "draft") -> Claim:
    return Claim(QUESTION, Completion(answer), tuple(Completion(s, sample=i) for i, s in enumerate(samples)), candidate)


@pytest.mark.parametrize(
    ("answer", "samples", "confidence"),
    [
        ("Cairo", ("Cairo", "Cairo", "Giza", "Cairo"), 0.75),
        ("Cairo", (" the CAIRO!", "cairo.", "a Cairo", "Cai-ro"), 1.0),
        ("Cairo", ("Giza",), 0.0),
        ("Cairo", ("Cairo, Egypt", "Cairo"), 0.5),
        ("Cairo", ("", "I don't know", "Cairo", ""), 0.25),
        ("I don't know", ("I don't know", "I don't know"), 0.0),
        ("富士山", ("富士山", "Fuji"), 0.5),
    ],
)
def test_agreement(answer: str, samples: tuple[str, ...], confidence: float) -> None:
    verdict = judge(Agreement(), claim(answer, *samples))
    assert verdict.confidence == confidence
    assert verdict.reason == f"{round(confidence * len(samples))} of {len(samples)} samples agree"


@pytest.mark.parametrize(
    ("given", "reason"), [(claim("Cairo"), "no samples"), (claim("the!", "x"), "the answer is empty")]
)
def test_agreement_abstains(given: Claim, reason: str) -> None:
    assert judge(Agreement(), given) == Verdict("agreement", None, reason)


def said(*logprobs: float, text: str = "Cairo", sample: int = 0) -> Completion:
    return Completion(text, tuple(range(len(logprobs))), logprobs, sample=sample)


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [
        ((-0.5, -0.25), math.exp(-0.75)),
        ((math.log(0.5), math.log(0.5)), 0.25),
        ((0.0,), 1.0),
        ((1e-7,), 1.0),  # what floats do near certainty
        ((-0.5, -INF), 0.0),
        ((-1e6,) * 3, 0.0),
        ((NAN, -0.5), None),
        ((), None),
        ((-0.1,) * 10, math.exp(-1)),
    ],
)
def test_sequence_probability(logprobs: tuple[float, ...], confidence: float | None) -> None:
    verdict = judge(SequenceProbability(), Claim(QUESTION, said(*logprobs)))
    if confidence is None:
        assert verdict.confidence is None
        assert verdict.reason
    else:
        assert verdict.confidence == pytest.approx(confidence, rel=1e-12)


def test_a_broken_log_probability_is_no_confidence() -> None:
    """+inf and -inf together have no sum: to abstain is right, to raise or to be sure is not."""
    verdict = judge(SequenceProbability(), Claim(QUESTION, said(-INF, -INF)))
    assert verdict.confidence == 0.0


def test_a_revision_is_judged_by_what_was_said_to_the_bare_question() -> None:
    samples = (said(-2.0, text="giza"), said(-1.0, text="The Giza.", sample=1), said(-0.1, text="Cairo", sample=2))
    revision = Claim(QUESTION, said(-0.01, text="Giza"), samples, "revision")
    assert judge(SequenceProbability(), revision).confidence == pytest.approx(math.exp(-1.0))


def test_a_revision_that_was_never_said_is_not_judged() -> None:
    revision = Claim(QUESTION, said(-0.01, text="Luxor"), (said(-0.1),), "revision")
    verdict = judge(SequenceProbability(), revision)
    assert verdict.confidence is None
    assert verdict.reason == "not among what the model said to the bare question"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The  Nile!", "nile"),
        ("a an the", ""),
        ("A.B.C.", "abc"),
        ("Theatre", "theatre"),
        ("one\ntwo", "one two"),
        ("é", "é"),
    ],
)
def test_normalise(text: str, same: str) -> None:
    assert normalise(text) == same


@pytest.mark.parametrize(
    "text",
    ["", "  ", "...", "I don't know", "I dont know.", "I don’t know", "i do not know who", "I can't say",
     "I cannot answer", "I'm not sure", "I am not sure about it", "IDK", "unknown", "Unknown.", "No idea", "Not sure",
     "Sorry, I can't",
     "I'm sorry", "I am unable to answer", "\"I don't know\""],
)  # fmt: skip
def test_declines(text: str) -> None:
    assert declines(text)


@pytest.mark.parametrize(
    "text",
    ["Cairo", "The Unknown Soldier", "I know: Cairo", "Knowing", "No", "Surely", "42", "Idkfa", "It is not Cairo"],
)
def test_answers(text: str) -> None:
    assert not declines(text)
