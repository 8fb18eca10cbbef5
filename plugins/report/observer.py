"""The observer `report`: keeps `report.html` in the run's folder up to date."""

from pathlib import Path
from time import monotonic

from selfloop.errors import DiskFullError, StoreError
from selfloop.events import Event, RoundEnded, RunEnded
from selfloop.storage.run_folder import RunFolder

SHARE = 0.05  # of the run's time that reports may take while it goes on


class Reporter:
    """Writes the report after each round, unless that would hold the run up, and at the end."""

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder
        self._took, self._last = 0.0, monotonic()

    def notice(self, event: Event) -> None:
        """Write the report where a round or the run has ended."""
        due = self._took <= SHARE * (monotonic() - self._last)
        if isinstance(event, RunEnded) or (isinstance(event, RoundEnded) and due):
            self._write()

    def close(self) -> None:
        """Do nothing: what is written is whole."""

    def _write(self) -> None:
        from .facts import read
        from .page import written

        start = monotonic()
        try:
            written(read(self._folder), RunFolder(self._folder).report)
        except DiskFullError:
            raise  # it ends the run, which is resumed when there is room
        except StoreError as error:  # which would end the run: it is about the run's own records
            raise OSError(f"no report is written any more: {error}") from error
        self._last = monotonic()
        self._took = self._last - start
