"""Semantic entropy: over how many meanings the samples scatter (Farquhar et al. 2024, Nature 630)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from selfloop import Claim, Component, Verdict, hookimpl
from selfloop.protocols import Backend

from .evidence import NAN, meaning, meanings, total


class SemanticEntropy:
    """Confidence is 1 − U / log M: U the entropy over meanings of the M samples, each weighed by its probability.

    Texts mean the same if they are the same normalised; all that decline are one meaning. p(C) is the sum of the
    probabilities of the samples in C, divided by that of all. Uncalibrated, and about the question, not the answer: a
    wrong answer among unanimous others has the confidence of the right one. With fewer than two samples it abstains.
    """

    name = "semantic_entropy"

    def verify(self, claims: Sequence[Claim], backend: Backend) -> list[Verdict]:
        """Return the confidence for each claim's question, or abstain."""
        return [self._judge(claim) for claim in claims]

    def _judge(self, claim: Claim) -> Verdict:
        if len(claim.samples) < 2:
            return Verdict(self.name, None, "fewer than two samples")
        if not any(meanings(claim.samples).keys()):
            return Verdict(self.name, None, "every sample is empty or declines")
        chances = self._chances(claim)
        if chances is None:
            return Verdict(self.name, None, NAN)
        entropy = -sum(p * math.log(p) for p in chances.values() if p > 0)
        confidence = 1 - entropy / math.log(len(claim.samples))
        reason = f"entropy {abs(entropy):.2f} over {len(chances)} meanings of {len(claim.samples)} samples"
        return Verdict(self.name, min(max(confidence, 0.0), 1.0), reason)

    def _chances(self, claim: Claim) -> Mapping[str, float] | None:
        """Return the probability of each meaning; None where log-probabilities do not give any."""
        logs = [total(sample) if sample.logprobs else math.nan for sample in claim.samples]
        top = max(logs)
        if any(map(math.isnan, logs)) or top == -math.inf:
            return None
        chances: dict[str, float] = defaultdict(float)
        for sample, log in zip(claim.samples, logs, strict=True):
            chances[meaning(sample.text)] += math.exp(log - top)
        whole = sum(chances.values())
        return {text: chance / whole for text, chance in chances.items()}


class DiscreteSemanticEntropy(SemanticEntropy):
    """Confidence is 1 − U / log M: U the entropy over meanings of the M samples, each counted once.

    As `semantic_entropy`, but it needs no log-probabilities: p(C) is the share of the samples in C.
    """

    name = "discrete_semantic_entropy"

    def _chances(self, claim: Claim) -> Mapping[str, float]:
        return {text: count / len(claim.samples) for text, count in meanings(claim.samples).items()}


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer both forms."""
    paper = "https://doi.org/10.1038/s41586-024-07421-0"
    needs = frozenset({"logprobs"})
    weighed, counted = "weighed by their probability", "each counted once"
    doc = "over how few meanings the samples scatter, {}"
    return [
        Component("semantic_entropy", SemanticEntropy, doc=doc.format(weighed), needs=needs, paper=paper),
        Component("discrete_semantic_entropy", DiscreteSemanticEntropy, doc=doc.format(counted), paper=paper),
    ]
