"""Sequence probability: how likely the model found the whole answer (MSP; Fadeeva et al. 2023, arXiv 2311.07383)."""

import math

from selfloop import Claim, Component, hookimpl

from .evidence import OneByOne, said


class SequenceProbability(OneByOne):
    """Confidence is exp(sum of the answer's token log-probabilities), the end of the answer included. Uncalibrated.

    What counts is the probability after the bare question. A revision was written after a critique; so it is
    judged by a draft or sample of the same text, and where there is none, this verifier abstains.
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
    return [Component("sequence_probability", SequenceProbability, doc=doc, needs=needs, paper=paper)]
