"""A launch: processes that torchrun or accelerate started together, of which the first plays the
run.

They meet at a store of keys, which the launcher serves, or else the first process:

ready/R    process R waits for a training
begins/N   training N begins
joins/N/R  process R is there, and joins the group of this training
failed/N   why one of them gave it up
end        the first process is done, and so is the launch
left/R     process R knows that
"""

import atexit
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from selfloop_plugins._torch.options import Dtype
from torch.distributed.distributed_c10d import PrefixStore, Store

from selfloop.errors import ModelError, RecipeError, SelfloopError

from .processes import ALONE, SILENCE_MINUTES, Processes, first_line
from .settings import LoraSettings
from .training import TrainingData

POLL_S = 0.1
# seconds in which the other processes must answer, once there is a training
COME_UP_S = 60.0
# seconds in which a process that failed says why
REASON_S = 2.0
# seconds that the first process waits, at its end, for the others
LEAVE_S = 5.0
MAX_REASON = 500  # characters
BY_ITSELF = "start selfloop by itself, or by: torchrun --nproc_per_node 2 -m selfloop run RECIPE"


@dataclass(frozen=True, slots=True)
class Job:
    """All that a process needs for its share of a training: the model's file and the type of its
    weights, and the rest. With `edited` the last linear layer is left to an edit."""

    model: str
    dtype: Dtype
    settings: LoraSettings
    data: TrainingData
    edited: bool = False


class Launch:
    """A launch, seen from its process of number `rank`."""

    def __init__(self, rank: int, size: int) -> None:
        """Open the store. Raises SelfloopError where there is none."""
        self.rank, self.size = rank, size
        self._trainings = 0  # that have begun
        self._store = _open_store(rank)

    def wait_for_training(self) -> bool:
        """Return True when the next training begins, False when the launch has ended."""
        self._store.set(f"ready/{self.rank}", "")
        while not self._store.check([f"begins/{self._trainings + 1}"]):
            if self._store.check(["end"]):
                self._store.set(f"left/{self.rank}", "")
                return False
            time.sleep(POLL_S)
        return True

    @contextmanager
    def training(self) -> Iterator[Processes]:
        """Join the processes of the next training, until it ends or fails.

        The first process lets it begin. Raises ModelError where another one does not answer.
        """
        self._trainings += 1
        number = self._trainings
        if self.rank == 0:
            self._begin(number)
        else:
            self._store.set(f"joins/{number}/{self.rank}", "")
            if self._store.check([f"failed/{number}"]):  # this process came too late
                raise ModelError(self._reason(number))
        try:
            dist.init_process_group(
                "gloo",
                store=PrefixStore(f"training/{number}", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(minutes=SILENCE_MINUTES),
            )
        except RuntimeError as error:
            raise ModelError(
                f"the processes of this launch do not meet: {first_line(error)}"
            ) from error
        try:
            yield Processes(self.rank, self.size, device(), lambda: self._reason(number))
        except Exception as error:
            self._give_up(number, error)
            raise
        finally:
            dist.destroy_process_group()  # by which the others notice, where it failed

    def _begin(self, number: int) -> None:
        self._store.set(f"begins/{number}", "")
        others = range(1, self.size)
        if self._wait_for([f"joins/{number}/{rank}" for rank in others], COME_UP_S):
            return
        missing = [rank for rank in others if not self._store.check([f"joins/{number}/{rank}"])]
        error = ModelError(
            f"of the {self.size} processes of this launch, {', '.join(map(str, missing))} did not "
            f"answer within {COME_UP_S:.0f} s: {BY_ITSELF}"
        )
        self._give_up(number, error)
        raise error

    def end(self) -> None:
        """Let the other processes end, and wait for those that are there."""
        with suppress(RuntimeError):  # the launcher may be gone already
            self._store.set("end", "")
            ready = [rank for rank in range(1, self.size) if self._store.check([f"ready/{rank}"])]
            self._wait_for([f"left/{rank}" for rank in ready], LEAVE_S)

    def _give_up(self, number: int, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON]
        # The first to fail has the reason. The others only miss it.
        self._store.compare_set(
            f"failed/{number}", "", f"process {self.rank} of {self.size} failed: {reason}"
        )

    def _reason(self, number: int) -> str:
        key = f"failed/{number}"
        return self._store.get(key).decode() if self._wait_for([key], REASON_S) else ""

    def _wait_for(self, keys: Sequence[str], seconds: float) -> bool:
        """Return whether all keys are set within some seconds.

        The store could wait by itself, but Ctrl-C does not reach it there.
        """
        end = time.monotonic() + seconds
        while not all(self._store.check([key]) for key in keys):
            if time.monotonic() > end:
                return False
            time.sleep(POLL_S)
        return True


_launch: Launch | None = None  # in the first process of a launch


def lead(launch: Launch) -> None:
    """Make the other processes of a launch work for the trainings of this one, until it ends."""
    global _launch
    _launch = launch
    atexit.register(launch.end)


def refuse_other_process() -> None:
    """Raise RecipeError in a process of a launch that was not started as `selfloop run`."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" and _launch is None:
        raise RecipeError(
            f"this process is one of {processes}, and each would play a run of its own: {BY_ITSELF}"
        )


@contextmanager
def training(job: Job) -> Iterator[Processes]:
    """Yield the processes that train together: this one alone, but for a launch of several."""
    if _launch is None:
        yield ALONE
        return
    with _launch.training() as processes:
        processes.from_first(job)
        yield processes


def device() -> torch.device:
    """Return the device of this process: each of a machine has a GPU of its own, if there are as
    many."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _open_store(rank: int) -> Store:
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdigit():
        raise RecipeError(
            "RANK and WORLD_SIZE are set, but MASTER_ADDR and MASTER_PORT are not, by which the "
            f"processes would meet: {BY_ITSELF}"
        )
    is_served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            host,
            int(port),
            is_master=rank == 0 and not is_served,
            wait_for_workers=False,
            timeout=timedelta(seconds=COME_UP_S),
        )
    except RuntimeError as error:
        raise SelfloopError(
            f"process {rank} cannot meet the others at {host}:{port}: {first_line(error)}. Is the "
            f"first one at work there? Else {BY_ITSELF}"
        ) from error
    # a launcher that starts its processes again keeps its store
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"selfloop/{attempt}", store)
