"""What a tuner teaches: the model's own answers where it is known to know, and to decline where it does not.

Never a gold answer, and never an answer of low agreement: what is undecided is left out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selfloop import Outcome, Past
from selfloop.answers import declines
from selfloop.errors import ModelError
from selfloop.ledger import UNSAID

from ..pairs import believed, matched, unknown

LEAST = 8  # of what is known, and of what is not: with fewer there is nothing to tell apart
HELD = 10  # one question in so many is never trained on


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question, and what is to be said to it."""

    question: str
    answer: str
    known: bool


def lessons(past: Past, *, declined: float, decline: str, match: bool, seed: int) -> tuple[list[Lesson], list[Lesson]]:
    """Return what is taught, and what is held out: one question in ten, by its text, in every round the same.

    All that is believed is taught, that of earlier rounds too (replay). `declined` is the share of questions to be
    declined: with `match` first those that are like a known one in form, then any. Raises ModelError, saying what there
    is, where there is too little of either.
    """
    last = {o.question.text: o for o in past.outcomes if o.decision not in UNSAID}
    told = [o for o in last.values() if believed(o) and not declines(o.answer)], [*filter(unknown, last.values())]
    held = [[o for o in side if _is_held(o)] for side in told]
    known, others = ([o for o in side if not _is_held(o)] for side in told)
    if min(len(known), len(others)) < LEAST or not all(held):
        raise ModelError(
            f"there is too little to learn from: {len(known)} questions with a belief and {len(others)} that were "
            f"declined, of which {LEAST} each are needed; beside them {len(held[0])} and {len(held[1])} are held "
            "out, of which the gate needs one each. Ask more (ask.questions, rounds), or move decide.belief and "
            "decide.declined"
        )
    count = round(len(known) * declined / (1 - declined))
    chosen = _like(known, others, match, seed)[:count]
    taught = [Lesson(o.question.text, o.answer, known=True) for o in known]
    taught += [Lesson(o.question.text, decline, known=False) for o in chosen]
    random.Random(seed).shuffle(taught)
    apart = [Lesson(o.question.text, o.answer, known=True) for o in held[0]]
    apart += [Lesson(o.question.text, decline, known=False) for o in held[1]]
    return taught, apart


def _is_held(outcome: Outcome) -> bool:
    return int(outcome.question.id, 16) % HELD == 0


def _like(known: Sequence[Outcome], others: Sequence[Outcome], match: bool, seed: int) -> list[Outcome]:
    """Return the others, those first that have a partner among the known."""
    paired = [other for _, other in matched([*known, *others])] if match else []
    taken = {one.question.text for one in paired}
    rest = [one for one in others if one.question.text not in taken]
    random.Random(seed).shuffle(rest)
    return [*paired, *rest]
