"""The flag: whether the model is about to decline, read off before it writes an answer (cf.

Cohen et al. 2024).
"""

import math
from collections.abc import Sequence
from typing import Any

from selfloop_plugins._shared.queries import ByReading, declined

from selfloop import Claim, Component, Judging, Request, Sampling, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError
from selfloop.protocols import Backend
from selfloop.records import Continuation
from selfloop.text.answers import UNKNOWN

from ._claims import NAN, Abstain

NEVER = -100.0  # nats: what an answer would begin with, were there no declining


class Flag(ByReading):
    """Confidence is a / (a + d): how likely the likeliest answer is to begin, and how likely
    declining is.

    One pass over the question, whatever the answer is; below a half, a model left alone would decline. It says
    something of a model that was tuned to (`tuner: lora`); others hardly ever do (cf. the [IDK] token, arXiv
    2412.06676). Not d alone: where a model does not know, the likeliest of its many answers is unlikely too, and that
    tells as much (docs/honesty.md). Uncalibrated.
    """

    name = "flag"

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return declining, after the question."""
        prompt = judging.prompt("answer", question=claim.question.text)
        return [declined(prompt, open_turn=is_open(prompt))]

    def read(self, texts: Sequence[Continuation], backend: Backend) -> Sequence[Any]:
        """Return the log-probabilities of the likeliest beginning of an answer and of that of declining."""
        once = Sampling(max_tokens=1, careful=NEVER)
        begun = dict(
            backend.generate([Request(one.prompt, once, open_turn=one.open_turn) for one in texts])
        )
        return [
            next(
                (lost for lost in (answer, silent) if isinstance(lost, RequestError)),
                (answer, silent),
            )
            for answer, silent in zip(
                (begun.get(i) for i in range(len(texts))), backend.loglikelihood(texts), strict=True
            )
        ]

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        answer, silent = found[0]
        if not (answer and answer.logprobs and silent):
            raise Abstain("the model would say nothing")
        ahead = silent[0] - answer.logprobs[0]
        if math.isnan(ahead):
            raise Abstain(NAN)
        confidence = 1 / (1 + math.exp(min(ahead, 700.0)))
        return (
            confidence,
            f'"{UNKNOWN}" begins with probability {math.exp(min(silent[0], 0.0)):.2g}',
        )


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "whether the model is about to decline, at one pass", frozenset({"loglikelihood"})
    return [Component("flag", Flag, doc=doc, needs=needs, paper="https://arxiv.org/abs/2412.06676")]
