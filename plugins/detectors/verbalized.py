"""Verbalized confidence: how likely does the model call its answer, in words?

Lin, Hilton and Evans 2022, arXiv 2205.14334; Tian et al. 2023, arXiv 2305.14975.
"""

from collections.abc import Sequence
from typing import Any

from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Claim, Component, VerifyContext, hookimpl
from selfloop.records import Continuation

from ._claims import answer_meaning
from ._reading import ReadingDetector, choice_probabilities, choice_texts

# Words of estimative probability and their values (Kent 1964). Each ends with a full stop, so that
# none is the beginning of another: "Probably" alone would also count every "Probably not".
SCALE = {
    " Almost certainly.": 0.93,
    " Probably.": 0.75,
    " About even.": 0.5,
    " Probably not.": 0.3,
    " Almost certainly not.": 0.07,
}


class Verbalized(ReadingDetector):
    """Confidence is Σ v(e) · q(e) over five expressions e, from "almost certainly" to its opposite.

    v(e) is the probability that an expression stands for (Kent 1964): .93, .75, .5, .3 and .07. The
    model is asked how likely its answer is to be correct, and the probabilities of the expressions
    are read, where the papers let it write one. So every answer gets a value, and none is lost
    because a small model writes something else.

    q(e) is p(e | question, answer) / p(e | neither), normalised over the five. The division takes
    off how common an expression is and how many tokens it has (Holtzman et al. 2021, arXiv
    2104.08315); a model that pays no attention to the answer gets the mean of the scale, .51.

    Its limits: it is the model's own judgement. The papers report it well calibrated for models
    that were tuned to answer people, of billions of parameters; base models and small ones have
    little to say. Uncalibrated. It abstains where the answer is empty or declines, and where the
    probabilities cannot be compared.
    """

    name = "verbalized"

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return each expression after the claim, then each after a prompt without one."""
        answer_meaning(claim)
        prompts = [
            context.prompt(
                "verbalized",
                question=one_line(claim.question.text),
                answer=one_line(claim.answer.text),
            ),
            # the same for all claims, so it is read once in a batch
            context.prompt("verbalized", question="", answer=""),
        ]
        return choice_texts(prompts, tuple(SCALE))

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the expected value of the expressions, and the one that gains most."""
        with_claim, without_claim = results[: len(SCALE)], results[len(SCALE) :]
        # log p(e | claim) − log p(e | no claim) of each expression
        gains = [
            (sum(logprobs) - sum(base),)
            for logprobs, base in zip(with_claim, without_claim, strict=True)
        ]
        probabilities = choice_probabilities(gains)
        confidence = sum(p * value for p, value in zip(probabilities, SCALE.values(), strict=True))
        share, expression = max(zip(probabilities, SCALE, strict=True))
        words = expression.strip(" .").lower()
        return confidence, f'the claim speaks most for "{words}", {share:.2f}'


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how likely the model calls the answer, in words"
    needs = frozenset({"loglikelihood"})
    paper = "https://arxiv.org/abs/2305.14975"
    return [Component("verbalized", Verbalized, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)]
