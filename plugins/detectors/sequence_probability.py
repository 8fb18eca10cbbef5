"""Sequence probability: how likely the whole answer was.

MSP in Fadeeva et al. 2023, arXiv 2311.07383.
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import PerClaimDetector, answer_logprob


class SequenceProbability(PerClaimDetector):
    """Confidence is exp(sum of the answer's token log-probabilities), its end included.

    The probability is that after the bare question. A revision is read there once more, and judged
    by that or by a likelier draft or sample of the same text. Uncalibrated. It abstains where a
    revision could not be read and was never said.
    """

    name = "sequence_probability"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the probability of the claim's answer."""
        logprob, _ = answer_logprob(claim)
        return math.exp(logprob), f"log-probability {logprob:.2f}"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "probability that the model gives to the whole answer"
    needs = frozenset({"logprobs"})
    paper = "https://arxiv.org/abs/2311.07383"
    return [
        Component("sequence_probability", SequenceProbability, doc=doc, needs=needs, paper=paper)
    ]
