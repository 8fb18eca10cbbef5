"""When to decline, of a chat model: rank-one edits of the last layer, solved in closed form.

The states of the base tell before its answer how likely that is right, by a line through them
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import normalize

from selfloop import progress

from .forward import last_hidden_states, logits_of
from .last_block import edited_layer, margins_behind, watching
from .measures import decline_margins
from .tokenized import Tokens, in_like_order

# An edit is solved on the slopes of the margins, which bend where it is large. So it is solved
# again, from the slopes that it leads to: so many times where only what follows the layer is
# computed for it, and so many where the whole model is read.
ROUNDS, ROUNDS_OF_WHOLE_MODEL = 8, 3
# Gradients that should be equal differ by rounding: in bfloat16 by a few per mille.
MAX_DIFFERENCE = 0.05
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 5
# A margin that hardly moves would want a huge value. It counts as this share of the mean slope.
MIN_SLOPE = 0.3
# An input that hardly varies would get a huge weight. It counts as this share of the mean spread.
MIN_SPREAD = 0.01
ADAPTER = "default"  # peft's name of the adapter


class EarlyDecision(NamedTuple):
    """Where a model decides whether to decline before it answers.

    prompt     the tokens before the answer
    token      begins to decline there
    chance     that the model is right, which sets the margin of declining
    p_correct  how likely the base's answer is correct, which sets the level of all margins; None
               where it has not answered
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

    inputs     of the edited layer, (decisions, inputs)
    states     that the last block gives on, (decisions, width)
    margins    of declining, in nats, (decisions,)
    gradients  of the margins, by what the layer writes, (decisions, width)
    """

    inputs: torch.Tensor
    states: torch.Tensor
    margins: torch.Tensor
    gradients: torch.Tensor


class _Edit(NamedTuple):
    """What an edit of rank one adds to what a layer writes.

    weights    of the line through the layer's inputs, (inputs,)
    direction  which is added, times the line's value, (width,)
    """

    weights: torch.Tensor
    direction: torch.Tensor


def solve(
    wrapped: Any,
    forms: Sequence[Sequence[EarlyDecision]],
    still: Sequence[Sequence[Still]],
    excess: Callable[[Sequence[float], Sequence[float]], float],
    batch_size: int,
) -> None:
    """Set the edited layer's adapter, so that the model declines as the chances say.

    Each margin of declining becomes the log-odds that the model is wrong, plus one level for all
    decisions of a form: each form has an edit of its own, which changes nothing in the others.
    `excess` says from margins, and from how likely the answers are correct, by how much the level
    is too high. `still` are kinds of texts. Each kind, and each other form, weighs as much as all
    decisions of a form do.
    """
    layer = edited_layer(wrapped)
    read = [_Form.read(wrapped, layer, decisions, batch_size) for decisions in forms]
    kinds = [_inputs(wrapped, layer, texts, batch_size) for texts in still if texts]
    edits = list[_Edit]()
    for form in read:
        other_forms = [other.readings.inputs for other in read if other is not form]
        edits.append(_edit(form, edits, [*kinds, *other_forms], excess))
    _write(layer, edits)


def _edit(
    form: "_Form",
    earlier: Sequence[_Edit],
    others: Sequence[torch.Tensor],
    excess: Callable[[Sequence[float], Sequence[float]], float],
) -> _Edit:
    """Return the edit of a form, beside those of earlier ones; at the `others`, which are inputs of
    the layer, it adds nothing."""
    decisions, inputs = form.decisions, form.readings.inputs
    direction = normalize(normalize(form.readings.gradients, dim=-1).mean(0), dim=0)
    line = _Line.through(inputs, others)
    log_odds = -torch.logit(torch.tensor([decision.chance for decision in decisions]))
    judged = [i for i, decision in enumerate(decisions) if decision.p_correct is not None]
    p_correct = [decision.p_correct for decision in decisions if decision.p_correct is not None]

    def too_high(margins: torch.Tensor) -> float:
        return excess(margins[judged].tolist(), p_correct)

    weights = torch.zeros_like(inputs[0])
    margins, slopes = form.margins_and_slopes(earlier, direction)
    level, least_error, step = too_high(log_odds), math.inf, 1.0
    groups = [decision.group for decision in decisions]
    nearest = line.nearest(line.best_ridge((log_odds - level - margins) / slopes, groups))
    for _ in range(ROUNDS if form.follows_alone else ROUNDS_OF_WHOLE_MODEL):
        values = inputs @ weights + (log_odds - level - margins) / slopes
        tried = weights + step * (nearest(values) - weights)
        edits = [*earlier, _Edit(tried, direction)]
        tried_margins, tried_slopes = form.margins_and_slopes(edits, direction)
        # the error of the margins among each other, and of their level
        error = float((tried_margins - log_odds).var()) + too_high(tried_margins) ** 2
        if error < least_error:
            weights, margins, slopes, least_error = tried, tried_margins, tried_slopes, error
            level += too_high(margins)
        else:
            step /= 2
    return _Edit(weights, direction)


@dataclass(frozen=True)
class _Form:
    """Decisions in one form, and what the model without edits reads there.

    after          modules that read the states of the last block
    follows_alone  whether an edit changes those states by just what it makes the layer write, and
                   only `after` follows. Some models normalise or scale what the layer writes
    """

    wrapped: Any
    layer: Any
    decisions: Sequence[EarlyDecision]
    batch_size: int
    readings: _Readings
    after: Sequence[Any]
    follows_alone: bool

    @classmethod
    def read(
        cls, wrapped: Any, layer: Any, decisions: Sequence[EarlyDecision], batch_size: int
    ) -> "_Form":
        """Return the form, read by the whole model."""
        readings, after = _readings(wrapped, layer, decisions, batch_size)
        tokens = [decision.token for decision in decisions]
        margins, gradients = margins_behind(wrapped, after, readings.states, tokens)
        off = (margins - readings.margins).norm() / readings.margins.norm()
        gradients_off = (gradients - readings.gradients).norm() / readings.gradients.norm()
        follows_alone = max(float(off), float(gradients_off)) < MAX_DIFFERENCE
        return cls(wrapped, layer, decisions, batch_size, readings, after, follows_alone)

    def margins_and_slopes(
        self, edits: Sequence[_Edit], direction: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the margins with these edits, in nats, and by how many nats each rises where 1
        times the direction is added."""
        if not edits:
            margins, gradients = self.readings.margins, self.readings.gradients
        elif self.follows_alone:
            states = self.readings.states
            for edit in edits:
                states = states + torch.outer(self.readings.inputs @ edit.weights, edit.direction)
            tokens = [decision.token for decision in self.decisions]
            margins, gradients = margins_behind(self.wrapped, self.after, states, tokens)
        else:
            _write(self.layer, edits)
            again, _ = _readings(self.wrapped, self.layer, self.decisions, self.batch_size)
            margins, gradients = again.margins, again.gradients
        slopes = gradients @ direction
        return margins, slopes.clamp(min=MIN_SLOPE * float(slopes.mean()))


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
        return cls(rows / rows.shape[1] ** 0.5, spread)

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
            return weights_of(self._wanted(values)) / self.rows.shape[1] ** 0.5 / self.spread

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
def _write(layer: Any, edits: Sequence[_Edit]) -> None:
    """Set a layer's adapter to edits of rank one, each in a row of its own."""
    reading, writing = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    reading.zero_()
    writing.zero_()
    for row, edit in enumerate(edits):
        # both halves are as large, so that neither is rounded away
        size = edit.weights.norm().sqrt().clamp(min=torch.finfo(edit.weights.dtype).tiny)
        reading[row] = edit.weights / size
        writing[:, row] = edit.direction * size / layer.scaling[ADAPTER]


def _readings(
    wrapped: Any, layer: Any, decisions: Sequence[EarlyDecision], batch_size: int
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
