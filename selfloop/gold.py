"""Whether an answer is right, by a list of answers that count: for measuring, never for the loop itself."""

import re
from collections.abc import Iterable

from selfloop.answers import declines, normalise
from selfloop.records import Question


def correct(answer: str, accepted: Iterable[str]) -> bool:
    """Return whether `answer` is one of `accepted`, as the SQuAD scorer compares them (Rajpurkar et al. 2016).

    arXiv 1606.05250. The whole answer counts: nothing is cut off at a comma or a full stop, so "Washington, D.C."
    stays what it is. An answer or an alias that normalises to nothing never matches.
    """
    said = normalise(answer)
    return bool(said) and any(said == normalise(one) for one in accepted)


def correct_by_regex(answer: str, pattern: str) -> bool:
    """Return whether `pattern` is found in `answer`, ignoring case, as TREC's judges wrote them.

    Raises `re.error` for a pattern that is none.
    """
    return bool(answer.strip()) and re.search(pattern, answer, re.IGNORECASE) is not None


def judged(question: Question, answer: str) -> bool | None:
    """Return whether `answer` is right, by the question's pattern if it has one, else by its list; None with neither.

    An answer that declines ("I don't know") is never right by a pattern, whatever the pattern finds in it.
    """
    if question.gold_pattern:
        return not declines(answer) and correct_by_regex(answer, question.gold_pattern)
    return correct(answer, question.gold) if question.gold else None
