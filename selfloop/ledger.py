"""What a run knows of the rounds before: what became of each question, and what it holds true after all of them.

A belief does not outlast what contradicts it. Two answers that cannot both be right lower each other: given that at
most one of two independent statements of probability p and q is true, the first is with p(1 − q)/(1 − pq).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from selfloop.answers import content, declines, normalise
from selfloop.records import Adapter, Attempt, Belief, Outcome, Question, Round


@dataclass(frozen=True, slots=True)
class Past:
    """What a run knows of what went before: what it must not ask again, and what it builds on."""

    rounds: int = 0
    outcomes: tuple[Outcome, ...] = ()
    adapter: Adapter | None = None

    @property
    def questions(self) -> tuple[str, ...]:
        """Return the texts of all questions that were asked, each once, in order."""
        return tuple(dict.fromkeys(o.question.text for o in self.outcomes if o.decision != "dropped"))

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return the texts of the questions that were written and not asked, in order."""
        return tuple(o.question.text for o in self.outcomes if o.decision == "dropped")

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """Return what is held true: the questions whose last outcome is a belief, in the order asked."""
        last = {o.question.text: o for o in self.outcomes}
        held = (o for o in last.values() if o.decision == "belief")
        return tuple(Belief(o.question, o.answer, o.confidence or 0.0, o.round, o.adapter) for o in held)

    def after(self, ended: Round) -> "Past":
        """Return the past as the round after `ended` sees it."""
        return replace(self.and_asked(ended.attempts), rounds=ended.number, adapter=ended.adapter or self.adapter)

    def and_asked(self, attempts: Iterable[Attempt]) -> "Past":
        """Return the past with this round's attempts in it too."""
        found = [outcome for attempt in attempts for outcome in _outcomes(attempt, self.rounds + 1)]
        return replace(self, outcomes=(*self.outcomes, *found))


def _outcomes(attempt: Attempt, number: int) -> Iterable[Outcome]:
    adapter = attempt.draft.adapter if attempt.draft else None
    decision = attempt.decision or "undecided"
    yield Outcome(attempt.question, decision, attempt.answer, attempt.confidence, number, adapter, attempt.reason)
    if attempt.lowers:
        yield attempt.lowers


def agree(answer: str, other: str) -> bool:
    """Return whether two answers may be the same: one has all the words of the other ("Athens", "Athens, Greece")."""
    one, two = set(normalise(answer).split()), set(normalise(other).split())
    return one <= two or two <= one


def contradicts(question: Question, answer: str, belief: Belief) -> bool:
    """Return whether `answer` cannot be right beside `belief`.

    A question that asks for the same in other words must get the same answer; one that asks from the answer's side
    must get something that the belief's question names. Two questions of the same words ask for the same.
    """
    if declines(answer):
        return False
    linked = question.variant_of == belief.question.text
    if linked and question.variant == "reversed":
        return not set(normalise(answer).split()) & set(normalise(belief.question.text).split())
    same = linked and question.variant == "reworded"
    if not same and set(content(question.text)) != set(content(belief.question.text)):
        return False
    return not agree(answer, belief.answer)


def contradictions(beliefs: Sequence[Belief], attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts, each answer as unsure as the earlier belief it contradicts makes it, and that belief too.

    Whether either is held in spite of that is for who decides to say.
    """
    held = {belief.question.text: belief for belief in beliefs}
    about = {frozenset(content(text)): text for text in held}
    done = list(attempts)
    for i, attempt in enumerate(attempts):
        question, sure = attempt.question, attempt.confidence
        belief = held.get(question.variant_of) or held.get(about.get(frozenset(content(question.text)), ""))
        if belief is None or sure is None or not attempt.live or question.text == belief.question.text:
            continue
        if not contradicts(question, attempt.answer, belief):
            continue
        rest = 1 - belief.confidence * sure or 1.0  # of two certainties nothing is left
        low = replace(belief, confidence=belief.confidence * (1 - sure) / rest)
        held[belief.question.text] = low
        done[i] = replace(attempt, confidence=sure * (1 - belief.confidence) / rest, lowers=_lowered(low, attempt))
    return done


def _lowered(belief: Belief, attempt: Attempt) -> Outcome:
    why = f"contradicted by {attempt.question.text!r}: {attempt.answer}"
    question, answer, sure = belief.question, belief.answer, belief.confidence
    return Outcome(question, "undecided", answer, sure, belief.round, belief.adapter, why)
