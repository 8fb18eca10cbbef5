"""The flag: how likely the model is to decline, read off before it writes an answer (cf. Cohen et al. 2024)."""

import math
from collections.abc import Sequence
from typing import Any

from selfloop import Claim, Component, Judging, hookimpl
from selfloop.answers import UNKNOWN
from selfloop.prompts import is_open
from selfloop.records import Continuation

from .asking import ByReading, declined
from .evidence import NAN, Abstain


class Flag(ByReading):
    """Confidence is 1 − p("I don't know" | the question): one pass over the question, whatever the answer is.

    It says something of a model that was tuned to decline (`tuner: lora`); others hardly ever say it (cf. the [IDK]
    token, arXiv 2412.06676). Uncalibrated.
    """

    name = "flag"

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return declining, after the question."""
        prompt = judging.prompt("answer", question=claim.question.text)
        return [declined(prompt, open_turn=is_open(prompt))]

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        log = min(sum(found[0]), 0.0)
        if math.isnan(log):
            raise Abstain(NAN)
        return -math.expm1(log), f'"{UNKNOWN}" has probability {math.exp(log):.2g}'


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "how unlikely the model is to decline, at one pass", frozenset({"loglikelihood"})
    return [Component("flag", Flag, doc=doc, needs=needs, paper="https://arxiv.org/abs/2412.06676")]
