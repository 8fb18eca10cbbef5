"""The common beginnings of texts: a backend reads each once for all of them.

Lengths are in characters. Nothing here knows a tokenizer: the forecast compares calls with calls of
the same model, and the cost of a character is fitted.
"""

from collections.abc import Collection
from itertools import pairwise
from typing import NamedTuple

from selfloop.records import Message


class Reading(NamedTuple):
    """The amount that a backend reads of some texts.

    `texts` are the different ones, `read` the characters with a common beginning counted once, and
    `unshared` those of them that belong to one text alone.
    """

    texts: int
    read: int
    unshared: int


def plain_text(prompt: str | tuple[Message, ...]) -> str:
    """Return a prompt as one text, a chat with its roles."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)


def reading(texts: Collection[str]) -> Reading:
    """Return how much a backend reads of these texts, with common beginnings read once."""
    # in sorted order each text shares its longest beginning with a neighbour
    ordered = sorted(set(texts))
    shared = sum(_common_length(a, b) for a, b in pairwise(ordered))
    read = sum(map(len, ordered)) - shared
    unshared = min(read, typical_own_length(ordered) * len(ordered))
    return Reading(len(ordered), read, unshared)


def typical_own_length(texts: Collection[str]) -> int:
    """Return how many characters at the end of a text are usually its own.

    This is the lower quartile. Of a few texts some may be alone with a beginning that many others
    would share in a larger call.
    """
    lengths = sorted(own_lengths(texts))
    return lengths[len(lengths) // 4] if lengths else 0


def own_lengths(texts: Collection[str]) -> list[int]:
    """Return, for each different text, the characters after the beginning shared with another."""
    ordered = sorted(set(texts))
    # shared[i] is common to texts i - 1 and i; the first and the last text have one neighbour
    shared = [0, *(_common_length(a, b) for a, b in pairwise(ordered)), 0]
    return [len(text) - max(shared[i : i + 2]) for i, text in enumerate(ordered)]


def _common_length(a: str, b: str) -> int:
    """Return with how many of the same characters two texts begin."""
    for position, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return position
    return min(len(a), len(b))
