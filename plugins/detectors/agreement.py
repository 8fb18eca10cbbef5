"""Agreement: the share of samples that give the same answer (Wang et al.

2022, self-consistency, arXiv 2203.11171).
"""

from selfloop import Claim, Component, hookimpl
from selfloop.text.answers import normalise

from ._claims import Abstain, OneByOne, agreeing


class Agreement(OneByOne):
    """Confidence is the share of the samples whose normalised text equals the answer's.

    Samples that decline count as disagreeing. Uncalibrated: a model that is sure of a mistake
    agrees with itself.
    """

    name = "agreement"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the share; abstain without samples, or where the answer is empty."""
        if not normalise(claim.answer.text):
            raise Abstain("the answer is empty")
        if not claim.samples:
            raise Abstain("no samples")
        same = agreeing(claim)
        return same / len(claim.samples), f"{same} of {len(claim.samples)} samples agree"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "share of the samples that say the same"
    return [Component("agreement", Agreement, doc=doc, paper="https://arxiv.org/abs/2203.11171")]
