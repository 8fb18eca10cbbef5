"""`frontier`: from round 2, more questions like those that the model half knows.

A question teaches most where the model is right about half the time (R-Zero, Huang et al. 2025,
arXiv 2508.05004), so earlier questions are followed in proportion to 4p(1 - p) of their confidence
p, and twice as often where, or near where, a belief flipped. Asking only there narrows the
questions round by round: a set share follows beliefs, and another follows declined questions.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from selfloop_plugins._shared.echoes import echoes
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import AskContext, Component, Outcome, Question, Sampling, hookimpl
from selfloop.config.prompts import Prompt

from ._writing import earlier_outcomes, first_question, generate_texts

Kind = Literal["middling", "easy", "impossible"]
Weighted = list[tuple[Outcome, float]]
TEXTS_PER_PROMPT = 4  # written after the same seeds: the prompt costs more than the question
FLIP_WEIGHT = 2.0  # of questions that flipped, and of those of the same topic
_MIN_WEIGHT = 0.01  # no seed is out of the draw
_OTHER_TOPIC_DISTANCE = 0.1  # of confidence: another topic is as far as that


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
        self._shares: dict[Kind, float] = {
            "middling": max(0.0, 1 - easy - impossible),
            "easy": easy,
            "impossible": impossible,
        }
        self._group_size, self._oversample = shown, oversample
        self._sampling = Sampling(temperature, top_p=0.95, max_tokens=32, stop=("\n",))

    def ask(self, context: AskContext) -> list[Question]:
        """Return new questions; `via` names the kind of questions before each."""
        pools = {
            kind: pool for kind, pool in seed_pools(context).items() if pool and self._shares[kind]
        }
        if not pools:
            return []
        rng = random.Random(context.seed)
        count = max(1, round(context.n * self._oversample / TEXTS_PER_PROMPT))
        kinds = rng.choices(list(pools), [self._shares[kind] for kind in pools], k=count)
        groups = [_drawn_group(pools[kind], self._group_size, rng) for kind in kinds]
        prompts = [_group_prompt(context, group) for group in groups]
        written = generate_texts(context, prompts, self._sampling, n=TEXTS_PER_PROMPT)
        asked = {*context.history.questions, *context.history.dropped}
        questions: dict[str, Question] = {}
        for kind, group, texts in zip(kinds, groups, written, strict=True):
            topic = group[-1].question.topic  # the seed's: the prompt ends in it
            for text in map(first_question, texts):
                if text and text not in asked:
                    questions.setdefault(text, Question(text, "frontier", topic, via=kind))
        return list(questions.values())


def seed_pools(context: AskContext) -> dict[Kind, Weighted]:
    """Return the earlier questions that may be followed, by kind, each with its weight."""
    flipped = flipped_questions(context.history.outcomes)
    flipped_topics = {
        o.question.topic for o in context.history.outcomes if o.question.text in flipped
    } - {""}
    pools: dict[Kind, Weighted] = {"middling": [], "easy": [], "impossible": []}
    for outcome in earlier_outcomes(context):
        question = outcome.question
        # such an answer is undecided, but not because the model half knows it
        if echoes(question.text, outcome.answer):
            continue
        is_unsteady = question.text in flipped or question.topic in flipped_topics
        half_known = _half_known_weight(outcome) * (FLIP_WEIGHT if is_unsteady else 1.0)
        confidence = outcome.confidence or 0.0
        if half_known > 0:
            pools["middling"].append((outcome, half_known))
        if outcome.decision == "belief":
            pools["easy"].append((outcome, max(confidence, _MIN_WEIGHT)))
        if outcome.decision == "declined":
            pools["impossible"].append((outcome, max(1 - confidence, _MIN_WEIGHT)))
    return pools


def _half_known_weight(outcome: Outcome) -> float:
    """Return 4p(1 - p) of the confidence p: 1 where p is a half, 0 without a confidence."""
    p = outcome.confidence
    return 0.0 if p is None else 4 * p * (1 - p)


def flipped_questions(outcomes: Sequence[Outcome]) -> set[str]:
    """Return the questions whose decision changed from one outcome to the next, or whose belief was
    lowered.
    """
    decided = defaultdict[str, list[Outcome]](list)
    for outcome in outcomes:
        # without a reason it was not decided yet: it is of this round
        if outcome.decision in ("belief", "declined", "undecided") and outcome.reason:
            decided[outcome.question.text].append(outcome)
    return {text for text, in_order in decided.items() if _flips(in_order)}


def _flips(outcomes: Sequence[Outcome]) -> bool:
    for earlier, later in pairwise(outcomes):
        if earlier.decision != later.decision:
            return True
        is_lower = (later.confidence or 0.0) < (earlier.confidence or 0.0)
        if earlier.decision == "belief" and is_lower:
            return True
    return False


def _drawn_group(pool: Weighted, count: int, rng: random.Random) -> list[Outcome]:
    """Return a seed drawn by its weight, last, after up to `count` - 1 of like confidence.

    Those of the seed's topic are more likely among them.
    """
    (seed,) = rng.choices([outcome for outcome, _ in pool], [weight for _, weight in pool])
    others = [outcome for outcome, _ in pool if outcome is not seed]
    rng.shuffle(others)  # of equally near ones any
    others.sort(key=lambda other: _distance(seed, other))
    # from twice as many as are shown, so that a seed does not always have the same company
    near = others[: 2 * (count - 1)]
    return [*rng.sample(near, min(count - 1, len(near))), seed]


def _distance(seed: Outcome, other: Outcome) -> float:
    has_other_topic = seed.question.topic != other.question.topic
    distance = abs((seed.confidence or 0.0) - (other.confidence or 0.0))
    return distance + (_OTHER_TOPIC_DISTANCE if has_other_topic else 0.0)


def _group_prompt(context: AskContext, group: Sequence[Outcome]) -> Prompt:
    """Return the prompt that shows a group's topics and questions, and the topic of the last."""
    topics = [one_line(outcome.question.topic) or "general knowledge" for outcome in group]
    texts = [one_line(outcome.question.text) for outcome in group]
    examples = "\n\n".join(
        f"Topic: {topic}\nQuestion: {text}" for topic, text in zip(topics, texts, strict=True)
    )
    return context.prompt("frontier", examples=examples, topic=topics[-1])


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = (
        "from round 2: questions like those the model half knows, and a share like the easy and "
        "the impossible ones"
    )
    return [
        Component(
            "frontier", Frontier, doc=doc, paper="https://arxiv.org/abs/2508.05004", prompts=PROMPTS
        )
    ]
