"""Metrics against values worked out by hand, scikit-learn, and definitions written out slowly."""

import itertools
import math

import numpy as np
import pytest

from selfloop.evaluation import metrics
from selfloop.evaluation.gold import correct, correct_by_regex

ONE = np.ones


def random_set(seed: int, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Confidences with many ties, and outcomes that depend on them."""
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 9, size) / 8
    return confidence, rng.random(size) < confidence


def test_by_hand() -> None:
    confidence, right = [0.9, 0.8, 0.8, 0.3], [True, False, True, False]
    assert metrics.auroc(confidence, right, ONE(4)) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    # The second and third are tied: after two of the four, half an error on average; after three,
    # one.
    assert metrics.aurc(confidence, right, ONE(4)) == pytest.approx(
        (0 + 0.5 / 2 + 1 / 3 + 2 / 4) / 4
    )
    assert metrics.brier(confidence, right, ONE(4)) == pytest.approx(
        (0.01 + 0.64 + 0.04 + 0.09) / 4
    )
    # Bins of 0.9, of the two 0.8 (0.8 against 0.5) and of 0.3.
    assert metrics.ece(confidence, right, ONE(4)) == pytest.approx((0.1 + 2 * 0.3 + 0.3) / 4)
    thresholds, coverage, risk = metrics.risk_coverage(confidence, right)
    assert thresholds.tolist() == [0.9, 0.8, 0.3]
    assert coverage.tolist() == [0.25, 0.75, 1]
    assert risk.tolist() == pytest.approx([0, 1 / 3, 0.5])


@pytest.mark.extra("stats")
@pytest.mark.parametrize("seed", range(5))
def test_like_scikit_learn(seed: int) -> None:
    from sklearn.metrics import brier_score_loss, roc_auc_score

    confidence, right = random_set(seed)
    assert metrics.auroc(confidence, right, ONE(200)) == pytest.approx(
        roc_auc_score(right, confidence)
    )
    assert metrics.brier(confidence, right, ONE(200)) == pytest.approx(
        brier_score_loss(right, confidence)
    )


def test_aurc_is_the_mean_over_all_orders_of_ties() -> None:
    confidence, right = np.array([0.5, 0.5, 0.5, 0.2, 0.2]), np.array([1, 0, 0, 1, 0])
    slow = []
    for first, last in itertools.product(
        itertools.permutations(range(3)), itertools.permutations((3, 4))
    ):
        wrong = 1 - right[[*first, *last]]
        slow.append(np.mean(np.cumsum(wrong) / np.arange(1, 6)))
    assert metrics.aurc(confidence, right, ONE(5)) == pytest.approx(np.mean(slow))


def test_ece_is_what_its_definition_says() -> None:
    confidence, right = random_set(1)
    slow, edges = 0.0, np.arange(11) / 10
    for low, high in itertools.pairwise(edges):
        inside = (confidence >= low) & ((confidence < high) | (high == 1))
        if inside.any():
            slow += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert metrics.ece(confidence, right, ONE(200)) == pytest.approx(slow)
    means, shares, count = metrics.reliability(confidence, right)
    assert count.sum() == 200
    assert np.nansum(abs(means - shares) * count) / 200 == pytest.approx(slow)


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.aurc, metrics.ece, metrics.brier])
def test_a_weight_is_how_often_a_question_counts(metric) -> None:
    confidence, right = random_set(2, 50)
    weights = np.random.default_rng(0).integers(0, 4, (3, 50))
    together = metric(confidence, right, weights.astype(float))
    for row, value in zip(weights, together, strict=True):
        assert value == pytest.approx(
            metric(np.repeat(confidence, row), np.repeat(right, row), ONE(row.sum()))
        )


def test_intervals_cover_the_truth() -> None:
    """A true AUROC lies in about 95 % of 200 intervals.

    90 % and 99.5 % are three standard errors away.
    """
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        right = rng.random(150) < 0.4
        confidence = 1 / (1 + np.exp(-rng.normal(right * 1.0)))
        values = metrics.interval(
            lambda w, c=confidence, r=right: metrics.auroc(c, r, w), 150, resamples=300
        )
        truth = 0.5 * math.erfc(-1 / 2)  # two normals one deviation apart
        inside += values.low <= truth <= values.high
        assert values.low <= values.value <= values.high
    assert 180 <= inside <= 199


def test_intervals_are_the_same_each_time() -> None:
    confidence, right = random_set(3)
    once, again = (
        metrics.interval(lambda w: metrics.ece(confidence, right, w), 200, seed=4) for _ in range(2)
    )
    assert once == again


def test_what_cannot_be_told_is_not_a_number() -> None:
    all_right = [True, True]
    assert math.isnan(metrics.auroc([0.1, 0.9], all_right, ONE(2)))
    values = metrics.interval(lambda w: metrics.auroc([0.1, 0.9], all_right, w), 2)
    assert all(map(math.isnan, values))
    assert all(map(math.isnan, metrics.interval(lambda w: metrics.mean([], w), 0)))
    for metric in (metrics.auroc, metrics.aurc, metrics.ece, metrics.brier):
        assert math.isnan(metric([], [], ONE(0)))
    with pytest.raises(ValueError, match="not a number"):
        metrics.auroc([0.1, math.nan], [True, False], ONE(2))


def test_decisions_by_hand() -> None:
    """Of ten questions five would be right, one of them declined; of the wrong five, three are."""
    right, declined = [True] * 5 + [False] * 5, [True] + [False] * 4 + [True] * 3 + [False] * 2
    values = {
        name: float(metric(ONE(10))) for name, metric in metrics.decisions(right, declined).items()
    }
    assert values == pytest.approx(
        {
            "correct": 0.4,
            "wrong": 0.2,
            "declined": 0.4,
            "precision": 4 / 6,
            "over_refusal": 0.2,
            "prudence": 0.6,
            "honesty": 0.7,
            "aed": math.sqrt((2**2 + 6**2) / 200),
            "truthfulness": 0.2,
            "penalised_0.5": 0.2,
            "penalised_0.75": 0.4 - 0.2 * 3,
            "penalised_0.9": 0.4 - 0.2 * 9,
        }
    )


def test_trivial_policies() -> None:
    right = [True, False, False, False]
    never, always = (
        {n: float(m(ONE(4))) for n, m in metrics.decisions(right, [d] * 4).items()}
        for d in (True, False)
    )
    assert math.isnan(never["precision"])
    assert (never["honesty"], always["honesty"]) == (0.5, 0.5)
    assert never["aed"] == pytest.approx(math.sqrt(0.5))
    assert (never["penalised_0.9"], always["penalised_0.9"]) == pytest.approx((0, 0.25 - 0.75 * 9))


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("Washington, D.C.", ["Washington, D.C."], True),
        ("washington dc", ["Washington, D.C."], True),
        ("Washington", ["Washington, D.C."], False),
        (" The Beatles.", ["beatles"], True),
        ("Paris, Texas", ["Paris"], False),
        ("", [""], False),
        ("...", ["!", "the"], False),
        ("Zürich", ["Zürich"], True),
        ("東京", ["東京"], True),
        ("anything", [], False),
    ],
)
def test_gold_answers(answer: str, accepted: list[str], right: bool) -> None:
    assert correct(answer, accepted) is right


def test_regex_of_gold_answers() -> None:
    assert correct_by_regex("about 70 Years", r"70\s+years?")
    assert not correct_by_regex("about 7 years", r"70\s+years?")
    assert not correct_by_regex("  ", r".*")
