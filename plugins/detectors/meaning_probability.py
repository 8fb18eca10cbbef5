"""Meaning probability: how likely the model is to give this answer in any wording that was seen.

It is p(C) of semantic entropy before normalisation (Farquhar et al. 2024, Nature 630).
"""

import math

from selfloop_plugins._shared.meaning import meaning

from selfloop import Claim, Component, hookimpl
from selfloop.text.units import plural

from ._claims import (
    NOT_A_NUMBER,
    NOT_SAID,
    Abstain,
    PerClaimDetector,
    answer_meaning,
    same_text_completions,
    text_logprob,
)


class MeaningProbability(PerClaimDetector):
    """Confidence is Σ p(s | x) over the different token sequences s that mean the same as y.

    It is p(C) of semantic entropy (Farquhar et al. 2024, Nature 630) before it is normalised over
    the samples, so other meanings do not count. It is never below the sequence probability, and a
    probability by itself: that the model, asked once at temperature 1, gives this answer. Only
    wordings that no sample had are missing. Samples only supply wordings here; how often each was
    drawn does not count, so their temperature does not either.
    """

    name = "meaning_probability"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the probability of the claim's answer."""
        logprobs = _wording_logprobs(claim)
        if not logprobs:
            raise Abstain(NOT_SAID)
        if any(math.isnan(logprob) for logprob in logprobs):
            raise Abstain(NOT_A_NUMBER)
        probability = min(1.0, math.fsum(math.exp(logprob) for logprob in logprobs))
        wordings = plural(len(logprobs), "wording")
        return probability, f"probability {probability:.2g}, in {wordings}"


def _wording_logprobs(claim: Claim) -> list[float]:
    """Return the log-probability of each different wording of the answer."""
    answer = answer_meaning(claim)
    wordings: dict[tuple[int, ...], float] = {}
    drawn_texts: set[str] = set()
    without_tokens = []
    for completion in (*same_text_completions(claim), *claim.samples):
        if not completion.logprobs or meaning(completion.text) != answer:
            continue
        if completion.tokens:
            wordings[completion.tokens] = text_logprob(completion)
            drawn_texts.add(completion.text.strip())
        else:
            without_tokens.append(completion)
    logprobs = list(wordings.values())
    # an answer that the user gave has no tokens; it may be one of those that were drawn
    for completion in without_tokens:
        if completion.text.strip() not in drawn_texts:
            logprobs.append(text_logprob(completion))
            break
    return logprobs


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how likely the model is to say this, in any wording seen"
    needs = frozenset({"logprobs"})
    paper = "https://doi.org/10.1038/s41586-024-07421-0"
    return [Component("meaning_probability", MeaningProbability, doc=doc, needs=needs, paper=paper)]
