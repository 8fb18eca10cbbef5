"""P(True): does the model itself call its answer true (Kadavath et al. 2022, arXiv 2207.05221)."""

from collections.abc import Sequence
from typing import Any

from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import ByReading, line, shares

from selfloop import Claim, Component, Judging, hookimpl
from selfloop.config.prompts import is_open
from selfloop.records import Continuation

from ._claims import stated

CHOICES = (" True", " False")


class PTrue(ByReading):
    """Confidence is P(" True") / (P(" True") + P(" False")) after a question whether the answer is
    true. Uncalibrated.

    The form without other samples. It is the model's own word: on Gemma 270M it is at or below
    chance. It abstains where the answer is empty or declines.
    """

    name = "p_true"

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return both choices after the question."""
        stated(claim)
        prompt = judging.prompt(
            "p_true", question=line(claim.question.text), answer=line(claim.answer.text)
        )
        return [Continuation(prompt, choice, is_open(prompt)) for choice in CHOICES]

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the share of the first choice."""
        true, false = shares(found)
        return true, f"True {true:.2g}, False {false:.2g}"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    paper = "https://arxiv.org/abs/2207.05221"
    doc, needs = "probability that the model calls the answer true", frozenset({"loglikelihood"})
    return [Component("p_true", PTrue, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)]
