"""Well-formedness: whether a text is one whole question that stands alone. Rules, no model."""

import re
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge

from selfloop import Asking, Component, Question, Score, hookimpl

_ASKS = re.compile(
    r"^(in|on|at|for|of|to|from|by|with|during|about|after|before)?\s*\b(what|who|whom|whose|which|when|where|why|how|is|are"
    r"|was|were|do|does|did|can|could|has|have|had|will|would|should|name)\b",
    re.IGNORECASE,
)
# Words that point at something the question does not say.
_POINTS = re.compile(
    r"\b(this|these|that passage|the (passage|text|story|article|author|following|above|picture|image|paragraph)|above"
    r"|below|he|she|they|his|her|their|its|my|your|our|you|me|i|we|(?-i:us))\b",
    re.IGNORECASE,
)


class WellFormed:
    """1 for one whole question that stands alone, 0 else, with the reason. Whole: it asks, ends in "?", is one line."""

    def __init__(self, *, min_words: Annotated[int, Ge(1)] = 4, max_words: Annotated[int, Ge(1)] = 30) -> None:
        self._words = range(min_words, max_words + 1)

    def score(self, questions: Sequence[Question], asking: Asking) -> list[Score]:
        """Return 1 or 0 for each question."""
        faults = [self._fault(question.text.strip()) for question in questions]
        return [Score("well_formed", 0.0 if fault else 1.0, fault) for fault in faults]

    def _fault(self, text: str) -> str:
        words = text.split()
        if "\n" in text or text.count("?") != 1 or not text.endswith("?"):
            return "not one question that ends in '?'"
        if len(words) not in self._words:
            return f"{len(words)} words"
        if not text.isprintable() or (not text[0].isalnum() and text[0] not in "\"'“‘("):
            return "odd characters"
        if not _ASKS.match(text):
            return "asks nothing"
        if points := _POINTS.search(text):
            return f"points at something unsaid ({points[0]!r})"
        return ""


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [Component("well_formed", WellFormed, doc="1 for one whole question that stands alone, else 0")]
