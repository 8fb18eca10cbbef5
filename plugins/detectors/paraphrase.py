"""Paraphrase stability: does the answer outlast another wording (part of SAC³, Zhang et al.

2023, arXiv 2311.01740).
"""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

from annotated_types import Ge, Gt
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import line, seed, write

from selfloop import Claim, Component, Judging, Request, Sampling, Verdict, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError
from selfloop.text.answers import normalise

from ._claims import DECLINED, meaning


class Paraphrase:
    """Confidence is the share of rewordings of the question that get an answer of the same meaning.
    Uncalibrated.

    The model rewords the question `rewordings` times and answers each greedily in the recipe's own
    `answer` prompt. What does not count: a text that is empty, says the question itself or another
    rewording again (but for case and punctuation), names the answer where the question does not, or
    has no question mark where the question has one. Answers that decline are different ones.
    Nothing checks that a rewording means the same: that of a small model may ask for something
    else, and then a true answer looks unstable. It abstains where the answer is empty or declines,
    and where no rewording is left. The paper also samples, asks other models, and lets a model
    compare.
    """

    def __init__(
        self,
        *,
        rewordings: Annotated[int, Ge(1)] = 3,
        temperature: Annotated[float, Gt(0)] = 0.7,
        max_tokens: Annotated[int, Ge(1)] = 24,
    ) -> None:
        self._count = rewordings
        self._rewording = Sampling(temperature, top_p=0.95, max_tokens=64, stop=("\n",))
        self._answering = Sampling(max_tokens=max_tokens, stop=("\n",))

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim; all are reworded in one call and answered in another."""
        verdicts = [Verdict("paraphrase", None, DECLINED)] * len(claims)
        asked = [i for i, claim in enumerate(claims) if meaning(claim.answer.text)]
        worded = self._reword([claims[i] for i in asked], judging)
        wordings = [text for texts in worded if isinstance(texts, list) for text in texts]
        prompts = [judging.prompt("answer", question=text) for text in wordings]
        requests = [
            Request(prompt, self._answering, open_turn=is_open(prompt)) for prompt in prompts
        ]
        answers = iter(write(requests, judging.backend))
        for i, texts in zip(asked, worded, strict=True):
            own = [texts] if isinstance(texts, RequestError) else [*islice(answers, len(texts))]
            verdicts[i] = _judged(claims[i], own)
        return verdicts

    def _reword(self, claims: Sequence[Claim], judging: Judging) -> list[list[str] | RequestError]:
        """Return the other wordings of each claim's question."""
        prompts = [
            judging.prompt("paraphrase", question=line(claim.question.text)) for claim in claims
        ]
        requests = [
            Request(
                prompt,
                self._rewording,
                n=self._count,
                seed=seed(claim, judging),
                open_turn=is_open(prompt),
            )
            for claim, prompt in zip(claims, prompts, strict=True)
        ]
        written = write(requests, judging.backend)
        return [
            texts if isinstance(texts, RequestError) else different(claim, texts)
            for claim, texts in zip(claims, written, strict=True)
        ]


def different(claim: Claim, texts: Sequence[str]) -> list[str]:
    """Return the texts that are other wordings of the claim's question, none twice."""
    question, answer = normalise(claim.question.text), f" {normalise(claim.answer.text)} "
    kept = {words: line(text) for text in texts if (words := normalise(text)) and words != question}
    told, marked = answer in f" {question} ", "?" in claim.question.text
    return [
        text
        for words, text in kept.items()
        if (told or answer not in f" {words} ") and (not marked or "?" in text)
    ]


def _judged(claim: Claim, answers: Sequence[list[str] | RequestError]) -> Verdict:
    if not answers:
        return Verdict("paraphrase", None, "the model found no other wording")
    same = 0
    for answer in answers:
        if isinstance(answer, RequestError):
            return Verdict("paraphrase", None, str(answer))
        same += meaning("".join(answer)) == meaning(claim.answer.text)
    return Verdict(
        "paraphrase", same / len(answers), f"same answer to {same} of {len(answers)} rewordings"
    )


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "share of rewordings of the question that get the same answer"
    return [
        Component(
            "paraphrase",
            Paraphrase,
            doc=doc,
            paper="https://arxiv.org/abs/2311.01740",
            prompts=PROMPTS,
        )
    ]
