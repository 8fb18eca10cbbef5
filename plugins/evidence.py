"""What detectors read out of a claim: how likely the model found the answer, and which samples mean the same."""

import math
from collections import Counter
from collections.abc import Sequence

from selfloop import Claim, Completion
from selfloop.answers import declines, normalise

NOT_SAID = "not among what the model said to the bare question"
NAN = "a log-probability is not a number"


def said(claim: Claim) -> Completion | None:
    """Return the answer as the model said it to the bare question, with log-probabilities; None if it did not.

    A revision was written after a critique, which makes anything likely; so it is judged by the likeliest draft or
    sample of the same text.
    """
    if claim.candidate == "draft":
        return claim.answer if claim.answer.logprobs else None
    text = normalise(claim.answer.text)
    same = [s for s in claim.samples if s.logprobs and normalise(s.text) == text]
    return max(same, key=total, default=None)


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
