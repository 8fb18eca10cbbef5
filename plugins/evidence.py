"""What detectors read out of a claim: how likely the model found the answer, and which samples mean the same."""

import math
from collections import Counter
from collections.abc import Sequence

from selfloop import Claim, Completion
from selfloop.answers import declines, normalise

NOT_SAID = "not among what the model said to the bare question"
NAN = "a log-probability is not a number"


def repeats(claim: Claim) -> list[Completion]:
    """Return the answer as the model said it to the bare question: the draft, or what has the revision's text.

    A revision was written after a critique, which makes anything likely; what it repeats was not.
    """
    if claim.candidate == "draft":
        return [claim.answer]
    text = normalise(claim.answer.text)
    return [sample for sample in claim.samples if normalise(sample.text) == text]


def said(claim: Claim) -> Completion | None:
    """Return the likeliest of `repeats` that has log-probabilities, None if there is none."""
    return max((one for one in repeats(claim) if one.logprobs), key=total, default=None)


def total(completion: Completion) -> float:
    """Return the log-probability of a whole text, its end included; rounding above 0 is cut off. NaN stays NaN."""
    found = sum(completion.logprobs)  # not fsum: it raises where +inf meets -inf
    return found if math.isnan(found) else min(found, 0.0)


def meaning(text: str) -> str:
    """Return what two texts that mean the same have in common: their normalised text; all that decline are one."""
    return "" if declines(text) else normalise(text)


def meanings(samples: Sequence[Completion]) -> Counter[str]:
    """Return how many samples have each meaning."""
    return Counter(meaning(sample.text) for sample in samples)
