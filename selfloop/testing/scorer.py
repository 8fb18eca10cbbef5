"""What a scorer must do."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfloop.protocols import Asking
from selfloop.records import Question, Score
from selfloop.testing.contract import Contract, each, same
from selfloop.testing.scripted import Limited
from selfloop.testing.told import CLAIMS, asking

ASKED = ("What is the capital of Peru?",)
UNLIKE = (  # each of another topic and form, so that none changes what another scores
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

    def score(self, questions: Sequence[Question], told: Asking, scorer: Any = None) -> list[Score]:
        """Return the scores of a new scorer, or the one given, as a run would take them."""
        return each((scorer or self.build()).score, questions, told, Score)

    def asking(self) -> Asking:
        """Return what it is told in round 2."""
        return asking(Limited(self.component.needs), self.component.prompts, asked=ASKED)

    def test_one_score_a_question(self) -> None:
        """Return as many scores as questions, also for none, each a number."""
        told, questions = self.asking(), [claim.question for claim in CLAIMS]
        questions += [Question("", "test"), replace(questions[0], text="  \n")]
        assert self.score([], told) == []
        for question, score in zip(questions, self.score(questions, told), strict=True):
            assert math.isfinite(score.value), (
                f"the score of {question.text!r:.60} is {score.value}, no number"
            )

    def test_the_order_is_kept(self) -> None:
        """Return the scores in the order of the questions, whatever that is."""
        told = self.asking()
        back = self.score(UNLIKE[::-1], told)[::-1]
        same(self.score(UNLIKE, told), back, "scores do not come in the order of the questions")

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again, and from a new scorer: what was asked before stands in `asking.past`."""
        told, scorer = self.asking(), self.build()
        first = self.score(UNLIKE, told, scorer)
        same(
            first,
            self.score(UNLIKE, told, scorer),
            "the same questions get another score the second time",
        )
        same(first, self.score(UNLIKE, told), "a new scorer gives the same questions another score")
