"""`well_formed`: whether a text is one whole question that stands alone. Rules for English, no
model.

The rules are in `selfloop.text.english.standalone`.
"""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge

from selfloop import AskContext, Component, Question, Score, hookimpl
from selfloop.text.english.standalone import (
    begins_as_question,
    form_fault,
    pointing_fault,
    unpinned_fault,
)

MAX_CHARACTERS = 1000  # of a question: the rules look at all of it


class WellFormed:
    """1 for one whole question that stands alone, 0 else, with the reason. Whole: it asks, ends in
    "?", is one line.

    It gives 0 to a question that points outside itself ("What is this river called?", "Who won the
    game?"), to several questions in one, and to one with repeated words or with answers to choose
    from. The rules about words are for English and pass other scripts by.
    """

    def __init__(
        self, *, min_words: Annotated[int, Ge(1)] = 3, max_words: Annotated[int, Ge(1)] = 30
    ) -> None:
        self._word_counts = range(min_words, max_words + 1)

    def score(self, questions: Sequence[Question], context: AskContext) -> list[Score]:
        """Return 1 or 0 for each question, 0 with the reason."""
        faults = [self._fault(question.text.strip()) for question in questions]
        return [Score("well_formed", 0.0 if fault else 1.0, fault) for fault in faults]

    def _fault(self, text: str) -> str:
        """Return the first fault of a question, or an empty string."""
        words = text.split()
        if "\n" in text or text.count("?") != 1 or not text.endswith("?"):
            return "not one question that ends in '?'"
        if len(words) not in self._word_counts:
            return f"{len(words)} words"
        # before the patterns: some take time that grows with the square of the length
        if len(text) > MAX_CHARACTERS:
            return "too many characters"
        if not text.isprintable() or (not text[0].isalnum() and text[0] not in "\"'“‘("):
            return "odd characters"
        if not begins_as_question(text):
            return "asks nothing"
        return form_fault(text) or pointing_fault(text) or unpinned_fault(text)


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [
        Component(
            "well_formed", WellFormed, doc="1 for one whole question that stands alone, else 0"
        )
    ]
