"""`answerable`: whether a few words can answer a question. Rules for English, no model.

The rules are in `selfloop.text.english.short_answers`.
"""

from collections.abc import Sequence

from selfloop import AskContext, Component, Question, Score, hookimpl
from selfloop.text.english.short_answers import long_answer_reason

MAX_CHARACTERS = 1000  # of a question that the rules look at


class Answerable:
    """1 for a question that a few words can answer, 0 with the reason for one that cannot.

    Not in a few words: why, how to, descriptions ("Who was Ada Lovelace?"), definitions,
    explanations, lists, opinions.
    """

    def score(self, questions: Sequence[Question], context: AskContext) -> list[Score]:
        """Return 1 or 0 for each question, 0 with the reason."""
        reasons = []
        for question in questions:
            text = " ".join(question.text[:MAX_CHARACTERS].split())
            reasons.append(long_answer_reason(text))
        return [Score("answerable", 0.0 if reason else 1.0, reason) for reason in reasons]


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [
        Component(
            "answerable", Answerable, doc="1 for a question that a few words can answer, else 0"
        )
    ]
