"""Reverse question: does the answer lead back to its question?

InterrogateLLM, Yehuda et al. 2024, arXiv 2403.02889.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from selfloop_plugins._shared.generation import claim_seed, generate_texts
from selfloop_plugins._shared.meaning import meaning
from selfloop_plugins._shared.probability import sigmoid
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Claim, Component, Request, Sampling, Verdict, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError
from selfloop.protocols import Detector
from selfloop.records import Continuation
from selfloop.text.answers import content

from ._claims import NOT_A_NUMBER, Abstain, answer_meaning, verdict_of
from ._reading import ReadingDetector, choice_texts
from ._similarity import f1

NAME = "reverse_question"


class ByLikelihood(ReadingDetector):
    """Confidence is logistic((log p(question | answer) − log p(question)) / N), for N tokens."""

    name: ClassVar[str] = NAME

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return the question after the answer, and after none."""
        answer_meaning(claim)
        prompts = [
            context.prompt("reverse_question", answer=answer)
            for answer in (one_line(claim.answer.text), "")
        ]
        return choice_texts(prompts, [f" {one_line(claim.question.text)}"])

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        after_answer, alone = results
        if not after_answer:
            raise Abstain("the question has no tokens")
        # a token, so that long questions do not count more
        gain = (sum(after_answer) - sum(alone)) / len(after_answer)
        if math.isnan(gain):
            raise Abstain(NOT_A_NUMBER)
        return sigmoid(gain), f"the answer makes the question {gain:+.2f} nats a token likelier"


class ByOverlap:
    """Confidence is the mean F1 of content words: the question's, and those written back."""

    def __init__(self, questions: int) -> None:
        self._count = questions
        self._sampling = Sampling(0.7, top_p=0.95, max_tokens=48, stop=("\n",))

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim; all questions are written in one call."""
        asked: list[int] = []
        requests = []
        for i, claim in enumerate(claims):
            if meaning(claim.answer.text) and content(claim.question.text):
                asked.append(i)
                requests.append(self._request(claim, context))
        results = dict(zip(asked, generate_texts(requests, context.backend), strict=True))
        return [
            verdict_of(NAME, partial(_overlap, claim, results.get(i)))
            for i, claim in enumerate(claims)
        ]

    def _request(self, claim: Claim, context: VerifyContext) -> Request:
        prompt = context.prompt("reverse_question", answer=one_line(claim.answer.text))
        return Request(
            prompt,
            self._sampling,
            n=self._count,
            seed=claim_seed(claim, context),
            open_turn=is_open(prompt),
        )


def _overlap(claim: Claim, result: list[str] | RequestError | None) -> tuple[float, str]:
    """Return confidence and reason; `result` is None where the model was not asked."""
    if result is None:
        answer_meaning(claim)
        raise Abstain("the question has no content words")
    if isinstance(result, RequestError) or not result:
        raise Abstain(str(result or "no question was written"))
    # content words alone: "what is the" would make all questions alike
    words = content(claim.question.text)
    mean = math.fsum(f1(words, content(text)) for text in result) / len(result)
    return mean, f"overlap {mean:.2f} with {len(result)} questions written back"


def build(
    *, by: Literal["likelihood", "overlap"] = "likelihood", questions: Annotated[int, Ge(1)] = 3
) -> Detector:
    """Confidence is how well the answer leads back to its question, in one of two readings.

    By likelihood it is logistic((log p(x | y) − log p(x)) / N): how much likelier, a token, the
    question x of N tokens is after the answer y than after none, behind the same examples. This is
    a noisy-channel reading (Min et al. 2021, arXiv 2108.04106).

    By overlap it is the paper's, with words for embeddings. The model writes `questions` questions
    that y answers; the mean F1 of their content words with those of x counts. Its limit: many
    questions have the same short answer, above all a number, so that it is low even for true ones.

    Uncalibrated. It abstains where the answer is empty or declines, and by overlap where the
    question has no content words.
    """
    return ByLikelihood() if by == "likelihood" else ByOverlap(questions)


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "does the answer lead back to its question"
    needs = frozenset({"loglikelihood"})
    paper = "https://arxiv.org/abs/2403.02889"
    return [Component(NAME, build, doc=doc, needs=needs, paper=paper, prompts=PROMPTS)]
