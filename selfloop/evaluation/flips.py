"""What revisions change: from right to wrong or back, or, where nobody knows what is right, from agreed to not."""

from collections import Counter
from collections.abc import Iterable

from selfloop.evaluation.gold import judged
from selfloop.records import Attempt, Completion
from selfloop.text.answers import declines, normalise


def flip(attempt: Attempt) -> str:
    """Return what the revision changes, as "right -> wrong", whether it was accepted or not.

    It is empty where there is no revision that says something else than the draft. Where the
    question has no gold answer it is "agree -> disagree" and so on: an answer agrees if no other is
    commoner among the samples, all that decline being one; without samples it is empty too.
    """
    draft, revision = attempt.draft, attempt.revision
    if draft is None or revision is None or normalise(draft.text) == normalise(revision.text):
        return ""
    return " -> ".join(_word(attempt, one) for one in (draft, revision)) if _known(attempt) else ""


def counts(attempts: Iterable[Attempt], *, accepted: bool = False) -> Counter[str]:
    """Return how many revisions there are of each flip: all of them, or only those in the draft's place."""
    found = (flip(attempt) for attempt in attempts if not accepted or attempt.chosen == "revision")
    return Counter(one for one in found if one)


def _known(attempt: Attempt) -> bool:
    return judged(attempt.question, "") is not None or bool(attempt.samples)


def _word(attempt: Attempt, candidate: Completion) -> str:
    if (right := judged(attempt.question, candidate.text)) is not None:
        return "right" if right else "wrong"
    said = Counter(_meaning(sample.text) for sample in attempt.samples)
    return "agree" if said[_meaning(candidate.text)] == max(said.values()) else "disagree"


def _meaning(text: str) -> str:
    return "" if declines(text) else normalise(text)
