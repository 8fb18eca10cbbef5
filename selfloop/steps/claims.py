"""The answers of an attempt as claims, which critics criticise and detectors judge."""

from collections.abc import Iterator

from selfloop.records import Attempt, Claim
from selfloop.text.answers import normalise


def revision_differs(attempt: Attempt) -> bool:
    """Return whether the revision of an attempt is another answer than its draft."""
    assert attempt.draft and attempt.revision
    return normalise(attempt.revision.text) != normalise(attempt.draft.text)


def draft_claim(attempt: Attempt) -> Claim:
    """Return the draft as a claim."""
    assert attempt.draft is not None
    return Claim(attempt.question, attempt.draft, attempt.samples)


def claims_of(attempt: Attempt) -> Iterator[Claim]:
    """Yield the draft, and the revision if it is another answer."""
    yield draft_claim(attempt)
    if attempt.draft and attempt.revision and revision_differs(attempt):
        # The draft answered the bare question too: for the revision it is one more sample, if the
        # same model wrote them all.
        samples = attempt.samples
        if all(sample.adapter == attempt.draft.adapter for sample in samples):
            samples = (*samples, attempt.draft)
        yield Claim(attempt.question, attempt.revision, samples, "revision")
