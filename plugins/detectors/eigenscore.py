"""EigenScore: how far apart the model's states after its samples are.

INSIDE, Chen et al. 2024, arXiv 2402.03744.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from selfloop_plugins._shared.probability import sigmoid

from selfloop import Claim, Component, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.protocols import Backend
from selfloop.records import Continuation

from ._claims import Abstain, sample_meanings
from ._reading import ReadingDetector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALPHA = 1e-3  # the paper's: keeps the logarithm finite where states coincide


class EigenScore(ReadingDetector):
    """Confidence is logistic(−E), E = (1/M) log det(Z J Zᵀ + 10⁻³ I), the paper's score.

    Z (M samples × width d) holds the state at each sample's last token after the question. J = I −
    1/d takes each state's own mean off. E is the mean log eigenvalue, in nats: the more alike the
    samples' states, the lower.

    Here the state is that of the last layer, after its norm, because every backend gives it; the
    paper takes a middle layer's. E has no unit: it depends on the model's scale and on M, so
    compare confidences of one model and one M. Uncalibrated. It judges the question, not the
    answer. It abstains with fewer than two samples, and where all are empty or decline.
    """

    name = "eigenscore"

    def continuations(self, claim: Claim, context: VerifyContext) -> list[Continuation]:
        """Return each sample after the question."""
        sample_meanings(claim)  # raises Abstain with too few samples
        prompt = context.prompt("answer", question=claim.question.text)
        open_turn = is_open(prompt)
        return [
            Continuation(prompt, sample.tokens or sample.text, open_turn)
            for sample in claim.samples
        ]

    def readings(self, texts: Sequence[Continuation], backend: Backend) -> Sequence[Any]:
        """Return the state at the end of each text, (1, width)."""
        return backend.hidden_states(texts, (-1,))

    def judge(self, claim: Claim, results: Sequence[Any]) -> tuple[float, str]:
        """Return the confidence for the claim's question."""
        import numpy as np

        score = eigenscore(np.concatenate(results))
        if np.isnan(score):
            raise Abstain("a hidden state is not a number")
        return sigmoid(-score), f"EigenScore {score:.2f} of {len(results)} samples"


def eigenscore(states: "NDArray[np.floating[Any]]") -> float:
    """Return the mean log eigenvalue of the Gram matrix of `states` (samples, width).

    NaN where a state is not finite.
    """
    import numpy as np

    if not np.isfinite(states).all():
        return float("nan")
    centred = states.astype(np.float64) - states.mean(axis=1, keepdims=True, dtype=np.float64)
    gram = centred @ centred.T + ALPHA * np.eye(len(states))  # (samples, samples)
    # the log of a determinant is the sum of the log eigenvalues
    return float(np.linalg.slogdet(gram).logabsdet) / len(states)


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how alike the model's states after the samples are"
    needs = frozenset({"hidden_states"})
    paper = "https://arxiv.org/abs/2402.03744"
    return [Component("eigenscore", EigenScore, doc=doc, needs=needs, paper=paper)]
