"""Perplexity: how likely the answer's tokens were on average.

Fadeeva et al. 2023, arXiv 2311.07383.
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import PerClaimDetector, answer_logprob


class Perplexity(PerClaimDetector):
    """Confidence is one over the perplexity: exp(mean of the answer's token log-probabilities).

    Unlike the sequence probability it does not fall with length. The probability is that after the
    bare question, where a revision is read once more. Uncalibrated.
    """

    name = "perplexity"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return one over the perplexity of the claim's answer."""
        # count is never 0: a completion without log-probabilities makes it abstain
        logprob, count = answer_logprob(claim)
        return math.exp(logprob / count), f"log-probability {logprob / count:.2f} a token"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "geometric mean of the probabilities of the answer's tokens"
    needs = frozenset({"logprobs"})
    paper = "https://arxiv.org/abs/2311.07383"
    return [Component("perplexity", Perplexity, doc=doc, needs=needs, paper=paper)]
