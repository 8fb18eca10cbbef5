"""BSDetector: do the samples agree, and does the model stand by its answer?

Chen and Mueller 2023, arXiv 2308.16175.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le
from selfloop_plugins._shared.meaning import meaning
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Claim, Component, VerifyContext, hookimpl
from selfloop.records import Continuation

from ._claims import NO_SAMPLES, Abstain, answer_meaning, count_agreeing
from ._reading import ReadingDetector, choice_probabilities, choice_texts
from ._similarity import similarity

# the prompts of the two questions that the model is asked about its answer
QUESTIONS = ("bsdetector_correct", "bsdetector_sure")
# correct, incorrect, I am not sure: how much each counts
CHOICES = {" (A)": 1.0, " (B)": 0.0, " (C)": 0.5}


class BSDetector(ReadingDetector):
    """Confidence is β · O + (1 − β) · S: observed consistency and self-reflection certainty.

    O is the mean over the samples s of α · F1(y, s) + (1 − α) · [y and s mean the same]. F1 is that
    of their words; samples that decline count 0. S is the mean over two questions: is y correct,
    and is the model really sure? Each gives P(A) · 1 + P(B) · 0 + P(C) · ½, out of (A) correct, (B)
    incorrect, (C) I am not sure. The weights are the paper's.

    Two things differ from the paper. F1 stands in for 1 − the probability of a contradiction under
    an entailment model. S reads the probabilities of the choices, where the paper lets the model
    write its reasons first, and takes the letter. Uncalibrated. S is the model's own judgement,
    which says little for a small model. It abstains without samples, and where the answer is empty
    or declines.
    """

    name = "bsdetector"

    def __init__(
        self,
        *,
        beta: Annotated[float, Ge(0), Le(1)] = 0.7,
        alpha: Annotated[float, Ge(0), Le(1)] = 0.8,
    ) -> None:
        self._beta, self._alpha = beta, alpha

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return each choice after each question."""
        answer_meaning(claim)
        if not claim.samples:
            raise Abstain(NO_SAMPLES)
        fields = {"question": one_line(claim.question.text), "answer": one_line(claim.answer.text)}
        prompts = [context.prompt(name, **fields) for name in QUESTIONS]
        return choice_texts(prompts, tuple(CHOICES))

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        consistency = self._consistency(claim)
        certainty = _certainty(results)
        confidence = self._beta * consistency + (1 - self._beta) * certainty
        # rounding may lift a sum of ones above 1
        reason = f"consistency {consistency:.2f}, self-reflection {certainty:.2f}"
        return min(confidence, 1.0), reason

    def _consistency(self, claim: Claim) -> float:
        answer = meaning(claim.answer.text)
        similar = sum(similarity(answer, meaning(sample.text)) for sample in claim.samples)
        # in the paper an entailment model; here words (similar) and whole meanings (agreeing)
        agreeing = count_agreeing(claim)
        return (self._alpha * similar + (1 - self._alpha) * agreeing) / len(claim.samples)


def _certainty(results: Sequence[Sequence[float]]) -> float:
    """Return the mean over the questions of the expected value of their choices.

    `results` has the log-probabilities of each choice of the first question, then the second's.
    """
    total = 0.0
    for start in range(0, len(results), len(CHOICES)):
        probabilities = choice_probabilities(results[start : start + len(CHOICES)])
        for probability, value in zip(probabilities, CHOICES.values(), strict=True):
            total += probability * value
    return total / (len(results) // len(CHOICES))


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "do the samples agree, and does the model stand by it"
    needs = frozenset({"loglikelihood"})
    paper = "https://arxiv.org/abs/2308.16175"
    return [Component("bsdetector", BSDetector, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)]
