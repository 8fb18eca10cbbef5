"""The earlier rounds of a run: the outcome of each question, and the beliefs of today.

How two answers that cannot both be right lower each other stands in `contradictions.py`, and when
two questions ask for the same in `text/gist.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce

from selfloop.records import Adapter, Attempt, Belief, Outcome, Round
from selfloop.text.gist import gist

# Decisions that came without an answer: an earlier belief about the question stays.
WITHOUT_ANSWER = ("dropped", "failed")


@dataclass(frozen=True, slots=True)
class History:
    """The outcomes of all rounds so far, in order, and the adapter that is in effect after them."""

    rounds: int = 0
    outcomes: tuple[Outcome, ...] = ()
    adapter: Adapter | None = None

    @property
    def questions(self) -> tuple[str, ...]:
        """Return the texts of all questions that were asked, each once, in order."""
        texts = (o.question.text for o in self.outcomes if o.decision != "dropped")
        return tuple(dict.fromkeys(texts))

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return the texts of the questions that were written but not asked, in order."""
        return tuple(o.question.text for o in self.outcomes if o.decision == "dropped")

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """Return the questions whose last answer is a belief, in the order asked.

        Of questions that ask for the same in other words, the most confident answer stands for all.
        """
        # A dict keeps the place of the first outcome of a question, and the last value.
        last = {o.question.text: o for o in self.outcomes if o.decision not in WITHOUT_ANSWER}
        believed = most_confident(o for o in last.values() if o.decision == "belief")
        return tuple(
            Belief(o.question, o.answer, o.confidence or 0.0, o.round, o.adapter) for o in believed
        )

    @classmethod
    def from_rounds(cls, rounds: Iterable[Round]) -> "History":
        """Return the past as the round after all of these sees it."""
        return reduce(cls.after, rounds, cls())

    def after(self, ended: Round) -> "History":
        """Return the past as the round after `ended` sees it."""
        return replace(
            self.with_attempts(ended.attempts),
            rounds=ended.number,
            # without a new adapter the last one stays in effect
            adapter=ended.adapter or self.adapter,
        )

    def with_attempts(self, attempts: Iterable[Attempt]) -> "History":
        """Return the past with the attempts of the round that follows, which has not ended yet."""
        outcomes = list(self.outcomes)
        for attempt in attempts:
            outcomes += _outcomes(attempt, self.rounds + 1)
        return replace(self, outcomes=tuple(outcomes))


def _outcomes(attempt: Attempt, round_number: int) -> Iterable[Outcome]:
    """Yield the outcome of an attempt, and that of the earlier belief it contradicts, if any."""
    outcome = Outcome(
        attempt.question,
        attempt.decision or "undecided",
        attempt.answer,
        attempt.confidence,
        round_number,
        attempt.draft.adapter if attempt.draft else None,
        attempt.reason,
    )
    yield _without_nonanswer(outcome)
    if attempt.lowers:
        yield _without_nonanswer(attempt.lowers)


def _without_nonanswer(outcome: Outcome) -> Outcome:
    """Return the outcome, undecided if it believes a text that is not an answer.

    Runs of earlier versions may hold such beliefs.
    """
    if outcome.decision != "belief":
        return outcome
    # Imported late: its patterns take a while to compile, and `selfloop --help` must be quick.
    from selfloop.text.nonanswers import non_answer

    if why := non_answer(outcome.question.text, outcome.answer):
        return replace(outcome, decision="undecided", reason=f"no answer: {why}")
    return outcome


def most_confident(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return one outcome for each gist of a question, the most confident, in the order given."""
    best: dict[object, Outcome] = {}
    for outcome in outcomes:
        # Questions without a gist ("What is it?") are compared by their texts.
        key = gist(outcome.question.text) or outcome.question.text
        rival = best.get(key)
        if rival is None or (outcome.confidence or 0.0) > (rival.confidence or 0.0):
            best[key] = outcome
    return list(best.values())
