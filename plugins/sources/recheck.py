"""`again`: old beliefs are asked again in other words, so that chance answers do not stay.

A belief that does not outlast another wording, or being asked from the answer's side, is lowered
where the answers contradict each other (`selfloop.contradictions`). Consistency under rewording as
a test: Elazar et al. 2021, arXiv 2102.01017.
"""

import math
import random
from collections import Counter
from typing import Annotated, Literal

from annotated_types import Gt, Le, MinLen
from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import AskContext, Component, Outcome, Question, hookimpl
from selfloop.text.answers import normalise

from ._rewording import reversed_questions, reworded_questions
from ._writing import earlier_outcomes

CheckKind = Literal["reworded", "reversed"]
OVERSAMPLE = 2  # beliefs for each check wanted: for many the model finds no other words


class Again:
    """Asks about a share of the earlier beliefs again each round, the longest unchecked first.

    The first check of a belief is of the first of `kinds`, the next of the next, and so on in turn;
    where the model has no such question, of another kind. Of a rewording that is itself believed
    the original is checked.
    """

    def __init__(
        self,
        *,
        share_of_beliefs: Annotated[float, Gt(0), Le(1)] = 0.25,
        kinds: Annotated[tuple[CheckKind, ...], MinLen(1)] = ("reworded", "reversed"),
    ) -> None:
        self._share, self._kinds = share_of_beliefs, tuple(dict.fromkeys(kinds))

    def ask(self, context: AskContext) -> list[Question]:
        """Return one check of each belief that is due."""
        beliefs = [
            outcome
            for outcome in earlier_outcomes(context)
            if outcome.decision == "belief" and outcome.question.variant != "reworded"
        ]
        checks = [
            o for o in context.history.outcomes if o.question.variant in ("reworded", "reversed")
        ]
        # other calls of the same round have written some already
        written = sum(_counts_for_round(check, context.round) for check in checks)
        count = min(context.n, math.ceil(self._share * len(beliefs)) - written)
        if count <= 0:
            return []
        due = _due_first(context, beliefs, checks)[: OVERSAMPLE * count]
        questions = self._checks_of(context, due, checks)
        in_order = [questions.get(outcome.question.text) for outcome in due]
        return [question for question in in_order if question][:count]

    def _checks_of(
        self, context: AskContext, due: list[Outcome], checks: list[Outcome]
    ) -> dict[str, Question]:
        """Return a check of each belief for which the model has one, by the belief's question."""
        check_counts = Counter(check.question.variant_of for check in checks)
        taken = {normalise(outcome.question.text) for outcome in context.history.outcomes}
        questions: dict[str, Question] = {}
        # In attempt 0 each belief is checked by the kind whose turn it is, in the next attempt, if
        # there was no such question, by the next kind, and so on.
        for attempt in range(len(self._kinds)):
            for place, kind in enumerate(self._kinds):
                of_kind = []
                for outcome in due:
                    text = outcome.question.text
                    turn = (check_counts[text] + attempt) % len(self._kinds)
                    if text not in questions and turn == place:
                        of_kind.append(outcome)
                write = reworded_questions if kind == "reworded" else reversed_questions
                for question in write(context, of_kind, taken, "again"):
                    questions[question.variant_of] = question
        return questions


def _counts_for_round(check: Outcome, number: int) -> bool:
    """Return whether a check was asked by this source in a round, or later, and not dropped."""
    is_ours = check.question.source == "again"
    return check.round >= number and is_ours and check.decision != "dropped"


def _due_first(context: AskContext, beliefs: list[Outcome], checks: list[Outcome]) -> list[Outcome]:
    """Return the beliefs, those first that were asked or checked in the earliest round; within a
    round at random.

    A check that was dropped counts too: the others have their turn before another is tried.
    """
    # of each belief: the last round in which it, or a variant of it, was asked
    last_round = {belief.question.text: belief.round for belief in beliefs}
    for check in checks:
        text = check.question.variant_of
        if text in last_round:
            last_round[text] = max(last_round[text], check.round)
    shuffled = random.Random(f"{context.seed} due").sample(beliefs, len(beliefs))
    return sorted(shuffled, key=lambda belief: last_round[belief.question.text])


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "old beliefs in other words: contradictions lower them"
    return [
        Component(
            "again", Again, doc=doc, paper="https://arxiv.org/abs/2102.01017", prompts=PROMPTS
        )
    ]
