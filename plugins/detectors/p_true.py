"""P(True): does the model call its own answer true?

Kadavath et al. 2022, arXiv 2207.05221.
"""

from collections.abc import Sequence
from typing import Any

from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Claim, Component, VerifyContext, hookimpl
from selfloop.records import Continuation

from ._claims import answer_meaning
from ._reading import ReadingDetector, choice_probabilities, choice_texts

# with the space that a tokenizer puts before a word
CHOICES = (" True", " False")


class PTrue(ReadingDetector):
    """Confidence is P(" True") / (P(" True") + P(" False")) after the question: is the answer true?

    This is the paper's form without other samples in view. It is the model's own judgement, and
    needs a large model: on Gemma 270M it is at or below chance. Uncalibrated. It abstains where the
    answer is empty or declines.
    """

    name = "p_true"

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return both choices after the question."""
        answer_meaning(claim)  # raises Abstain where the answer declines
        prompt = context.prompt(
            "p_true", question=one_line(claim.question.text), answer=one_line(claim.answer.text)
        )
        return choice_texts([prompt], CHOICES)

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the probability of the first choice."""
        true, false = choice_probabilities(results)
        return true, f"True {true:.2g}, False {false:.2g}"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "probability that the model calls the answer true"
    needs = frozenset({"loglikelihood"})
    paper = "https://arxiv.org/abs/2207.05221"
    return [Component("p_true", PTrue, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)]
