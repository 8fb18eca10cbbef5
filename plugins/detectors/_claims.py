"""Evidence in a claim: the answer's log-probability, and the meanings of the samples."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from selfloop_plugins._shared.meaning import meaning

from selfloop import Claim, Completion, Verdict, VerifyContext
from selfloop.text.answers import normalise

# reasons of abstentions, as they are stored with the verdicts
NOT_SAID = "not among the completions of the bare question"
NOT_A_NUMBER = "a log-probability is not a number"
DECLINED = "the answer is empty or declines"
NO_SAMPLES = "no samples"
MIN_SAMPLES = 2


class Abstain(Exception):  # noqa: N818 - no error: a detector may abstain
    """A detector cannot judge a claim; the message says why."""


class PerClaimDetector:
    """A detector that judges each claim apart, from the evidence in the claim."""

    name: ClassVar[str]

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim."""
        return [verdict_of(self.name, partial(self.judge, claim)) for claim in claims]

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return confidence and reason.

        Raises Abstain where there is no confidence.
        """
        raise NotImplementedError


def verdict_of(name: str, judge: Callable[[], tuple[float, str]]) -> Verdict:
    """Return the verdict that `judge` gives, or an abstention where it raises Abstain."""
    try:
        confidence, reason = judge()
    except Abstain as abstention:
        return Verdict(name, None, str(abstention))
    return Verdict(name, confidence, reason)


def same_text_completions(claim: Claim) -> list[Completion]:
    """Return the completions, after the bare question, with the text of the claim's answer.

    For a draft that is the draft. A revision was written after a critique, so its own
    log-probabilities do not count: these are the revision as it was read again, and the samples
    with its text.
    """
    if claim.candidate == "draft":
        return [claim.answer]
    text = normalise(claim.answer.text)
    return [claim.answer, *(sample for sample in claim.samples if normalise(sample.text) == text)]


def most_likely(claim: Claim, *, tokens: bool = False) -> Completion:
    """Return the most likely of `same_text_completions`; with `tokens`, of those with token ids.

    Raises Abstain where none has log-probabilities.
    """
    # a revision that could not be read again has no log-probabilities
    candidates = []
    for completion in same_text_completions(claim):
        if completion.logprobs and (completion.tokens or not tokens):
            candidates.append(completion)
    if not candidates:
        raise Abstain(NOT_SAID)
    return max(candidates, key=text_logprob)


def answer_logprob(claim: Claim) -> tuple[float, int]:
    """Return log-probability (nats) and number of tokens of the most likely completion.

    Raises Abstain where there is none, or its log-probability is not a number.
    """
    completion = most_likely(claim)
    logprob = text_logprob(completion)
    if math.isnan(logprob):
        raise Abstain(NOT_A_NUMBER)
    return logprob, len(completion.logprobs)


def text_logprob(completion: Completion) -> float:
    """Return the log-probability (nats) of a whole text, its end included.

    A sum that rounding lifts above 0 is cut to 0. NaN stays NaN.
    """
    logprob = sum(completion.logprobs)  # not fsum: it raises where +inf meets -inf
    return logprob if math.isnan(logprob) else min(logprob, 0.0)


def answer_meaning(claim: Claim) -> str:
    """Return the meaning of the claim's answer; raise Abstain where it is empty or declines."""
    text = meaning(claim.answer.text)
    if not text:
        raise Abstain(DECLINED)
    return text


def sample_meanings(claim: Claim) -> list[str]:
    """Return the meaning of each sample.

    Raises Abstain with fewer than two samples, or where all are empty or decline.
    """
    if len(claim.samples) < MIN_SAMPLES:
        raise Abstain("fewer than two samples")
    meanings = [meaning(sample.text) for sample in claim.samples]
    if not any(meanings):
        raise Abstain("every sample is empty or declines")
    return meanings


def sample_logprobs(samples: Sequence[Completion]) -> list[float]:
    """Return the log-probability (nats) of each sample.

    Raises Abstain where a sample has none, or no sample is possible.
    """
    # one sample without a probability would count as impossible, so none counts
    logprobs = [text_logprob(sample) if sample.logprobs else math.nan for sample in samples]
    if any(math.isnan(logprob) for logprob in logprobs) or max(logprobs) == -math.inf:
        raise Abstain(NOT_A_NUMBER)
    return logprobs


def count_agreeing(claim: Claim) -> int:
    """Return how many samples have the answer's meaning; those that decline never have."""
    answer = normalise(claim.answer.text)
    return sum(meaning(sample.text) == answer for sample in claim.samples)
