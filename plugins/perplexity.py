"""Perplexity: how likely the model found the answer's tokens on average (Fadeeva et al. 2023, arXiv 2311.07383)."""

import math
from collections.abc import Sequence

from selfloop import Claim, Component, Verdict, hookimpl
from selfloop.protocols import Backend

from .evidence import NAN, NOT_SAID, said, total


class Perplexity:
    """Confidence is one over the perplexity: exp(mean of the answer's token log-probabilities). Uncalibrated.

    Unlike the sequence probability it does not fall with length. What counts is what was said to the bare question;
    a revision that was never said there is not judged.
    """

    def verify(self, claims: Sequence[Claim], backend: Backend) -> list[Verdict]:
        """Return one over the perplexity of each claim's answer, or abstain."""
        return [self._judge(claim) for claim in claims]

    def _judge(self, claim: Claim) -> Verdict:
        answer = said(claim)
        if answer is None:
            return Verdict("perplexity", None, NOT_SAID)
        if math.isnan(mean := total(answer) / len(answer.logprobs)):
            return Verdict("perplexity", None, NAN)
        return Verdict("perplexity", math.exp(mean), f"log-probability {mean:.2f} a token")


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "geometric mean of the probabilities of the answer's tokens"
    needs = frozenset({"logprobs"})
    return [Component("perplexity", Perplexity, doc=doc, needs=needs, paper="https://arxiv.org/abs/2311.07383")]
