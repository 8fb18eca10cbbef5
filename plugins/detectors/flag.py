"""The flag: is the model about to decline? Read before it writes an answer.

Cf. the [IDK] token of Cohen et al. 2024, arXiv 2412.06676.
"""

import math
from collections.abc import Sequence
from typing import Any

from selfloop_plugins._shared.probability import sigmoid
from selfloop_plugins._shared.prompt_text import decline_continuation

from selfloop import Claim, Completion, Component, Request, Sampling, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError
from selfloop.protocols import Backend
from selfloop.records import Continuation
from selfloop.text.answers import UNKNOWN

from ._claims import NOT_A_NUMBER, Abstain
from ._reading import ReadingDetector

# nats on the log-odds of declining: so that the model begins an answer, as if it could not decline
WITHOUT_DECLINING = -100.0


class Flag(ReadingDetector):
    """Confidence is a / (a + d): how likely the likeliest answer is to begin, against declining.

    One pass over the question, whatever the answer is. Below a half, a model left alone would
    decline. It works for a model that was tuned to decline (`tuner: lora`); other models hardly
    ever do. d alone would say less: where a model does not know, the likeliest of its many answers
    is unlikely too, and that is evidence as well (docs/honesty.md). Uncalibrated.
    """

    name = "flag"

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return declining, after the question."""
        prompt = context.prompt("answer", question=claim.question.text)
        return [decline_continuation(prompt, open_turn=is_open(prompt))]

    def readings(self, texts: Sequence[Continuation], backend: Backend) -> Sequence[Any]:
        """Return for each text the first token of an answer, and declining's log-probabilities."""
        sampling = Sampling(max_tokens=1, decline_bias=WITHOUT_DECLINING)
        requests = [Request(text.prompt, sampling, open_turn=text.open_turn) for text in texts]
        answers = dict(backend.generate(requests))
        declining = backend.loglikelihood(texts)
        return [
            _first_refusal_or_both(answers.get(index), logprobs)
            for index, logprobs in enumerate(declining)
        ]

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        answer, declining = results[0]
        if not (answer and answer.logprobs and declining):
            raise Abstain("the model would say nothing")
        margin = declining[0] - answer.logprobs[0]  # nats that declining is ahead
        if math.isnan(margin):
            raise Abstain(NOT_A_NUMBER)
        probability = math.exp(min(declining[0], 0.0))
        return sigmoid(-margin), f'"{UNKNOWN}" begins with probability {probability:.2g}'


def _first_refusal_or_both(
    answer: Completion | RequestError | None, declining: tuple[float, ...] | RequestError
) -> Any:
    """Return the request error of either, else both."""
    if isinstance(answer, RequestError):
        return answer
    if isinstance(declining, RequestError):
        return declining
    return answer, declining


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "whether the model is about to decline, at one pass"
    needs = frozenset({"loglikelihood"})
    paper = "https://arxiv.org/abs/2412.06676"
    return [Component("flag", Flag, doc=doc, needs=needs, paper=paper, reads="tuned")]
