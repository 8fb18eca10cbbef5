"""From what several detectors say to one probability: a regularised logistic regression, fitted
with or without labels.

What a detector says counts as log-odds, standardised; one that abstains adds nothing. A detector is
one because more of it means likelier true, so no weight is below 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError

from selfloop.errors import RecipeError
from selfloop.storage import atomic

Floats = NDArray[np.float64]
Said = Mapping[str, float]  # confidence by detector, of those that did not abstain

LEAST, MOST = -12.0, 7.0  # log-odds beyond these say no more than these: a 6-millionth, and 0.999


@dataclass(frozen=True)
class Calibration:
    """log-odds of truth = scale · (intercept + Σ weight · (log-odds − centre) / spread) + shift,
    then `steps`.

    `steps` are the corners (from, to) of a rising line that a probability is put through at the
    end; none is as it is. `fitted` says on what, and `questions` are the ids of the questions whose
    labels were used.
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

    def linear(self, said: Sequence[Said]) -> Floats:
        """Return intercept + Σ weight · standardised log-odds for each claim, (claims,)."""
        given = (odds(said, self.detectors) - self.centre) / self.spread
        total: Floats = self.intercept + np.nan_to_num(given) @ np.array(self.weights)
        return total

    def __call__(self, said: Sequence[Said]) -> Floats:
        """Return the probability of each claim, (claims,)."""
        found = sigmoid(self.scale * self.linear(said) + self.shift)
        return np.interp(found, *zip(*self.steps, strict=True)) if self.steps else found

    def towards(self, target: ArrayLike, said: Sequence[Said]) -> "Calibration":
        """Return this with scale and shift fitted so that its probabilities are those of `target` (Platt 1999)."""
        (scale,), shift = logistic(self.linear(said)[:, None], np.asarray(target, float), ridge=0.0)
        return replace(self, scale=float(scale), shift=shift)

    def write(self, path: Path) -> None:
        """Store it as JSON, whole or not at all.

        Raises OSError, and DiskFullError where there is no room.
        """
        atomic.write_bytes(path, _JSON.dump_json(self, indent=1))


_JSON = TypeAdapter(Calibration)


def read(path: Path) -> Calibration:
    """Return what `Calibration.write` stored. Raises RecipeError for a file that holds none."""
    try:
        found = _JSON.validate_json(path.read_bytes())
    except OSError as error:
        raise RecipeError(
            f"cannot read {path}: {error.strerror}. `selfloop calibrate` writes such a file."
        ) from error
    except ValidationError as error:
        raise RecipeError(
            f"{path} holds no calibration. `selfloop calibrate` writes such a file."
        ) from error
    size = {len(each) for each in (found.detectors, found.centre, found.spread, found.weights)}
    if (
        len(size) > 1
        or not np.isfinite([*found.centre, *found.spread, *found.weights]).all()
        or 0 in found.spread
    ):
        raise RecipeError(
            f"{path} holds a damaged calibration. Make it anew with `selfloop calibrate`."
        )
    return found


def fit(
    detectors: Sequence[str], said: Sequence[Said], target: ArrayLike, fitted: str
) -> Calibration:
    """Return the weights that best foretell `target`, shares or labels in [0, 1], (claims,)."""
    given = odds(said, detectors)
    there = ~np.isnan(given)
    count = np.maximum(there.sum(0), 1)
    centre = np.where(there, given, 0.0).sum(0) / count
    spread = np.sqrt((np.where(there, given - centre, 0.0) ** 2).sum(0) / count)
    spread[spread < 1e-6] = 1.0  # says the same of all: its weight stays 0
    weights, intercept = logistic(
        np.nan_to_num((given - centre) / spread), np.asarray(target, float)
    )
    return Calibration(
        tuple(detectors),
        tuple(centre.tolist()),
        tuple(spread.tolist()),
        tuple(weights.tolist()),
        intercept,
        fitted=fitted,
    )


def logistic(
    given: Floats, target: Floats, ridge: float = 1.0, *, prior: ArrayLike = 0.0, least: float = 0.0
) -> tuple[Floats, float]:
    """Return weights, none below `least`, and intercept of least cross-entropy + ridge/2 · |weights − prior|²."""
    from scipy.optimize import minimize

    begun = np.broadcast_to(np.asarray(prior, float), given.shape[1])

    def loss(both: Floats) -> tuple[float, Floats]:
        line, away = given @ both[1:] + both[0], both[1:] - begun
        off = sigmoid(line) - target
        value = np.sum(np.logaddexp(0, line) - target * line) + ridge / 2 * away @ away
        return float(value), np.concatenate([[off.sum()], given.T @ off + ridge * away])

    # without a prior, labels may want an endless weight
    bounds = [(-50.0, 50.0), *[(least, 50.0)] * len(begun)]
    found = minimize(
        loss, np.concatenate([[0.0], begun]), jac=True, bounds=bounds, method="L-BFGS-B"
    ).x
    return found[1:], float(found[0])


def isotonic(given: ArrayLike, right: ArrayLike) -> tuple[tuple[float, float], ...]:
    """Return the corners (probability, share right) of the rising line that fits best (Zadrozny & Elkan 2002)."""
    from scipy.optimize import isotonic_regression

    at = np.asarray(given, float)
    places, which, counts = np.unique(at, return_inverse=True, return_counts=True)
    shares = np.bincount(which, np.asarray(right, float)) / counts
    level = isotonic_regression(shares, weights=counts).x
    # where a level begins, and one after its end
    ends = np.flatnonzero(np.diff(level, prepend=np.nan, append=np.nan))
    keep = sorted({int(i) for i in (*ends[:-1], *(ends[1:] - 1))})
    return tuple((float(places[i]), float(level[i])) for i in keep)


def odds(said: Sequence[Said], detectors: Sequence[str]) -> Floats:
    """Return log-odds, (claims, detectors), cut to what says something; NaN where a detector abstained."""
    given = np.array([[each.get(name, np.nan) for name in detectors] for each in said], float)
    given = given.reshape(len(said), len(detectors))
    with np.errstate(divide="ignore"):
        found: Floats = np.clip(np.log(given) - np.log1p(-given), LEAST, MOST)
    return found


def sigmoid(line: ArrayLike) -> Floats:
    """Return 1/(1 + e^−x)."""
    found: Floats = 1 / (1 + np.exp(-np.clip(np.asarray(line, float), -700, 700)))
    return found
