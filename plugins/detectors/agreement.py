"""Agreement: the share of samples that give the same answer.

Self-consistency, Wang et al. 2022, arXiv 2203.11171.
"""

from selfloop import Claim, Component, hookimpl
from selfloop.text.answers import normalise

from ._claims import NO_SAMPLES, Abstain, PerClaimDetector, count_agreeing


class Agreement(PerClaimDetector):
    """Confidence is the share of the samples whose normalised text equals the answer's.

    Samples that decline count as disagreeing. Uncalibrated: a model that is sure of a mistake
    agrees with itself.
    """

    name = "agreement"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the share; abstain without samples, or where the answer is empty."""
        # an answer that declines is judged, too: no sample agrees with it
        if not normalise(claim.answer.text):
            raise Abstain("the answer is empty")
        if not claim.samples:
            raise Abstain(NO_SAMPLES)
        count = count_agreeing(claim)
        total = len(claim.samples)
        return count / total, f"{count} of {total} samples agree"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "share of the samples that say the same"
    return [Component("agreement", Agreement, doc=doc, paper="https://arxiv.org/abs/2203.11171")]
