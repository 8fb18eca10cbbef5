"""One probability out of several: its fit, its calibration where that is possible, its edges."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selfloop_plugins._shared import calibration
from selfloop_plugins._shared.calibration import (
    Calibration,
    fit,
    fit_isotonic,
    fit_logistic,
    log_odds,
)
from selfloop_plugins.detectors.combined import Combined, check
from selfloop_plugins.detectors.meaning_probability import MeaningProbability
from selfloop_plugins.detectors.pmi import Pmi

from selfloop import Claim, Completion, Question, Verdict, VerifyContext
from selfloop.errors import RecipeError, RequestError
from selfloop.storage.run_folder import RunFolder
from selfloop.testing import ScriptedBackend, verify_context

QUESTION = Question("What is the capital of Egypt?", "test")
NAN, INF = float("nan"), float("inf")
LUCK = np.random.default_rng(0)


def said(
    text: str, *logprobs: float, tokens: tuple[int, ...] | None = None, sample: int = 0
) -> Completion:
    return Completion(text, tokens or tuple(text.encode()), logprobs, sample=sample)


# --- meaning probability


@pytest.mark.parametrize(
    ("answer", "samples", "confidence"),
    [
        (said("Cairo", math.log(0.25)), (), 0.25),
        # how often does not count
        (said("Cairo", math.log(0.25)), (said("Cairo", math.log(0.25)),) * 3, 0.25),
        (
            said("Cairo", math.log(0.25)),
            (said("the cairo!", math.log(0.125)), said("Giza", math.log(0.5))),
            0.375,
        ),
        # a given answer
        (Completion(" Cairo\n", (), (math.log(0.25),)), (said("Cairo", math.log(0.25)),), 0.25),
        (Completion(" Cairo\n", (), (math.log(0.25),)), (said("cairo", math.log(0.125)),), 0.375),
        (said("Cairo", 0.0), (said("cairo", 0.0),), 1.0),  # rounding must not lift it above 1
        (said("Cairo", -INF), (), 0.0),
        (said("Cairo", *[-1.0] * 10_000), (), 0.0),
        (said("Cairo"), (said("Giza", -1.0),), None),
        (said("Cairo", NAN), (), None),
        (said("I don't know", -0.1), (), None),
        (said("", -0.1), (said("", -0.1),), None),
    ],
)
def test_meaning_probability(answer: Completion, samples: Any, confidence: float | None) -> None:
    (verdict,) = MeaningProbability().verify([Claim(QUESTION, answer, samples)], verify_context())
    assert verdict.confidence == (None if confidence is None else pytest.approx(confidence))
    assert verdict.reason


def test_a_revision_has_the_probability_of_what_was_said_to_the_bare_question() -> None:
    claim = Claim(
        QUESTION,
        said("Giza", math.log(0.5)),
        (said("Giza", math.log(0.5)), said("Cairo", -1.0)),
        "revision",
    )
    (verdict,) = MeaningProbability().verify([claim], verify_context())
    assert verdict.confidence == pytest.approx(0.5)


# --- pointwise mutual information


class Alone(ScriptedBackend):
    """Gives every answer the same log-probabilities where there is no question."""

    def __init__(self, told: Any) -> None:
        super().__init__()
        self.told, self.asked = told, []

    def loglikelihood(self, pairs: Any) -> Any:
        self.asked += pairs
        return [self.told] * len(pairs)


@pytest.mark.parametrize(
    ("given", "alone", "confidence"),
    [
        ((math.log(0.3),), (math.log(0.1),), 0.75),
        ((math.log(0.1),), (math.log(0.05), math.log(0.5)), 0.8),
        ((-2000.0,), (-1.0,), 0.0),
        ((-1.0,), (-2000.0,), 1.0),
        ((-INF,), (-1.0,), 0.0),
        ((-1.0,), (-INF,), 1.0),
        ((-INF,), (-INF,), None),
        ((NAN,), (-1.0,), None),
        ((-1.0,), RequestError("too long"), None),
        ((), (-1.0,), None),
    ],
)
def test_pmi(given: tuple[float, ...], alone: Any, confidence: float | None) -> None:
    backend = Alone(alone)
    (verdict,) = Pmi().verify([Claim(QUESTION, said("Cairo", *given))], verify_context(backend))
    assert verdict.confidence == (None if confidence is None else pytest.approx(confidence))
    assert verdict.reason
    assert all(
        QUESTION.text not in pair.prompt and pair.text == tuple(b"Cairo") for pair in backend.asked
    )


# --- the regression


def rows(n: int, weights: Sequence[float], shift: float) -> tuple[list[dict[str, float]], Any]:
    """Return what detectors say, and labels drawn with the log-odds that the weights give it."""
    line = LUCK.normal(size=(n, len(weights)))
    right = LUCK.random(n) < 1 / (1 + np.exp(-(line @ weights + shift)))
    return [{f"d{k}": 1 / (1 + math.exp(-x)) for k, x in enumerate(row)} for row in line], right


@pytest.mark.extra("stats")
def test_weights_are_those_of_an_independent_implementation() -> None:
    from sklearn.linear_model import LogisticRegression

    given, right = rows(500, (1.0, 0.5, 0.2), -0.5)
    found = fit(("d0", "d1", "d2"), given, right, "labels")
    line = log_odds(given, ("d0", "d1", "d2"))
    standard = (line - line.mean(0)) / line.std(0)
    theirs = LogisticRegression(C=1.0, tol=1e-8).fit(standard, right)
    assert found.weights == pytest.approx(theirs.coef_[0], abs=1e-3)
    assert found(given) == pytest.approx(theirs.predict_proba(standard)[:, 1], abs=1e-3)


@pytest.mark.extra("stats")
def test_no_detector_counts_against_what_it_says() -> None:
    given, right = rows(500, (1.0, -1.0), 0.0)
    found = fit(("d0", "d1"), given, right, "labels")
    assert found.weights[0] > 0.5 and found.weights[1] == 0


@pytest.mark.extra("stats")
def test_soft_targets_are_labels_counted_by_halves() -> None:
    from sklearn.linear_model import LogisticRegression

    given, _ = rows(100, (1.0,), 0.0)
    shares = LUCK.integers(0, 5, 100) / 4
    line = log_odds(given, ("d0",))
    weights, intercept = fit_logistic(line, shares)
    twice = np.concatenate([line, line])
    both = np.concatenate([np.ones(100), np.zeros(100)])
    theirs = LogisticRegression(C=1.0, tol=1e-8).fit(
        twice, both, sample_weight=np.concatenate([shares, 1 - shares])
    )
    assert weights == pytest.approx(np.maximum(theirs.coef_[0], 0), abs=1e-3)
    if theirs.coef_[0] > 0:
        assert intercept == pytest.approx(theirs.intercept_[0], abs=1e-3)


@pytest.mark.extra("stats")
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_single_class_of_labels_gives_a_finite_fit(label: float) -> None:
    given, _ = rows(50, (1.0,), 0.0)
    found = fit(("d0",), given, [label] * 50, "labels")(given)
    assert np.isfinite(found).all()
    assert abs(found - label).max() < 0.05


@pytest.mark.extra("stats")
def test_who_abstains_or_always_says_the_same_adds_nothing() -> None:
    given, right = rows(200, (1.0,), 0.0)
    more = [each | {"same": 1.0} | ({"rare": 0.9} if i < 3 else {}) for i, each in enumerate(given)]
    found = fit(("d0", "same", "rare", "never"), more, right, "labels")
    assert found.weights[1:] == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    assert found(more) == pytest.approx(fit(("d0",), given, right, "labels")(given), abs=1e-6)
    assert found([{}]) == pytest.approx(1 / (1 + math.exp(-found.intercept)))


@pytest.mark.extra("stats")
def test_it_is_scaled_to_a_target() -> None:
    given, right = rows(4000, (1.0,), 0.0)
    target = np.array([0.2 + 0.6 * each["d0"] for each in given])
    found = fit(("d0",), given, right, "labels").towards(target, given)
    assert found(given).mean() == pytest.approx(target.mean(), abs=1e-4)
    assert abs(found(given) - target).max() < 0.08


@pytest.mark.extra("stats")
def test_isotonic_is_that_of_an_independent_implementation() -> None:
    from sklearn.isotonic import IsotonicRegression

    given = LUCK.random(300).round(2)
    right = LUCK.random(300) < given**2
    corners = fit_isotonic(given, right)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(given, right)
    places = np.linspace(-0.1, 1.1, 241)
    assert np.interp(places, *zip(*corners, strict=True)) == pytest.approx(
        theirs.predict(places), abs=1e-9
    )
    assert fit_isotonic([0.5], [True]) == ((0.5, 1.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("{", "holds no calibration"),
        ('{"detectors": ["a"]}', "holds no calibration"),
        (
            '{"detectors": ["a"], "centre": [], "spread": [1], "weights": [1], "intercept": 0}',
            "damaged",
        ),
        (
            '{"detectors": ["a"], "centre": [0], "spread": [0], "weights": [1], "intercept": 0}',
            "damaged",
        ),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(
    text: str | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "calibration.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        check(calibration=file)


# --- the detector


def pool(n: int, noise: float = 0.1) -> tuple[list[Claim], VerifyContext]:
    """Return claims of known probability, and a detector before ours that knows it roughly."""
    claims = []
    for i in range(n):
        chance = LUCK.random()
        samples = tuple(
            said("yes" if LUCK.random() < chance else f"no{k}", -1.0, sample=k) for k in range(8)
        )
        guess = min(max(chance + noise * LUCK.normal(), 0.01), 0.99)
        verdicts = (Verdict("knows", guess), Verdict("noise", LUCK.random()))
        claims.append(
            Claim(
                Question(f"q{i}", "test"), said("yes", math.log(chance)), samples, verdicts=verdicts
            )
        )
    own = {claim.question.id: claim.verdicts for claim in claims}
    return claims, replace(
        verify_context(),
        earlier_verdicts=lambda others: [own[claim.question.id] for claim in others],
    )


@pytest.mark.extra("stats")
def test_who_foretells_the_held_out_samples_has_the_weight(tmp_path: Path) -> None:
    claims, told = pool(300)
    verdicts = Combined(folder=tmp_path, anchors=("knows",)).verify(claims, told)
    stored = json.loads((RunFolder(tmp_path).calibration).read_text())
    assert stored["detectors"] == ["knows", "noise"]
    assert stored["weights"][0] > 10 * stored["weights"][1]
    assert "300 answers' agreement" in stored["fitted"] and "knows" in stored["fitted"]
    guesses = [claim.verdicts[0].confidence for claim in claims]
    assert np.corrcoef([v.confidence for v in verdicts], guesses)[0, 1] > 0.97
    assert np.mean([v.confidence for v in verdicts]) == pytest.approx(np.mean(guesses), abs=0.01)


@pytest.mark.extra("stats")
def test_what_is_held_out_is_not_shown(tmp_path: Path) -> None:
    claims, told = pool(40)
    shown: list[Claim] = []
    told = replace(
        told,
        earlier_verdicts=lambda others: (
            shown.extend(others),
            [(Verdict("knows", 0.5),)] * len(others),
        )[1],
    )
    Combined(folder=tmp_path).verify(claims, told)
    assert len(shown) == 80
    for claim, first, second in zip(claims, shown[:40], shown[40:], strict=True):
        assert first.verdicts == second.verdicts == ()
        assert {s.sample for s in first.samples} == {0, 2, 4, 6} and {
            s.sample for s in second.samples
        } == {1, 3, 5, 7}
        assert first.question == second.question == claim.question


@pytest.mark.extra("stats")
def test_what_was_fitted_stays_with_the_run(tmp_path: Path) -> None:
    claims, told = pool(60)
    first = Combined(folder=tmp_path).verify(claims, told)
    again = Combined(folder=tmp_path).verify(claims[:1], told)
    assert again == first[:1]
    (tmp_path / "other").mkdir()
    given = Combined(folder=tmp_path / "other", calibration=RunFolder(tmp_path).calibration)
    assert given.verify(claims[:1], told) == first[:1]


@pytest.mark.parametrize(
    ("verdicts", "confidence"),
    [
        ({"meaning_probability": 0.5, "agreement": 0.125}, 0.25),
        ({"meaning_probability": 0.5, "agreement": 0.0}, 0.0),
        ({"meaning_probability": 0.5}, None),
        ({}, None),
        ({"meaning_probability": None, "agreement": 1.0}, None),
    ],
)
def test_too_few_answers_go_by_the_mean_of_the_anchors(
    verdicts: dict[str, float | None], confidence: float | None, tmp_path: Path
) -> None:
    claim = Claim(
        QUESTION,
        said("Cairo", -1.0),
        (said("Cairo", -1.0),),
        verdicts=tuple(Verdict(*each) for each in verdicts.items()),
    )
    (verdict,) = Combined(folder=tmp_path).verify([claim], verify_context())
    assert verdict.confidence == (None if confidence is None else pytest.approx(confidence))
    assert "too few" in verdict.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verdicts", "confidence"),
    [
        ({"sequence_probability": 0.3, "pmi": 0.9}, 0.3),
        # as it comes from meaning_probability and pmi without samples: neither counts
        ({"meaning_probability": 0.3, "pmi": 0.9}, None),
        ({"sequence_probability": None}, None),
    ],
)
def test_one_answer_alone_is_judged_by_its_probability(
    verdicts: dict[str, float | None], confidence: float | None, tmp_path: Path
) -> None:
    own = tuple(Verdict(*each) for each in verdicts.items())
    claim = Claim(QUESTION, said("Cairo", -1.0), verdicts=own)
    (verdict,) = Combined(folder=tmp_path).verify([claim], verify_context())
    assert verdict.confidence == confidence
    assert "no samples" in verdict.reason and "sequence_probability" in verdict.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extra("stats")
def test_answers_without_samples_are_brought_to_the_scale_of_those_with(tmp_path: Path) -> None:
    claims, told = pool(200)
    bare = [replace(claim, samples=()) for claim in claims[100:]]
    combined = Combined(folder=tmp_path, anchors=("knows",))
    mixed = combined.verify([*claims[:100], *bare], told)
    assert (RunFolder(tmp_path).single_calibration).is_file()
    with_samples = combined.verify(claims[100:], told)
    gaps = [
        abs((one.confidence or 0.0) - (other.confidence or 0.0))
        for one, other in zip(mixed[100:], with_samples, strict=True)
    ]
    assert np.mean(gaps) < 0.05
    # stored: the same whoever else is in the batch
    assert combined.verify(bare[:1], told) == mixed[100:101]


@pytest.mark.extra("stats")
def test_claims_without_samples_have_no_part_in_the_fit(tmp_path: Path) -> None:
    claims, told = pool(100)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "alone").mkdir()
    bare = [replace(claim, samples=()) for claim in claims[60:]]
    Combined(folder=tmp_path / "mixed", anchors=("knows",)).verify([*claims[:60], *bare], told)
    Combined(folder=tmp_path / "alone", anchors=("knows",)).verify(claims[:60], told)
    fits = [RunFolder(tmp_path / name).calibration.read_text() for name in ("mixed", "alone")]
    assert fits[0] == fits[1]


@pytest.mark.extra("stats")
def test_an_answer_nobody_could_judge_is_not_judged(tmp_path: Path) -> None:
    claims, told = pool(60)
    Combined(folder=tmp_path).verify(claims, told)
    (verdict,) = Combined(folder=tmp_path).verify(
        [replace(claims[0], verdicts=(Verdict("knows", None, "no"),))], told
    )
    assert (verdict.confidence, verdict.reason) == (None, "no detector could tell")


@pytest.mark.extra("stats")
def test_probabilities_of_nought_and_one_are_kept_in_bounds(tmp_path: Path) -> None:
    claims, told = pool(60)
    Combined(folder=tmp_path).verify(claims, told)
    for extreme in (0.0, 1.0):
        (verdict,) = Combined(folder=tmp_path).verify(
            [replace(claims[0], verdicts=(Verdict("knows", extreme),))], told
        )
        assert verdict.confidence is not None and 0 <= verdict.confidence <= 1


def test_the_calibration_is_what_its_formula_says() -> None:
    one = Calibration(("a",), (1.0,), (2.0,), (3.0,), 0.5, scale=2.0, shift=-1.0)
    line = 2 * (0.5 + 3 * (math.log(0.8 / 0.2) - 1) / 2) - 1
    assert one([{"a": 0.8}]) == pytest.approx(1 / (1 + math.exp(-line)))
    stepped = replace(one, steps=((0.0, 0.1), (1.0, 0.3)))
    assert stepped([{"a": 0.8}]) == pytest.approx(0.1 + 0.2 / (1 + math.exp(-line)))
    assert calibration.sigmoid([-1e9, 1e9]) == pytest.approx([0, 1])
