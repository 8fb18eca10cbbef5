"""Questions that a model knows and does not know, in pairs of the same form.

The wording must not tell a tuner's known questions from the unknown ones: if "Who wrote ...?" is
mostly known and "In which year ...?" mostly not, a model learns to decline years. Abstaining that
is learnt from such a pool fails elsewhere. `style.py` measures how far wording tells, and evens it
out.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from selfloop import Attempt, Outcome
from selfloop.text.answers import normalise
from selfloop.text.english.forms import masked_form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Tried = TypeVar("Tried", Outcome, Attempt)


def believed(tried: Outcome | Attempt) -> bool:
    """Return whether the model knows the answer, as far as the run can tell."""
    return tried.decision == "belief"


def unknown(tried: Outcome | Attempt) -> bool:
    """Return whether the model does not know the answer, as far as the run can tell."""
    return tried.decision == "declined"


def matched(
    tried: Sequence[Tried],
    *,
    known: Callable[[Tried], bool] = believed,
    unknown: Callable[[Tried], bool] = unknown,
    bound: float = 0.5,
) -> list[tuple[Tried, Tried]]:
    """Return pairs of a known and an unknown question: as many of the one as of the other.

    First come pairs of the same form. Then, nearest first, those whose forms have at least `bound`
    of their words in common and in the same order (twice the longest common subsequence of words,
    over the words of both). Of questions of one form, those of like length go together. A question
    is in at most one pair; one without a partner is left out. A question that was tried several
    times counts as it was tried last; one in the words of another (but for case and marks) counts
    once.
    """
    last_tried = {normalise(item.question.text): item for item in tried}
    known_by_form: dict[str, list[Tried]] = defaultdict(list)
    unknown_by_form: dict[str, list[Tried]] = defaultdict(list)
    for item in last_tried.values():
        form = form_of(item)
        if known(item):
            known_by_form[form].append(item)
        if unknown(item):
            unknown_by_form[form].append(item)
    pairs: list[tuple[Tried, Tried]] = []
    for form in [form for form in known_by_form if form in unknown_by_form]:
        pairs += _take_pairs(known_by_form, form, unknown_by_form, form)
    for first, second in _near_forms([*known_by_form], [*unknown_by_form], bound):
        pairs += _take_pairs(known_by_form, first, unknown_by_form, second)
    return pairs


def form_of(tried: Outcome | Attempt) -> str:
    """Return a question's form: its words in order, the entity and all numbers masked."""
    return masked_form(tried.question.text, tried.question.via)


def _take_pairs(
    known_by_form: dict[str, list[Tried]],
    known_form: str,
    unknown_by_form: dict[str, list[Tried]],
    unknown_form: str,
) -> list[tuple[Tried, Tried]]:
    """Take as many pairs as two forms have, and leave the rest for other forms."""
    ones = sorted(known_by_form.get(known_form, []), key=_by_length)
    others = sorted(unknown_by_form.get(unknown_form, []), key=_by_length)
    count = min(len(ones), len(others))
    if count:
        known_by_form[known_form] = ones[count:]
        unknown_by_form[unknown_form] = others[count:]
    return list(zip(ones[:count], others[:count], strict=True))


def _by_length(tried: Outcome | Attempt) -> tuple[int, str]:
    return len(tried.question.text), tried.question.id


def _near_forms(forms: Sequence[str], others: Sequence[str], bound: float) -> list[tuple[str, str]]:
    """Return the pairs of different forms that are alike, the most alike first; deterministic."""
    table = alikeness(forms, others)
    pairs = []
    for i, j in zip(*(table >= bound).nonzero(), strict=True):
        form, other = forms[int(i)], others[int(j)]
        if form != other:
            pairs.append((-float(table[i, j]), form, other))
    return [(form, other) for _, form, other in sorted(pairs)]


def alikeness(forms: Sequence[str], others: Sequence[str]) -> "NDArray[np.float32]":
    """Return how much of their words, in order, each two forms have in common.

    The shape is (forms, others); the values are in [0, 1].
    """
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    if not forms or not others:
        return np.zeros((len(forms), len(others)), np.float32)
    # rapidfuzz compares the words of two lists as it does the letters of two texts
    words, other_words = [form.split() for form in forms], [form.split() for form in others]
    scorer: Any = Indel.normalized_similarity
    table: NDArray[np.float32] = process.cdist(words, other_words, scorer=scorer, processor=None)
    return table


def halves(
    pairs: Sequence[tuple[Tried, Tried]], seed: int = 0
) -> tuple[list[tuple[Tried, Tried]], ...]:
    """Return the pairs in two parts of the same size, at random."""
    shuffled = random.Random(seed).sample(list(pairs), len(pairs))
    return shuffled[::2], shuffled[1::2]


def question_texts(pairs: Sequence[tuple[Tried, Tried]]) -> tuple[list[str], list[str]]:
    """Return the texts of the known and of the unknown questions, in order."""
    return (
        [known.question.text for known, _ in pairs],
        [unknown.question.text for _, unknown in pairs],
    )
