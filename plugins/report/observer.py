"""The observer `report`: keeps `report.html` in the run's folder up to date."""

import logging
from pathlib import Path
from time import monotonic

from selfloop.errors import DiskFullError, StoreError
from selfloop.events import Event, RoundEnded, RunEnded, RunStarted

from ._packages import EXTRA, missing_package

MAX_TIME_SHARE = 0.05  # of the run's time that reports may take while it goes on

_log = logging.getLogger("selfloop.report")


class Reporter:
    """Writes the report at the end, and after each round unless that would slow down the run.

    Without the packages of the extra `report` it says so once and writes nothing.
    """

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder
        self._is_skipped = bool(missing_package())
        self._last_took, self._last_written = 0.0, monotonic()

    def on_event(self, event: Event) -> None:
        """Write the report where a round or the run has ended."""
        if self._is_skipped:
            if isinstance(event, RunStarted):
                _log.warning("report skipped: pip install 'selfloop[%s]'", EXTRA)
            return
        # a report of many rounds takes longer: the time since the last one must be worth it
        is_due = self._last_took <= MAX_TIME_SHARE * (monotonic() - self._last_written)
        if isinstance(event, RunEnded) or (isinstance(event, RoundEnded) and is_due):
            self._write_report()

    def close(self) -> None:
        """Do nothing: every file was written whole."""

    def _write_report(self) -> None:
        from selfloop.storage.run_folder import REPORT

        from .page import write_page
        from .run_summary import read_summary

        start = monotonic()
        try:
            write_page(read_summary(self._folder), self._folder / REPORT)
        except DiskFullError:
            raise  # it ends the run, which is resumed when there is room
        except StoreError as error:  # which would end the run: it is about the run's own records
            raise OSError(f"no report is written any more: {error}") from error
        self._last_written = monotonic()
        self._last_took = self._last_written - start
