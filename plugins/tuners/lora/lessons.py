"""What a tuner teaches: the model's own answer, as likely as it is true, and to decline as likely
as it is not.

Never a gold answer, and never an answer that the detectors do not believe: of a question that is
half known, only how likely each is to begin is taught.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selfloop_plugins._shared.echoes import echoes
from selfloop_plugins._shared.pairs import matched, unknown

from selfloop import Outcome, Past
from selfloop.errors import ModelError
from selfloop.history import WITHOUT_ANSWER
from selfloop.text.answers import declines

# right and wrong answers that are to be expected: with fewer there is nothing to tell apart
LEAST = 8
# one question in so many is never trained on: few say little of where the dial and the gate should
# be
HELD = 5


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question, the model's own answer, and how likely that is true."""

    question: str
    answer: str
    chance: float


def lessons(
    past: Past, *, declined: float | None, match: bool, seed: int
) -> tuple[list[Lesson], list[Lesson]]:
    """Return what is taught, and what is held out: one question in five, by its text, in every
    round the same.

    The last outcome of every question is taught, those of earlier rounds too (replay), unless its
    answer only says words of the question again, for nothing tells then whether the model knows.
    With `declined`, only so many of the questions that were declined are taught as make up that
    share; with `match`, first those that are like a known one in form. Nothing is taught of a text
    that is no answer (`selfloop.text.nonanswers`) and does not decline. Raises ModelError, saying
    what there is, where there is too little of either.
    """
    last = {o.question.text: o for o in past.outcomes if o.decision not in WITHOUT_ANSWER}
    last = {text: o for text, o in last.items() if _tells(text, o.answer)}
    held = [o for o in last.values() if _is_held(o)]
    taught = [o for o in last.values() if not _is_held(o)]
    right, apart = (sum(map(_chance, some)) for some in (taught, held))
    if min(right, len(taught) - right) < LEAST or min(apart, len(held) - apart) < 1:
        raise ModelError(
            f"there is too little to learn from: of {len(taught)} answers about {right:.0f} are "
            "right, going by their "
            f"confidence, and {len(taught) - right:.0f} are not, of which {LEAST} each are "
            f"needed; of {len(held)} that "
            f"are held out {apart:.0f}, and one each is needed. Ask more (ask.questions, rounds)"
        )
    if declined is not None:
        known, others = [o for o in taught if not unknown(o)], [o for o in taught if unknown(o)]
        taught = (
            known
            + _like(known, others, match, seed)[: round(len(known) * declined / (1 - declined))]
        )
    random.Random(seed).shuffle(taught)
    return _lessons(taught), _lessons(held)


def _tells(question: str, answer: str) -> bool:
    """Return whether an answer tells if the model knows: it is one, or declines, and no echo."""
    # its patterns take a while to compile, which --help must not pay
    from selfloop.text.nonanswers import non_answer

    return not echoes(question, answer) and (
        declines(answer) or non_answer(question, answer) is None
    )


def _lessons(outcomes: Sequence[Outcome]) -> list[Lesson]:
    return [Lesson(o.question.text, o.answer.strip(), _chance(o)) for o in outcomes]


def _chance(outcome: Outcome) -> float:
    return 0.0 if declines(outcome.answer) else outcome.confidence or 0.0


def _is_held(outcome: Outcome) -> bool:
    return int(outcome.question.id, 16) % HELD == 0


def _like(
    known: Sequence[Outcome], others: Sequence[Outcome], match: bool, seed: int
) -> list[Outcome]:
    """Return the others, those first that have a partner among the known."""
    known_ones = {one.question.text for one in known}
    pairs = (
        matched([*known, *others], known=lambda one: one.question.text in known_ones)
        if match
        else []
    )
    paired = [other for _, other in pairs]
    taken = {one.question.text for one in paired}
    rest = [one for one in others if one.question.text not in taken]
    random.Random(seed).shuffle(rest)
    return [*paired, *rest]
