"""Which questions a tuner teaches: the model's own answers, each with how likely it is correct.

A gold answer is never taught, and neither is an answer that the detectors do not believe. Of a
question that is half known, the tuner teaches only how likely it is to answer and how likely to
decline.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selfloop_plugins._shared.held_out import is_held_out, p_correct, telling_outcomes
from selfloop_plugins._shared.pairs import matched, unknown

from selfloop import History, Outcome
from selfloop.errors import ModelError

# right and wrong answers to be expected among the taught: with fewer, declining cannot be told
# from answering
MIN_ANSWERS = 8
# the same among the held out, which set the decline bias and judge the adapter
MIN_HELD_OUT_ANSWERS = 1


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A question, the model's own answer, and the probability that this answer is correct."""

    question: str
    answer: str
    p_correct: float


def training_examples(
    history: History, *, decline_share: float | None, match_form: bool, seed: int
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Return the examples to teach, and those that are held out.

    One question in five is held out, chosen by a hash of its text: the same ones in every round.
    The last outcome of every question counts, also from earlier rounds (replay). Left out are
    answers that do not show whether the model knows (`held_out.telling_outcomes`).

    With `decline_share`, so many declined questions are taught as make up that share of all; with
    `match_form`, first those that are like a known question in form. Raises ModelError, with the
    counts, where there are too few right or wrong answers.
    """
    outcomes = telling_outcomes(history)
    taught = [outcome for outcome in outcomes if not is_held_out(outcome.question)]
    held_out = [outcome for outcome in outcomes if is_held_out(outcome.question)]
    _refuse_too_few(taught, held_out)
    if decline_share is not None:
        known = [outcome for outcome in taught if not unknown(outcome)]
        declined = [outcome for outcome in taught if unknown(outcome)]
        # declined / (known + declined) = share, solved for declined
        count = round(len(known) * decline_share / (1 - decline_share))
        taught = known + _ordered_by_match(known, declined, match_form, seed)[:count]
    random.Random(seed).shuffle(taught)
    return list(map(_example, taught)), list(map(_example, held_out))


def _refuse_too_few(taught: Sequence[Outcome], held_out: Sequence[Outcome]) -> None:
    """Raise ModelError where too few right or too few wrong answers are to be expected."""
    right, right_held_out = sum(map(p_correct, taught)), sum(map(p_correct, held_out))
    wrong, wrong_held_out = len(taught) - right, len(held_out) - right_held_out
    enough = min(right, wrong) >= MIN_ANSWERS
    if not enough or min(right_held_out, wrong_held_out) < MIN_HELD_OUT_ANSWERS:
        raise ModelError(
            f"there is too little to learn from: of {len(taught)} answers about {right:.0f} are "
            f"right, going by their confidence, and {wrong:.0f} are not, of which {MIN_ANSWERS} "
            f"each are needed; of {len(held_out)} that are held out {right_held_out:.0f}, and one "
            "each is needed. Ask more (ask.questions, rounds)"
        )


def _example(outcome: Outcome) -> TrainingExample:
    return TrainingExample(outcome.question.text, outcome.answer.strip(), p_correct(outcome))


def _ordered_by_match(
    known: Sequence[Outcome], declined: Sequence[Outcome], match_form: bool, seed: int
) -> list[Outcome]:
    """Return the declined outcomes, first those with a partner of like form among the known.

    So the form of a question does not tell whether it is to be declined.
    """
    known_texts = {outcome.question.text for outcome in known}

    def is_known(outcome: Outcome) -> bool:
        return outcome.question.text in known_texts

    pairs = matched([*known, *declined], known=is_known) if match_form else []
    paired = [unknown_partner for _, unknown_partner in pairs]
    paired_texts = {outcome.question.text for outcome in paired}
    unpaired = [outcome for outcome in declined if outcome.question.text not in paired_texts]
    random.Random(seed).shuffle(unpaired)
    return [*paired, *unpaired]
