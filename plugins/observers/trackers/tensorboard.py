"""The observer `tensorboard`."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from selfloop.storage.run_folder import RunFolder

from .metrics import Figure
from .tracker import MAX_SETTING_CHARACTERS, Settings, Tracker, require

PACKAGE = "tensorboardX"  # it writes the same files as TensorBoard's own, without TensorFlow
FLUSH_S = 10  # seconds from one flush of the file to the next


class TensorBoard:
    """Event files, one more each time that the run is resumed; TensorBoard reads them as one."""

    def __init__(self, folder: Path, path: Path | None) -> None:
        self._folder, self._path = folder, path
        self._writer: Any = None

    def open_run(self, name: str, settings: Settings) -> None:
        """Open an event file, with the settings as a text: it has no other place for them."""
        place = self._path / name if self._path else RunFolder(self._folder).tensorboard
        # A file's name tells its second only. Without a suffix, a run that is resumed within the
        # second would write over the file before.
        suffix = f".{uuid4().hex[:6]}"
        self._writer = import_module(PACKAGE).SummaryWriter(
            str(place), flush_secs=FLUSH_S, filename_suffix=suffix
        )
        # a line that begins with four spaces is code in Markdown, which TensorBoard renders
        lines = [
            f"    {key}: {str(value)[:MAX_SETTING_CHARACTERS]!r}" for key, value in settings.items()
        ]
        self._writer.add_text("recipe", "\n".join(lines))

    def log_figures(self, figures: Sequence[Figure]) -> None:
        """Write scalars."""
        for figure in figures:
            self._writer.add_scalar(*figure)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text."""
        self._writer.add_text(name, text, step)

    def close_run(self, outcome: str) -> None:
        """Close the file."""
        self._writer.close()


def build(*, folder: Path, path: Path | None = None) -> Tracker:
    """Write event files into the run's folder `tensorboard`, or into a folder of its own below
    `path`.
    """
    require(PACKAGE, "tensorboard")
    return Tracker(TensorBoard(folder, path), folder)
