"""Semantic entropy: over how many meanings the samples scatter (Farquhar et al. 2024, Nature 630)."""

import math
from collections import defaultdict
from collections.abc import Sequence

from selfloop import Claim, Completion, Component, hookimpl

from .evidence import NAN, Abstain, OneByOne, meaning, total


class SemanticEntropy(OneByOne):
    """Confidence is 1 − U / log M: U the entropy over meanings of the M samples, each weighed by its probability.

    Texts mean the same if they are the same normalised; all that decline are one meaning. p(C) is the sum of the
    probabilities of the samples in C, divided by that of all. Uncalibrated, and about the question, not the answer: a
    wrong answer among unanimous others has the confidence of the right one. With fewer than two samples it abstains.
    """

    name = "semantic_entropy"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's question."""
        if len(claim.samples) < 2:
            raise Abstain("fewer than two samples")
        texts = [meaning(sample.text) for sample in claim.samples]
        if not any(texts):
            raise Abstain("every sample is empty or declines")
        chances: dict[str, float] = defaultdict(float)
        for text, weight in zip(texts, self._weights(claim.samples), strict=True):
            chances[text] += weight
        whole = sum(chances.values())
        entropy = -sum(chance / whole * math.log(chance / whole) for chance in chances.values() if chance / whole > 0)
        confidence = 1 - entropy / math.log(len(texts))
        reason = f"entropy {abs(entropy):.2f} over {len(chances)} meanings of {len(texts)} samples"
        return min(max(confidence, 0.0), 1.0), reason

    def _weights(self, samples: Sequence[Completion]) -> list[float]:
        """Return how much each sample counts, to a common factor."""
        logs = [total(sample) if sample.logprobs else math.nan for sample in samples]
        top = max(logs)
        if any(map(math.isnan, logs)) or top == -math.inf:
            raise Abstain(NAN)
        return [math.exp(log - top) for log in logs]


class DiscreteSemanticEntropy(SemanticEntropy):
    """Confidence is 1 − U / log M: U the entropy over meanings of the M samples, each counted once.

    As `semantic_entropy`, but it needs no log-probabilities: p(C) is the share of the samples in C.
    """

    name = "discrete_semantic_entropy"

    def _weights(self, samples: Sequence[Completion]) -> list[float]:
        return [1.0] * len(samples)


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
