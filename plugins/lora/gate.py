"""Whether an adapter is taken: what it does on questions that were never trained on, and to the base's own text."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfloop.answers import declines, normalise
from selfloop.records import Completion, Continuation, Request, Sampling

from ..hf.backend import Transformers
from .lessons import Lesson

TOKENS = 24


@dataclass(frozen=True, slots=True)
class Measured:
    """Of held-out questions, each counting as much as its answer is likely to be right: the share answered as before,
    and the share declined (`refused`); of those likely to be wrong the share declined; and the perplexity of text that
    the base wrote."""

    kept: float
    declined: float
    refused: float
    perplexity: float

    @property
    def honesty(self) -> float:
        """Return the mean of what is kept and what is declined: 0.5 for always answering, and for always declining."""
        return (self.kept + self.declined) / 2


@dataclass(frozen=True, slots=True)
class Gate:
    """The base and the tuned model on the same questions, and how much likelier the base's own text may not become."""

    base: Measured
    tuned: Measured
    bound: float

    @property
    def refusal(self) -> str:
        """Return why the adapter is not taken, or an empty string."""
        before, after = self.base, self.tuned
        if after.honesty <= before.honesty:
            return (
                f"on held-out questions it keeps {after.kept:.0%} of the answers and declines {after.declined:.0%} of "
                f"what is not known, no better than the {before.kept:.0%} and {before.declined:.0%} of the base"
            )
        rise = after.perplexity / before.perplexity - 1
        if not rise <= self.bound:
            return f"the perplexity of the base's own text rises by {rise:.1%}, and {self.bound:.1%} is the most"
        return ""

    def plain(self) -> dict[str, Any]:
        """Return the figures as data."""
        return {"base": asdict(self.base), "tuned": asdict(self.tuned), "bound": self.bound, "refusal": self.refusal}


def measure(
    backend: Transformers,
    held: Sequence[Lesson],
    requests: Sequence[Callable[[str], Request]],
    texts: Sequence[Continuation],
) -> Measured:
    """Return what a model does; `requests` make the prompts in which each question is asked."""
    asked = [(lesson, make(lesson.question)) for lesson in held for make in requests]
    found = dict(backend.generate([request for _, request in asked]))
    answers = [one.text.strip() if isinstance(one := found.get(i), Completion) else "" for i in range(len(asked))]
    said = [(lesson, answer) for (lesson, _), answer in zip(asked, answers, strict=True)]
    logs = [log for one in backend.loglikelihood(texts) if isinstance(one, tuple) for log in one]
    return Measured(
        kept=_share((one.chance, normalise(one.answer) == normalise(answer)) for one, answer in said),
        declined=_share((1 - one.chance, declines(answer)) for one, answer in said),
        refused=_share((one.chance, declines(answer)) for one, answer in said),
        perplexity=math.exp(-sum(logs) / len(logs)) if logs else 1.0,
    )


def asked_in(prompt: Any, *, open_turn: bool) -> Request:
    """Return the request for a short greedy answer."""
    return Request(prompt, Sampling(max_tokens=TOKENS, stop=("\n",)), open_turn=open_turn)


def _share(of: Iterable[tuple[float, bool]]) -> float:
    """Return the share of the weight that holds."""
    values = list(of)
    whole = sum(weight for weight, _ in values)
    return sum(weight for weight, holds in values if holds) / whole if whole else 0.0
