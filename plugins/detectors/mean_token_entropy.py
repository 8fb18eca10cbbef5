"""Mean token entropy: how open it was how to go on at each token (Fomicheva et al.

2020, arXiv 2005.10608).
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import NOT_SAID, Abstain, OneByOne, repeats


class MeanTokenEntropy(OneByOne):
    """Confidence is exp(−mean of the entropies that the answer's tokens were drawn from, in nats).
    Uncalibrated.

    What counts is what was said to the bare question; drafts have entropies, samples do not, so a
    revision is judged only where it repeats the draft's words.
    """

    name = "mean_token_entropy"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's answer."""
        found = next((one.entropies for one in repeats(claim) if one.entropies), None)
        if found is None:
            raise Abstain(f"{NOT_SAID}, or without entropies")
        mean = sum(found) / len(found)
        if math.isnan(mean):
            raise Abstain("an entropy is not a number")
        return math.exp(-max(mean, 0.0)), f"entropy {mean:.2f} a token"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "how sure the model was of each token of the answer", frozenset({"entropies"})
    paper = "https://arxiv.org/abs/2005.10608"
    return [Component("mean_token_entropy", MeanTokenEntropy, doc=doc, needs=needs, paper=paper)]
