"""Pointwise mutual information: does the question make the answer likely?

Holtzman et al. 2021, arXiv 2104.08315.
"""

import math
from collections.abc import Sequence
from typing import Any

from selfloop_plugins._shared.probability import sigmoid

from selfloop import Claim, Component, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.records import Continuation

from ._claims import NOT_A_NUMBER, Abstain, most_likely, text_logprob
from ._reading import ReadingDetector


class Pmi(ReadingDetector):
    """Confidence is p(y | x) / (p(y | x) + p(y | x₀)), x₀ the answer prompt without a question.

    An answer that the model gives to any question is likely for no good reason. As a weight of
    evidence (log-odds) this is log p(y | x) − log p(y | x₀), the paper's PMI_DC. Uncalibrated, and
    weak alone: combine it with others.
    """

    name = "pmi"

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return the answer without its question."""
        # all else stays: the examples before the question, and the words around it
        prompt = context.prompt("answer", question="")
        completion = most_likely(claim)
        return [Continuation(prompt, completion.tokens or completion.text, is_open(prompt))]

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        # rounding above 0 is cut off, as in text_logprob
        without_question = min(sum(results[0]), 0.0)
        gain = text_logprob(most_likely(claim)) - without_question
        if math.isnan(gain):
            raise Abstain(NOT_A_NUMBER)
        return sigmoid(gain), f"the question makes it {gain:+.1f} nats likelier"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how much likelier the question makes the answer"
    needs = frozenset({"logprobs", "loglikelihood"})
    return [Component("pmi", Pmi, doc=doc, needs=needs, paper="https://arxiv.org/abs/2104.08315")]
