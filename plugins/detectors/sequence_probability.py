"""Sequence probability: how likely the model found the whole answer (MSP; Fadeeva et al.

2023, arXiv 2311.07383).
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import OneByOne, said


class SequenceProbability(OneByOne):
    """Confidence is exp(sum of the answer's token log-probabilities), the end of the answer
    included. Uncalibrated.

    What counts is the probability after the bare question. A revision is read there once more, and
    judged by that or by a likelier draft or sample of the same text; where it could not be read and
    was never said, this verifier abstains.
    """

    name = "sequence_probability"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the probability of the claim's answer."""
        log, _ = said(claim)
        return math.exp(log), f"log-probability {log:.2f}"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "probability that the model gives to the whole answer"
    needs = frozenset({"logprobs"})
    paper = "https://arxiv.org/abs/2311.07383"
    return [
        Component("sequence_probability", SequenceProbability, doc=doc, needs=needs, paper=paper)
    ]
