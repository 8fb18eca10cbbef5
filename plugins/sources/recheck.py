"""`again`: old beliefs are asked again in other words, so that what the model only happened to say
does not stay.

A belief that does not outlast another wording, or being asked from the answer's side, is lowered
where the answers contradict each other (`selfloop.contradictions`). Consistency under rewording as a test:
Elazar et al. 2021, arXiv 2102.01017.
"""

import math
import random
from collections import Counter
from typing import Annotated, Literal

from annotated_types import Gt, Le, MinLen
from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import Asking, Component, Outcome, Question, hookimpl
from selfloop.text.answers import normalise

from ._writing import earlier
from .variants import reworded, turned

Check = Literal["reworded", "reversed"]
SPARE = 2  # candidates for each check wanted: for many the model finds no other words


class Again:
    """Asks a share of what was believed in earlier rounds again each round, what was checked
    longest ago first.

    The first check of a belief is of the first of `kinds`, the next of the next, and so on in turn;
    where the model has no such question, of another kind. Of a rewording that is itself believed
    the original is checked.
    """

    def __init__(
        self,
        *,
        share_of_beliefs: Annotated[float, Gt(0), Le(1)] = 0.25,
        kinds: Annotated[tuple[Check, ...], MinLen(1)] = ("reworded", "reversed"),
    ) -> None:
        self._share, self._kinds = share_of_beliefs, tuple(dict.fromkeys(kinds))

    def ask(self, asking: Asking) -> list[Question]:
        """Return one check of each belief that is due."""
        held = [
            o
            for o in earlier(asking)
            if o.decision == "belief" and o.question.variant != "reworded"
        ]
        checks = [o for o in asking.past.outcomes if o.question.variant in ("reworded", "reversed")]
        now = sum(
            o.round >= asking.round and o.question.source == "again" and o.decision != "dropped"
            for o in checks
        )
        count = min(asking.n, math.ceil(self._share * len(held)) - now)
        if count <= 0:
            return []
        written = Counter(o.question.variant_of for o in checks)
        taken = {normalise(o.question.text) for o in asking.past.outcomes}
        due = _due(asking, held, checks)[: SPARE * count]
        found: dict[str, Question] = {}
        for spare in range(len(self._kinds)):
            for i, kind in enumerate(self._kinds):
                left = [o for o in due if o.question.text not in found]
                own = [
                    o for o in left if (written[o.question.text] + spare) % len(self._kinds) == i
                ]
                write = reworded if kind == "reworded" else turned
                found |= {
                    question.variant_of: question for question in write(asking, own, taken, "again")
                }
        return [found[o.question.text] for o in due if o.question.text in found][:count]


def _due(asking: Asking, held: list[Outcome], checks: list[Outcome]) -> list[Outcome]:
    """Return the beliefs, those first that were asked or checked in the earliest round; within a
    round at random.

    A check that was dropped counts too: the others have their turn before another is tried.
    """
    last = {o.question.text: o.round for o in held}
    for check in checks:
        if check.question.variant_of in last:
            last[check.question.variant_of] = max(last[check.question.variant_of], check.round)
    shuffled = random.Random(f"{asking.seed} due").sample(held, len(held))
    return sorted(shuffled, key=lambda o: last[o.question.text])


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "old beliefs in other words: what contradicts itself is lowered"
    return [
        Component(
            "again", Again, doc=doc, paper="https://arxiv.org/abs/2102.01017", prompts=PROMPTS
        )
    ]
