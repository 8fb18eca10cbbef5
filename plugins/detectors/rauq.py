"""RAUQ: probabilities, carried on along the heads that attend to the token before.

Vazhentsev et al. 2025, arXiv 2505.20045. It needs a backend that gives attentions: `hf` does,
llama.cpp cannot.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from selfloop import Claim, Component, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.protocols import Backend
from selfloop.records import Continuation

from ._claims import NOT_A_NUMBER, Abstain, most_likely
from ._reading import ReadingDetector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Rauq(ReadingDetector):
    """Confidence is exp(−U), U the largest of −mean log c over the middle third of the layers.

    In each layer one head counts: the one that attends most to the token before, on average over
    the answer's tokens but the first. c₁ = p₁ and c_i = α p_i + (1 − α) a_{i,i−1} c_{i−1}; p_i is
    the token's probability, a the head's attention, and α is `alpha`. Uncalibrated. It abstains
    where the model did not give the answer to the bare question.
    """

    name = "rauq"

    def __init__(self, *, alpha: Annotated[float, Ge(0), Le(1)] = 0.2) -> None:
        self._alpha = alpha

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return the answer as the model said it."""
        prompt = context.prompt("answer", question=claim.question.text)
        return [Continuation(prompt, most_likely(claim, tokens=True).tokens, is_open(prompt))]

    def readings(self, texts: Sequence[Continuation], backend: Backend) -> Sequence[Any]:
        """Return how much each text's tokens attend to the one before, (layers, heads, tokens)."""
        return backend.attentions(texts)

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence."""
        import numpy as np

        (attention,) = results  # (layers, heads, tokens)
        logprobs = np.array(most_likely(claim, tokens=True).logprobs, float)
        probabilities = np.exp(logprobs)
        if attention.ndim != 3 or attention.shape[-1] != len(probabilities):
            raise Abstain(f"attentions of shape {attention.shape} for {len(probabilities)} tokens")
        carried = self._carried(probabilities, _middle_attention(attention.astype(float)))
        # a probability of 0 makes the doubt endless, and the confidence 0
        with np.errstate(divide="ignore"):
            doubt = float((-np.log(carried).mean(-1)).max())
        if math.isnan(doubt):
            raise Abstain(NOT_A_NUMBER)
        return math.exp(-max(doubt, 0.0)), f"doubt {doubt:.2f}, carried along {len(carried)} layers"

    def _carried(self, probabilities: "Floats", attention: "Floats") -> "Floats":
        """Return c of each layer and token; `attention` has the same shape, (layers, tokens)."""
        import numpy as np

        carried = np.empty_like(attention)
        # nothing of the answer is before its first token
        carried[:, 0] = probabilities[0]
        for i in range(1, len(probabilities)):
            from_before = (1 - self._alpha) * attention[:, i] * carried[:, i - 1]
            carried[:, i] = self._alpha * probabilities[i] + from_before
        return carried


def _middle_attention(attention: "Floats") -> "Floats":
    """Return the attention of one head in each layer of the middle third, (layers, tokens).

    `attention` is (layers, heads, tokens). The head is the one with the highest mean over all
    tokens but the first, which has no token of the answer before it.
    """
    import numpy as np

    layer_count, _, token_count = attention.shape
    if token_count > 1:
        heads = attention[:, :, 1:].mean(-1).argmax(-1)
    else:
        heads = np.zeros(layer_count, int)
    first = layer_count // 3
    last = max(2 * layer_count // 3, first + 1)  # at least one layer
    of_heads: Floats = attention[np.arange(layer_count), heads]
    return of_heads[first:last]


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "probabilities carried on by heads that look one token back"
    needs = frozenset({"attentions"})
    return [Component("rauq", Rauq, doc=doc, needs=needs, paper="https://arxiv.org/abs/2505.20045")]
