"""A row of logits -> one token and its log-probability.

The order is repetition penalty, temperature, min-p, top-k, top-p, each over what the one before left. A grammar
comes last: a token that it refuses is drawn again, from those of the whole row which it allows, by the same rules.
Everything here depends on the row and on the sample's own random stream alone: the same request gives the
same tokens in any batch. A vocabulary may hold 262,144 tokens, so work that is not one pass over the row in a
reused buffer is kept to the few candidates which have a chance.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfloop.errors import RequestError
from selfloop.records import Sampling

from .grammar import Grammar

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
    if not (math.isfinite(sampling.repetition_penalty) and sampling.repetition_penalty > 0):
        return f"repetition_penalty must be above 0 (1: none), not {sampling.repetition_penalty}"
    if "" in sampling.stop:
        return "a stop string is empty; every text contains it"
    if sampling.grammar and sampling.json_schema:
        return "a request has a grammar and a JSON schema; give one of them"
    return ""


def weights(row: Row, peak: float, temperature: float, out: Row) -> Row:
    """Return exp((row - peak) / temperature) in `out`; the largest is 1 where `peak` is the row's maximum."""
    np.subtract(row, np.float32(peak), out=out)
    if temperature != 1.0:
        np.maximum(out, np.float32(-100 * temperature), out=out)  # no overflow where the temperature is tiny
        np.divide(out, np.float32(temperature), out=out)
    return np.exp(out, out=out)


def _sum(each: Row) -> float:
    """Return the sum; numpy adds in pairs, so it is good to a millionth, and in float64 it would take four times as long."""
    return float(each.sum())


def logprob(row: Row, token: int, scratch: Row) -> float:
    """Return the natural log of a token's probability under the full softmax at temperature 1."""
    peak = _peak(row)
    return float(row[token]) - peak - math.log(_sum(weights(row, peak, 1.0, scratch)))


def _peak(row: Row) -> float:
    peak = float(row.max())
    if not math.isfinite(peak):
        raise RequestError("the model gave logits that are not numbers; the file is damaged, or the adapter is")
    return peak


class Sampler:
    """Draws one sample's tokens: its own random stream, one uniform number a token (two where a grammar refuses).

    `scratch` is a float32 buffer of the vocabulary's size; samplers may share it. `prompt` is what a repetition
    penalty counts from the start, and `grammar` what the sample has to keep to.
    """

    def __init__(
        self,
        sampling: Sampling,
        seed: int,
        sample: int,
        scratch: Row,
        prompt: Sequence[int] = (),
        grammar: Grammar | None = None,
    ) -> None:
        self.sampling, self._scratch, self._grammar = sampling, scratch, grammar
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else None
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed % 2**64, sample])))

    def draw(self, row: Row) -> tuple[int, float]:
        """Return a token and the natural log of its probability under the full softmax at temperature 1.

        Raises RequestError where the model gave something that is not a number.
        """
        peak = _peak(row)
        token = self._choose(self._penalised(row)) if self._seen is not None else self._choose(row, peak)
        # The row's own maximum and sum, whatever was penalised: greedy text has them from the same two passes.
        total = _sum(weights(row, peak, 1.0, self._scratch))
        return token, float(row[token]) - peak - math.log(total)

    def entropy(self, row: Row) -> float:
        """Return the entropy of the full softmax at temperature 1, in nats."""
        peak = _peak(row)
        each = weights(row, peak, 1.0, self._scratch)
        total = _sum(each)
        # x = log w, and w log w -> 0 where w is 0, also for logits of minus infinity.
        mean = float(np.dot(each, np.maximum(row - np.float32(peak), np.float32(-1e4)))) / total
        return max(0.0, math.log(total) - mean)

    def _penalised(self, row: Row) -> Row:
        """Return a row in which tokens that were there before are less likely (CTRL, Keskar et al. 2019, 4.1)."""
        assert self._seen is not None
        found = row.copy()
        ids = np.fromiter(self._seen, np.intp, len(self._seen))
        penalty = np.float32(self.sampling.repetition_penalty)
        found[ids] = np.where(row[ids] > 0, row[ids] / penalty, row[ids] * penalty)
        return found

    def _choose(self, row: Row, peak: float | None = None) -> int:
        token = self._pick(row, _peak(row) if peak is None else peak)
        if self._grammar and not self._grammar.allows(token):
            masked = self._grammar.mask(row)
            token = self._pick(masked, _peak(masked))
        if self._grammar:
            self._grammar.accept(token)
        if self._seen is not None:
            self._seen.add(token)
        return token

    def _pick(self, row: Row, peak: float) -> int:
        s = self.sampling
        if s.temperature == 0:
            return int(row.argmax())
        uniform = 1.0 - self._random.random()  # in (0, 1], so that a token of probability 0 is never hit
        if s.top_k or s.top_p < 1 or s.min_p > 0:
            return _choose_cut(row, peak, s, uniform)
        return _choose_any(weights(row, peak, s.temperature, self._scratch), uniform)


def _choose_any(each: Row, uniform: float) -> int:
    """Return the index at `uniform` of the cumulated weights, found by blocks: summing all of them is slow."""
    sums = np.add.reduceat(each, np.arange(0, len(each), BLOCK)).cumsum(dtype=np.float64)
    target = uniform * sums[-1]
    block = int(np.searchsorted(sums, target))
    inside = each[block * BLOCK : (block + 1) * BLOCK].cumsum(dtype=np.float64)
    rest = target - (sums[block - 1] if block else 0.0)
    return block * BLOCK + int(np.searchsorted(inside, min(rest, inside[-1])))


def _choose_cut(row: Row, peak: float, s: Sampling, uniform: float) -> int:
    """Return a token out of those that top-k, top-p and min-p leave."""
    span = min(WINDOW, -math.log(s.min_p)) if s.min_p > 0 else WINDOW
    ids = np.flatnonzero(row >= np.float32(peak - s.temperature * span))
    if s.top_k and len(ids) > s.top_k:
        ids = ids[np.argpartition(row[ids], -s.top_k)[-s.top_k :]]
    each = np.exp((row[ids] - np.float32(peak)) / np.float32(s.temperature))
    kept = _nucleus(each, s.top_p) if s.top_p < 1 else np.arange(len(ids))
    return int(ids[kept[_choose_any(each[kept], uniform)]])


def _nucleus(each: Row, top_p: float) -> NDArray[np.intp]:
    """Return where the largest are which together hold `top_p` of all."""
    enough = top_p * float(each.sum(dtype=np.float64))
    for reach in range(2, math.ceil(WINDOW) + 2, 2):  # most often a few are enough: sorting all of them is slow
        likely = np.flatnonzero(each >= np.float32(math.exp(-reach)))
        if each[likely].sum(dtype=np.float64) >= enough:
            break
    likely = likely[np.argsort(-each[likely], kind="stable")]
    sums = each[likely].cumsum(dtype=np.float64)
    return likely[: int(np.searchsorted(sums, enough)) + 1]
