"""A row of logits -> one token and its log-probability.

The order is decline bias (on the first token), repetition penalty, temperature, min-p, top-k,
top-p, each over the tokens that the one before left. A grammar comes last: a token that it refuses
is drawn again, from those of the whole row which it allows, by the same rules. Everything here
depends on the row and on the sample's own random stream alone: the same request gives the same
tokens in any batch.

A vocabulary may hold 262,144 tokens. `read_logits` passes over all of them once for the numbers
that every use of a row needs (`cache.py` does it on all threads). Drawing then touches the few
tokens that have a chance. `benchmarks/sampling.py` compares it with llama.cpp's samplers, numba and
plain numpy.
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
CUT_WINDOW = 20.0  # nats
# Without a cut, tokens down to e^-12 of the best are weighed one by one, the others as in
# `_choose_any`.
NEAR_WINDOW = 12.0  # nats
# e^80 times 262,144 is still a float32: below it, logits need not be shifted by their peak
MAX_UNSHIFTED = 80.0
# with top-k, the windows in which the first k tokens are looked for, narrow ones first
TOP_K_WINDOWS = (4.0, 8.0, 12.0, CUT_WINDOW)
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-4, 1e4  # divisors within float32
MIN_PENALTY, MAX_PENALTY = 1e-3, 1e3


class Grammar(Protocol):
    """The state of one sample in the grammar that its text has to keep to."""

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
    """The output of the model after a token.

    `logits` is a row, (vocabulary). `best` is the token with the largest. `total` is the log of the
    sum of e^logit, NaN if one is not a number. `hidden` is the hidden state, (width), if wanted.
    """

    logits: Row
    best: int
    total: float
    hidden: Row | None = None

    def logprob(self, token: int) -> float:
        """Return the natural log of a token's probability, by the full softmax at temperature 1."""
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
        sides = self.logits[: self.best], self.logits[self.best + 1 :]
        second = max((float(side.max()) for side in sides if len(side)), default=-math.inf)
        return math.exp(self.logprob(self.best)) - math.exp(second - self.total)

    def checked(self) -> "Output":
        """Return the output itself. Raises RequestError if a logit is not a number."""
        if not math.isfinite(self.total):
            raise RequestError(
                "the model gave logits that are not numbers: a damaged file or adapter; fetch or "
                "tune it again"
            )
        return self


def read_logits(logits: Row, scratch: Row) -> Output:
    """Return a row's best token and its log-sum-exp; `scratch` is a float32 buffer of its size.

    numpy adds up in pairs: the sum is good to a millionth in float32, and float64 would take four
    times as long.
    """
    best = int(logits.argmax())  # the first NaN, if there is one
    peak = float(logits[best])
    if not math.isfinite(peak):
        return Output(logits, best, math.nan)
    if abs(peak) < MAX_UNSHIFTED:  # saves a pass over the row
        exponentials = np.exp(logits, out=scratch)
        return Output(logits, best, math.log(float(exponentials.sum())))
    shifted = np.subtract(logits, np.float32(peak), out=scratch)
    exponentials = np.exp(shifted, out=scratch)
    return Output(logits, best, peak + math.log(float(exponentials.sum())))


def settings_error(sampling: Sampling) -> str:
    """Return the first mistake in these settings, or an empty string."""
    temperature = sampling.temperature
    if temperature and not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        return f"temperature must be 0 (greedy), or from 0.0001 to 10000, not {temperature}"
    if sampling.max_tokens < 1:
        return f"max_tokens must be 1 or more, not {sampling.max_tokens}"
    if sampling.top_k < 0:
        return f"top_k must be 0 (no cut) or more, not {sampling.top_k}"
    if not 0 < sampling.top_p <= 1:
        return f"top_p must be above 0 and at most 1, not {sampling.top_p}"
    if not 0 <= sampling.min_p <= 1:
        return f"min_p must be from 0 to 1, not {sampling.min_p}"
    penalty = sampling.repetition_penalty
    if not MIN_PENALTY <= penalty <= MAX_PENALTY:
        return f"repetition_penalty must be from 0.001 to 1000 (1: none), not {penalty}"
    if not math.isfinite(sampling.decline_bias):
        return f"decline_bias must be a number of nats, not {sampling.decline_bias}"
    if "" in sampling.stop:
        return "a stop string is empty; every text contains it"
    if sampling.grammar and sampling.json_schema:
        return "a request has a grammar and a JSON schema; give one of them"
    return ""


class Sampler:
    """Draws one sample's tokens from its own random stream.

    A repetition penalty counts the tokens of `prompt` from the start. The sample keeps to the
    grammar, if there is one. `declines` is the token that begins a refusal: `decline_bias` makes it
    likelier than the model has it, at the first token and only there.
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
        # sample k of a request has its own stream, whatever n is
        entropy = np.random.SeedSequence([seed % 2**64, sample])
        self._random = np.random.Generator(np.random.PCG64(entropy))

    def draw(self, output: Output) -> int:
        """Return a token.

        Raises RequestError if a logit is not a number, and if the grammar allows no token.
        """
        row, best = output.checked().logits, output.best
        if self._declines is not None:
            row = row.copy()  # the output's own row stays as the model gave it
            row[self._declines] += np.float32(self.sampling.decline_bias)
            best, self._declines = int(row.argmax()), None
        if self._seen is not None:
            row = self._penalised(row)
            best = int(row.argmax())
        token = self._pick(row, best)
        # To ask about one token is quick, to mask a row is slow, and most tokens are allowed.
        if self._grammar and not self._grammar.allows(token):
            masked = self._grammar.mask(row)
            token = self._pick(masked, int(masked.argmax()))
        if self._grammar:
            self._grammar.accept(token)
        if self._seen is not None:
            self._seen.add(token)
        return token

    def _penalised(self, row: Row) -> Row:
        """Return a row in which tokens that came before are less likely.

        The penalty of CTRL (Keskar et al. 2019, arXiv:1909.05858, section 4.1). Negative logits are
        multiplied, so that they get smaller too.
        """
        assert self._seen is not None
        penalised = row.copy()
        ids = np.fromiter(self._seen, np.intp, len(self._seen))
        penalty = np.float32(self.sampling.repetition_penalty)
        penalised[ids] = np.where(row[ids] > 0, row[ids] / penalty, row[ids] * penalty)
        return penalised

    def _pick(self, row: Row, best: int) -> int:
        """Return a token of a row; `best` is the token with its largest logit."""
        sampling, peak = self.sampling, float(row[best])
        if sampling.temperature == 0:
            return best
        if sampling.top_k or sampling.top_p < 1 or sampling.min_p > 0:
            return _choose_cut(row, peak, sampling, self._random)
        return _choose_any(row, peak, sampling.temperature, self._random)


def _choose_any(row: Row, peak: float, temperature: float, random: np.random.Generator) -> int:
    """Return a token out of the whole vocabulary, without weighing all of it (rejection sampling).

    Tokens near the best have their weight, e^((logit - peak) / temperature). All tokens together
    get a second share of the total, as if each were at the edge. A draw that falls into it picks a
    token uniformly. That token is taken with the ratio of its weight to that of the edge, if it is
    a far one; otherwise all is drawn again. So each token comes out exactly as often as the softmax
    says.
    """
    edge = np.float32(peak - temperature * NEAR_WINDOW)
    near = np.flatnonzero(row >= edge)
    sums = _softmax_weights(row[near], peak, temperature).cumsum(dtype=np.float64)
    near_total = float(sums[-1])
    far_bound = len(row) * math.exp(-NEAR_WINDOW)
    while True:
        target = _uniform(random) * (near_total + far_bound)
        if target <= sums[-1]:
            return int(near[np.searchsorted(sums, target)])
        token = int(random.integers(len(row)))
        if row[token] < edge:
            ratio = math.exp((float(row[token]) - peak) / temperature + NEAR_WINDOW)
            if _uniform(random) <= ratio:
                return token


def _uniform(random: np.random.Generator) -> float:
    return 1.0 - random.random()  # in (0, 1], so that a token of probability 0 is never hit


def _softmax_weights(logits: Row, peak: float, temperature: float) -> Row:
    """Return e^((logit - peak) / temperature): 1 for the best."""
    weights: Row = np.exp((logits - np.float32(peak)) / np.float32(temperature))
    return weights


def _choose_cut(row: Row, peak: float, sampling: Sampling, random: np.random.Generator) -> int:
    """Return a token out of those that top-k, top-p and min-p leave."""
    temperature, top_k, min_p = sampling.temperature, sampling.top_k, sampling.min_p
    # min-p is a window too: a weight of min_p or more lies within -ln(min_p) of the best
    window = min(CUT_WINDOW, -math.log(min_p)) if min_p > 0 else CUT_WINDOW
    # A narrow window most often holds k tokens already, and few others to sort.
    for reach in TOP_K_WINDOWS if top_k else (CUT_WINDOW,):
        ids = np.flatnonzero(row >= np.float32(peak - temperature * min(reach, window)))
        if len(ids) >= top_k > 0 or reach >= window:
            break
    if top_k and len(ids) > top_k:
        ids = ids[np.argpartition(row[ids], -top_k)[-top_k:]]
    weights = _softmax_weights(row[ids], peak, temperature)
    if sampling.top_p < 1:
        nucleus = _nucleus(weights, sampling.top_p)
        ids, weights = ids[nucleus], weights[nucleus]
    sums = weights.cumsum(dtype=np.float64)
    return int(ids[np.searchsorted(sums, _uniform(random) * sums[-1])])


def _nucleus(weights: Row, top_p: float) -> NDArray[np.intp]:
    """Return the positions of the largest weights which together hold `top_p` of the sum."""
    wanted = top_p * float(weights.sum(dtype=np.float64))
    # To sort all of them is slow, and most often a few are enough: the window grows by 2 nats.
    for reach in range(2, math.ceil(CUT_WINDOW) + 2, 2):
        likely = np.flatnonzero(weights >= np.float32(math.exp(-reach)))
        if weights[likely].sum(dtype=np.float64) >= wanted:
            break
    likely = likely[np.argsort(-weights[likely], kind="stable")]
    sums = weights[likely].cumsum(dtype=np.float64)
    return likely[: int(np.searchsorted(sums, wanted)) + 1]
