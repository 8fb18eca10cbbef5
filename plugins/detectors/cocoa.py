"""CoCoA: how unlikely the answer is, times how much the samples disagree (Vashurin et al.

2025, arXiv 2502.04964).
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import Abstain, OneByOne, agreeing, said, stated


class CoCoA(OneByOne):
    """Confidence is exp(−U), U = (−log p(answer)) · (share of the samples that mean something
    else). Uncalibrated.

    Similarity of two texts is 1 if they are the same normalised, else 0; samples that decline are
    like no answer. What counts is the probability after the bare question; an answer that declines
    is not judged.
    """

    name = "cocoa"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's answer."""
        log, _ = said(claim)
        stated(claim)
        if not claim.samples:
            raise Abstain("no samples")
        others = (len(claim.samples) - agreeing(claim)) / len(claim.samples)
        # 0 · inf is NaN: where all agree, it does not matter how unlikely the answer is.
        confidence = math.exp(log * others) if others else 1.0
        return confidence, f"log-probability {log:.2f}, {others:.0%} of the samples differ"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "how likely the answer is, and how far the samples agree with it"
    return [
        Component(
            "cocoa",
            CoCoA,
            doc=doc,
            needs=frozenset({"logprobs"}),
            paper="https://arxiv.org/abs/2502.04964",
        )
    ]
