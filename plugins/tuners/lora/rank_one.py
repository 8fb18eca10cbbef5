"""When to decline in a chat: a rank-one edit of the last layer, solved in closed form.

The states of the base tell before its reply, and better behind it, how likely that is right, by a
line through them (`readout.py`). An adapter learns to follow such a line slowly, by gradients. But
a line can be written into the weights as it is: an edit of rank one adds `direction`, times the
line's value, to what a linear layer writes. Which value each place wants is known, so the line is a
ridge regression (rank-one edits of a language model: Meng et al. 2022, arXiv 2202.05262; for many
places, and others where nothing changes: Meng et al. 2023, arXiv 2210.07229).

The layer is the last one that writes into the model's states. So the edit changes the logits of the
very token where it is read, and nothing that is read or written later. `direction` is the one in
which declining gains most on the likeliest other token, for how much it changes which of the others
is said (a natural gradient: Amari 1998, doi 10.1162/089976698300017746).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn.functional import normalize

from selfloop import progress

from .forward import last_hidden_states, logits_of
from .last_block import edited_layer, gradients_of_others, margins_behind, watching
from .measures import decline_margins
from .tokenized import Tokens, in_like_order

# The margins of the model itself differ from question to question, for reasons of their own, and
# the line takes back only a part of that. So the wanted margins differ this many times as much:
# then it is they that decide.
SPREADS = 2.0
# An edit is solved on the slopes of the margins, which bend where it is large. So it is solved
# again, from the slopes that it leads to: so many times where only what follows the layer is
# computed for it, and so many where the whole model is read.
ROUNDS, ROUNDS_OF_WHOLE_MODEL = 8, 4
# Then all margins are raised or lowered together, until their level is right.
LEVEL_ROUNDS = 3
# Gradients that should be equal differ by rounding: in bfloat16 by a few per mille.
MAX_DIFFERENCE = 0.05
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 5
# A margin that hardly moves would want a huge value. It counts as this share of the mean slope.
MIN_SLOPE = 0.3
# Log-odds that hardly differ say nothing. They count as differing by so much.
MIN_LOG_ODDS = 0.1
# An input that hardly varies would get a huge weight. It counts as this share of the mean spread.
MIN_SPREAD = 0.01
# How much any change of the states counts, beside one that changes what the model says otherwise.
DIRECTION_RIDGE = 1.0
SEED = 1  # of the tokens that are drawn for that
ADAPTER = "default"  # peft's name of the adapter


class TurnDecision(NamedTuple):
    """Where a chat model decides whether to decline: before its reply, or behind it, by the mark.

    prompt     the tokens up to there
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


# from a line's weights and the direction to the margins of declining and their gradients
_ReadAgain = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class _Readings(NamedTuple):
    """What is read at decisions, in their order.

    inputs     of the edited layer, (decisions, inputs)
    states     that the last block gives on, (decisions, width)
    margins    of declining, in nats, (decisions,)
    gradients  of the margins, by what the layer writes, (decisions, width)
    """

    inputs: torch.Tensor
    states: torch.Tensor
    margins: torch.Tensor
    gradients: torch.Tensor


def solve(
    wrapped: Any,
    decisions: Sequence[TurnDecision],
    still: Sequence[Sequence[Still]],
    excess: Callable[[Sequence[float], Sequence[float]], float],
    batch_size: int,
    row: int = 0,
) -> list[float]:
    """Set one row of the edited layer's adapter, so that the model declines in a chat as the
    chances say; return the margins of declining at the decisions, in nats.

    Each margin becomes the log-odds that the model is wrong, times a factor, plus one level for
    all. The factor makes them differ SPREADS times as much as the model's own margins. `excess`
    says from margins, and from how likely the replies are correct, by how much that level is too
    high. `still` are kinds of texts; each kind weighs as much as all decisions do.
    """
    layer = edited_layer(wrapped)
    readings, after = _readings(wrapped, layer, decisions, batch_size)
    kinds = [_inputs(wrapped, layer, texts, batch_size) for texts in still if texts]
    log_odds = -torch.logit(torch.tensor([decision.chance for decision in decisions]))
    wanted = _sharpness(readings.margins, log_odds) * log_odds
    judged = [i for i, decision in enumerate(decisions) if decision.p_correct is not None]
    p_correct = [decision.p_correct for decision in decisions if decision.p_correct is not None]

    def too_high(margins: torch.Tensor) -> float:
        return excess(margins[judged].tolist(), p_correct)

    decline_tokens = [decision.token for decision in decisions]
    if _follows_alone(wrapped, after, readings, decline_tokens):
        read_again: _ReadAgain = partial(
            _read_last_states, wrapped, after, readings, decline_tokens
        )
        others = gradients_of_others(wrapped, after, readings.states, decline_tokens, SEED)
        direction, rounds = _direction(readings.gradients, others), ROUNDS
    else:
        read_again = partial(_read_whole_model, wrapped, layer, row, decisions, batch_size)
        direction, rounds = _direction(readings.gradients), ROUNDS_OF_WHOLE_MODEL
    line = _Line.through(readings.inputs, kinds)
    edit = _Edit.none(readings, direction, read_again)
    level = too_high(wanted)
    groups = [decision.group for decision in decisions]
    nearest = line.nearest(line.best_ridge((wanted - level - edit.margins) / edit.slopes, groups))
    edit = _towards(wanted - level, edit, readings.inputs, nearest, too_high, rounds)
    edit = _with_level(edit, nearest(1 / edit.slopes), too_high)
    _write(layer, row, edit.weights, direction)
    return edit.margins.tolist()


@dataclass(frozen=True)
class _Edit:
    """An edit of rank one, and the margins of declining that the model has with it.

    weights     of the line, (inputs,)
    direction   in which the layer writes the line's value, (width,)
    margins     in nats, (decisions,)
    slopes      by how many nats each margin rises where the line's value rises by 1, (decisions,)
    read_again  computes the margins with another line
    """

    weights: torch.Tensor
    direction: torch.Tensor
    margins: torch.Tensor
    slopes: torch.Tensor
    read_again: _ReadAgain

    @classmethod
    def none(cls, readings: _Readings, direction: torch.Tensor, read_again: _ReadAgain) -> "_Edit":
        """Return the edit that changes nothing."""
        weights = torch.zeros_like(readings.inputs[0])
        slopes = _slopes(readings.gradients, direction)
        return cls(weights, direction, readings.margins, slopes, read_again)

    def with_weights(self, weights: torch.Tensor) -> "_Edit":
        """Return the edit with another line."""
        margins, gradients = self.read_again(weights, self.direction)
        slopes = _slopes(gradients, self.direction)
        return replace(self, weights=weights, margins=margins, slopes=slopes)


def _towards(
    wanted: torch.Tensor,
    edit: _Edit,
    inputs: torch.Tensor,
    nearest: Callable[[torch.Tensor], torch.Tensor],
    too_high: Callable[[torch.Tensor], float],
    rounds: int,
) -> _Edit:
    """Return the edit whose margins are nearest to the wanted ones, but for a level of all."""
    least_error, step, level = math.inf, 1.0, 0.0
    for _ in range(rounds):
        values = inputs @ edit.weights + (wanted - level - edit.margins) / edit.slopes
        weights = edit.weights + step * (nearest(values) - edit.weights)
        tried = edit.with_weights(weights)
        off = too_high(tried.margins)
        # the error of the margins among each other, and of their level
        error = float((tried.margins - wanted).var()) + off**2
        if error < least_error:
            edit, least_error = tried, error
            level += off
        else:
            step /= 2
    return edit


def _with_level(
    edit: _Edit, raising: torch.Tensor, too_high: Callable[[torch.Tensor], float]
) -> _Edit:
    """Return an edit with the right level of all margins; `raising` is a line that raises all."""
    step = 1.0
    for _ in range(LEVEL_ROUNDS):
        off = too_high(edit.margins)
        if off == 0:
            break  # it is right, or too little is known to tell: each try may read the whole model
        tried = edit.with_weights(edit.weights - step * off * raising)
        off_then = too_high(tried.margins)
        if abs(off_then) < abs(off):
            edit = tried
        if off_then != off:
            # as far as would have been right, by a line through both
            step *= min(abs(off / (off - off_then)), 2.0)
    return edit


def _direction(gradients: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
    """Return the direction, (width,), in which the margins of declining rise most for how much the
    distribution of the other tokens changes.

    gradients  of the margins, by the states, (decisions, width)
    others     gradients of the other tokens' log-likelihoods, (decisions, width); without them any
               change counts as much
    """
    mean = normalize(gradients, dim=-1).mean(0)
    if others is None:
        return normalize(mean, dim=0)
    information = others.T @ others / len(others)
    ridge = DIRECTION_RIDGE * information.diagonal().mean()
    direction = torch.linalg.solve(information + ridge * torch.eye(len(mean)), mean)
    return normalize(direction, dim=0)


def _sharpness(own_margins: torch.Tensor, log_odds: torch.Tensor) -> float:
    """Return the factor on the log-odds with which these decide, and not the margins of the model
    itself; 1 where they do so by themselves."""
    return max(1.0, SPREADS * float(own_margins.std()) / max(float(log_odds.std()), MIN_LOG_ODDS))


def _read_whole_model(
    wrapped: Any,
    layer: Any,
    row: int,
    decisions: Sequence[TurnDecision],
    batch_size: int,
    weights: torch.Tensor,
    direction: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the margins of declining with this edit in the layer, and their gradients."""
    _write(layer, row, weights, direction)
    readings, _ = _readings(wrapped, layer, decisions, batch_size)
    return readings.margins, readings.gradients


def _read_last_states(
    wrapped: Any,
    after: Sequence[Any],
    readings: _Readings,
    decline_tokens: Sequence[int],
    weights: torch.Tensor,
    direction: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same, where the edit adds to the last block's states and only `after` follows."""
    added = torch.outer(readings.inputs @ weights, direction)
    return margins_behind(wrapped, after, readings.states + added, decline_tokens)


def _follows_alone(
    wrapped: Any, after: Sequence[Any], readings: _Readings, decline_tokens: Sequence[int]
) -> bool:
    """Return whether an edit changes the states of the last block by just what it makes the layer
    write, and only `after` follows. Some models normalise or scale what the layer writes."""
    margins, gradients = margins_behind(wrapped, after, readings.states, decline_tokens)
    off = (margins - readings.margins).norm() / readings.margins.norm()
    gradients_off = (gradients - readings.gradients).norm() / readings.gradients.norm()
    return float(off) < MAX_DIFFERENCE and float(gradients_off) < MAX_DIFFERENCE


def _slopes(gradients: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return by how many nats each margin rises where the line's value rises by 1."""
    slopes = gradients @ direction
    return slopes.clamp(min=MIN_SLOPE * float(slopes.mean()))


@dataclass(frozen=True)
class _Line:
    """Ridge regressions on a layer's inputs at the decisions, and on others where the line is 0.

    rows       (decisions + others, inputs), standardised and weighed; the decisions come first
    spread     of each input
    """

    rows: torch.Tensor
    spread: torch.Tensor

    @classmethod
    def through(cls, inputs: torch.Tensor, others: Sequence[torch.Tensor]) -> "_Line":
        """Return the regressions on inputs at the decisions and on other kinds of inputs: each kind
        weighs as much together."""
        spread = torch.cat([inputs, *others]).std(0)
        spread = spread + MIN_SPREAD * spread.mean()
        weighed = [(len(inputs) / len(kind)) ** 0.5 * kind for kind in others]
        rows = torch.cat([inputs, *weighed]) / spread
        return cls(rows / math.sqrt(rows.shape[1]), spread)

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
            regression = _Regression.on(self.rows[fitted])
            for ridge in RIDGES:
                found = self.rows[left_out] @ regression.with_ridge(ridge)(wanted[fitted])
                errors[ridge] += float((found - wanted[left_out]).square().sum())
        return min(errors, key=errors.__getitem__)

    def nearest(self, ridge: float) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function from values at the decisions to the line, (inputs,), whose values there
        are nearest to them."""
        weights_of = _Regression.on(self.rows).with_ridge(ridge)

        def weights(values: torch.Tensor) -> torch.Tensor:
            return weights_of(self._wanted(values)) / math.sqrt(self.rows.shape[1]) / self.spread

        return weights

    def _wanted(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, torch.zeros(len(self.rows) - len(values))])


@dataclass(frozen=True)
class _Regression:
    """Ridge regressions on rows, (rows, inputs).

    `products` are those of the rows, or of the inputs where these are fewer: with either, the
    regression is the same.
    """

    rows: torch.Tensor
    products: torch.Tensor

    @classmethod
    def on(cls, rows: torch.Tensor) -> "_Regression":
        """Return the regressions on these rows."""
        return cls(rows, rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T)

    def with_ridge(self, ridge: float) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function from a value for each row to the weights, (inputs,)."""
        factor = torch.linalg.cholesky(self.products + ridge * torch.eye(len(self.products)))

        def solved(column: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.cholesky_solve(column[:, None], factor)
            return found[:, 0]

        def weights(wanted: torch.Tensor) -> torch.Tensor:
            if len(self.products) < len(self.rows):
                return solved(self.rows.T @ wanted)
            return self.rows.T @ solved(wanted)

        return weights


@torch.no_grad()
def clear(wrapped: Any) -> None:
    """Set the edited layer's adapter to none, so that `solve` can write its rows."""
    layer = edited_layer(wrapped)
    layer.lora_A[ADAPTER].weight.zero_()
    layer.lora_B[ADAPTER].weight.zero_()


@torch.no_grad()
def _write(layer: Any, row: int, weights: torch.Tensor, direction: torch.Tensor) -> None:
    """Set one row of a layer's adapter to an edit of rank one."""
    reading, writing = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    # both halves are as large, so that neither is rounded away
    size = weights.norm().sqrt().clamp(min=torch.finfo(weights.dtype).tiny)
    reading[row] = weights / size
    writing[:, row] = direction * size / layer.scaling[ADAPTER]


def _readings(
    wrapped: Any, layer: Any, decisions: Sequence[TurnDecision], batch_size: int
) -> tuple[_Readings, list[Any]]:
    """Return the readings, and the modules that read the last block's states."""
    tokens = {decision.prompt: decision.token for decision in decisions}
    found = dict[Tokens, _Readings]()
    after = list[Any]()
    for batch in _batches("reading where to decline", tokens, batch_size):
        ends = [len(text) - 1 for text in batch]
        with watching(wrapped, layer) as watched, torch.enable_grad():
            states = last_hidden_states(wrapped, batch, [[end] for end in ends])
            margins = decline_margins(logits_of(wrapped, states), [tokens[text] for text in batch])
            torch.autograd.backward(margins.sum())
        after, first = watched.after, watched.first_token(batch)
        for row, (text, end) in enumerate(zip(batch, ends, strict=True)):
            place = row, end - first
            found[text] = _Readings(
                watched.inputs[place],
                watched.states[place],
                margins[row].detach(),
                watched.gradients[place],
            )
    in_order = [found[decision.prompt] for decision in decisions]
    columns = (torch.stack(column).float().cpu() for column in zip(*in_order, strict=True))
    return _Readings(*columns), after


@torch.no_grad()
def _inputs(wrapped: Any, layer: Any, still: Sequence[Still], batch_size: int) -> torch.Tensor:
    """Return what a layer reads at the positions of all texts, (positions, inputs)."""
    positions = {one.text: one.positions for one in still}
    rows = list[torch.Tensor]()
    for batch in _batches("reading where nothing changes", positions, batch_size):
        with watching(wrapped, layer) as watched:
            last_hidden_states(wrapped, batch, [positions[text] for text in batch])
        first = watched.first_token(batch)
        for row, text in enumerate(batch):
            columns = [position - first for position in positions[text]]
            rows.append(watched.inputs[row, columns].float().cpu())
    return torch.cat(rows)


def _batches(name: str, texts: Iterable[Tokens], size: int) -> Iterator[list[Tokens]]:
    """Yield different texts, like ones together, and count them in a task."""
    in_order = in_like_order(texts, size)
    with progress.task(name, len(in_order), "texts") as counting:
        for start in range(0, len(in_order), size):
            batch = in_order[start : start + size]
            yield batch
            counting.advance(len(batch))
