"""The changes by revisions: from right to wrong or back.

Where nobody knows which answers are right, it is from agreeing with the samples to disagreeing.
"""

from collections import Counter
from collections.abc import Iterable

from selfloop.evaluation.gold import judged
from selfloop.records import Attempt, Completion
from selfloop.text.answers import declines, normalise


def flip(attempt: Attempt) -> str:
    """Return the change that a revision makes, as "right -> wrong", accepted or not.

    It is empty where there is no revision that says something else than the draft. Where the
    question has no gold answer it is "agree -> disagree" and so on: an answer agrees if no other is
    commoner among the samples, all that decline being one; without samples it is empty too.
    """
    draft, revision = attempt.draft, attempt.revision
    if draft is None or revision is None or normalise(draft.text) == normalise(revision.text):
        return ""
    if not _can_be_judged(attempt):
        return ""
    return f"{_word(attempt, draft)} -> {_word(attempt, revision)}"


def counts(attempts: Iterable[Attempt], *, accepted: bool = False) -> Counter[str]:
    """Return how many revisions there are of each flip: of all, or only of the accepted ones."""
    changes = Counter(
        flip(attempt) for attempt in attempts if not accepted or attempt.chosen == "revision"
    )
    del changes[""]  # attempts without a flip; a counter takes it if there are none
    return changes


def _can_be_judged(attempt: Attempt) -> bool:
    return judged(attempt.question, "") is not None or bool(attempt.samples)


def _word(attempt: Attempt, candidate: Completion) -> str:
    """Return how a candidate is, in one word."""
    right = judged(attempt.question, candidate.text)
    if right is not None:
        return "right" if right else "wrong"
    votes = Counter(_meaning(sample.text) for sample in attempt.samples)
    is_common = votes[_meaning(candidate.text)] == max(votes.values())
    return "agree" if is_common else "disagree"


def _meaning(text: str) -> str:
    """Return the same text for texts of one meaning; all that decline have one."""
    return "" if declines(text) else normalise(text)
