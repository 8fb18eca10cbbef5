"""What detectors that put the model to work share: all claims in one call, refusals as abstentions, weighed choices."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from selfloop_plugins.detectors._claims import Abstain

from selfloop import Claim, Completion, Judging, Request, Verdict
from selfloop.config.prompts import Prompt
from selfloop.errors import RequestError
from selfloop.protocols import Backend
from selfloop.records import Continuation
from selfloop.text.answers import UNKNOWN


def declined(prompt: Prompt, *, open_turn: bool) -> Continuation:
    """Return "I don't know" as what follows a prompt: a word apart where the model is to go on with a line."""
    apart = not prompt[-1:].isspace() if isinstance(prompt, str) else open_turn
    return Continuation(prompt, f" {UNKNOWN}" if apart else UNKNOWN, open_turn)


class ByReading:
    """A verifier that lets the model read texts: those of all claims in one call, each text once."""

    name: ClassVar[str]

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return what is to be read for a claim; raise Abstain where that would tell nothing."""
        raise NotImplementedError

    def read(self, texts: Sequence[Continuation], backend: Backend) -> Sequence[Any]:
        """Return what comes of each text: the log-probability of each token."""
        return backend.loglikelihood(texts)

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return confidence and reason from what came of the claim's texts, in their order; or raise Abstain."""
        raise NotImplementedError

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim."""
        plans = [self._plan(claim, judging) for claim in claims]
        wanted = list(
            dict.fromkeys(text for plan in plans if isinstance(plan, list) for text in plan)
        )
        found = dict(zip(wanted, self.read(wanted, judging.backend), strict=True))
        return [
            self._verdict(claim, plan, found) for claim, plan in zip(claims, plans, strict=True)
        ]

    def _plan(self, claim: Claim, judging: Judging) -> list[Continuation] | Abstain:
        try:
            return self.texts(claim, judging)
        except Abstain as why:
            return why

    def _verdict(
        self, claim: Claim, plan: list[Continuation] | Abstain, found: Mapping[Continuation, Any]
    ) -> Verdict:
        try:
            if isinstance(plan, Abstain):
                raise plan
            results = [found[text] for text in plan]
            for lost in results:
                if isinstance(lost, RequestError):
                    raise Abstain(str(lost))
            return Verdict(self.name, *self.judge(claim, results))
        except Abstain as why:
            return Verdict(self.name, None, str(why))


def write(requests: Sequence[Request], backend: Backend) -> list[list[str] | RequestError]:
    """Return the texts of each request, in the order of their samples, or why it was refused; in one call."""
    found: list[list[Completion]] = [[] for _ in requests]
    refused: dict[int, RequestError] = {}
    for index, result in backend.generate(requests):
        if isinstance(result, RequestError):
            refused[index] = result
        else:
            found[index].append(result)
    texts = [[one.text for one in sorted(each, key=lambda one: one.sample)] for each in found]
    return [refused.get(index, each) for index, each in enumerate(texts)]


def first(requests: Sequence[Request], backend: Backend) -> list[str]:
    """Return the one text of each request; a refusal is raised, and the claims are then tried one by one."""
    texts: list[str] = []
    for found in write(requests, backend):
        if isinstance(found, RequestError):
            raise found
        texts += found
    return texts


def seed(claim: Claim, judging: Judging) -> int:
    """Return a seed that depends on the run, the verifier and the question, and on no other claim."""
    return random.Random(f"{judging.seed} {claim.question.id}").getrandbits(32)


def shares(choices: Sequence[Sequence[float]]) -> list[float]:
    """Return the probability of each choice out of them all, from the log-probabilities of its
    tokens.

    Raises Abstain where they cannot be compared: one is not a number, or all are impossible.
    """
    sums = [sum(choice) for choice in choices]
    if any(map(math.isnan, sums)) or not math.isfinite(top := max(sums)):
        raise Abstain("the log-probabilities of the choices cannot be compared")
    weights = [math.exp(one - top) for one in sums]
    return [weight / math.fsum(weights) for weight in weights]


def logistic(odds: float) -> float:
    """Return 1 / (1 + exp(−odds)), for log-odds of any size."""
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0  # exp(710) is too large for a float


def line(text: str) -> str:
    """Return a text as one line, so that it cannot end its line of a prompt and begin another."""
    return " ".join(text.split())
