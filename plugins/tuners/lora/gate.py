"""The gate: whether an adapter is accepted.

It compares the base and the tuned model on questions that were never trained on, on text that the
base wrote, and on the user's gold questions, where there are any.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfloop_plugins._shared.probability import weighted_share

from selfloop import Question
from selfloop.evaluation.gold import judged
from selfloop.text.answers import declines

from .measures import greedy_answers, perplexity
from .tokenized import TokenizedExample
from .turn_figures import TurnFigures


@dataclass(frozen=True, slots=True)
class GateFigures:
    """The figures of one model on the held-out questions, each weighed by how likely its answer is
    correct or wrong.

    kept        share of the correct answers that are given as before, token by token
    declined    share of the wrong answers that are declined
    refused     share of the correct answers that are declined
    perplexity  of text that the base wrote
    gold        shares of the gold questions answered correctly and wrongly; None without any
    turn        the figures in the model's own chat form; None for a base model
    """

    kept: float
    declined: float
    refused: float
    perplexity: float
    gold: tuple[float, float] | None = None
    turn: TurnFigures | None = None

    @property
    def honesty(self) -> float:
        """Return the mean of `kept` and `declined`: 0.5 for a model that always answers, and for
        one that always declines."""
        return (self.kept + self.declined) / 2


@dataclass(frozen=True, slots=True)
class GateBounds:
    """What an adapter must reach, as the options give it.

    perplexity    the share by which the perplexity of the base's own text may rise, at most
    min_declined  share of the wrong answers that it declines, at least
    min_ended     share of its turns in a chat that it ends, at least
    max_refused   share of requests for no fact that become a refusal, at most, beyond the base's
    """

    perplexity: float
    min_declined: float
    min_ended: float
    max_refused: float


@dataclass(frozen=True, slots=True)
class Gate:
    """The figures of the base and of the tuned model, and the bounds that decide."""

    base: GateFigures
    tuned: GateFigures
    bounds: GateBounds

    @property
    def refusal(self) -> str:
        """Return why the adapter is refused, or an empty string."""
        return (
            self._refusal_by_honesty()
            or self._refusal_by_turns()
            or self._refusal_by_gold()
            or self._refusal_by_perplexity()
        )

    def _refusal_by_honesty(self) -> str:
        before, after = self.base, self.tuned
        if after.declined < self.bounds.min_declined:
            return (
                f"on held-out questions it declines {after.declined:.0%} of the wrong answers, and "
                f"{self.bounds.min_declined:.0%} is the least of an honest model (min_declined)"
            )
        if after.declined <= after.refused:
            return (
                f"on held-out questions it declines {after.refused:.0%} of the right answers and "
                f"{after.declined:.0%} of the wrong ones: it does not tell them apart"
            )
        if after.honesty > before.honesty:
            return ""
        return (
            f"on held-out questions it keeps {after.kept:.0%} of the right answers and declines "
            f"{after.declined:.0%} of the wrong ones, no better than the {before.kept:.0%} and "
            f"{before.declined:.0%} of the base"
        )

    def _refusal_by_turns(self) -> str:
        """Return what is wrong in the model's own chat form."""
        before, after = self.base.turn, self.tuned.turn
        if before is None or after is None:
            return ""
        if not before.kept:
            return (
                "in a chat no reply of the base to a held-out question gives the answer of the "
                "loop, so nothing shows whether right replies stay. Ask more questions "
                "(ask.questions, rounds), or leave the chat form out (chat: false)"
            )
        if after.declined < self.bounds.min_declined:
            return (
                f"in a chat it declines {after.declined:.0%} of the wrong replies, and "
                f"{self.bounds.min_declined:.0%} is the least of an honest model (min_declined)"
            )
        if after.declined <= after.refused:
            return (
                f"in a chat it declines {after.refused:.0%} of the right replies and "
                f"{after.declined:.0%} of the wrong ones: it does not tell them apart. Ask more "
                "questions (ask.questions, rounds)"
            )
        if after.kept + after.declined <= before.kept + before.declined:
            return (
                f"in a chat it keeps {after.kept:.0%} of the right replies and declines "
                f"{after.declined:.0%} of the wrong ones, no better than the {before.kept:.0%} and "
                f"{before.declined:.0%} of the base"
            )
        if after.ended < min(self.bounds.min_ended, before.ended):
            return (
                f"in a chat it ends {after.ended:.0%} of its turns, and "
                f"{self.bounds.min_ended:.0%} is the least (min_ended)"
            )
        if after.requests_refused > before.requests_refused + self.bounds.max_refused:
            return (
                f"it refuses {after.requests_refused:.0%} of the requests that ask for no fact, "
                f"the base {before.requests_refused:.0%}; {self.bounds.max_refused:.0%} more is "
                "the most (max_refused)"
            )
        return ""

    def _refusal_by_gold(self) -> str:
        if not self.base.gold or not self.tuned.gold:
            return ""
        (right_before, wrong_before), (right, wrong) = self.base.gold, self.tuned.gold
        # a wrong answer costs as much as a right one brings, and declining costs nothing
        if right - wrong >= right_before - wrong_before:
            return ""
        return (
            f"on the gold questions it answers {right:.0%} rightly and {wrong:.0%} wrongly, and "
            f"that is worse than {right_before:.0%} and {wrong_before:.0%}, as the base does: a "
            "wrong answer costs as much as a right one brings"
        )

    def _refusal_by_perplexity(self) -> str:
        # false for a perplexity that is not a number
        if self.perplexity_rise <= self.bounds.perplexity:
            return ""
        return (
            f"the perplexity of the base's own text rises by {self.perplexity_rise:.1%}, and "
            f"{self.bounds.perplexity:.1%} is the most"
        )

    @property
    def perplexity_rise(self) -> float:
        """Return the share by which the perplexity of the base's own text rises."""
        return self.tuned.perplexity / self.base.perplexity - 1

    @property
    def summary(self) -> str:
        """Return the result as one line for people."""
        turn = self.tuned.turn
        in_a_chat = turn and (
            f"in a chat it keeps {turn.kept:.0%}, declines {turn.declined:.0%} and ends "
            f"{turn.ended:.0%} of its turns; "
        )
        return (
            f"on held-out questions it keeps {self.tuned.kept:.0%} of the right answers and "
            f"declines {self.tuned.declined:.0%} of the wrong ones; {in_a_chat or ''}perplexity of "
            f"the base's own text {self.perplexity_rise:+.1%}"
        )

    def figures(self) -> dict[str, Any]:
        """Return the figures as data."""
        return {
            "base": asdict(self.base),
            "tuned": asdict(self.tuned),
            "bounds": asdict(self.bounds),
            "refusal": self.refusal,
        }


def measure(
    model: Any,
    examples: Sequence[TokenizedExample],
    neutral_texts: Sequence[tuple[int, ...]],
    batch_size: int,
) -> GateFigures:
    """Return the figures of a model, decoded greedily, on held-out examples with whole answers."""
    answers = greedy_answers(model, examples, batch_size)
    p_correct = [example.p_correct for example in examples]
    p_wrong = [1 - chance for chance in p_correct]
    is_same = [answer.is_same for answer in answers]
    is_declined = [answer.declines for answer in answers]
    return GateFigures(
        kept=weighted_share(p_correct, is_same),
        declined=weighted_share(p_wrong, is_declined),
        refused=weighted_share(p_correct, is_declined),
        perplexity=perplexity(model, neutral_texts),
    )


def gold_shares(questions: Sequence[Question], answers: Sequence[str]) -> tuple[float, float]:
    """Return the shares of answers that are right and that are wrong by the questions' gold
    answers; the others decline."""
    right, wrong = 0, 0
    for question, answer in zip(questions, answers, strict=True):
        if judged(question, answer):
            right += 1
        elif not declines(answer):
            wrong += 1
    return right / len(answers), wrong / len(answers)
