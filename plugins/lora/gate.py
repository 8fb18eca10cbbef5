"""Whether an adapter is taken: what it does on questions that were never trained on, and to the base's own text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfloop.answers import declines, normalise
from selfloop.records import Completion, Request, Sampling

from ..decoding.prompting import pieces
from ..decoding.sampling import Sampler
from ..decoding.tasks import Job, Scoring, Vocabulary, Writing
from ..hf.engine import Engine
from .lessons import Lesson

TOKENS = 24


@dataclass(frozen=True, slots=True)
class Measured:
    """Of held-out questions: the shares of known ones answered as before and of unknown ones declined, and of known
    ones declined; and the perplexity of text that the base wrote."""

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
    engine: Engine,
    vocabulary: Vocabulary,
    held: Sequence[Lesson],
    requests: Sequence[Callable[[str], Request]],
    texts: Sequence[Sequence[int]],
) -> Measured:
    """Return what a model does; `requests` make the prompts in which each question is asked."""
    asked = [(lesson, make(lesson.question)) for lesson in held for make in requests]
    answers = _answers(engine, vocabulary, [request for _, request in asked])
    jobs: list[Job] = [(list(text[:1]), [Scoring(i, list(text[1:]))]) for i, text in enumerate(texts)]
    logs = [value for _, found in engine.run(jobs, hidden=False) if isinstance(found, tuple) for value in found]
    known = [(lesson, answer) for (lesson, _), answer in zip(asked, answers, strict=True) if lesson.known]
    others = [answer for (lesson, _), answer in zip(asked, answers, strict=True) if not lesson.known]
    return Measured(
        kept=_share(normalise(lesson.answer) == normalise(answer) for lesson, answer in known),
        declined=_share(map(declines, others)),
        refused=_share(declines(answer) for _, answer in known),
        perplexity=math.exp(-sum(logs) / len(logs)) if logs else 1.0,
    )


def _answers(engine: Engine, vocabulary: Vocabulary, requests: Sequence[Request]) -> list[str]:
    jobs: list[Job] = []
    for i, request in enumerate(requests):
        prompt = vocabulary.tokens(pieces(vocabulary, request))
        jobs.append((prompt, [Writing(i, 0, request, vocabulary, Sampler(request.sampling, 0, 0), None)]))
    found = dict(engine.run(jobs, hidden=False))
    said = [found.get(i) for i in range(len(requests))]
    return [one.text.strip() if isinstance(one, Completion) else "" for one in said]


def asked_in(prompt: Any, *, open_turn: bool) -> Request:
    """Return the request for a short greedy answer."""
    return Request(prompt, Sampling(max_tokens=TOKENS, stop=("\n",)), open_turn=open_turn)


def _share(of: Any) -> float:
    values = [bool(one) for one in of]
    return sum(values) / len(values) if values else 0.0
