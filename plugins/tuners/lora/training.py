"""The training loop: epochs of batches of like length, a decline bias that is set on the way, and
the weights of the epoch with the lowest held-out loss.

A checkpoint is written every few minutes and after every epoch. Every batch draws from a seed of
its own, so a training that was killed and resumed ends with the same weights, bit for bit, as one
that was not.

Several processes may train together (`processes.py`). Each computes the gradients of its share of
every batch. All of them step with the sum, so their weights stay the same.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from selfloop_plugins._shared.probability import sigmoid

from selfloop.errors import ModelError

from . import checkpoint
from .checkpoint import BegunEpoch, EpochResult
from .conversation import Exchange
from .losses import (
    NO_BIAS,
    KlReference,
    TeacherStates,
    answer_loss,
    kl_references,
    kl_to_base,
    neutral_positions,
    teacher_states,
)
from .measures import decline_excess, declining_at, held_out_loss
from .processes import ALONE, Processes
from .settings import LoraSettings
from .tokenized import (
    Place,
    TokenizedExample,
    batches_of_like_length,
    in_like_order,
    places_of,
)

BIAS_UPDATES_PER_EPOCH = 4
# Nats of an update, at most. A model that declines everything at first follows slowly, and a bias
# that grew meanwhile by the whole distance each time would overshoot it by far.
MAX_BIAS_CHANGE = 3.0
# After an epoch: so many times at most, until no change of the bias is larger than so many nats.
# Each time the model learns in so many places of each kind, at this share of the learning rate.
SETTLING_ROUNDS = 6
SETTLED = 0.25
SETTLING_PLACES = 64
SETTLING_RATE = 0.5
_SETTLING_SEED = 500_000  # the seeds of these steps are not those of an epoch's
WARMUP_SHARE = 0.1  # of all steps, in which the learning rate rises from 0
KL_TEXTS_PER_STEP = 2  # that the KL term reads: neutral texts, or exchanges
# epochs in a row without a lower held-out loss after which training ends
PATIENCE_EPOCHS = 1
MAX_GRADIENT_NORM = 1.0
CHECKPOINT_SECONDS = 300.0  # of steps that a kill may cost
HELD_OUT = "reading held-out questions"  # the work, as the user sees it
SEED_STRIDE = 1_000_003  # a prime: the seeds of different trainings' steps do not meet


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The data of a training.

    examples       in all prompts, with p_correct
    held_out       examples that set the decline bias and choose the best epoch
    neutral_texts  texts of the base, in tokens, on which the tuned model is held to it
    exchanges      the same of a chat model: its replies to requests that ask for no fact
    seed           from which the seed of every step is made
    """

    examples: Sequence[TokenizedExample]
    held_out: Sequence[TokenizedExample]
    neutral_texts: Sequence[tuple[int, ...]]
    exchanges: Sequence[Exchange] = ()
    seed: int = 0


Item = TypeVar("Item")
OnEpoch = Callable[[EpochResult], None]
OnBatch = Callable[[int, int, float], None]  # step, steps in all, loss of the batch


def _ignore_batch(step: int, steps: int, loss: float) -> None:
    pass


def train(
    wrapped: Any,
    data: TrainingData,
    settings: LoraSettings,
    folder: Path | None,
    on_epoch: OnEpoch,
    on_batch: OnBatch = _ignore_batch,
    processes: Processes = ALONE,
) -> list[EpochResult]:
    """Train the adapter of a model that peft has wrapped, in place; return the results of its
    epochs.

    Training ends after `settings.epochs`, or earlier when the held-out loss rises, with the weights
    of the best epoch. `folder` keeps the last checkpoint: a second call with the same arguments
    continues from there. Of several `processes` only the first has a folder, and the others
    continue from its state. Raises ModelError where the loss is not a number, or another process
    fails; OSError where the disk is full.
    """
    weights = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), lr=settings.rate, weight_decay=0.0)
    training_id = _fingerprint(data, settings)
    epochs, begun, best = list[EpochResult](), None, checkpoint.copied(weights)
    if folder is not None:
        epochs, begun, best = checkpoint.load_checkpoint(folder, training_id, weights, optimizer)
    epochs, begun = processes.from_first((epochs, begun))

    def save(next_epoch: BegunEpoch | None) -> None:
        if folder is not None:
            checkpoint.save_checkpoint(
                folder, training_id, epochs, next_epoch, weights, best, optimizer
            )

    if _continues(epochs, settings):
        loop = _Loop(wrapped, optimizer, data, settings, on_batch, save, processes)
        while _continues(epochs, settings):
            # also between epochs, so that no rounding of other devices adds up
            processes.copy_state(weights.values(), optimizer)
            result = loop.run_epoch(epochs, begun)
            begun = None
            if result.held_out_loss <= min(_held_out_losses(epochs), default=math.inf):
                best = checkpoint.copied(weights)
            epochs.append(result)
            save(None)
            on_epoch(result)
    checkpoint.restore(weights, best)
    wrapped.eval()
    return epochs


def _fingerprint(data: TrainingData, settings: LoraSettings) -> str:
    """Return the identity of this training: its data, and the options it reads."""
    options = {
        name: getattr(settings, name)
        for name in ("epochs", "batch", "rate", "kl", "min_kept", "price", "preference")
    }
    return checkpoint.fingerprint(data, options)


@dataclass
class _Loop:
    """A training at work: the model, and the base's outputs for the data, computed once."""

    wrapped: Any
    optimizer: torch.optim.Optimizer
    data: TrainingData
    settings: LoraSettings
    on_batch: OnBatch
    save: Callable[[BegunEpoch], None]
    processes: Processes
    neutral: Sequence[KlReference] = field(init=False)
    exchanges: Sequence[KlReference] = field(init=False)
    teacher: TeacherStates = field(init=False)

    def __post_init__(self) -> None:
        neutral = self.data.neutral_texts if self.settings.kl else ()
        exchanges = self.data.exchanges if self.settings.kl else ()
        self.neutral = self._kl_references(
            "reading neutral text", [(text, neutral_positions(text)) for text in neutral]
        )
        self.exchanges = self._kl_references(
            "reading replies to requests", [(one.tokens, one.positions) for one in exchanges]
        )
        self.teacher = self._teacher_states()

    def _kl_references(
        self, name: str, texts: Sequence[tuple[tuple[int, ...], Sequence[int]]]
    ) -> list[KlReference]:
        def reference(text: tuple[tuple[int, ...], Sequence[int]]) -> list[KlReference]:
            return kl_references(self.wrapped, [text])

        return list(chain.from_iterable(self.processes.spread(name, texts, reference)))

    def _teacher_states(self) -> TeacherStates:
        """Return the teacher's states for all examples, each batch of texts read by one process."""
        by_text = {
            example.teacher_text: example
            for example in (*self.data.examples, *self.data.held_out)
            if example.num_distilled
        }
        # in the order of `teacher_states`: so its batches do not depend on the processes
        texts = in_like_order(by_text, self.settings.batch)
        batches = _batches([by_text[text] for text in texts], self.settings.batch)

        def states(batch: Sequence[TokenizedExample]) -> TeacherStates:
            return teacher_states(self.wrapped, batch, self.settings.batch)

        by_text_states = TeacherStates()
        for batch_states in self.processes.spread("reading the lessons", batches, states):
            by_text_states |= batch_states
        return by_text_states

    def run_epoch(self, earlier: Sequence[EpochResult], begun: BegunEpoch | None) -> EpochResult:
        """Go through the examples once, in batches of a new order; go on where it has begun."""
        data, settings = self.data, self.settings
        batches = batches_of_like_length(
            data.examples, settings.batch, seed=data.seed + len(earlier)
        )
        steps = settings.epochs * len(batches)
        update_period = math.ceil(len(batches) / BIAS_UPDATES_PER_EPOCH)
        if begun is None:
            begun = BegunEpoch(decline_biases=dict(earlier[-1].decline_biases) if earlier else {})
        biases = begun.decline_biases
        saved_at = time.monotonic()
        for number in range(len(begun.losses), len(batches)):
            step = len(earlier) * len(batches) + number
            # not before the first step: an untrained model does not decline yet
            if step > 0 and number % update_period == 0:
                for kind, change in self._bias_changes().items():
                    biases[kind] = biases.get(kind, 0.0) + change
            loss, kl = self._train_step(step, steps, batches[number], biases)
            begun.losses.append(loss)
            begun.divergences.append(kl)
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                self.save(begun)
                saved_at = time.monotonic()
        after = self._held_out_loss(biases)
        loss, kl = _mean(begun.losses), _mean(begun.divergences)
        result = EpochResult(len(earlier) + 1, loss, kl, after, biases)
        self._settle(result.epoch)
        return result

    def _settle(self, epoch: int) -> None:
        """Shift how readily the model declines, until the held-out questions keep what they should.

        The decline bias steers the model through the epoch, and the model follows it ever more
        slowly, since the learning rate falls. So at its end the model learns its own log-odds of
        declining again, each plus the same change.
        """
        rng = random.Random(self.data.seed * SEED_STRIDE + epoch)
        by_kind = places_of(self.data.examples)
        for attempt in range(SETTLING_ROUNDS):
            changes = self._bias_changes()
            if all(abs(change) < SETTLED for change in changes.values()):
                return
            shifted = list[TokenizedExample]()
            for kind, change in changes.items():
                places = by_kind.get(kind, [])
                drawn = rng.sample(places, min(SETTLING_PLACES, len(places)))
                shifted += self._shifted(drawn, -change)
            batches = batches_of_like_length(shifted, self.settings.batch, rng.randrange(2**31))
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.rate * SETTLING_RATE
            for number, batch in enumerate(batches):
                step = _SETTLING_SEED + attempt * len(batches) + number
                self._learn(step, batch, NO_BIAS, preference=None)

    def _shifted(self, places: Sequence[Place], shift: float) -> list[TokenizedExample]:
        """Return the places alone, with the model's own log-odds of declining, plus `shift`."""

        def odds(batch: Sequence[Place]) -> list[float]:
            found = declining_at(self.wrapped, batch, self.settings.batch)
            return [declining.odds for declining in found]

        batches = _batches(places, self.settings.batch)
        examples = list[TokenizedExample]()
        all_odds = chain.from_iterable(
            self.processes.spread("settling how often to decline", batches, odds)
        )
        for place, log_odds in zip(places, all_odds, strict=True):
            example = place.alone(p_correct=sigmoid(-(log_odds + shift)))
            if example.num_distilled:
                states = self.teacher[place.example.teacher_text]
                self.teacher[example.teacher_text] = states[: example.num_distilled]
            examples.append(example)
        return examples

    def _train_step(
        self,
        step: int,
        steps: int,
        batch: Sequence[TokenizedExample],
        decline_biases: Mapping[str, float],
    ) -> tuple[float, float]:
        """Learn one batch; return its loss, and the KL to the base on neutral text."""
        set_learning_rate(self.optimizer, self.settings.rate, step, steps)
        preference = self.settings.preference
        value, divergence = self._learn(step, batch, decline_biases, preference)
        self.on_batch(step + 1, steps, value)
        return value, divergence

    def _learn(
        self,
        step: int,
        batch: Sequence[TokenizedExample],
        decline_biases: Mapping[str, float],
        preference: float | None,
    ) -> tuple[float, float]:
        """Learn one batch at the rate that is set; return its loss, and the KL to the base."""
        data, settings, processes = self.data, self.settings, self.processes
        self.wrapped.train()
        torch.manual_seed(data.seed * SEED_STRIDE + step)
        # Both terms are means over the whole batch. So a share of it has a share of their weight.
        loss = kl = torch.zeros((), device=self.wrapped.device)
        share = processes.share(batch)
        if share:
            mean = answer_loss(self.wrapped, share, self.teacher, decline_biases, preference)
            loss = mean * (_num_learnt(share) / _num_learnt(batch))
        references = self._references_of(step)
        read = processes.share(references)
        if read:
            kl = kl_to_base(self.wrapped, read) * (_num_compared(read) / _num_compared(references))
        total = loss + settings.kl * kl
        if total.requires_grad:  # not where this process has no share of a small batch
            torch.autograd.backward(total)
        parameters = self.optimizer.param_groups[0]["params"]
        value, divergence = processes.sum_gradients(parameters, (loss, kl))
        if not math.isfinite(value):
            raise ModelError(
                f"the loss is {value} in step {step + 1}: lower the tuner's rate ({settings.rate})"
            )
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value, divergence

    def _held_out_loss(self, decline_biases: Mapping[str, float]) -> float:
        """Return the mean over batches of the held-out examples."""

        def loss(batch: Sequence[TokenizedExample]) -> float:
            return held_out_loss(
                self.wrapped, batch, self.teacher, self.settings.batch, decline_biases
            )

        batches = _batches(self.data.held_out, self.settings.batch)
        return _mean(self.processes.spread(HELD_OUT, batches, loss))

    def _margins(self, places: Sequence[Place]) -> list[float]:
        def margins(batch: Sequence[Place]) -> list[float]:
            found = declining_at(self.wrapped, batch, self.settings.batch)
            return [declining.margin for declining in found]

        batches = _batches(places, self.settings.batch)
        return list(chain.from_iterable(self.processes.spread(HELD_OUT, batches, margins)))

    def _bias_changes(self) -> dict[str, float]:
        """Return for each kind of decision the change of its decline bias, in nats.

        With it the held-out questions keep their share of the right answers, or earn most.
        """
        settings = self.settings
        changes = dict[str, float]()
        for kind, places in sorted(places_of(self.data.held_out).items()):
            p_correct = [place.example.p_correct for place in places]
            margins = self._margins(places)
            change = decline_excess(margins, p_correct, settings.kept_by_each, settings.price)
            changes[kind] = max(-MAX_BIAS_CHANGE, min(MAX_BIAS_CHANGE, change))
        return changes

    def _references_of(self, step: int) -> list[KlReference]:
        """Return the texts of the KL term in a step, drawn by a seed of its own: neutral texts and
        exchanges take turns."""
        kinds = [references for references in (self.neutral, self.exchanges) if references]
        if not kinds:
            return []
        references = kinds[step % len(kinds)]
        rng = random.Random(self.data.seed + step)
        return rng.sample(list(references), min(KL_TEXTS_PER_STEP, len(references)))


def _batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Return the items in batches, in their order."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _num_learnt(batch: Sequence[TokenizedExample]) -> int:
    """Return how many tokens are learnt of a batch."""
    return sum(len(example.answer_positions) for example in batch)


def _num_compared(references: Sequence[KlReference]) -> int:
    """Return at how many positions the base is compared."""
    return sum(len(reference.positions) for reference in references)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Set the rate of a step: it rises linearly to `peak`, then falls to 0 along a cosine."""
    warmup_steps = max(1, round(WARMUP_SHARE * steps))
    if step < warmup_steps:
        share = (step + 1) / warmup_steps
    else:
        share = 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))
    for group in optimizer.param_groups:
        group["lr"] = peak * share


def _continues(epochs: Sequence[EpochResult], settings: LoraSettings) -> bool:
    """Return whether another epoch is wanted: some are left, and the held-out loss still falls."""
    losses = _held_out_losses(epochs)
    if len(losses) >= settings.epochs:
        return False
    if len(losses) <= PATIENCE_EPOCHS:
        return True
    has_risen = min(losses[-PATIENCE_EPOCHS:]) > min(losses[:-PATIENCE_EPOCHS])
    return not has_risen


def _held_out_losses(epochs: Iterable[EpochResult]) -> list[float]:
    return [epoch.held_out_loss for epoch in epochs]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
