"""Reverse question: does the answer lead back to it (InterrogateLLM, Yehuda et al.

2024, arXiv 2403.02889).
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import ByReading, line, logistic, seed, write

from selfloop import Claim, Component, Judging, Request, Sampling, Verdict, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError
from selfloop.protocols import Verifier
from selfloop.records import Continuation
from selfloop.text.answers import content

from ._claims import DECLINED, NAN, Abstain, meaning, stated
from ._similarity import f1


class ByLikelihood(ByReading):
    """Confidence is logistic((log p(question | answer) − log p(question)) / N), N the question's tokens."""

    name: ClassVar[str] = "reverse_question"

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return the question after the answer, and after none."""
        stated(claim)
        prompts = [
            judging.prompt("reverse_question", answer=answer)
            for answer in (line(claim.answer.text), "")
        ]
        return [
            Continuation(prompt, f" {line(claim.question.text)}", is_open(prompt))
            for prompt in prompts
        ]

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        given, alone = found
        if not given:
            raise Abstain("the question has no tokens")
        gain = (sum(given) - sum(alone)) / len(given)
        if math.isnan(gain):
            raise Abstain(NAN)
        return logistic(gain), f"the answer makes the question {gain:+.2f} nats a token likelier"


class ByOverlap:
    """Confidence is the mean F1 between the content words of the question and of those written back from the answer."""

    def __init__(self, questions: int) -> None:
        self._count = questions
        self._sampling = Sampling(0.7, top_p=0.95, max_tokens=48, stop=("\n",))

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim; all questions are written in one call."""
        asked = [
            i
            for i, claim in enumerate(claims)
            if meaning(claim.answer.text) and content(claim.question.text)
        ]
        prompts = [
            judging.prompt("reverse_question", answer=line(claims[i].answer.text)) for i in asked
        ]
        requests = [
            Request(
                prompt,
                self._sampling,
                n=self._count,
                seed=seed(claims[i], judging),
                open_turn=is_open(prompt),
            )
            for i, prompt in zip(asked, prompts, strict=True)
        ]
        written = dict(zip(asked, write(requests, judging.backend), strict=True))
        return [_judged(claim, written.get(i)) for i, claim in enumerate(claims)]


def _judged(claim: Claim, written: list[str] | RequestError | None) -> Verdict:
    name = "reverse_question"
    if written is None:
        return Verdict(
            name,
            None,
            "the question has no content words" if meaning(claim.answer.text) else DECLINED,
        )
    if isinstance(written, RequestError) or not written:
        return Verdict(name, None, str(written or "no question was written"))
    asked = content(claim.question.text)
    mean = math.fsum(f1(asked, content(text)) for text in written) / len(written)
    return Verdict(name, mean, f"overlap {mean:.2f} with {len(written)} questions written back")


def build(
    *, by: Literal["likelihood", "overlap"] = "likelihood", questions: Annotated[int, Ge(1)] = 3
) -> Verifier:
    """Confidence is how well the answer leads back to its question, in one of two readings.
    Uncalibrated.

    By likelihood it is logistic((log p(x | y) − log p(x)) / N): how much likelier, a token, the
    question x of N tokens is as the one that goes with the answer y than with none, behind the same
    demonstrations; a noisy-channel reading (Min et al. 2021, arXiv 2108.04106). By overlap it is
    the paper's with words for embeddings: the model writes `questions` questions that y answers,
    and their content words' mean F1 with those of x counts. Many questions have the same short
    answer, above all a number, so that is low even for true ones. It abstains where the answer is
    empty or declines, and by overlap where the question has no content words.
    """
    return ByLikelihood() if by == "likelihood" else ByOverlap(questions)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "does the answer lead back to its question", frozenset({"loglikelihood"})
    paper = "https://arxiv.org/abs/2403.02889"
    return [
        Component("reverse_question", build, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)
    ]
