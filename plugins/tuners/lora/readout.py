"""How likely the base is to answer rightly, read from its own states before it answers.

A run asks a few hundred questions, and each has one chance of being answered rightly, a noisy
estimate. A model that learns these chances learns them by heart. But the states of the base tell
before an answer whether it knows (Kadavath et al. 2022, arXiv 2207.05221; Azaria & Mitchell 2023,
arXiv 2304.13734). So a strongly regularised line through these states is fitted to the chances
first, and the tuned model learns the chances on the line: as much as can be told beforehand. The
line also has a chance for a question that has no answer yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy

from selfloop import progress

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
        return list(map(clipped, (kernel @ self.weights + self.mean).tolist()))


def fit(
    states: torch.Tensor, chances: Sequence[float], groups: Sequence[int] | None = None
) -> tuple[Readout, list[float]]:
    """Return the readout of all questions, and the chance of each of them by a readout of others.

    `states` is (questions, numbers). The ridge is the one with which readouts of four fifths of the
    questions come nearest to the chances of the others. Questions of the same group are never
    others of each other; without `groups` each is one of its own.
    """
    target = torch.tensor(chances)
    folds = torch.tensor(range(len(chances)) if groups is None else groups) % FOLDS
    by_others = torch.empty(len(RIDGES), len(chances))
    for fold in range(FOLDS):
        left_out = folds == fold
        for row, readout in enumerate(_fits(states[~left_out], target[~left_out], RIDGES)):
            by_others[row, left_out] = torch.tensor(readout(states[left_out]))
    losses = [float(binary_cross_entropy(said, target)) for said in by_others]
    best = losses.index(min(losses))
    (of_all,) = _fits(states, target, [RIDGES[best]])
    return of_all, by_others[best].tolist()


def _fits(states: torch.Tensor, target: torch.Tensor, ridges: Sequence[float]) -> list[Readout]:
    """Return a readout for each ridge."""
    centre, spread = states.mean(0), states.std(0) + MIN_SPREAD
    numbers = (states - centre) / spread
    kernel = numbers @ numbers.T / numbers.shape[1]
    mean = float(target.mean())
    readouts = []
    for ridge in ridges:
        weights = torch.linalg.solve(kernel + ridge * torch.eye(len(target)), target - mean)
        readouts.append(Readout(numbers, centre, spread, weights, mean))
    return readouts


def clipped(chance: float) -> float:
    """Return a chance that is not certain."""
    # rounded, so that a tune that is resumed has the same chances, to the last bit
    return round(min(max(chance, MIN_CHANCE), 1 - MIN_CHANCE), DIGITS)


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
    starts = range(0, len(prompts), batch_size)
    for start in progress.counted("reading the states", starts, "batches", len(starts)):
        indices = in_order[start : start + batch_size]
        layers = hidden_states(model, [prompts[index] for index in indices])
        upper = layers[round(LOWEST_LAYER * len(layers)) :]
        of_batch = torch.stack(upper, 1).flatten(1).float().cpu()  # (texts, layers * width)
        for index, states in zip(indices, of_batch, strict=True):
            found[index] = states
    return torch.stack(found)
