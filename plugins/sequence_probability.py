"""Sequence probability: how likely the model found the whole answer (MSP; Fadeeva et al. 2023, arXiv 2311.07383)."""

import math
from collections.abc import Sequence

from selfloop import Claim, Component, Verdict, hookimpl
from selfloop.protocols import Backend

from .evidence import NAN, NOT_SAID, said, total


class SequenceProbability:
    """Confidence is exp(sum of the answer's token log-probabilities), the end of the answer included. Uncalibrated.

    What counts is the probability after the bare question. A revision was written after a critique; so it is
    judged by a draft or sample of the same text, and where there is none, this verifier abstains.
    """

    def verify(self, claims: Sequence[Claim], backend: Backend) -> list[Verdict]:
        """Return the probability of each claim's answer, or abstain."""
        return [self._judge(claim) for claim in claims]

    def _judge(self, claim: Claim) -> Verdict:
        answer = said(claim)
        if answer is None:
            return Verdict("sequence_probability", None, NOT_SAID)
        if math.isnan(whole := total(answer)):
            return Verdict("sequence_probability", None, NAN)
        return Verdict("sequence_probability", math.exp(whole), f"log-probability {whole:.2f}")


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "probability that the model gives to the whole answer"
    needs = frozenset({"logprobs"})
    paper = "https://arxiv.org/abs/2311.07383"
    return [Component("sequence_probability", SequenceProbability, doc=doc, needs=needs, paper=paper)]
