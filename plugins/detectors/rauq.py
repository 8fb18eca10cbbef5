"""RAUQ: log-probabilities, carried on along the heads that attend to the token before (Vazhentsev
et al. 2025).

arXiv 2505.20045. It needs a backend that gives attentions: `hf` does, llama.cpp has no way to.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le
from selfloop_plugins._shared.queries import ByReading

from selfloop import Claim, Component, Judging, hookimpl
from selfloop.config.prompts import is_open
from selfloop.protocols import Backend
from selfloop.records import Continuation

from ._claims import NAN, Abstain, likeliest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Rauq(ByReading):
    """Confidence is exp(−U), U the largest of −mean log c over the middle third of the layers.
    Uncalibrated.

    In each layer one head counts, the one that attends most to the token before, on average over
    the answer's tokens but the first. c₁ = p₁ and c_i = α p_i + (1 − α) a_{i,i−1} c_{i−1}, p_i
    being the token's probability, a the head's attention, and α `alpha`. It abstains where an
    answer was not said to the bare question.
    """

    name = "rauq"

    def __init__(self, *, alpha: Annotated[float, Ge(0), Le(1)] = 0.2) -> None:
        self._alpha = alpha

    def texts(self, claim: Claim, judging: Judging) -> list[Continuation]:
        """Return the answer as the model said it."""
        prompt = judging.prompt("answer", question=claim.question.text)
        return [Continuation(prompt, likeliest(claim, tokens=True).tokens, is_open(prompt))]

    def read(self, texts: Sequence[Continuation], backend: Backend) -> Sequence[Any]:
        """Return the attention of each text's tokens to the ones before."""
        return backend.attentions(texts)

    def judge(self, claim: Claim, found: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        import numpy as np

        (attention,) = found
        chances, weights = (
            np.exp(np.array(likeliest(claim, tokens=True).logprobs, float)),
            attention.astype(float),
        )
        if attention.ndim != 3 or attention.shape[-1] != len(chances):
            raise Abstain(f"attentions of shape {attention.shape} for {len(chances)} tokens")
        layers, count = np.arange(len(weights)), len(weights)
        picked = weights[:, :, 1:].mean(-1).argmax(-1) if len(chances) > 1 else np.zeros(count, int)
        middle = slice(count // 3, max(2 * count // 3, count // 3 + 1))
        carried = self._carried(chances, weights[layers, picked][middle])
        with np.errstate(divide="ignore"):
            doubt = float((-np.log(carried).mean(-1)).max())
        if math.isnan(doubt):
            raise Abstain(NAN)
        return math.exp(-max(doubt, 0.0)), f"doubt {doubt:.2f}, carried along {len(carried)} layers"

    def _carried(
        self, chances: "NDArray[np.float64]", attention: "NDArray[np.float64]"
    ) -> "NDArray[np.float64]":
        """Return c, (layers, tokens)."""
        import numpy as np

        found = np.empty_like(attention)
        found[:, 0] = chances[0]
        for i in range(1, len(chances)):
            found[:, i] = (
                self._alpha * chances[i] + (1 - self._alpha) * attention[:, i] * found[:, i - 1]
            )
        return found


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = (
        "probabilities carried on by heads that look one token back",
        frozenset({"attentions"}),
    )
    return [Component("rauq", Rauq, doc=doc, needs=needs, paper="https://arxiv.org/abs/2505.20045")]
