"""A row of logits -> one token and its log-probability.

The order is what is added to the first token, repetition penalty, temperature, min-p, top-k, top-p,
each over what the one before left. A grammar comes last: a token that it refuses is drawn again,
from those of the whole row which it allows, by the same rules. Everything here depends on the row
and on the sample's own random stream alone: the same request gives the same tokens in any batch. A
vocabulary may hold 262,144 tokens: `read` passes over all of them once for what every use of a row
needs (`cache.py` does it on all threads), and drawing then touches the few tokens that have a
chance. `benchmarks/sampling.py` compares it with llama.cpp's samplers, numba and plain numpy.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from selfloop.errors import RequestError
from selfloop.records import Sampling

Row = NDArray[np.float32]

# With a cut, a token less than e^-20 as likely as the best is never a candidate: all of them
# together hold under 0.06 % of the mass even in the flattest row of 262,144 tokens, and sorting
# them costs most.
WINDOW = 20.0
# without a cut, tokens down to e^-12 of the best are weighed one by one, the others as in
# `_choose_any`
NEAR = 12.0
SAFE = 80.0  # e^80 times 262,144 is still a float32


class Grammar(Protocol):
    """Where a sample stands in what its text has to keep to."""

    def allows(self, token: int) -> bool:
        """Return whether a token may come next."""
        ...

    def mask(self, row: Row) -> Row:
        """Return a row of logits with minus infinity for every token that may not come next."""
        ...

    def accept(self, token: int) -> None:
        """Go on by a token that is allowed."""
        ...


class Output(NamedTuple):
    """What the model says after a token.

    `total` is the log of the sum of e^logit, NaN where one is not a number.
    """

    logits: Row
    best: int
    total: float
    hidden: Row | None = None

    def logprob(self, token: int) -> float:
        """Return the natural log of a token's probability under the full softmax at temperature 1."""
        return float(self.logits[token]) - self.total

    def entropy(self) -> float:
        """Return that of the full softmax at temperature 1, in nats.

        It costs a pass over the vocabulary.
        """
        logs = self.logits - np.float32(self.total)
        np.maximum(logs, np.float32(-1e4), out=logs)  # 0 log 0 is 0
        return max(0.0, -float((np.exp(logs) * logs).sum()))

    def margin(self) -> float:
        """Return how much more probable the likeliest token is than the second.

        It costs a pass over the vocabulary.
        """
        around = self.logits[: self.best], self.logits[self.best + 1 :]
        second = max((float(some.max()) for some in around if len(some)), default=-math.inf)
        return math.exp(self.logprob(self.best)) - math.exp(second - self.total)

    def checked(self) -> "Output":
        """Return this. Raises RequestError where the model gave something that is not a number."""
        if not math.isfinite(self.total):
            raise RequestError(
                "the model gave logits that are not numbers: a damaged file or adapter; fetch or "
                "tune it again"
            )
        return self


def read(logits: Row, scratch: Row) -> Output:
    """Return what there is to know of a row; `scratch` is a float32 buffer of its size.

    numpy adds up in pairs: the sum is good to a millionth in float32, and float64 would take four
    times as long.
    """
    best = int(logits.argmax())  # the first NaN, if there is one
    peak = float(logits[best])
    if not math.isfinite(peak):
        return Output(logits, best, math.nan)
    offset = 0.0 if abs(peak) < SAFE else peak
    each = np.exp(
        np.subtract(logits, np.float32(offset), out=scratch) if offset else logits, out=scratch
    )
    total = offset + math.log(float(each.sum()))
    return Output(logits, best, total)


def reject(sampling: Sampling) -> str:
    """Return what is wrong with these settings, or an empty string."""
    # what float32 can divide by
    if sampling.temperature and not 1e-4 <= sampling.temperature <= 1e4:
        return (
            f"temperature must be 0 (greedy), or from 0.0001 to 10000, not {sampling.temperature}"
        )
    if sampling.max_tokens < 1:
        return f"max_tokens must be 1 or more, not {sampling.max_tokens}"
    if sampling.top_k < 0:
        return f"top_k must be 0 (no cut) or more, not {sampling.top_k}"
    if not 0 < sampling.top_p <= 1:
        return f"top_p must be above 0 and at most 1, not {sampling.top_p}"
    if not 0 <= sampling.min_p <= 1:
        return f"min_p must be from 0 to 1, not {sampling.min_p}"
    if not 1e-3 <= sampling.repetition_penalty <= 1e3:
        return f"repetition_penalty must be from 0.001 to 1000 (1: none), not {sampling.repetition_penalty}"
    if not math.isfinite(sampling.careful):
        return f"careful must be a number of nats, not {sampling.careful}"
    if "" in sampling.stop:
        return "a stop string is empty; every text contains it"
    if sampling.grammar and sampling.json_schema:
        return "a request has a grammar and a JSON schema; give one of them"
    return ""


class Sampler:
    """Draws one sample's tokens from its own random stream.

    `prompt` is what a repetition penalty counts from the start, `grammar` what the sample has to
    keep to, and `declines` the token that `careful` makes likelier than the model has it: the first
    time, and only then.
    """

    def __init__(
        self,
        sampling: Sampling,
        seed: int,
        sample: int,
        prompt: Sequence[int] = (),
        grammar: Grammar | None = None,
        declines: int | None = None,
    ) -> None:
        self.sampling, self._grammar, self._declines = sampling, grammar, declines
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else None
        self._random = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([seed % 2**64, sample]))
        )

    def draw(self, output: Output) -> int:
        """Return a token.

        Raises RequestError where the model gave something that is not a number.
        """
        row, best = output.checked().logits, output.best
        if self._declines is not None:
            row = row.copy()
            row[self._declines] += np.float32(self.sampling.careful)
            best, self._declines = int(row.argmax()), None
        if self._seen is not None:
            row = self._penalised(row)
            best = int(row.argmax())
        token = self._pick(row, best)
        if self._grammar and not self._grammar.allows(token):
            masked = self._grammar.mask(row)
            token = self._pick(masked, int(masked.argmax()))
        if self._grammar:
            self._grammar.accept(token)
        if self._seen is not None:
            self._seen.add(token)
        return token

    def _penalised(self, row: Row) -> Row:
        """Return a row in which tokens that were there before are less likely (CTRL, Keskar et al.

        2019, 4.1).
        """
        assert self._seen is not None
        found = row.copy()
        ids = np.fromiter(self._seen, np.intp, len(self._seen))
        penalty = np.float32(self.sampling.repetition_penalty)
        found[ids] = np.where(row[ids] > 0, row[ids] / penalty, row[ids] * penalty)
        return found

    def _pick(self, row: Row, best: int) -> int:
        s = self.sampling
        if s.temperature == 0:
            return best
        if s.top_k or s.top_p < 1 or s.min_p > 0:
            return _choose_cut(row, float(row[best]), s, self._random)
        return _choose_any(row, float(row[best]), s.temperature, self._random)


def _choose_any(row: Row, peak: float, temperature: float, random: np.random.Generator) -> int:
    """Return a token out of the whole vocabulary, without weighing all of it (rejection sampling).

    Tokens near the best have their weight, e^((logit - peak) / temperature). The others have
    together what they would have if each were at the edge: where one of these is drawn, it is taken
    as often as it is likelier than that, else all is drawn again. So each token comes out exactly
    as often as the softmax says.
    """
    edge = np.float32(peak - temperature * NEAR)
    near = np.flatnonzero(row >= edge)
    sums = _weights(row[near], peak, temperature).cumsum(dtype=np.float64)
    while True:
        target = _uniform(random) * (float(sums[-1]) + len(row) * math.exp(-NEAR))
        if target <= sums[-1]:
            return int(near[np.searchsorted(sums, target)])
        token = int(random.integers(len(row)))
        if row[token] < edge and _uniform(random) <= math.exp(
            (float(row[token]) - peak) / temperature + NEAR
        ):
            return token


def _uniform(random: np.random.Generator) -> float:
    return 1.0 - random.random()  # in (0, 1], so that a token of probability 0 is never hit


def _weights(logits: Row, peak: float, temperature: float) -> Row:
    each: Row = np.exp((logits - np.float32(peak)) / np.float32(temperature))
    return each


def _choose_cut(row: Row, peak: float, s: Sampling, random: np.random.Generator) -> int:
    """Return a token out of those that top-k, top-p and min-p leave."""
    span = min(WINDOW, -math.log(s.min_p)) if s.min_p > 0 else WINDOW
    # most often the first k are soon found
    for reach in (4.0, 8.0, 12.0, WINDOW) if s.top_k else (WINDOW,):
        ids = np.flatnonzero(row >= np.float32(peak - s.temperature * min(reach, span)))
        if len(ids) >= s.top_k > 0 or reach >= span:
            break
    if s.top_k and len(ids) > s.top_k:
        ids = ids[np.argpartition(row[ids], -s.top_k)[-s.top_k :]]
    each = _weights(row[ids], peak, s.temperature)
    if s.top_p < 1:
        kept = _nucleus(each, s.top_p)
        ids, each = ids[kept], each[kept]
    sums = each.cumsum(dtype=np.float64)
    return int(ids[np.searchsorted(sums, _uniform(random) * sums[-1])])


def _nucleus(each: Row, top_p: float) -> NDArray[np.intp]:
    """Return where the largest are which together hold `top_p` of all."""
    enough = top_p * float(each.sum(dtype=np.float64))
    # most often a few are enough: sorting all of them is slow
    for reach in range(2, math.ceil(WINDOW) + 2, 2):
        likely = np.flatnonzero(each >= np.float32(math.exp(-reach)))
        if each[likely].sum(dtype=np.float64) >= enough:
            break
    likely = likely[np.argsort(-each[likely], kind="stable")]
    sums = each[likely].cumsum(dtype=np.float64)
    return likely[: int(np.searchsorted(sums, enough)) + 1]
