"""The processes that train together, and the few things that they say to each other.

Each has the whole model and all examples, and computes the gradients of its share of every batch.
The sum of these gradients is that of the whole batch. The gradients of a LoRA are small, so they
are added up on the CPU, by gloo, whatever device the model is on: there a process that fails is
noticed at once.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from selfloop import progress
from selfloop.errors import ModelError

T = TypeVar("T")
R = TypeVar("R")

# that one process waits for another: to load the model, or to compute its share
SILENCE_MINUTES = 10
_CPU = torch.device("cpu")


def _no_reason() -> str:
    return ""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from the one of number `rank`; one alone by default.

    device  of this process' model
    reason  returns why another process failed, or an empty string
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default=_CPU)
    reason: Callable[[], str] = _no_reason

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items that are for this process."""
        return items[self.rank :: self.size]

    def spread(self, name: str, tasks: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """Return the result of each task, in order; every process works on its share of them.

        The first process shows its progress, under `name`.
        """
        share = self.share(tasks)
        counted = progress.counted(name, share, "batches", len(share))
        results = [work(task) for task in counted]
        if self.size == 1:
            return results
        parts: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(parts, _packed(results))
        shares = [_unpacked(part, self.device) for part in parts]
        return [shares[i % self.size][i // self.size] for i in range(len(tasks))]

    def from_first(self, value: T) -> T:
        """Return the value that the first process has, tensors of it on the CPU."""
        if self.size == 1:
            return value
        parts: list[Any] = [_packed(value) if self.rank == 0 else None]
        with self._together():
            dist.broadcast_object_list(parts, src=0)
        copy: T = value if self.rank == 0 else _unpacked(parts[0], _CPU)
        return copy

    def copy_state(
        self, parameters: Iterable[torch.Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Set parameters and optimizer, in place, to those of the first process."""
        if self.size == 1:
            return
        parameters = list(parameters)
        values = [parameter.detach() for parameter in parameters]
        values, state = self.from_first((values, optimizer.state_dict()))
        if self.rank == 0:
            return
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)
        optimizer.load_state_dict(state)

    def sum_gradients(
        self, parameters: Sequence[torch.Tensor], terms: Sequence[torch.Tensor]
    ) -> list[float]:
        """Replace the gradients of each process by their sum; return the sums of the `terms` of the
        loss, which are scalars."""
        if self.size == 1:
            return [term.item() for term in terms]
        rows = []
        for parameter in parameters:
            gradient = parameter.grad
            rows.append(torch.zeros_like(parameter) if gradient is None else gradient)
        rows += [term.detach() for term in terms]
        # one message a step
        flat = torch.cat([row.flatten().float().cpu() for row in rows])
        with self._together():
            dist.all_reduce(flat)
        sums = torch.split(flat, [row.numel() for row in rows])
        for parameter, total in zip(parameters, sums, strict=False):  # the terms come after them
            parameter.grad = total.view_as(parameter).to(parameter)
        return [total.item() for total in sums[len(parameters) :]]

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Raise ModelError, with the reason, where another process has failed meanwhile."""
        try:
            yield
        except RuntimeError as error:  # of gloo: it has no class of its own
            reason = self.reason() or (
                "another process of the launch is gone, or was silent for "
                f"{SILENCE_MINUTES} minutes. Start them all again, and resume the run"
            )
            raise ModelError(f"the training ended early: {reason}") from error


ALONE = Processes()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message: torch appends its own calls."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _packed(value: Any) -> bytes:
    """Return a value as bytes, whatever device its tensors are on."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _unpacked(packed: bytes, device: torch.device) -> Any:
    # `packed` comes from a process of this launch, whose objects may be of any class
    return torch.load(io.BytesIO(packed), map_location=device, weights_only=False)
