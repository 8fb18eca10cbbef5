"""Mean token entropy: how open it was how to go on at each token (Fomicheva et al. 2020, arXiv 2005.10608)."""

import math
from collections.abc import Sequence

from selfloop import Claim, Component, Verdict, hookimpl
from selfloop.protocols import Backend

from .evidence import NOT_SAID, repeats


class MeanTokenEntropy:
    """Confidence is exp(−mean of the entropies that the answer's tokens were drawn from, in nats). Uncalibrated.

    What counts is what was said to the bare question; drafts have entropies, samples do not, so a revision is
    judged only where it repeats the draft's words.
    """

    def verify(self, claims: Sequence[Claim], backend: Backend) -> list[Verdict]:
        """Return the confidence for each claim's answer, or abstain."""
        return [self._judge(claim) for claim in claims]

    def _judge(self, claim: Claim) -> Verdict:
        found = next((one.entropies for one in repeats(claim) if one.entropies), None)
        if found is None:
            return Verdict("mean_token_entropy", None, f"{NOT_SAID}, or without entropies")
        mean = sum(found) / len(found)
        if math.isnan(mean):
            return Verdict("mean_token_entropy", None, "an entropy is not a number")
        return Verdict("mean_token_entropy", math.exp(-max(mean, 0.0)), f"entropy {mean:.2f} a token")


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "how sure the model was of each token of the answer", frozenset({"entropies"})
    paper = "https://arxiv.org/abs/2005.10608"
    return [Component("mean_token_entropy", MeanTokenEntropy, doc=doc, needs=needs, paper=paper)]
