"""Semantic entropy: over how many meanings the samples scatter (Farquhar et al.

2024, Nature 630).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import Claim, Completion, Component, Judging, Verdict, hookimpl
from selfloop.errors import RecipeError

from ._claims import abstaining, logs, scattered
from ._entailment import Entailment
from ._meanings import Same, meanings


class SemanticEntropy:
    """Confidence is 1 − U / log M: U the entropy over meanings of the M samples, each weighed by
    its probability.

    What means the same is told by `same`: `text`, if the normalised texts are equal; `alias`, also
    if one holds the other's words; `model`, if the model says so, asked about each two (capability
    `loglikelihood`); `nli`, if each follows from the other by the classifier in the folder `nli`
    (extra `hf`). p(C) is the sum of the probabilities of the samples in C, divided by that of all.
    Uncalibrated, and about the question, not the answer: a wrong answer among unanimous others has
    the confidence of the right one. With fewer than two samples it abstains.
    """

    name = "semantic_entropy"

    def __init__(self, *, same: Same = "text", nli: Path | None = None) -> None:
        check(same=same, nli=nli)
        self._same: Same = same
        self._entails = Entailment(nli) if nli else None

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim."""
        found = meanings(claims, judging, self._same, self._entails)
        return [
            abstaining(self.name, partial(self.judge, *both))
            for both in zip(claims, found, strict=True)
        ]

    def judge(self, claim: Claim, texts: Sequence[str]) -> tuple[float, str]:
        """Return the confidence for the claim's question, and why; `texts` are its samples' meanings."""
        scattered(claim)
        chances: dict[str, float] = defaultdict(float)
        for text, weight in zip(texts, self._weights(claim.samples), strict=True):
            chances[text] += weight
        whole = sum(chances.values())
        entropy = -sum(
            chance / whole * math.log(chance / whole)
            for chance in chances.values()
            if chance / whole > 0
        )
        confidence = 1 - entropy / math.log(len(texts))
        reason = f"entropy {abs(entropy):.2f} over {len(chances)} meanings of {len(texts)} samples"
        return min(max(confidence, 0.0), 1.0), reason

    def _weights(self, samples: Sequence[Completion]) -> list[float]:
        """Return how much each sample counts, to a common factor."""
        found = logs(samples)
        return [math.exp(log - max(found)) for log in found]


class DiscreteSemanticEntropy(SemanticEntropy):
    """Confidence is 1 − U / log M: U the entropy over meanings of the M samples, each counted once.

    As `semantic_entropy`, but it needs no log-probabilities: p(C) is the share of the samples in C.
    """

    name = "discrete_semantic_entropy"

    def _weights(self, samples: Sequence[Completion]) -> list[float]:
        return [1.0] * len(samples)


def check(*, same: Same = "text", nli: Path | None = None) -> None:
    """Raise for a way to tell meanings that lacks its model."""
    if (same == "nli") != (nli is not None):
        raise RecipeError(
            "same: nli goes with nli: FOLDER, the folder of a model for natural language inference."
        )


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer both forms."""
    paper = "https://doi.org/10.1038/s41586-024-07421-0"
    needs = frozenset({"logprobs"})
    weighed, counted = "weighed by their probability", "each counted once"
    doc = "over how few meanings the samples scatter, {}"
    shared: dict[str, Any] = {"paper": paper, "prompts": PROMPTS, "check": check}
    return [
        Component(
            "semantic_entropy", SemanticEntropy, doc=doc.format(weighed), needs=needs, **shared
        ),
        Component(
            "discrete_semantic_entropy", DiscreteSemanticEntropy, doc=doc.format(counted), **shared
        ),
    ]
