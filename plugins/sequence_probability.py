"""Sequence probability: how likely the model found the whole answer (MSP; Fadeeva et al. 2023, arXiv 2311.07383)."""

import math
from collections.abc import Sequence

from selfloop import Claim, Completion, Component, Verdict, hookimpl
from selfloop.answers import normalise
from selfloop.protocols import Backend


class SequenceProbability:
    """Confidence is exp(sum of the answer's token log-probabilities), the end of the answer included. Uncalibrated.

    What counts is the probability after the bare question. A revision was written after a critique; so it is
    judged by a draft or sample of the same text, and where there is none, this verifier abstains.
    """

    def verify(self, claims: Sequence[Claim], backend: Backend) -> list[Verdict]:
        """Return the probability of each claim's answer, or abstain."""
        return [self._judge(claim) for claim in claims]

    def _judge(self, claim: Claim) -> Verdict:
        said = self._said(claim)
        if said is None or not said.logprobs:
            return Verdict("sequence_probability", None, "not among what the model said to the bare question")
        total = math.fsum(said.logprobs)
        if math.isnan(total):
            return Verdict("sequence_probability", None, "a log-probability is not a number")
        return Verdict("sequence_probability", math.exp(min(total, 0.0)), f"log-probability {total:.2f}")

    @staticmethod
    def _said(claim: Claim) -> Completion | None:
        if claim.candidate == "draft":
            return claim.answer
        same = [s for s in claim.samples if normalise(s.text) == normalise(claim.answer.text)]
        return max(same, key=lambda s: math.fsum(s.logprobs), default=None)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "probability that the model gives to the whole answer"
    needs = frozenset({"logprobs"})
    paper = "https://arxiv.org/abs/2311.07383"
    return [Component("sequence_probability", SequenceProbability, doc=doc, needs=needs, paper=paper)]
