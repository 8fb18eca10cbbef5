"""The observer `trackio`."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

from selfloop.storage.run_folder import RunFolder

from .metrics import Figure
from .tracker import Settings, Tracker, require, tracker_id

PACKAGE = "trackio"
# it takes the dashboard off a notebook, and the machine's own figures out of the run
ONLY_FIGURES = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}


class Trackio:
    """A run of a trackio project.

    Trackio has one folder for all its projects, and prints to the standard output.
    """

    def __init__(self, folder: Path, project: str, space: str | None) -> None:
        self._folder, self._project, self._space = folder, project, space
        self._run: Any = None

    def open_run(self, name: str, settings: Settings) -> None:
        """Begin a run, or go on with the one that this run began."""
        # The project may hold runs of other folders with the same name.
        run_name, _ = tracker_id(
            RunFolder(self._folder).tracker_id("trackio"),
            r".+-[0-9a-f]{6}",
            lambda: f"{name}-{uuid4().hex[:6]}",
        )
        with redirect_stdout(io.StringIO()):
            self._run = import_module("trackio").init(
                self._project,
                run_name,
                space_id=self._space,
                config=dict(settings),
                resume="allow",
                **ONLY_FIGURES,
            )

    def log_figures(self, figures: Sequence[Figure]) -> None:
        """Write metrics, those of one step together."""
        for step, same_step in groupby(figures, lambda figure: figure.step):
            self._run.log({figure.name: figure.value for figure in same_step}, step=step)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text."""
        self._run.log({name: text}, step=step)

    def close_run(self, outcome: str) -> None:
        """Wait until all is written."""
        with redirect_stdout(io.StringIO()):
            import_module("trackio").finish()


def build(*, folder: Path, project: str = "selfloop", space: str | None = None) -> Tracker:
    """Write to a project of trackio, in its own folder (TRACKIO_DIR); with `space` to that space of
    the hub.
    """
    require(PACKAGE, "trackio")
    return Tracker(Trackio(folder, project, space), folder)
