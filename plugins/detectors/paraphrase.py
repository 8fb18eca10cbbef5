"""Paraphrase stability: does the question get the same answer in other words?

Part of SAC³, Zhang et al. 2023, arXiv 2311.01740.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

from annotated_types import Ge, Gt
from selfloop_plugins._shared.generation import claim_seed, generate_texts
from selfloop_plugins._shared.meaning import meaning
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.rewording import reword

from selfloop import Claim, Component, Request, Sampling, Verdict, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError

from ._claims import DECLINED, Abstain, verdict_of

Texts = list[str] | RequestError


class Paraphrase:
    """Confidence is the share of rewordings of the question whose answer has the same meaning.

    The model rewords the question `rewordings` times and answers each greedily in the recipe's own
    `answer` prompt. A rewording is left out if it is empty, repeats the question or another
    rewording (but for case and punctuation), names the answer where the question does not, or has
    no question mark where the question has one. Answers that decline count as different ones.

    Its limit: nothing checks that a rewording means the same. That of a small model may ask for
    something else, and then a true answer looks unstable. The paper also samples, asks other
    models, and lets a model compare. Uncalibrated. It abstains where the answer is empty or
    declines, and where no rewording is left.
    """

    def __init__(
        self,
        *,
        rewordings: Annotated[int, Ge(1)] = 3,
        temperature: Annotated[float, Gt(0)] = 0.7,
        max_tokens: Annotated[int, Ge(1)] = 24,
    ) -> None:
        self._count = rewordings
        self._temperature = temperature
        # greedy, as the draft is
        self._answering = Sampling(max_tokens=max_tokens, stop=("\n",))

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim.

        All questions are reworded in one call, and all rewordings answered in another.
        """
        asked = [i for i, claim in enumerate(claims) if meaning(claim.answer.text)]
        rewordings = self._reword([claims[i] for i in asked], context)
        # one list for all claims: each takes as many as it has rewordings
        answers = iter(self._answer(rewordings, context))
        verdicts = [Verdict("paraphrase", None, DECLINED)] * len(claims)
        for i, texts in zip(asked, rewordings, strict=True):
            # a refused rewording stands for its answers, so that its reason is kept
            own_answers = (
                [texts] if isinstance(texts, RequestError) else [*islice(answers, len(texts))]
            )
            verdicts[i] = _stability(claims[i], own_answers)
        return verdicts

    def _reword(self, claims: Sequence[Claim], context: VerifyContext) -> list[Texts]:
        """Return the other wordings of each claim's question."""
        return reword(
            context.backend,
            context.prompt,
            claims,
            [claim_seed(claim, context) for claim in claims],
            count=self._count,
            temperature=self._temperature,
        )

    def _answer(self, rewordings: Sequence[Texts], context: VerifyContext) -> list[Texts]:
        """Return the greedy answer to each rewording, in one list."""
        requests = []
        for texts in rewordings:
            if isinstance(texts, RequestError):
                continue
            for text in texts:
                prompt = context.prompt("answer", question=text)
                requests.append(Request(prompt, self._answering, open_turn=is_open(prompt)))
        return generate_texts(requests, context.backend)


def _stability(claim: Claim, answers: Sequence[Texts]) -> Verdict:
    """Return the verdict for a claim from the answers to its rewordings."""

    def judge() -> tuple[float, str]:
        if not answers:
            raise Abstain("the model found no other wording")
        same = 0
        for answer in answers:
            if isinstance(answer, RequestError):
                raise Abstain(str(answer))
            same += meaning("".join(answer)) == meaning(claim.answer.text)
        return same / len(answers), f"same answer to {same} of {len(answers)} rewordings"

    return verdict_of("paraphrase", judge)


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "share of rewordings of the question that get the same answer"
    paper = "https://arxiv.org/abs/2311.01740"
    return [Component("paraphrase", Paraphrase, doc=doc, paper=paper, prompts=PROMPTS)]
