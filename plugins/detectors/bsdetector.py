"""BSDetector: do the samples agree, and does the model stand by it (Chen & Mueller 2023, arXiv 2308.16175)."""

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import ByReading, line, shares

from selfloop import Claim, Component, Judging, hookimpl
from selfloop.config.prompts import is_open
from selfloop.records import Continuation

from ._claims import Abstain, agreeing, meaning, stated
from ._similarity import alike

QUESTIONS = ("bsdetector_correct", "bsdetector_sure")
CHOICES = {" (A)": 1.0, " (B)": 0.0, " (C)": 0.5}  # correct, incorrect, I am not sure


class BSDetector(ByReading):
    """Confidence is β · O + (1 − β) · S: observed consistency and self-reflection certainty.
    Uncalibrated.

    O is the mean over the samples s of α · F1(y, s) + (1 − α) · [y and s mean the same], F1 being
    that of their words; samples that decline count 0. S is the mean over two questions, whether y
    is correct and whether the model is really sure, of P(A) · 1 + P(B) · 0 + P(C) · ½ out of (A)
    correct, (B) incorrect, (C) I am not sure. The weights are the paper's. Two things differ from
    it: F1 stands in for 1 − the probability of a contradiction under an entailment model, and S
    reads the probabilities of the choices where the paper lets the model write, reasons first, and
    takes the letter. S is the model's own word, and that of a small one says little. It abstains
    without samples, and where the answer is empty or declines.
    """

    name = "bsdetector"

    def __init__(
        self,
        *,
        beta: Annotated[float, Ge(0), Le(1)] = 0.7,
        alpha: Annotated[float, Ge(0), Le(1)] = 0.8,
    ) -> None:
        self._beta, self._alpha = beta, alpha

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return each choice after each question."""
        stated(claim)
        if not claim.samples:
            raise Abstain("no samples")
        said = {"question": line(claim.question.text), "answer": line(claim.answer.text)}
        prompts = [judging.prompt(name, **said) for name in QUESTIONS]
        return [
            Continuation(prompt, choice, is_open(prompt))
            for prompt in prompts
            for choice in CHOICES
        ]

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        observed = self._observed(claim)
        own = [shares(found[i : i + len(CHOICES)]) for i in range(0, len(found), len(CHOICES))]
        certain = sum(
            p * value for each in own for p, value in zip(each, CHOICES.values(), strict=True)
        ) / len(own)
        confidence = self._beta * observed + (1 - self._beta) * certain
        return min(confidence, 1.0), f"consistency {observed:.2f}, self-reflection {certain:.2f}"

    def _observed(self, claim: Claim) -> float:
        answer = meaning(claim.answer.text)
        near = sum(alike(answer, meaning(sample.text)) for sample in claim.samples)
        return (self._alpha * near + (1 - self._alpha) * agreeing(claim)) / len(claim.samples)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = (
        "do the samples agree, and does the model stand by it",
        frozenset({"loglikelihood"}),
    )
    paper = "https://arxiv.org/abs/2308.16175"
    return [Component("bsdetector", BSDetector, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)]
