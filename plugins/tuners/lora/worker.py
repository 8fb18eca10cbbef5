"""The other processes of a launch: each trains its share, and does nothing else.

They neither open the run's folder, nor ask the model anything, nor print.
"""

import gc
import logging
import os
import signal
from contextlib import suppress
from typing import Any

import torch
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.model import allow_amx
from selfloop_plugins._torch.options import HfOptions

from selfloop import progress
from selfloop.errors import SelfloopError

from .checkpoint import EpochResult
from .launch import Job, Launch, lead
from .processes import Processes, first_line
from .training import train
from .tuner import wrap


def join(rank: int, size: int) -> int | None:
    """Join a launch of `size` processes as that of number `rank`.

    Return None in the first one, which goes on with its run. In the others return the exit code,
    after the last training.
    """
    if torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    launch = Launch(rank, size)
    if rank == 0:
        lead(launch)
        return None
    # Ctrl-C reaches all processes of a launch; the first one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("selfloop").setLevel(logging.ERROR)
    with progress.shown_by(None):
        return _work(launch)


def _work(launch: Launch) -> int:
    """Take part in every training; return the exit code when the launch ends."""
    try:
        while launch.wait_for_training():
            # The first process has the reason by now, and ends the training or the run.
            with suppress(Exception), launch.training() as processes:
                _train(processes)
            gc.collect()  # a model has cycles, and the next training loads it again
    except RuntimeError as error:  # of the store: it is gone with the process that serves it
        raise SelfloopError(
            f"process {launch.rank} of {launch.size} ends: the one that plays the run is gone "
            f"({first_line(error)})"
        ) from error
    return 0


def _train(processes: Processes) -> None:
    nothing: Any = None
    job: Job = processes.from_first(nothing)
    allow_amx()  # as the first process does
    backend = Transformers(
        HfOptions(model=job.model, dtype=job.dtype, threads=job.settings.threads)
    )
    wrapped = wrap(backend.loaded.model, job.settings.rank, job.data.seed, edited=job.edited)
    train(wrapped, job.data, job.settings, None, _ignore_epoch, processes=processes)


def _ignore_epoch(result: EpochResult) -> None:
    pass
