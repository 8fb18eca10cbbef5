"""The requirements on a scorer."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfloop.protocols import AskContext
from selfloop.records import Question, Score
from selfloop.testing.contexts import CLAIMS, ask_context
from selfloop.testing.contract import Contract, assert_same, call_each
from selfloop.testing.scripted import Limited

ASKED = ("What is the capital of Peru?",)
# Each is of another topic and form, so that none changes the score of another.
UNLIKE = (
    Question("Which river flows through Cairo and into the sea?", "test", "rivers"),
    Question(
        "Who painted the ceiling of the Sistine Chapel in Rome for the pope of that time?",
        "test",
        "painters",
    ),
    Question("it", "test", "nothing"),
    Question("How many legs does a spider have?", "test", "animals"),
)


class ScorerContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("score",)

    def score(
        self, questions: Sequence[Question], context: AskContext, scorer: Any = None
    ) -> list[Score]:
        """Return the scores of `scorer`, or of a new one, as a run takes them."""
        return call_each((scorer or self.build()).score, questions, context, Score)

    def ask_context(self) -> AskContext:
        """Return its context in round 2."""
        return ask_context(Limited(self.component.needs), self.component.prompts, asked=ASKED)

    def test_one_score_a_question(self) -> None:
        """Return as many scores as questions, also for none, each a number."""
        context, questions = self.ask_context(), [claim.question for claim in CLAIMS]
        # an empty question, and one of white space
        questions += [Question("", "test"), replace(questions[0], text="  \n")]
        assert self.score([], context) == []
        for question, score in zip(questions, self.score(questions, context), strict=True):
            assert math.isfinite(score.value), (
                f"the score of {question.text!r:.60} is {score.value}, no number"
            )

    def test_the_order_is_kept(self) -> None:
        """Return the scores in the order of the questions, whatever that is."""
        why = "scores do not come in the order of the questions"
        context = self.ask_context()
        reversed_back = self.score(UNLIKE[::-1], context)[::-1]
        assert_same(self.score(UNLIKE, context), reversed_back, why)

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again, and from a new scorer.

        The questions that were asked before are in `ask_context.history`.
        """
        context, scorer = self.ask_context(), self.build()
        first = self.score(UNLIKE, context, scorer)
        second = self.score(UNLIKE, context, scorer)
        assert_same(first, second, "the same questions get another score the second time")
        of_new_scorer = self.score(UNLIKE, context)
        why = "a new scorer gives the same questions another score"
        assert_same(first, of_new_scorer, why)
