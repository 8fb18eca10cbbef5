"""How alike two texts are, by their words: what stands in where papers ask an entailment model or a cross-encoder."""

import re
from collections import Counter
from collections.abc import Sequence

from selfloop.text.answers import normalise

# Three letters before the mark, so that "Mr. X", "J. R. R. Tolkien" and "3.5" stay whole; "etc.
# and" does not.
_END = re.compile(r"(?<=\w{3}[.!?])\s+|(?<=[。！？])|\n+")


def f1(one: Sequence[str], other: Sequence[str]) -> float:
    """Return 2 · common / (all of both), words counted as often as they occur; 0 where there are none."""
    both = len(one) + len(other)
    return 2 * (Counter(one) & Counter(other)).total() / both if both else 0.0


def alike(one: str, other: str) -> float:
    """Return the F1 of the words of two meanings (`evidence.meaning`); that of none is 1 with itself, else 0."""
    return 1.0 if one == other else f1(one.split(), other.split())


def sentences(text: str) -> list[str]:
    """Return a text's sentences, white space collapsed, without those that hold no word."""
    return [" ".join(part.split()) for part in _END.split(text) if normalise(part)]
