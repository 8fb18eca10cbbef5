"""Pointwise mutual information: does the question make the answer likely (Holtzman et al.

2021, arXiv 2104.08315).
"""

import math
from collections.abc import Sequence
from typing import Any

from selfloop_plugins._shared.queries import ByReading, logistic

from selfloop import Claim, Component, Judging, hookimpl
from selfloop.config.prompts import is_open
from selfloop.records import Continuation

from ._claims import NAN, Abstain, likeliest, total


class Pmi(ByReading):
    """Confidence is p(y | x) / (p(y | x) + p(y | x₀)), x₀ being the answer prompt without a
    question. Uncalibrated.

    An answer that the model gives whatever the question is, is likely for no good reason. As a
    weight of evidence (log-odds) it is log p(y | x) − log p(y | x₀), the paper's PMI_DC. Weak
    alone; it is meant to be combined.
    """

    name = "pmi"

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return the answer without its question."""
        prompt, said = judging.prompt("answer", question=""), likeliest(claim)
        return [Continuation(prompt, said.tokens or said.text, is_open(prompt))]

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        gain = total(likeliest(claim)) - min(sum(found[0]), 0.0)
        if math.isnan(gain):
            raise Abstain(NAN)
        return logistic(gain), f"the question makes it {gain:+.1f} nats likelier"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = (
        "how much likelier the question makes the answer",
        frozenset({"logprobs", "loglikelihood"}),
    )
    return [Component("pmi", Pmi, doc=doc, needs=needs, paper="https://arxiv.org/abs/2104.08315")]
