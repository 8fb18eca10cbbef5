"""Novelty: how far a question is from everything the run ever asked."""

from collections.abc import Sequence

from rapidfuzz import fuzz, process, utils

from selfloop import Asking, Component, Question, Score, hookimpl


class Novelty:
    """1 minus the likeness to the nearest earlier question: the share of words in common, whatever their order.

    Questions of the same batch count as earlier ones for those after them.
    """

    def score(self, questions: Sequence[Question], asking: Asking) -> list[Score]:
        """Return the novelty of each question in [0, 1]; 0 is a repeat."""
        asked = [utils.default_process(text) for text in asking.past.questions]
        scores = []
        for question in questions:
            text = utils.default_process(question.text)
            near = process.extractOne(text, asked, scorer=fuzz.token_sort_ratio, processor=None)
            likeness, nearest = (near[1] / 100, near[0]) if near else (0.0, "")
            scores.append(Score("novelty", 1 - likeness, f"like {nearest!r}" if nearest else ""))
            asked.append(text)
        return scores


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [Component("novelty", Novelty, doc="distance to the nearest question ever asked (0 is a repeat)")]
