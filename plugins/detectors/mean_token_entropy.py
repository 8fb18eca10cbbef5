"""Mean token entropy: how uncertain the model was of each token of the answer.

Fomicheva et al. 2020, arXiv 2005.10608.
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import NOT_SAID, Abstain, PerClaimDetector, same_text_completions


class MeanTokenEntropy(PerClaimDetector):
    """Confidence is exp(−mean entropy, in nats, of the distributions of the answer's tokens).

    The entropies are those of an answer to the bare question. Drafts have entropies and samples do
    not, so a revision is judged only where it repeats the draft's words. Uncalibrated.
    """

    name = "mean_token_entropy"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's answer."""
        of_each = (completion.entropies for completion in same_text_completions(claim))
        entropies = next((entropies for entropies in of_each if entropies), None)
        if entropies is None:
            raise Abstain(f"{NOT_SAID}, or without entropies")
        mean = sum(entropies) / len(entropies)
        if math.isnan(mean):
            raise Abstain("an entropy is not a number")
        # an entropy is never negative, but a backend may round below 0
        return math.exp(-max(mean, 0.0)), f"entropy {mean:.2f} a token"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how sure the model was of each token of the answer"
    needs = frozenset({"entropies"})
    paper = "https://arxiv.org/abs/2005.10608"
    return [Component("mean_token_entropy", MeanTokenEntropy, doc=doc, needs=needs, paper=paper)]
