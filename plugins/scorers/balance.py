"""`balance`: no topic and no form takes more than its share of a round's questions."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le

from selfloop import AskContext, Component, Question, Score, hookimpl
from selfloop.text.english.forms import opening_form

Share = Annotated[float, Gt(0), Le(1)]
_ROUNDING = 1e-9  # 0.1 * 30 is a little less than 3


class Balance:
    """1, or 0 with the reason for a question whose form or topic has its share of the round's
    questions already.

    A form is a question up to its first word with a meaning, names and numbers masked: "what is the
    capital", "who wrote", "where was _". The questions of this round and of the batch count, in
    order. A share is of the questions that the round wants, or of `min_questions` if that is more.
    List it last: a question that a later scorer drops has taken room here.
    """

    def __init__(
        self,
        *,
        form_share: Share = 0.2,
        topic_share: Share = 0.2,
        min_questions: Annotated[int, Ge(1)] = 20,
    ) -> None:
        self._shares = {"form": form_share, "topic": topic_share}
        self._min_questions = min_questions

    def score(self, questions: Sequence[Question], context: AskContext) -> list[Score]:
        """Return 1 or 0 for each question, 0 with the reason."""
        counts = Counter[tuple[str, str]]()
        kept = 0  # questions of this round so far
        for outcome in context.history.outcomes:
            if outcome.round == context.round and outcome.decision != "dropped":
                counts.update(_groups(outcome.question))
                kept += 1
        wanted = max(self._min_questions, kept + context.n)
        limits = {
            kind: max(1, math.floor(share * wanted + _ROUNDING))
            for kind, share in self._shares.items()
        }
        scores = []
        for question in questions:
            groups = _groups(question)
            reason = _full_group(groups, counts, limits)
            scores.append(Score("balance", 0.0 if reason else 1.0, reason))
            if not reason:
                counts.update(groups)
        return scores


def _full_group(
    groups: Sequence[tuple[str, str]],
    counts: Counter[tuple[str, str]],
    limits: dict[str, int],
) -> str:
    """Return which group of a question has its share already, or an empty string."""
    for kind, name in groups:
        if counts[kind, name] >= limits[kind]:
            return f"{kind} {name!r} has its share ({limits[kind]})"
    return ""


def _groups(question: Question) -> list[tuple[str, str]]:
    """Return the form and, if it has one, the topic of a question: pairs of kind and name."""
    form = ("form", opening_form(question.text))
    return [form, ("topic", question.topic.lower())] if question.topic else [form]


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [
        Component(
            "balance", Balance, doc="0 for a form or topic that has its share of the round already"
        )
    ]
