"""One rule for the same answer (`same.py`), and one for an answer that is none (`declining.py`)."""

import re

from selfloop.text.answers.declining import (
    MARK,
    MARK_IN_CHAT,
    UNKNOWN,
    also_declining,
    declines,
    is_marked,
)
from selfloop.text.answers.same import normalise, squad_normalise

__all__ = [
    "MARK",
    "MARK_IN_CHAT",
    "UNKNOWN",
    "also_declining",
    "content",
    "declines",
    "is_marked",
    "normalise",
    "squad_normalise",
]

# Words that any question may have: they do not tell one question from another.
_COMMON = re.compile(
    r"what|which|who|whom|whose|when|where|why|how|is|are|was|were|be|been|do|does|did|has|have|had|can|could|will|would"
    r"|in|on|at|of|to|for|from|by|with|as|and|or|it|its|he|she|his|her|they|their|there|this|that|many|much|name|called"
    r"|a|an|the"
)


def content(text: str) -> list[str]:
    """Return the content words of a question, in order."""
    return [word for word in normalise(text).split() if not _COMMON.fullmatch(word)]
