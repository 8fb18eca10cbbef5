"""P(True): does the model itself call its answer true (Kadavath et al. 2022, arXiv 2207.05221)."""

import math
from collections.abc import Sequence
from pathlib import Path

from selfloop import Claim, Component, Judging, Verdict, hookimpl
from selfloop.errors import RequestError
from selfloop.prompts import is_open
from selfloop.records import Continuation

from .evidence import meaning

CHOICES = (" True", " False")
PROMPTS = Path(__file__).parent / "prompts"


class PTrue:
    """Confidence is P(" True") / (P(" True") + P(" False")) after a question whether the answer is true. Uncalibrated.

    The form without other samples. It is the model's own word: on Gemma 270M it is at or below chance.
    """

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return the probability for each claim, in one call; abstain where the answer declines."""
        asked = [i for i, claim in enumerate(claims) if meaning(claim.answer.text)]
        pairs = [pair for i in asked for pair in _pairs(claims[i], judging)]
        found = iter(judging.backend.loglikelihood(pairs))
        verdicts = [Verdict("p_true", None, "the answer is empty or declines")] * len(claims)
        for i, true, false in zip(asked, found, found, strict=True):
            verdicts[i] = _judge(true, false)
        return verdicts


def _pairs(claim: Claim, judging: Judging) -> list[Continuation]:
    prompt = judging.prompt("p_true", question=claim.question.text, answer=claim.answer.text.strip())
    return [Continuation(prompt, choice, is_open(prompt)) for choice in CHOICES]


def _judge(true: tuple[float, ...] | RequestError, false: tuple[float, ...] | RequestError) -> Verdict:
    for lost in (true, false):
        if isinstance(lost, RequestError):
            return Verdict("p_true", None, str(lost))
    less = sum(false) - sum(true)  # type: ignore[arg-type]
    if math.isnan(less):
        return Verdict("p_true", None, "the log-probabilities of True and False cannot be compared")
    confidence = 1 / (1 + math.exp(less)) if less < 700 else 0.0  # exp(710) is too large for a float
    return Verdict("p_true", confidence, f"True is {-less:+.2f} nats likelier than False")


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    paper = "https://arxiv.org/abs/2207.05221"
    doc, needs = "probability that the model calls the answer true", frozenset({"loglikelihood"})
    return [Component("p_true", PTrue, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)]
