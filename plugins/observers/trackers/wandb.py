"""The observer `wandb`."""

import os
from collections.abc import Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

from selfloop.storage.run_folder import RunFolder

from .metrics import Figure
from .tracker import Settings, Tracker, require, tracker_id

PACKAGE = "wandb"
INIT_TIMEOUT_S = 20
# Nothing but the figures is looked at or sent: no output, code, or facts of the machine.
ONLY_FIGURES = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
}


class Wandb:
    """A run of Weights & Biases.

    It counts steps by itself and takes no others, so ours are a figure beside the others.
    """

    def __init__(self, folder: Path, project: str, entity: str | None, online: bool) -> None:
        self._folder, self._project, self._entity, self._online = folder, project, entity, online
        self._run: Any = None

    def open_run(self, name: str, settings: Settings) -> None:
        """Begin a run, or go on with the one that this run began."""
        wandb = import_module("wandb")
        run_id, _ = tracker_id(
            RunFolder(self._folder).tracker_id("wandb"), r"[0-9a-f]{8}", lambda: uuid4().hex[:8]
        )
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            id=run_id,
            name=name,
            dir=str(self._folder),
            config=dict(settings),
            mode="online" if self._online else "offline",
            # offline there is no server that could resume a run
            resume="allow" if self._online else None,
            settings=wandb.Settings(**ONLY_FIGURES, init_timeout=INIT_TIMEOUT_S),
        )
        self._run.define_metric("*", step_metric="step")

    def log_figures(self, figures: Sequence[Figure]) -> None:
        """Write metrics, those of one step together."""
        for step, same_step in groupby(figures, lambda figure: figure.step):
            row: dict[str, float] = {figure.name: figure.value for figure in same_step}
            self._run.log(row | {"step": step})

    def log_text(self, name: str, text: str, step: int) -> None:
        """Add to the run's configuration."""
        self._run.config.update({f"{name}.round-{step:03d}": text}, allow_val_change=True)

    def close_run(self, outcome: str) -> None:
        """Finish, and wait until all is written or sent."""
        self._run.finish(exit_code=int(outcome != "done"))


def build(
    *, folder: Path, project: str = "selfloop", entity: str | None = None, online: bool = False
) -> Tracker:
    """Write a run of Weights & Biases into the run's folder, to be sent by `wandb sync`; `online`
    sends it at once.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    require(PACKAGE, "wandb")
    return Tracker(Wandb(folder, project, entity, online), folder)
