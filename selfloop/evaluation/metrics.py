"""How good confidences and decisions are: AUROC, AURC, ECE, Brier, and scores of policies that may
decline.

Arrays in, floats out. `right` says of each question whether the answer is right, or would have
been; confidences are probabilities in [0, 1]. Every metric takes `weights`, how often each question
counts, (questions,) or (resamples, questions). With the latter it gives one value for each
resample, which is how `interval` is made. A metric without a value (AUROC with one class, a
precision of no answers) is NaN, never a number that looks like one.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Metric = Callable[[Floats], Floats]

BINS = 10  # of the expected calibration error, of equal width
PENALTIES = (0.5, 0.75, 0.9)  # t of `penalised_t`: a wrong answer costs t/(1−t) right ones


class Estimate(NamedTuple):
    """A metric's value and its 95 % interval."""

    value: float
    low: float
    high: float


def interval(metric: Metric, questions: int, *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return `metric(weights)` and its percentile bootstrap interval over questions (Efron 1979).

    Resamples without a value are left out. Where the metric itself has none, all three are NaN.
    """
    if not questions:
        return Estimate(np.nan, np.nan, np.nan)
    value = float(metric(np.ones(questions)))
    if np.isnan(value):
        return Estimate(np.nan, np.nan, np.nan)
    values = metric(_resampled(questions, resamples, seed))  # (resamples,)
    low, high = np.nanquantile(values, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def mean(values: ArrayLike, weights: Floats) -> Floats:
    """Return the weighted mean of a number for each question: accuracy, if it is `right`."""
    return _ratio(weights @ np.asarray(values, float), weights.sum(-1))


def auroc(confidence: ArrayLike, right: ArrayLike, weights: Floats) -> Floats:
    """Return the probability that a right answer has more confidence than a wrong one.

    Ties count half. Where `right` is a share, an answer counts by it as right, and by the rest as
    wrong.
    """
    good, bad = _levels(confidence, right, weights)
    # wrong answers with less confidence than each level
    less = np.cumsum(bad, -1) - bad
    return _ratio((good * (less + bad / 2)).sum(-1), good.sum(-1) * bad.sum(-1))


def aurc(confidence: ArrayLike, right: ArrayLike, weights: Floats) -> Floats:
    """Return the mean, over k, of the share of wrong ones among the k most confident (Geifman et
    al. 2019).

    arXiv 1805.08206. Answers of one confidence are taken in random order; this is the expectation,
    in closed form. `weights` must be whole numbers.
    """
    # levels in falling order: the most confident first
    good, bad = _levels(confidence, right, weights)[..., ::-1]
    count, total = good + bad, weights.sum(-1)
    before = np.cumsum(count, -1) - count
    # The k-th answer, in a level of `count` answers with a share of wrong ones, has `wrong_before`
    # and share * (k - before) expected wrong ones up to it, out of k. The sum over the level is of
    # 1/k, which differences of harmonic numbers give, and of (k - before)/k.
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(total.max(initial=0)) + 1))])
    reciprocals = harmonic[(before + count).astype(int)] - harmonic[before.astype(int)]
    wrong_before = np.cumsum(bad, -1) - bad
    share = np.divide(bad, count, out=np.zeros_like(bad), where=count > 0)
    risks = wrong_before * reciprocals + share * (count - before * reciprocals)
    return _ratio(risks.sum(-1), total)


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return thresholds, falling, and coverage and risk of answering from each threshold on.

    Each is (levels,), for the different confidences.
    """
    # answering from a threshold on is answering all levels down to it: a running sum
    thresholds = np.unique(np.asarray(confidence, float))[::-1]
    size = np.size(confidence)
    good, bad = np.cumsum(_levels(confidence, right, np.ones(size))[..., ::-1], -1)
    return thresholds, (good + bad) / size, _ratio(bad, good + bad)


def ece(confidence: ArrayLike, right: ArrayLike, weights: Floats) -> Floats:
    """Return the expected calibration error over ten bins of equal width.

    Guo et al. 2017, arXiv 1706.04599.
    """
    # the mean of a bin times its share of the questions is its sum over all weights
    gaps = (np.asarray(confidence, float) - np.asarray(right, float)) * weights
    return _ratio(np.abs(gaps @ _binned(confidence)).sum(-1), weights.sum(-1))


def reliability(
    confidence: ArrayLike, right: ArrayLike
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the mean confidence, the share of right answers and the count of each bin of `ece`.

    Each is (BINS,); means are NaN where a bin is empty.
    """
    bins = _binned(confidence)
    count = bins.sum(0)
    means = [_ratio(np.asarray(values, float) @ bins, count) for values in (confidence, right)]
    return means[0], means[1], count.astype(np.int64)


def brier(confidence: ArrayLike, right: ArrayLike, weights: Floats) -> Floats:
    """Return the mean squared difference between confidence and outcome (Brier 1950)."""
    return mean((np.asarray(confidence, float) - np.asarray(right, float)) ** 2, weights)


def decisions(right: ArrayLike, declined: ArrayLike) -> dict[str, Metric]:
    """Return the metrics, by name, of a policy that declines some questions.

    `correct`, `wrong` and `declined` are shares of all questions; `precision` is of those answered.
    `over_refusal` is the share declined of those that would have been right, `prudence` of those
    that would have been wrong, and `honesty` (1 − over-refusal + prudence)/2 (Yang et al. 2023,
    arXiv 2312.07000). `aed` is √((I² + (D−C)²)/2D²) for I wrong and C correct of D, lower is better
    (Tjandra et al. 2024, arXiv 2410.17234). `truthfulness` is correct − wrong (Wei et al. 2025,
    arXiv 2509.25760), and `penalised_t` gives 1 for a correct answer, 0 for none and −t/(1−t) for a
    wrong one (Kalai et al. 2025, arXiv 2509.04664).
    """
    would, silent = np.asarray(right, bool), np.asarray(declined, bool)
    correct, wrong = would & ~silent, ~would & ~silent

    def share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Metric:
        return lambda weights: _ratio(
            weights @ (part & whole).astype(float), weights @ whole.astype(float)
        )

    over_refusal, prudence = share(silent, would), share(silent, ~would)

    def honesty(weights: Floats) -> Floats:
        return np.asarray((1 - over_refusal(weights) + prudence(weights)) / 2)

    def aed(weights: Floats) -> Floats:
        return np.asarray(
            np.sqrt((mean(wrong, weights) ** 2 + (1 - mean(correct, weights)) ** 2) / 2)
        )

    def penalised(t: float) -> Metric:
        return lambda weights: mean(correct - wrong * t / (1 - t), weights)

    return {
        "correct": lambda weights: mean(correct, weights),
        "wrong": lambda weights: mean(wrong, weights),
        "declined": lambda weights: mean(silent, weights),
        "precision": share(would, ~silent),
        "over_refusal": over_refusal,
        "prudence": prudence,
        "honesty": honesty,
        "aed": aed,
        "truthfulness": lambda weights: mean(correct * 1.0 - wrong, weights),
    } | {f"penalised_{t:g}": penalised(t) for t in PENALTIES}


@lru_cache(maxsize=1)
def _resampled(questions: int, resamples: int, seed: int) -> Floats:
    """Return how often each question counts in each resample, (resamples, questions).

    It is kept, for many metrics share one draw.
    """
    drawn = np.random.default_rng(seed).multinomial(
        questions, np.full(questions, 1 / questions), resamples
    )
    weights: Floats = drawn.astype(float)
    weights.flags.writeable = False
    return weights


def _levels(confidence: ArrayLike, right: ArrayLike, weights: Floats) -> Floats:
    """Return the weight of right and of wrong answers at each level of confidence, rising.

    The shape is (2, ..., levels), a level being one of the different confidences.
    """
    confidences = np.asarray(confidence, float)
    if np.isnan(confidences).any():
        raise ValueError("a confidence is not a number: leave abstentions out, or count them as 0")
    values, level = np.unique(confidences, return_inverse=True)
    # the answers sorted by level, so that each level is one stretch, which `reduceat` sums
    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(len(values)))
    share_right = np.asarray(right, float)
    good = np.add.reduceat((weights * share_right)[..., order], starts, -1)
    bad = np.add.reduceat((weights * (1 - share_right))[..., order], starts, -1)
    return np.stack([good, bad])


def _binned(confidence: ArrayLike) -> Floats:
    """Return which bin each confidence is in, one-hot, (questions, BINS)."""
    # a confidence of 1 belongs to the last bin
    bins = np.minimum(np.asarray(confidence, float) * BINS, BINS - 1).astype(int)
    one_hot: Floats = np.eye(BINS)[bins]
    return one_hot


def _ratio(over: ArrayLike, under: ArrayLike) -> Floats:
    """Return over / under, NaN where `under` is 0, without numpy's warning."""
    top, bottom = np.broadcast_arrays(np.asarray(over, float), np.asarray(under, float))
    out: Floats = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return out
