"""A row of logits -> one token and its log-probability.

The order is temperature, min-p, top-k, top-p, each over what the one before left.
Everything here depends on the row and on the sample's own random stream alone: the same request gives the
same tokens in any batch. A vocabulary may hold 262,144 tokens, so work that is not one pass over the row in a
reused buffer is kept to the few candidates which have a chance.
"""

import math

import numpy as np
from numpy.typing import NDArray

from selfloop.errors import RequestError
from selfloop.records import Sampling

Row = NDArray[np.float32]

# With a cut, a token less than e^-20 as likely as the best is never a candidate: all of them together
# hold under 0.06 % of the mass even in the flattest row of 262,144 tokens, and sorting them costs most.
WINDOW = 20.0
BLOCK = 512  # tokens whose probabilities are summed at once when the whole vocabulary is drawn from


def reject(sampling: Sampling) -> str:
    """Return what is wrong with these settings, or an empty string."""
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        return f"temperature must be 0 or more, not {sampling.temperature}"
    if sampling.max_tokens < 1:
        return f"max_tokens must be 1 or more, not {sampling.max_tokens}"
    if sampling.top_k < 0:
        return f"top_k must be 0 (no cut) or more, not {sampling.top_k}"
    if not 0 < sampling.top_p <= 1:
        return f"top_p must be above 0 and at most 1, not {sampling.top_p}"
    if not 0 <= sampling.min_p <= 1:
        return f"min_p must be from 0 to 1, not {sampling.min_p}"
    if "" in sampling.stop:
        return "a stop string is empty; every text contains it"
    return ""


class Sampler:
    """Draws one sample's tokens: its own random stream, one uniform number a token.

    `scratch` is a float32 buffer of the vocabulary's size; samplers may share it.
    """

    def __init__(self, sampling: Sampling, seed: int, sample: int, scratch: Row) -> None:
        self.sampling = sampling
        self.scratch = scratch
        self.random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed % 2**64, sample])))

    def draw(self, row: Row) -> tuple[int, float]:
        """Return a token and the natural log of its probability under the full softmax at temperature 1.

        Raises RequestError where the model gave something that is not a number.
        """
        best = int(row.argmax())
        peak = float(row[best])
        if not math.isfinite(peak):
            raise RequestError("the model gave logits that are not numbers; the file is damaged, or the adapter is")
        token = best if self.sampling.temperature == 0 else self._choose(row, peak)
        return token, float(row[token]) - peak - math.log(self._weights(row, peak, 1.0).sum(dtype=np.float64))

    def _choose(self, row: Row, peak: float) -> int:
        s = self.sampling
        uniform = 1.0 - self.random.random()  # in (0, 1], so that a token of probability 0 is never hit
        if s.top_k or s.top_p < 1 or s.min_p > 0:
            return _choose_cut(row, peak, s, uniform)
        return _choose_any(self._weights(row, peak, s.temperature), uniform)

    def _weights(self, row: Row, peak: float, temperature: float) -> Row:
        """Return exp((row - peak) / temperature) in the scratch buffer; the largest is 1."""
        np.subtract(row, np.float32(peak), out=self.scratch)
        if temperature != 1.0:
            np.maximum(self.scratch, np.float32(-100 * temperature), out=self.scratch)  # no overflow where T is tiny
            np.divide(self.scratch, np.float32(temperature), out=self.scratch)
        return np.exp(self.scratch, out=self.scratch)


def _choose_any(weights: Row, uniform: float) -> int:
    """Return the index at `uniform` of the cumulated weights, found by blocks: summing all of them is slow."""
    sums = np.add.reduceat(weights, np.arange(0, len(weights), BLOCK)).cumsum(dtype=np.float64)
    target = uniform * sums[-1]
    block = int(np.searchsorted(sums, target))
    inside = weights[block * BLOCK : (block + 1) * BLOCK].cumsum(dtype=np.float64)
    rest = target - (sums[block - 1] if block else 0.0)
    return block * BLOCK + int(np.searchsorted(inside, min(rest, inside[-1])))


def _choose_cut(row: Row, peak: float, s: Sampling, uniform: float) -> int:
    """Return a token out of those that top-k, top-p and min-p leave."""
    span = min(WINDOW, -math.log(s.min_p)) if s.min_p > 0 else WINDOW
    ids = np.flatnonzero(row >= np.float32(peak - s.temperature * span))
    if s.top_k and len(ids) > s.top_k:
        ids = ids[np.argpartition(row[ids], -s.top_k)[-s.top_k :]]
    weights = np.exp((row[ids] - np.float32(peak)) / np.float32(s.temperature))
    kept = _nucleus(weights, s.top_p) if s.top_p < 1 else np.arange(len(ids))
    return int(ids[kept[_choose_any(weights[kept], uniform)]])


def _nucleus(weights: Row, top_p: float) -> NDArray[np.intp]:
    """Return where the largest weights are which together hold `top_p` of all."""
    enough = top_p * float(weights.sum(dtype=np.float64))
    for reach in range(2, math.ceil(WINDOW) + 2, 2):  # most often a few are enough: sorting all of them is slow
        likely = np.flatnonzero(weights >= np.float32(math.exp(-reach)))
        if weights[likely].sum(dtype=np.float64) >= enough:
            break
    likely = likely[np.argsort(-weights[likely], kind="stable")]
    sums = weights[likely].cumsum(dtype=np.float64)
    return likely[: int(np.searchsorted(sums, enough)) + 1]
