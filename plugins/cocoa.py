"""CoCoA: how unlikely the answer is, times how much the samples disagree (Vashurin et al. 2025, arXiv 2502.04964)."""

import math
from collections.abc import Sequence

from selfloop import Claim, Component, Verdict, hookimpl
from selfloop.protocols import Backend

from .evidence import NAN, NOT_SAID, meaning, said, total


class CoCoA:
    """Confidence is exp(−U), U = (−log p(answer)) · (share of the samples that mean something else). Uncalibrated.

    Similarity of two texts is 1 if they are the same normalised, else 0; samples that decline are like no answer.
    A revision that was never said to the bare question is not judged; an answer that declines is not either.
    """

    def verify(self, claims: Sequence[Claim], backend: Backend) -> list[Verdict]:
        """Return the confidence for each claim's answer, or abstain."""
        return [self._judge(claim) for claim in claims]

    def _judge(self, claim: Claim) -> Verdict:
        answer, text = said(claim), meaning(claim.answer.text)
        if answer is None:
            return Verdict("cocoa", None, NOT_SAID)
        if not claim.samples or not text:
            return Verdict("cocoa", None, "no samples" if text else "the answer is empty or declines")
        if math.isnan(log := total(answer)):
            return Verdict("cocoa", None, NAN)
        others = sum(meaning(sample.text) != text for sample in claim.samples) / len(claim.samples)
        # 0 · inf is NaN: where all agree, it does not matter how unlikely the answer is.
        confidence = math.exp(log * others) if others else 1.0
        return Verdict("cocoa", confidence, f"log-probability {log:.2f}, {others:.0%} of the samples differ")


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "how likely the answer is, and how far the samples agree with it"
    return [Component("cocoa", CoCoA, doc=doc, needs=frozenset({"logprobs"}), paper="https://arxiv.org/abs/2502.04964")]
