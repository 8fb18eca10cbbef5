"""Detectors that let the model read texts: all claims in one call, and the weighing of choices."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from selfloop import Claim, Verdict, VerifyContext
from selfloop.config.prompts import Prompt, is_open
from selfloop.errors import RequestError
from selfloop.protocols import Backend
from selfloop.records import Continuation

from ._claims import Abstain, verdict_of


class ReadingDetector:
    """A detector that lets the model read texts: those of all claims in one call, each text once.

    A subclass gives the texts to read for a claim (`continuations`) and judges the results
    (`judge`).
    """

    name: ClassVar[str]

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return the texts to read for a claim.

        Raises Abstain where reading would show nothing.
        """
        raise NotImplementedError

    def readings(self, texts: Sequence[Continuation], backend: Backend) -> Sequence[Any]:
        """Return the result of each text: by default the log-probability of each token."""
        return backend.loglikelihood(texts)

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return confidence and reason from the results of the claim's texts, in their order.

        Raises Abstain where there is no confidence.
        """
        raise NotImplementedError

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim."""
        plans = [self._plan(claim, context) for claim in claims]
        # a dict keeps the order, and each text once: several claims may share one
        distinct: dict[Continuation, None] = {}
        for plan in plans:
            if not isinstance(plan, Abstain):
                distinct.update(dict.fromkeys(plan))
        texts = list(distinct)
        results = dict(zip(texts, self.readings(texts, context.backend), strict=True))
        return [
            verdict_of(self.name, partial(self._judge_plan, claim, plan, results))
            for claim, plan in zip(claims, plans, strict=True)
        ]

    def _plan(self, claim: Claim, context: VerifyContext) -> list[Continuation] | Abstain:
        try:
            return self.continuations(claim, context)
        except Abstain as abstention:
            return abstention

    def _judge_plan(
        self, claim: Claim, plan: list[Continuation] | Abstain, results: Mapping[Continuation, Any]
    ) -> tuple[float, str]:
        if isinstance(plan, Abstain):
            raise plan
        own_results = [results[text] for text in plan]
        for result in own_results:
            if isinstance(result, RequestError):
                raise Abstain(str(result))
        return self.judge(claim, own_results)


def choice_texts(prompts: Sequence[Prompt], choices: Sequence[str]) -> list[Continuation]:
    """Return every choice after each prompt: all choices of the first prompt, then the second's."""
    texts = []
    for prompt in prompts:
        open_turn = is_open(prompt)
        texts += [Continuation(prompt, choice, open_turn) for choice in choices]
    return texts


def choice_probabilities(choices: Sequence[Sequence[float]]) -> list[float]:
    """Return the probability of each choice out of all, from the log-probabilities of its tokens.

    A softmax over the sums. Raises Abstain where they cannot be compared: a sum is not a number,
    or every choice is impossible.
    """
    logprobs = [sum(choice) for choice in choices]
    highest = max(logprobs)
    if any(math.isnan(logprob) for logprob in logprobs) or not math.isfinite(highest):
        raise Abstain("the log-probabilities of the choices cannot be compared")
    # less the highest, so that exp neither overflows nor makes all of them 0
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    whole = math.fsum(weights)
    return [weight / whole for weight in weights]
