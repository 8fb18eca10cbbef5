"""Meaning probability: how likely the model is to say this answer in any of the wordings that were seen."""

import math

from selfloop import Claim, Component, hookimpl
from selfloop.text.units import plural

from ._claims import NAN, NOT_SAID, Abstain, OneByOne, meaning, repeats, stated, total


class MeaningProbability(OneByOne):
    """Confidence is Σ p(s | x) over the different token sequences that were said and mean the same
    as the answer.

    p(C) of semantic entropy (Farquhar et al. 2024, Nature 630) before it is normalised over the
    samples: what other meanings would have is not asked. It is never below the sequence
    probability, and a probability by itself: that the model, asked once at temperature 1, gives
    this answer, but for wordings that no sample had. Samples only find wordings here; how often
    each was drawn does not count, so their temperature does not either.
    """

    name = "meaning_probability"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the probability of the claim's answer."""
        answer = stated(claim)
        same = [
            one
            for one in (*repeats(claim), *claim.samples)
            if one.logprobs and meaning(one.text) == answer
        ]
        wordings = {one.tokens: total(one) for one in same if one.tokens}
        drawn = {one.text.strip() for one in same if one.tokens}
        # an answer that the user gave has no tokens; it may be one of those that were drawn
        if given := [one for one in same if not one.tokens and one.text.strip() not in drawn]:
            wordings[()] = total(given[0])
        if not wordings:
            raise Abstain(NOT_SAID)
        if any(math.isnan(log) for log in wordings.values()):
            raise Abstain(NAN)
        found = min(1.0, math.fsum(math.exp(log) for log in wordings.values()))
        return (
            found,
            f"probability {found:.2g}, in {plural(len(wordings), 'wording')}",
        )


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "how likely the model is to say this, in any wording seen", frozenset({"logprobs"})
    paper = "https://doi.org/10.1038/s41586-024-07421-0"
    return [Component("meaning_probability", MeaningProbability, doc=doc, needs=needs, paper=paper)]
