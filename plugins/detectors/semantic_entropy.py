"""Semantic entropy: over how many meanings the samples scatter.

Farquhar et al. 2024, Nature 630.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import Claim, Completion, Component, Verdict, VerifyContext, hookimpl
from selfloop.errors import RecipeError

from ._claims import sample_logprobs, sample_meanings, verdict_of
from ._entailment import Entailment
from ._meanings import Same, entropy_confidence, meanings


class SemanticEntropy:
    """Confidence is 1 − U / log M, U the entropy over meanings of the M samples, by probability.

    p(C) is the sum of the probabilities of the samples with meaning C, divided by that of all.
    `same` says when two samples mean the same. `text`: their normalised texts are equal. `alias`:
    or one contains the other's words. `model`: the model says so, asked about each two (capability
    `loglikelihood`). `nli`: each follows from the other by the classifier in the folder `nli`
    (extra `hf`).

    Uncalibrated. It judges the question, not the answer: a wrong answer among unanimous others has
    the confidence of the right one. It abstains with fewer than two samples.
    """

    name = "semantic_entropy"

    def __init__(self, *, same: Same = "text", nli: Path | None = None) -> None:
        check(same=same, nli=nli)
        self._same: Same = same
        self._entails = Entailment(nli) if nli else None

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim."""
        of_claims = meanings(claims, context, self._same, self._entails)
        return [
            verdict_of(self.name, partial(self.judge, claim, texts))
            for claim, texts in zip(claims, of_claims, strict=True)
        ]

    def judge(self, claim: Claim, texts: Sequence[str]) -> tuple[float, str]:
        """Return the confidence for the claim's question; `texts` are its samples' meanings."""
        sample_meanings(claim)  # raises Abstain with too few samples
        confidence, entropy, count = entropy_confidence(texts, self._weights(claim.samples))
        return confidence, f"entropy {entropy:.2f} over {count} meanings of {len(texts)} samples"

    def _weights(self, samples: Sequence[Completion]) -> list[float]:
        """Return how much each sample counts, up to a common factor."""
        logprobs = sample_logprobs(samples)
        highest = max(logprobs)  # without it all weights may be 0
        return [math.exp(logprob - highest) for logprob in logprobs]


class DiscreteSemanticEntropy(SemanticEntropy):
    """Confidence is 1 − U / log M, U the entropy over meanings of the M samples, each counted once.

    It is `semantic_entropy` without log-probabilities: p(C) is the share of the samples in C.
    """

    name = "discrete_semantic_entropy"

    def _weights(self, samples: Sequence[Completion]) -> list[float]:
        return [1.0] * len(samples)


def check(*, same: Same = "text", nli: Path | None = None) -> None:
    """Raise RecipeError for `same: nli` without its model, or a model without it."""
    if (same == "nli") != (nli is not None):
        raise RecipeError(
            "same: nli goes with nli: FOLDER, the folder of a model for natural language inference."
        )


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer both forms."""
    doc = "over how few meanings the samples scatter, {}"
    shared: dict[str, Any] = {
        "paper": "https://doi.org/10.1038/s41586-024-07421-0",
        "prompts": PROMPTS,
        "check": check,
    }
    return [
        Component(
            "semantic_entropy",
            SemanticEntropy,
            doc=doc.format("weighed by their probability"),
            needs=frozenset({"logprobs"}),
            **shared,
        ),
        Component(
            "discrete_semantic_entropy",
            DiscreteSemanticEntropy,
            doc=doc.format("each counted once"),
            **shared,
        ),
    ]
