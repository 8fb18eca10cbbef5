"""CoCoA: how unlikely the answer is, times how much the samples disagree.

Vashurin et al. 2025, arXiv 2502.04964.
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import (
    NO_SAMPLES,
    Abstain,
    PerClaimDetector,
    answer_logprob,
    answer_meaning,
    count_agreeing,
)


class CoCoA(PerClaimDetector):
    """Confidence is exp(−U), U = (−log p(answer)) · (share of samples of another meaning).

    The similarity of two texts is 1 if they are the same normalised, else 0. Samples that decline
    are like no answer. The probability is that after the bare question. Uncalibrated. It abstains
    without samples, and where the answer is empty or declines.
    """

    name = "cocoa"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's answer."""
        logprob, _ = answer_logprob(claim)
        answer_meaning(claim)  # raises Abstain where the answer declines
        if not claim.samples:
            raise Abstain(NO_SAMPLES)
        total = len(claim.samples)
        differing = (total - count_agreeing(claim)) / total
        # 0 · inf is NaN: where all agree, it does not matter how unlikely the answer is.
        confidence = math.exp(logprob * differing) if differing else 1.0
        return confidence, f"log-probability {logprob:.2f}, {differing:.0%} of the samples differ"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how likely the answer is, and how far the samples agree with it"
    needs = frozenset({"logprobs"})
    paper = "https://arxiv.org/abs/2502.04964"
    return [Component("cocoa", CoCoA, doc=doc, needs=needs, paper=paper)]
