"""Whether an answer is right, by a list of answers that count: for measuring, never for the loop
itself.

The house rule is `exact`: the whole answer is one of the gold answers by `answers.normalise`. The
others are for comparison with papers, and for answers that are sentences; whoever measures names
one, and every table names it too.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from selfloop.errors import RecipeError, did_you_mean
from selfloop.records import Question
from selfloop.text.answers import declines, normalise, squad_normalise
from selfloop.text.answers.bounded import found as is_found

F1_THRESHOLD = 0.5  # of `f1` without a number
TOLERANCE = 0.01  # of `numeric` without a number, as a share of the gold answer

# a number that is not part of a word, a date, a time or a fraction
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\d.]|[/:]\d)")


def correct(answer: str, accepted: Iterable[str]) -> bool:
    """Return whether `answer` is the same as one of `accepted` by the house rule,
    `answers.normalise`.

    The whole answer counts: nothing is cut off at a comma or a full stop, so "Washington, D.C."
    stays whole. An answer that declines, and an alias that does or says nothing, never match.
    """
    return EXACT(answer, accepted)


def correct_by_regex(answer: str, pattern: str) -> bool:
    """Return whether `pattern` is found in `answer`, ignoring case, as TREC's judges wrote them.

    Raises RecipeError for a pattern that takes over a second. The reader of questions refuses those
    that are none.
    """
    return bool(answer.strip()) and is_found(pattern, answer)


@dataclass(frozen=True)
class Match:
    """How an answer is compared with a gold answer.

    `name` is as `--match` has it; `says` goes into tables.
    """

    name: str
    says: str
    agrees: Callable[[str, str], bool]

    def __call__(self, answer: str, accepted: Iterable[str]) -> bool:
        """Return whether the answer agrees with a gold answer.

        An answer that declines agrees with none, and a gold answer that declines counts as none.
        """
        return not declines(answer) and any(
            self.agrees(answer, gold) for gold in accepted if not declines(gold)
        )


def match_named(name: str) -> Match:
    """Return the match that `--match` names: exact, squad, contains, f1, f1:0.7, numeric,
    numeric:0.05.

    Raises RecipeError for an unknown name, and for a threshold out of range.
    """
    kind, _, value = name.partition(":")
    if kind in _PLAIN and not value:
        return _PLAIN[kind]
    if kind == "f1":
        threshold = _parameter(name, value, F1_THRESHOLD, minimum=1e-9, maximum=1.0)
        says = f"token F1 of at least {threshold:g} with a gold answer"
        return Match(f"f1:{threshold:g}", says, partial(_is_close, threshold=threshold))
    if kind == "numeric":
        tolerance = _parameter(name, value, TOLERANCE, minimum=0.0, maximum=1e9)
        says = f"its one number is within {tolerance:g} of a gold answer's, as a share of that"
        return Match(f"numeric:{tolerance:g}", says, partial(_near, tolerance=tolerance))
    kinds = (*_PLAIN, "f1", "numeric")
    raise RecipeError(
        f"no match named {name!r}.{did_you_mean(kind, kinds)} Known: exact, squad, contains, "
        "f1:0.5, numeric:0.01."
    )


def judged(question: Question, answer: str, match: Match | None = None) -> bool | None:
    """Return whether `answer` is right, by the question's pattern if it has one, else by its list;
    None with neither.

    `match` compares with the list (default: the house rule). An answer that declines is never
    right, by pattern or by list; so a gold answer that declines ("unknown") counts as none, and a
    question that has no other is not judged.
    """
    if question.gold_pattern:
        return not declines(answer) and correct_by_regex(answer, question.gold_pattern)
    gold_answers = [gold for gold in question.gold if not declines(gold)]
    return (match or EXACT)(answer, gold_answers) if gold_answers else None


def token_f1(answer: str, gold: str) -> float:
    """Return the F1 of the two texts' words after the SQuAD rule (Rajpurkar et al.

    2016), in [0, 1].
    """
    answer_words, gold_words = squad_normalise(answer).split(), squad_normalise(gold).split()
    shared = (Counter(answer_words) & Counter(gold_words)).total()
    return 2 * shared / (len(answer_words) + len(gold_words)) if shared else 0.0


def _same(answer: str, gold: str) -> bool:
    normal = normalise(answer)
    # two texts of which nothing is left say nothing, and not the same
    return bool(normal) and normal == normalise(gold)


def _same_by_squad(answer: str, gold: str) -> bool:
    normal = squad_normalise(answer)
    return bool(normal) and normal == squad_normalise(gold)


def _contains(answer: str, gold: str) -> bool:
    normal = normalise(gold)
    if not normal:
        return False
    # scripts that put no spaces between words have no word to end where the gold answer does
    spaced = normal.isascii() or not _WIDE.search(normal)
    return f" {normal} " in f" {normalise(answer)} " if spaced else normal in normalise(answer)


_WIDE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"
)


def _is_close(answer: str, gold: str, threshold: float) -> bool:
    return token_f1(answer, gold) >= threshold


def _near(answer: str, gold: str, tolerance: float) -> bool:
    number, gold_number = _single_number(answer), _single_number(gold)
    if number is None or gold_number is None:
        return _same(answer, gold)
    # fractions, so that a difference of just the tolerance is within it
    allowed = Fraction(tolerance).limit_denominator(10**9) * abs(gold_number)
    return abs(number - gold_number) <= allowed


def _single_number(text: str) -> Fraction | None:
    """Return the number of a text with just one; the same number twice is one."""
    numbers = set(_NUMBER.findall(normalise(text)))
    return Fraction(numbers.pop()) if len(numbers) == 1 else None


def _parameter(name: str, written: str, default: float, *, minimum: float, maximum: float) -> float:
    try:
        value = float(written) if written else default
    except ValueError:
        value = -1.0  # below every minimum
    if not minimum <= value <= maximum:
        bounds = "above 0 and up to 1" if maximum == 1 else "of 0 or more"
        raise RecipeError(f"--match {name}: {written!r} is no number {bounds}.")
    return value


EXACT = Match("exact", "the same as a gold answer by the house rule", _same)
_PLAIN = {
    "exact": EXACT,
    "squad": Match(
        "squad", "the same as a gold answer by the published SQuAD rule", _same_by_squad
    ),
    "contains": Match(
        "contains", "has a gold answer in it, word for word by the house rule", _contains
    ),
}
