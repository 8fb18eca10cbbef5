"""Pointwise mutual information: does the question make the answer likely (Holtzman et al. 2021, arXiv 2104.08315)."""

import math
from collections.abc import Sequence

from selfloop import Claim, Component, Judging, Verdict, hookimpl
from selfloop.errors import RequestError
from selfloop.prompts import is_open
from selfloop.records import Continuation

from .evidence import NAN, NOT_SAID, repeats, total


class Pmi:
    """Confidence is p(y | x) / (p(y | x) + p(y | x₀)), x₀ being the answer prompt without a question. Uncalibrated.

    An answer that the model gives whatever the question is, is likely for no good reason. As a weight of evidence
    (log-odds) it is log p(y | x) − log p(y | x₀), the paper's PMI_DC. Weak alone; it is meant to be combined.
    """

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return the confidence for each claim; the answers without their questions are read in one call."""
        said = [max((one for one in repeats(c) if one.logprobs), key=total, default=None) for c in claims]
        prompt = judging.prompt("answer", question="")
        pairs = [Continuation(prompt, one.tokens or one.text, is_open(prompt)) for one in said if one]
        alone = iter(judging.backend.loglikelihood(pairs))
        return [_judged(total(one), next(alone)) if one else Verdict("pmi", None, NOT_SAID) for one in said]


def _judged(given: float, alone: tuple[float, ...] | RequestError) -> Verdict:
    if isinstance(alone, RequestError):
        return Verdict("pmi", None, str(alone))
    gain = given - min(sum(alone), 0.0)
    if math.isnan(gain):
        return Verdict("pmi", None, NAN)
    confidence = 1 / (1 + math.exp(-gain)) if gain > -700 else 0.0  # exp(710) is too large for a float
    return Verdict("pmi", confidence, f"the question makes it {gain:+.1f} nats likelier")


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "how much likelier the question makes the answer", frozenset({"logprobs", "loglikelihood"})
    return [Component("pmi", Pmi, doc=doc, needs=needs, paper="https://arxiv.org/abs/2104.08315")]
