"""The checkpoint of a training: one file of safetensors, written whole every few minutes and after
every epoch.

The file holds the adapter's weights, the weights of the best epoch, and the optimizer's moments;
its metadata holds the training's fingerprint, the results of its epochs, and those of the steps of
one that has begun. Safetensors, because a pickle could hold a program.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from selfloop.storage import atomic

FILE = "last.safetensors"
STATE = "state"  # key of the metadata: fingerprint, epochs and steps, as JSON
# prefixes of the tensors' names
WEIGHTS, BEST, MOMENTS = "weights/", "best/", "optimizer/"

Weights = dict[str, torch.Tensor]  # by parameter name

_log = logging.getLogger("selfloop.tune")


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch: the means of its losses and its KL to the base, the mean loss on the held-out
    questions after it, and the decline bias of each form of question at its end, in nats."""

    epoch: int
    loss: float
    kl: float
    held_out_loss: float
    decline_biases: dict[str, float] = field(default_factory=dict[str, float])

    def figures(self) -> dict[str, Any]:
        """Return the figures under the names that `gate.json` has for them."""
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            "kl": self.kl,
            "held": self.held_out_loss,
            "dial": self.decline_biases,
        }


@dataclass(slots=True)
class BegunEpoch:
    """An epoch that is not done: the loss and the KL to the base of each step so far, and the
    decline biases, in nats."""

    losses: list[float] = field(default_factory=list[float])
    divergences: list[float] = field(default_factory=list[float])
    decline_biases: dict[str, float] = field(default_factory=dict[str, float])


def fingerprint(*parts: Any) -> str:
    """Return a hash of all that a training depends on: another training has another one."""
    text = json.dumps([repr(part) for part in parts])
    return blake2b(text.encode(), digest_size=16).hexdigest()


def copied(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Return copies of some weights that training does not change."""
    return {name: parameter.detach().clone() for name, parameter in weights.items()}


def restore(weights: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """Set parameters, in place, to the values of the same name."""
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(values[name])


def save_checkpoint(
    folder: Path,
    training: str,
    epochs: Sequence[EpochResult],
    begun: BegunEpoch | None,
    weights: Mapping[str, torch.Tensor],
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the checkpoint of the training with this fingerprint in place of the last one.

    `begun` are the steps of the next epoch, where it has begun.

    Raises OSError, or DiskFullError, for a disk that cannot take it.
    """
    moments = {}
    for i, parameter in enumerate(weights.values()):
        for key, value in optimizer.state[parameter].items():
            moments[f"{i}.{key}"] = value
    tensors = {}
    for prefix, values in {WEIGHTS: weights, BEST: best, MOMENTS: moments}.items():
        for name, tensor in values.items():
            tensors[f"{prefix}{name}"] = tensor.detach().clone().contiguous()
    state = {
        "training": training,
        "epochs": [asdict(epoch) for epoch in epochs],
        "begun": asdict(begun) if begun else None,
    }
    with atomic.replacing(folder / FILE, parents=True) as file:
        save_file(tensors, file, metadata={STATE: json.dumps(state)})


def load_checkpoint(
    folder: Path,
    training: str,
    weights: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[list[EpochResult], BegunEpoch | None, Weights]:
    """Load the checkpoint of the training with this fingerprint into weights and optimizer.

    Returns the results of its epochs, the next epoch where it has begun, and the best weights.
    Without a checkpoint, or with one that is damaged or of another training, training starts from
    the beginning, with the same result.
    """
    file = folder / FILE
    if not file.is_file():
        return [], None, copied(weights)
    try:
        with safe_open(file, "pt") as opened:
            state = json.loads((opened.metadata() or {})[STATE])
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        _log.warning("%s is damaged, so training begins anew: %s", file, error)
        return [], None, copied(weights)
    if state.get("training") != training:  # an earlier version's has no such key
        return [], None, copied(weights)
    restore(weights, _with_prefix(tensors, WEIGHTS))
    moments = _with_prefix(tensors, MOMENTS)
    for i, parameter in enumerate(weights.values()):
        optimizer.state[parameter] = {
            # AdamW keeps its step count on the CPU, its moments beside the parameter
            key: value if key == "step" else value.to(parameter.device)
            for key, value in _with_prefix(moments, f"{i}.").items()
        }
    epochs = [EpochResult(**epoch) for epoch in state["epochs"]]
    begun = BegunEpoch(**state["begun"]) if state.get("begun") else None
    return epochs, begun, _with_prefix(tensors, BEST)


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> Weights:
    """Return the tensors whose names begin so, by the rest of their names."""
    matching = Weights()
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            matching[name.removeprefix(prefix)] = tensor
    return matching
