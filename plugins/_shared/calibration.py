"""One probability out of the confidences of several detectors: a regularised logistic regression.

It is fitted with or without labels. A confidence counts as standardised log-odds; a detector that
abstains adds nothing. More confidence means likelier true, so no weight is below 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError

from selfloop.errors import MissingExtraError, RecipeError
from selfloop.storage import atomic

Floats = NDArray[np.float64]
# the confidence of each detector that did not abstain, by its name
Confidences = Mapping[str, float]

# log-odds beyond these count as these: a chance of one in 160,000, and 0.999
MIN_LOG_ODDS, MAX_LOG_ODDS = -12.0, 7.0
# without a prior, labels that a line can separate want an endless weight
MAX_WEIGHT = 50.0
# below this spread a detector says the same of all
MIN_SPREAD = 1e-6
MAX_EXPONENT = 700.0  # exp of more overflows


@dataclass(frozen=True)
class Calibration:
    """log-odds of truth = scale · (intercept + Σ weight · (log-odds − centre) / spread) + shift.

    The result then goes through `steps`: the corners (from, to) of a rising line. Without any, the
    probability stays as it is. `fitted` describes the data of the fit; `questions` are the ids of
    the questions whose labels were used.
    """

    detectors: tuple[str, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    scale: float = 1.0
    shift: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()
    fitted: str = ""
    questions: tuple[str, ...] = ()

    def linear(self, confidences: Sequence[Confidences]) -> Floats:
        """Return intercept + Σ weight · standardised log-odds for each claim, (claims,)."""
        standardised = (log_odds(confidences, self.detectors) - self.centre) / self.spread
        # NaN marks an abstention: 0 is the mean, which adds nothing
        total: Floats = self.intercept + np.nan_to_num(standardised) @ np.array(self.weights)
        return total

    def __call__(self, confidences: Sequence[Confidences]) -> Floats:
        """Return the probability of each claim, (claims,)."""
        probabilities = sigmoid(self.scale * self.linear(confidences) + self.shift)
        if not self.steps:
            return probabilities
        corners = np.array(self.steps)  # (corners, 2)
        levels: Floats = np.interp(probabilities, corners[:, 0], corners[:, 1])
        return levels

    def towards(self, target: ArrayLike, confidences: Sequence[Confidences]) -> "Calibration":
        """Return this with scale and shift fitted so that it gives `target` (Platt 1999)."""
        line = self.linear(confidences)[:, None]
        (scale,), shift = fit_logistic(line, np.asarray(target, float), ridge=0.0)
        return replace(self, scale=float(scale), shift=shift)

    def save(self, path: Path) -> None:
        """Store it as JSON, whole or not at all.

        Raises OSError, and DiskFullError on a full disk.
        """
        atomic.write_bytes(path, _JSON.dump_json(self, indent=1))


_JSON = TypeAdapter(Calibration)


def read_calibration(path: Path) -> Calibration:
    """Return a calibration that `Calibration.save` stored.

    Raises RecipeError for a file that cannot be read, or is not a whole calibration.
    """
    try:
        calibration = _JSON.validate_json(path.read_bytes())
    except OSError as error:
        raise RecipeError(
            f"cannot read {path}: {error.strerror}. `selfloop calibrate` writes such a file."
        ) from error
    except ValidationError as error:
        raise RecipeError(
            f"{path} holds no calibration. `selfloop calibrate` writes such a file."
        ) from error
    if not _is_sound(calibration):
        raise RecipeError(
            f"{path} holds a damaged calibration. Make it anew with `selfloop calibrate`."
        )
    return calibration


def _is_sound(calibration: Calibration) -> bool:
    """Return whether each detector has its three figures, and no figure breaks the arithmetic."""
    centre, spread, weights = calibration.centre, calibration.spread, calibration.weights
    lengths = {len(column) for column in (calibration.detectors, centre, spread, weights)}
    is_finite = bool(np.isfinite([*centre, *spread, *weights]).all())
    return len(lengths) == 1 and is_finite and 0 not in spread


def fit(
    detectors: Sequence[str], confidences: Sequence[Confidences], target: ArrayLike, fitted: str
) -> Calibration:
    """Return the weights that best predict `target`, shares or labels in [0, 1], (claims,)."""
    odds = log_odds(confidences, detectors)  # (claims, detectors)
    has_spoken = ~np.isnan(odds)
    count = np.maximum(has_spoken.sum(0), 1)
    centre = np.where(has_spoken, odds, 0.0).sum(0) / count
    spread = np.sqrt((np.where(has_spoken, odds - centre, 0.0) ** 2).sum(0) / count)
    spread[spread < MIN_SPREAD] = 1.0  # so the weight stays 0
    weights, intercept = fit_logistic(
        np.nan_to_num((odds - centre) / spread), np.asarray(target, float)
    )
    return Calibration(
        tuple(detectors),
        tuple(centre.tolist()),
        tuple(spread.tolist()),
        tuple(weights.tolist()),
        intercept,
        fitted=fitted,
    )


def fit_logistic(
    inputs: Floats,
    target: Floats,
    ridge: float = 1.0,
    *,
    prior: ArrayLike = 0.0,
    min_weight: float = 0.0,
) -> tuple[Floats, float]:
    """Return the weights, (columns,), and intercept of a logistic regression.

    They minimise cross-entropy + ridge/2 · |weights − prior|², with no weight below `min_weight`.
    `inputs` is (rows, columns), `target` (rows,) in [0, 1]. Raises MissingExtraError without scipy.
    """
    _require_scipy()
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    start = np.broadcast_to(np.asarray(prior, float), inputs.shape[1])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        """Return the loss and its gradient at (intercept, *weights)."""
        intercept, weights = parameters[0], parameters[1:]
        line = inputs @ weights + intercept
        from_prior = weights - start
        errors = sigmoid(line) - target
        cross_entropy = np.sum(np.logaddexp(0, line) - target * line)
        value = cross_entropy + ridge / 2 * from_prior @ from_prior
        gradient = [[errors.sum()], inputs.T @ errors + ridge * from_prior]
        return float(value), np.concatenate(gradient)

    bounds = [(-MAX_WEIGHT, MAX_WEIGHT), *[(min_weight, MAX_WEIGHT)] * len(start)]
    parameters = minimize(
        loss, np.concatenate([[0.0], start]), jac=True, bounds=bounds, method="L-BFGS-B"
    ).x
    return parameters[1:], float(parameters[0])


def fit_isotonic(probabilities: ArrayLike, labels: ArrayLike) -> tuple[tuple[float, float], ...]:
    """Return the corners (probability, share right) of the rising line that fits best.

    Zadrozny and Elkan 2002. Raises MissingExtraError without scipy.
    """
    _require_scipy()
    from scipy.optimize import isotonic_regression

    distinct, index, counts = np.unique(
        np.asarray(probabilities, float), return_inverse=True, return_counts=True
    )
    shares = np.bincount(index, np.asarray(labels, float)) / counts
    levels = isotonic_regression(shares, weights=counts).x
    # where a level begins, and one after its end
    changes = np.flatnonzero(np.diff(levels, prepend=np.nan, append=np.nan))
    corners = sorted({int(i) for i in (*changes[:-1], *(changes[1:] - 1))})
    return tuple((float(distinct[i]), float(levels[i])) for i in corners)


def log_odds(confidences: Sequence[Confidences], detectors: Sequence[str]) -> Floats:
    """Return log-odds, (claims, detectors), cut to a range; NaN where a detector abstained."""
    rows = []
    for by_name in confidences:
        rows.append([by_name.get(name, np.nan) for name in detectors])
    table = np.array(rows, float).reshape(len(confidences), len(detectors))
    with np.errstate(divide="ignore"):
        odds: Floats = np.clip(np.log(table) - np.log1p(-table), MIN_LOG_ODDS, MAX_LOG_ODDS)
    return odds


def sigmoid(log_odds: ArrayLike) -> Floats:
    """Return 1 / (1 + e^−x) of each log-odds, as an array.

    The same for one float, without numpy, is `probability.sigmoid`.
    """
    exponents = np.clip(np.asarray(log_odds, float), -MAX_EXPONENT, MAX_EXPONENT)
    probabilities: Floats = 1 / (1 + np.exp(-exponents))
    return probabilities


def _require_scipy() -> None:
    """Raise MissingExtraError where scipy is not installed."""
    try:
        import scipy  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("scipy", "stats", "fitting a logistic regression") from error
