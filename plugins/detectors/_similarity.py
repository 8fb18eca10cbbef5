"""How similar two texts are by their words.

It stands in where papers ask an entailment model or a cross-encoder.
"""

import re
from collections import Counter
from collections.abc import Sequence

from selfloop.text.answers import normalise

# Three letters before the mark, so that "Mr. X", "J. R. R. Tolkien" and "3.5" stay whole; "etc.
# and" does not.
_SENTENCE_END = re.compile(r"(?<=\w{3}[.!?])\s+|(?<=[。！？])|\n+")


def f1(first: Sequence[str], second: Sequence[str]) -> float:
    """Return 2 · common / (all words of both); 0 where there are none.

    Words count as often as they occur.
    """
    total = len(first) + len(second)
    if not total:
        return 0.0
    common = Counter(first) & Counter(second)  # the smaller count of each word
    return 2 * common.total() / total


def similarity(first: str, second: str) -> float:
    """Return the F1 of the words of two meanings; the empty one is 1 with itself, else 0."""
    # two that decline have no words, but one meaning
    return 1.0 if first == second else f1(first.split(), second.split())


def sentences(text: str) -> list[str]:
    """Return a text's sentences, white space collapsed, without those that hold no word."""
    return [" ".join(part.split()) for part in _SENTENCE_END.split(text) if normalise(part)]
