"""Beliefs over the rounds of a run and across runs: outcomes, changes and final answers.

A run's ledger is the list of its outcomes in the order in which they came about. An outcome may be
of an earlier answer: one that a later answer contradicts is lowered in the later round.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from selfloop.contradictions import agree, origin
from selfloop.history import WITHOUT_ANSWER, History, most_confident
from selfloop.records import Outcome, Question, Round
from selfloop.text.answers import UNKNOWN
from selfloop.text.gist import gist

# lost: it was a belief. found: it has become one. changed: it has another answer.
Change = Literal["lost", "found", "changed"]
VARIANTS = ("reworded", "reversed")  # of a question, which share its history


class Entry(NamedTuple):
    """An outcome of a question, and the round in which it came about.

    `outcome.round` is the round of the answer, which may be an earlier one.
    """

    round: int
    outcome: Outcome


class Flip(NamedTuple):
    """A change of a belief: the outcomes before and after it."""

    change: Change
    before: Entry
    after: Entry


@dataclass(frozen=True, slots=True)
class RunLedger:
    """The outcomes of one run, in the order in which they came about."""

    name: str
    model: str
    entries: tuple[Entry, ...]


class FinalAnswer(NamedTuple):
    """The last outcome of a question in a run.

    Where it stands for several runs, `agree` and `differ` count those with this answer and those
    with another.
    """

    run: RunLedger
    outcome: Outcome
    agree: int = 1
    differ: int = 0

    @property
    def is_belief(self) -> bool:
        """Whether the answer is a belief."""
        return self.outcome.decision == "belief"

    @property
    def answer(self) -> str:
        """The belief's answer, or "I don't know"."""
        return self.outcome.answer if self.is_belief else UNKNOWN

    def plain(self) -> dict[str, Any]:
        """Return the answer as data for JSON."""
        question = self.outcome.question
        return {
            "question": question.text,
            "answer": self.answer,
            "confidence": self.outcome.confidence,
            "round": self.outcome.round,
            "run": self.run.name,
            "model": self.run.model,
            "source": question.source,
            "topic": question.topic,
            "decision": self.outcome.decision,
        }


def entries_of(rounds: Iterable[Round]) -> list[Entry]:
    """Return the outcomes of these rounds, in the order in which they came about."""
    entries = []
    for ended in rounds:
        outcomes = History(ended.number - 1).with_attempts(ended.attempts).outcomes
        entries += [Entry(ended.number, outcome) for outcome in outcomes]
    return entries


def belief_flips(entries: Iterable[Entry]) -> Iterator[Flip]:
    """Yield each change of a belief, in order.

    A question in other words that is asked for the first time, and becomes a belief, is compared
    with the question that it rewords.
    """
    last: dict[str, Entry] = {}
    for after in entries:
        outcome, question = after.outcome, after.outcome.question
        if outcome.decision in WITHOUT_ANSWER:
            continue
        before = last.get(question.text)
        is_rewording = question.variant == "reworded" and outcome.decision == "belief"
        if before is None and is_rewording:
            before = last.get(question.variant_of)
        last[question.text] = after
        change = _change(before.outcome, outcome) if before else None
        if before and change:
            yield Flip(change, before, after)


def _change(before: Outcome, after: Outcome) -> Change | None:
    was_belief, is_belief = before.decision == "belief", after.decision == "belief"
    if was_belief != is_belief:
        return "found" if is_belief else "lost"
    if is_belief and not agree(before.answer, after.answer):
        return "changed"
    return None


def histories(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the outcomes of each question that was asked, by its text.

    The outcomes of questions that reword or reverse it are among them.
    """
    asked = [entry for entry in entries if entry.outcome.decision != "dropped"]
    # Reversed, so that the question as it was first asked is kept of several with the same text.
    questions: dict[str, Question] = {}
    for entry in reversed(asked):
        questions[entry.outcome.question.text] = entry.outcome.question
    by_question: dict[str, list[Entry]] = {}
    for entry in asked:
        text = origin(entry.outcome.question, questions, VARIANTS)
        by_question.setdefault(text, []).append(entry)
    return by_question


def final_answers(run: RunLedger, *, declined: bool = False) -> list[FinalAnswer]:
    """Return the beliefs of a run after its last round, with `declined` the declined questions too.

    Of beliefs whose questions ask for the same in other words, the surest stands for all.
    """
    last: dict[str, Outcome] = {}
    for entry in run.entries:
        if entry.outcome.decision not in WITHOUT_ANSWER:
            last[entry.outcome.question.text] = entry.outcome
    beliefs = most_confident(outcome for outcome in last.values() if outcome.decision == "belief")
    kept = {belief.question.text for belief in beliefs}
    if declined:
        kept |= {text for text, outcome in last.items() if outcome.decision == "declined"}
    return [FinalAnswer(run, outcome) for text, outcome in last.items() if text in kept]


def group_by_question(answers: Iterable[FinalAnswer]) -> list[list[FinalAnswer]]:
    """Return the answers in groups of one question, the surest first, in groups and among them."""
    groups: dict[object, list[FinalAnswer]] = {}
    for answer in answers:
        groups.setdefault(question_key(answer.outcome.question.text), []).append(answer)
    ordered = [sorted(group, key=_by_confidence) for group in groups.values()]
    return sorted(ordered, key=lambda group: _by_confidence(group[0]))


def question_key(text: str) -> object:
    """Return a key that questions share if they ask for the same in other words."""
    return gist(text) or text


def _by_confidence(answer: FinalAnswer) -> tuple[bool, float]:
    """Return a key that sorts beliefs before declined questions, and the surest first."""
    return not answer.is_belief, -(answer.outcome.confidence or 0.0)


def merge_runs(group: Sequence[FinalAnswer]) -> FinalAnswer:
    """Return the surest answer of a group, with the numbers of runs that agree and that differ."""
    best = group[0]
    agreeing = set()
    for answer in group:
        if answer.is_belief == best.is_belief and agree(answer.answer, best.answer):
            agreeing.add(answer.run.name)
    others = {answer.run.name for answer in group} - agreeing
    return best._replace(agree=len(agreeing), differ=len(others))
