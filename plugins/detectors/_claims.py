"""What detectors read out of a claim: how likely the model found the answer, and which samples mean the same."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from selfloop import Claim, Completion, Judging, Verdict
from selfloop.text.answers import declines, normalise

NOT_SAID = "not among what the model said to the bare question"
NAN = "a log-probability is not a number"
DECLINED = "the answer is empty or declines"


class Abstain(Exception):
    """A detector cannot tell; the message says why."""


class OneByOne:
    """A verifier that judges each claim apart, from what is in the claim."""

    name: ClassVar[str]

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim."""
        return [abstaining(self.name, partial(self.judge, claim)) for claim in claims]

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence, and in a few words why; raise Abstain where there is none."""
        raise NotImplementedError


def abstaining(name: str, judge: Callable[[], tuple[float, str]]) -> Verdict:
    """Return the verdict that `judge` gives, or an abstention where it raises Abstain."""
    try:
        return Verdict(name, *judge())
    except Abstain as why:
        return Verdict(name, None, str(why))


def repeats(claim: Claim) -> list[Completion]:
    """Return the answer after the bare question: the draft; or the revision as it was read, and samples that say it."""
    if claim.candidate == "draft":
        return [claim.answer]
    text = normalise(claim.answer.text)
    return [claim.answer, *(sample for sample in claim.samples if normalise(sample.text) == text)]


def likeliest(claim: Claim, *, tokens: bool = False) -> Completion:
    """Return the likeliest of `repeats`, with `tokens` of those whose tokens are known; raise Abstain without one."""
    told = (one for one in repeats(claim) if one.logprobs and (one.tokens or not tokens))
    found = max(told, key=total, default=None)
    if found is None:
        raise Abstain(NOT_SAID)
    return found


def said(claim: Claim) -> tuple[float, int]:
    """Return log-probability and number of tokens of the likeliest of `repeats`; raise Abstain if there is none."""
    found = likeliest(claim)
    if math.isnan(log := total(found)):
        raise Abstain(NAN)
    return log, len(found.logprobs)


def total(completion: Completion) -> float:
    """Return the log-probability of a whole text, its end included; rounding above 0 is cut off.

    NaN stays NaN.
    """
    found = sum(completion.logprobs)  # not fsum: it raises where +inf meets -inf
    return found if math.isnan(found) else min(found, 0.0)


def meaning(text: str) -> str:
    """Return what two texts that mean the same have in common: their normalised text; all that decline are one."""
    return "" if declines(text) else normalise(text)


def stated(claim: Claim) -> str:
    """Return the meaning of the claim's answer; raise Abstain where it is empty or declines."""
    if found := meaning(claim.answer.text):
        return found
    raise Abstain(DECLINED)


def scattered(claim: Claim) -> list[str]:
    """Return the meanings of the claim's samples; raise Abstain with fewer than two, or where none says anything."""
    if len(claim.samples) < 2:
        raise Abstain("fewer than two samples")
    found = [meaning(sample.text) for sample in claim.samples]
    if not any(found):
        raise Abstain("every sample is empty or declines")
    return found


def logs(samples: Sequence[Completion]) -> list[float]:
    """Return the log-probability of each sample; raise Abstain where one has none, or none is possible."""
    found = [total(sample) if sample.logprobs else math.nan for sample in samples]
    if any(map(math.isnan, found)) or max(found) == -math.inf:
        raise Abstain(NAN)
    return found


def agreeing(claim: Claim) -> int:
    """Return how many samples mean what the answer says; those that decline never do."""
    answer = normalise(claim.answer.text)
    return sum(meaning(sample.text) == answer for sample in claim.samples)
