"""Perplexity: how likely the model found the answer's tokens on average (Fadeeva et al.

2023, arXiv 2311.07383).
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import OneByOne, said


class Perplexity(OneByOne):
    """Confidence is one over the perplexity: exp(mean of the answer's token log-probabilities).
    Uncalibrated.

    Unlike the sequence probability it does not fall with length. What counts is the probability
    after the bare question, where a revision is read once more.
    """

    name = "perplexity"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return one over the perplexity of the claim's answer."""
        log, tokens = said(claim)
        return math.exp(log / tokens), f"log-probability {log / tokens:.2f} a token"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "geometric mean of the probabilities of the answer's tokens"
    needs = frozenset({"logprobs"})
    return [
        Component(
            "perplexity", Perplexity, doc=doc, needs=needs, paper="https://arxiv.org/abs/2311.07383"
        )
    ]
