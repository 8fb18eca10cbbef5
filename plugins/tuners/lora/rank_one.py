"""When to decline in a chat: a rank-one edit of the last layer, solved in closed form.

The states of the base tell before its reply how likely that is right, by a line through them
(`readout.py`). An adapter learns to follow such a line slowly, by gradients. But a line can be
written into the weights as it is: an edit of rank one adds `direction`, times the line's value, to
what a linear layer writes. Which value each place wants is known, so the line is a ridge regression
(rank-one edits of a language model: Meng et al. 2022, arXiv 2202.05262; for many places, and others
where nothing changes: Meng et al. 2023, arXiv 2210.07229).

The layer is the last one that writes into the model's states. So the edit changes the logits of the
very token where it is read, and nothing that is read or written later. `direction` is the one in
which declining gains most on the likeliest other token.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import LoraLayer
from torch.nn.functional import normalize

from selfloop import progress

from .forward import base_model, last_hidden_states, logits_of
from .measures import decline_margins
from .tokenized import Tokens, in_like_order

# An edit is solved on the slopes of the margins, which bend where it is large. So it is read and
# solved again. The best counts: where a model normalises what the layer writes, a later one may be
# worse.
ROUNDS = 3
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 5
# A margin that hardly moves would want a huge value. It counts as this share of the mean slope.
MIN_SLOPE = 0.3
# An input that hardly varies would get a huge weight. It counts as this share of the mean spread.
MIN_SPREAD = 0.01
ADAPTER = "default"  # peft's name of the adapter


class TurnDecision(NamedTuple):
    """Where a chat model decides whether to decline: before its reply.

    prompt     the tokens before the reply
    token      begins to decline there
    chance     that the model is right, which sets the margin of declining
    p_correct  how likely the base's reply is correct, which sets the level of all margins; None
               where it has not replied
    group      of decisions about one fact: a line is judged by those of other groups
    """

    prompt: Tokens
    token: int
    chance: float
    p_correct: float | None
    group: int


class Still(NamedTuple):
    """Positions of a text where the model goes on as it does."""

    text: Tokens
    positions: Sequence[int]


class _Readings(NamedTuple):
    """What is read at decisions, in their order.

    margins    of declining, in nats, (decisions,)
    inputs     of the edited layer, (decisions, inputs)
    gradients  of the margins, by what that layer writes, (decisions, width)
    """

    margins: torch.Tensor
    inputs: torch.Tensor
    gradients: torch.Tensor


def solve(
    wrapped: Any,
    decisions: Sequence[TurnDecision],
    still: Sequence[Sequence[Still]],
    excess: Callable[[Sequence[float], Sequence[float]], float],
    batch_size: int,
) -> list[float]:
    """Set the edited layer's adapter, so that the model declines in a chat as the chances say;
    return the margins of declining at the decisions, in nats.

    Each margin becomes the log-odds that the model is wrong, plus one level for all. `excess` says
    from margins, and from how likely the replies are correct, by how much that level is too high.
    `still` are kinds of texts; each kind weighs as much as all decisions do.
    """
    layer = edited_layer(wrapped)
    readings = _readings(wrapped, layer, decisions, batch_size)
    direction = normalize(normalize(readings.gradients, dim=-1).mean(0), dim=0)
    line = _Line.through(
        readings.inputs, [_inputs(wrapped, layer, texts) for texts in still if texts]
    )
    groups = [decision.group for decision in decisions]
    judged = [i for i, decision in enumerate(decisions) if decision.p_correct is not None]
    p_correct = [decision.p_correct for decision in decisions if decision.p_correct is not None]

    def at_level(margins: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        return margins - excess(of[judged].tolist(), p_correct)

    log_odds = -torch.logit(torch.tensor([decision.chance for decision in decisions]))
    wanted_margins = at_level(log_odds, log_odds)
    values = torch.zeros(len(decisions))  # of the line, at each decision
    first_values = (wanted_margins - readings.margins) / _slopes(readings, direction)
    ridge = line.best_ridge(first_values, groups)
    best, least_error = readings, math.inf
    best_weights = torch.zeros_like(readings.inputs[0])
    for _ in progress.counted("solving when to decline", range(ROUNDS), "rounds", ROUNDS):
        changes = (wanted_margins - readings.margins) / _slopes(readings, direction)
        weights = line.weights(values + changes, ridge)
        values = readings.inputs @ weights
        _write(layer, weights, direction)
        readings = _readings(wrapped, layer, decisions, batch_size)
        wanted_margins = at_level(wanted_margins, readings.margins)
        error = float((readings.margins - wanted_margins).square().mean())
        if error < least_error:
            best, best_weights, least_error = readings, weights, error
    _write(layer, best_weights, direction)
    return best.margins.tolist()


def _slopes(readings: _Readings, direction: torch.Tensor) -> torch.Tensor:
    """Return by how many nats each margin rises where the line's value rises by 1."""
    slopes = readings.gradients @ direction
    return slopes.clamp(min=MIN_SLOPE * float(slopes.mean()))


@dataclass(frozen=True)
class _Line:
    """Ridge regressions on a layer's inputs at the decisions, and on others where the line is 0.

    rows       (decisions + others, inputs), standardised and weighed; the decisions come first
    spread     of each input
    kernel     products of the rows, (decisions + others, decisions + others)
    """

    rows: torch.Tensor
    spread: torch.Tensor
    kernel: torch.Tensor

    @classmethod
    def through(cls, inputs: torch.Tensor, others: Sequence[torch.Tensor]) -> "_Line":
        """Return the regressions on inputs at the decisions and on other kinds of inputs: each kind
        weighs as much together."""
        spread = torch.cat([inputs, *others]).std(0)
        spread = spread + MIN_SPREAD * spread.mean()
        weighed = [(len(inputs) / len(kind)) ** 0.5 * kind for kind in others]
        rows = torch.cat([inputs, *weighed]) / spread
        return cls(rows, spread, rows @ rows.T / rows.shape[1])

    def best_ridge(self, values: torch.Tensor, groups: Sequence[int]) -> float:
        """Return the ridge with which a line tells most of the values at decisions of groups that
        it was not fitted on."""
        fold_of_group = {group: i % FOLDS for i, group in enumerate(dict.fromkeys(groups))}
        folds = torch.full((len(self.rows),), FOLDS)  # no fold has the others
        folds[: len(values)] = torch.tensor([fold_of_group[group] for group in groups])
        wanted = self._wanted(values)
        errors = dict.fromkeys(RIDGES, 0.0)
        for fold in range(FOLDS):
            left_out, fitted = folds == fold, folds != fold
            kernel = self.kernel[fitted][:, fitted]
            for ridge in RIDGES:
                solved = _solved(kernel, wanted[fitted], ridge)
                found = self.kernel[left_out][:, fitted] @ solved
                errors[ridge] += float((found - wanted[left_out]).square().sum())
        return min(errors, key=errors.__getitem__)

    def weights(self, values: torch.Tensor, ridge: float) -> torch.Tensor:
        """Return the line, (inputs,), whose values at the decisions are nearest to these."""
        solved = _solved(self.kernel, self._wanted(values), ridge)
        return solved @ self.rows / self.rows.shape[1] / self.spread

    def _wanted(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, torch.zeros(len(self.rows) - len(values))])


def _solved(kernel: torch.Tensor, wanted: torch.Tensor, ridge: float) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.solve(kernel + ridge * torch.eye(len(kernel)), wanted)
    return found


def edited_layer(wrapped: Any) -> Any:
    """Return the last linear layer that writes into the model's states."""
    width = base_model(wrapped).config.get_text_config().hidden_size
    layers = [module for module in wrapped.modules() if isinstance(module, LoraLayer)]
    return [layer for layer in layers if layer.out_features == width][-1]


@torch.no_grad()
def _write(layer: Any, weights: torch.Tensor, direction: torch.Tensor) -> None:
    """Set a layer's adapter to an edit of rank one."""
    reading, writing = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    reading.zero_()
    writing.zero_()
    # both halves are as large, so that neither is rounded away
    size = weights.norm().sqrt().clamp(min=torch.finfo(weights.dtype).tiny)
    reading[0] = weights / size
    writing[:, 0] = direction * size / layer.scaling[ADAPTER]


def _readings(
    wrapped: Any, layer: Any, decisions: Sequence[TurnDecision], batch_size: int
) -> _Readings:
    tokens = {decision.prompt: decision.token for decision in decisions}
    found = dict[Tokens, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]()
    texts = in_like_order(tokens, batch_size)
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        ends = [len(text) - 1 for text in batch]
        with _watched(wrapped, layer) as watched, torch.enable_grad():
            states = last_hidden_states(wrapped, batch, [[end] for end in ends])
            margins = decline_margins(logits_of(wrapped, states), [tokens[text] for text in batch])
            torch.autograd.backward(margins.sum())
        shared = max(map(len, batch)) - watched.inputs.shape[1]  # tokens that were read before
        for row, (text, end) in enumerate(zip(batch, ends, strict=True)):
            place = row, end - shared
            found[text] = margins[row].detach(), watched.inputs[place], watched.gradients[place]
    in_order = [found[decision.prompt] for decision in decisions]
    return _Readings(*(torch.stack(column).float().cpu() for column in zip(*in_order, strict=True)))


@torch.no_grad()
def _inputs(wrapped: Any, layer: Any, still: Sequence[Still]) -> torch.Tensor:
    """Return what a layer reads at the positions of all texts, (positions, inputs)."""
    rows = []
    for text, positions in still:
        with _watched(wrapped, layer) as watched:
            last_hidden_states(wrapped, [text], [positions])
        rows.append(watched.inputs[0, list(positions)].float().cpu())
    return torch.cat(rows)


@dataclass
class _Watched:
    """What a layer read in a forward pass, and a part of what it wrote: zeros, for gradients."""

    inputs: torch.Tensor
    added: torch.Tensor

    @property
    def gradients(self) -> torch.Tensor:
        assert self.added.grad is not None
        return self.added.grad


@contextmanager
def _watched(wrapped: Any, layer: Any) -> Iterator[_Watched]:
    """Watch a layer in a forward pass; no gradients are computed below it, or of its weights."""
    nothing = torch.empty(0)
    watched = _Watched(nothing, nothing)

    def watch(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        watched.inputs = inputs[0].detach()
        watched.added = torch.zeros_like(output, requires_grad=torch.is_grad_enabled())
        return output + watched.added

    trained = [weights for weights in wrapped.parameters() if weights.requires_grad]
    for weights in trained:
        weights.requires_grad_(requires_grad=False)
    hook = layer.register_forward_hook(watch)
    try:
        yield watched
    finally:
        hook.remove()
        for weights in trained:
            weights.requires_grad_(requires_grad=True)
