"""How likely the base is to answer rightly, read from its own states before it answers.

A run asks a few hundred questions, and each has one chance of being answered rightly, a noisy
estimate. A model that learns these chances learns them by heart. But the states of the base tell
before an answer whether it knows (Kadavath et al. 2022, arXiv 2207.05221; Azaria & Mitchell 2023,
arXiv 2304.13734). So a strongly regularised line through these states is fitted to the chances
first, and the tuned model learns what the line says: what of the chances can be told beforehand.
It also says so of questions that have no answer yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .forward import hidden_states

# All layers of the upper half are read: below it the states tell less of an answer (Azaria &
# Mitchell), and single layers differ by noise.
LOWEST_LAYER = 0.5
FOLDS = 5
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
MIN_SPREAD = 1e-6
MIN_CHANCE = 0.02  # no chance is nearer to 0 or 1
DIGITS = 4


@dataclass(frozen=True)
class Readout:
    """A kernel ridge regression of the chances on the states.

    states   of the questions that it was fitted on, standardised, (questions, numbers)
    weights  one for each question, (questions,)
    mean     of their chances
    """

    states: torch.Tensor
    centre: torch.Tensor
    spread: torch.Tensor
    weights: torch.Tensor
    mean: float

    def __call__(self, states: torch.Tensor) -> list[float]:
        """Return the chance of each question, (questions, numbers) to (questions,)."""
        others = (states - self.centre) / self.spread
        kernel = others @ self.states.T / self.states.shape[1]
        return _clipped(kernel @ self.weights + self.mean)


def fit(states: torch.Tensor, chances: Sequence[float]) -> tuple[Readout, list[float]]:
    """Return the readout of all questions, and the chance of each of them by a readout of others.

    `states` is (questions, numbers). The ridge is the one with which readouts of four fifths of the
    questions say best what the chances of the others are.
    """
    target = torch.tensor(chances)
    folds = torch.arange(len(chances)) % FOLDS

    def by_others(ridge: float) -> list[float]:
        found = torch.empty(len(chances))
        for fold in range(FOLDS):
            readout = _fit(states[folds != fold], target[folds != fold], ridge)
            found[folds == fold] = torch.tensor(readout(states[folds == fold]))
        return found.tolist()

    def loss(ridge: float) -> float:
        said = torch.tensor(by_others(ridge))
        return float(torch.nn.functional.binary_cross_entropy(said, target))

    best = min(RIDGES, key=loss)
    return _fit(states, target, best), by_others(best)


def _fit(states: torch.Tensor, target: torch.Tensor, ridge: float) -> Readout:
    centre, spread = states.mean(0), states.std(0) + MIN_SPREAD
    numbers = (states - centre) / spread
    kernel = numbers @ numbers.T / numbers.shape[1]
    mean = float(target.mean())
    weights = torch.linalg.solve(kernel + ridge * torch.eye(len(target)), target - mean)
    return Readout(numbers, centre, spread, weights, mean)


def _clipped(chances: torch.Tensor) -> list[float]:
    # rounded, so that a tune that is resumed has the same lessons, to the last bit
    return [round(chance, DIGITS) for chance in chances.clamp(MIN_CHANCE, 1 - MIN_CHANCE).tolist()]


@torch.no_grad()
def states_before_answer(
    model: Any, prompts: Sequence[tuple[int, ...]], batch_size: int
) -> torch.Tensor:
    """Return the states of the upper layers at the last token of each prompt, (prompts, numbers).

    The model must be the base, or wrapped with an adapter that changes nothing yet.
    """
    model.eval()
    in_order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
    for start in range(0, len(prompts), batch_size):
        indices = in_order[start : start + batch_size]
        layers = hidden_states(model, [prompts[index] for index in indices])
        upper = layers[round(LOWEST_LAYER * len(layers)) :]
        of_batch = torch.stack(upper, 1).flatten(1).float().cpu()  # (texts, layers * width)
        for index, states in zip(indices, of_batch, strict=True):
            found[index] = states
    return torch.stack(found)
