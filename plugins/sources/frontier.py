"""`frontier`: from round 2, more questions like those that the model half knows.

A question teaches most where the model is right about half the time (R-Zero, Huang et al. 2025,
arXiv 2508.05004), so earlier questions are followed in proportion to 4p(1 - p) of their confidence
p, and twice as often where, or near where, a belief flipped. Asking only there narrows the
questions round by round: a set share follows what is believed and what was declined.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from annotated_types import Ge, Gt, Le
from selfloop_plugins._shared.echoes import echoes
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line as line

from selfloop import Asking, Component, Outcome, Question, Sampling, hookimpl
from selfloop.config.prompts import Prompt

from ._writing import draw, earlier, first_question

Weighed = list[tuple[Outcome, float]]
_EACH = 4  # questions written after the same seeds: the prompt costs more than the question


class Frontier:
    """Lets the model write after `shown` earlier questions of like confidence. Gives nothing in the
    first round.

    `easy` is the share written after beliefs and `impossible` that after declined questions; the
    rest is `middling`.
    """

    def __init__(
        self,
        *,
        easy: Annotated[float, Ge(0), Le(1)] = 0.2,
        impossible: Annotated[float, Ge(0), Le(1)] = 0.2,
        shown: Annotated[int, Ge(1)] = 4,
        temperature: Annotated[float, Gt(0)] = 0.8,
        oversample: Annotated[float, Ge(1)] = 2.5,
    ) -> None:
        self._shares = {
            "middling": max(0.0, 1 - easy - impossible),
            "easy": easy,
            "impossible": impossible,
        }
        self._shown, self._oversample = shown, oversample
        self._sampling = Sampling(temperature, top_p=0.95, max_tokens=32, stop=("\n",))

    def ask(self, asking: Asking) -> list[Question]:
        """Return new questions, `via` saying what kind they were written after."""
        pools = {kind: pool for kind, pool in seeds(asking).items() if pool and self._shares[kind]}
        if not pools:
            return []
        rng = random.Random(asking.seed)
        count = max(1, round(asking.n * self._oversample / _EACH))
        kinds = rng.choices(list(pools), [self._shares[kind] for kind in pools], k=count)
        chosen = [_chosen(pools[kind], self._shown, rng) for kind in kinds]
        written = draw(
            asking, [_prompt(asking, group) for group in chosen], self._sampling, n=_EACH
        )
        had = {*asking.past.questions, *asking.past.dropped}
        found: dict[str, Question] = {}
        for kind, group, got in zip(kinds, chosen, written, strict=True):
            for text in map(first_question, got):
                if text and text not in had:
                    found.setdefault(
                        text, Question(text, "frontier", group[-1].question.topic, via=kind)
                    )
        return list(found.values())


def seeds(asking: Asking) -> dict[str, Weighed]:
    """Return the earlier questions that may be followed, by kind, each with its weight."""
    flips = flipped(asking.past.outcomes)
    near = {o.question.topic for o in asking.past.outcomes if o.question.text in flips} - {""}
    pools: dict[str, Weighed] = {"middling": [], "easy": [], "impossible": []}
    for outcome in earlier(asking):
        sure, question = outcome.confidence, outcome.question
        if echoes(question.text, outcome.answer):  # undecided, but not for being half known
            continue
        twice = 2.0 if question.text in flips or question.topic in near else 1.0
        if sure is not None and (weight := 4 * sure * (1 - sure)) > 0:
            pools["middling"].append((outcome, twice * weight))
        if outcome.decision == "belief":
            pools["easy"].append((outcome, max(sure or 0.0, 0.01)))
        if outcome.decision == "declined":
            pools["impossible"].append((outcome, max(1 - (sure or 0.0), 0.01)))
    return pools


def flipped(outcomes: Sequence[Outcome]) -> set[str]:
    """Return the questions whose decision changed from one outcome to the next, or whose belief was lowered."""
    told = defaultdict[str, list[Outcome]](list)
    for outcome in outcomes:
        if outcome.decision in ("belief", "declined", "undecided") and outcome.reason:
            # without a reason it was not decided yet: it is of this round
            told[outcome.question.text].append(outcome)
    return {
        text
        for text, found in told.items()
        if any(_flips(one, then) for one, then in pairwise(found))
    }


def _flips(one: Outcome, then: Outcome) -> bool:
    lowered = one.decision == "belief" and (then.confidence or 0.0) < (one.confidence or 0.0)
    return one.decision != then.decision or lowered


def _chosen(pool: Weighed, count: int, rng: random.Random) -> list[Outcome]:
    """Return one by its weight, last, after up to `count` - 1 of like confidence, near ones of its topic first."""
    (first,) = rng.choices([outcome for outcome, _ in pool], [weight for _, weight in pool])
    others = [outcome for outcome, _ in pool if outcome is not first]
    rng.shuffle(others)  # of equal ones any
    others.sort(key=lambda other: _far(first, other))
    near = others[: 2 * (count - 1)]
    return [*rng.sample(near, min(count - 1, len(near))), first]


def _far(one: Outcome, other: Outcome) -> float:
    elsewhere = 0.0 if one.question.topic == other.question.topic else 0.1
    return abs((one.confidence or 0.0) - (other.confidence or 0.0)) + elsewhere


def _prompt(asking: Asking, group: Sequence[Outcome]) -> Prompt:
    topics = [line(outcome.question.topic) or "general knowledge" for outcome in group]
    asked = [line(outcome.question.text) for outcome in group]
    examples = "\n\n".join(
        f"Topic: {topic}\nQuestion: {text}" for topic, text in zip(topics, asked, strict=True)
    )
    return asking.prompt("frontier", examples=examples, topic=topics[-1])


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "from round 2: questions like those the model half knows, and a share like the easy and the impossible ones"
    return [
        Component(
            "frontier", Frontier, doc=doc, paper="https://arxiv.org/abs/2508.05004", prompts=PROMPTS
        )
    ]
