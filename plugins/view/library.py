"""The runs in a folder: listed, searched, and how far each is.

Only reads, and asks the databases afresh each time.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from selfloop_plugins.report.page import page
from selfloop_plugins.report.run_summary import read_summary

import selfloop
from selfloop.errors import StoreError
from selfloop.storage.plain_json import parsed
from selfloop.storage.run_folder import RunFolder, runs_in
from selfloop.storage.store import Store
from selfloop.text.display import encodable

# seconds without a sign of life after which a run that has not ended counts as stopped
QUIET = 120.0
TAIL = 64_000  # bytes of a run's events that say how far it is
HITS = 200  # questions that a search shows


@dataclass(frozen=True)
class Listed:
    """A run in the list; `changed` is in seconds since the epoch, and `trouble` is why it cannot be
    read, or empty."""

    name: str
    model: str = ""
    rounds: int = 0
    counts: Counter[str] | None = None
    changed: float = 0.0
    state: str = ""
    trouble: str = ""

    @property
    def when(self) -> str:
        """Return when something was written last, in local time."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.changed))


@dataclass(frozen=True)
class Hit:
    """A question that a search found, as it ended in one round."""

    run: str
    round: int
    question: str
    answer: str
    decision: str
    confidence: float | None


class Library:
    """The runs that lie in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept: tuple[str, float, str] | None = None

    def names(self) -> list[str]:
        """Return the names of the runs.

        A name that is not among them is no run, whatever a request says.
        """
        found = (folder.name for folder in runs_in(self._root))
        # a name that is no UTF-8 has no address
        return sorted(name for name in found if name == encodable(name))

    def listed(self) -> list[Listed]:
        """Return all runs, the one that changed last first; one that cannot be read says so."""
        return sorted(map(self._summary, self.names()), key=lambda run: -run.changed)

    def _summary(self, name: str) -> Listed:
        try:
            with closing(Store(self._root / name, write=False)) as store:
                summary = store.summary()
        except StoreError as error:
            return Listed(name, trouble=str(error))
        state, _ = self._state(name, summary.rounds)
        changed = self._changed(name)
        return Listed(name, summary.model, summary.rounds, summary.decisions, changed, state)

    def _changed(self, name: str) -> float:
        files = RunFolder(self._root / name)
        written = (files.database, files.write_ahead_log, files.events)
        return max((file.stat().st_mtime for file in written if file.is_file()), default=0.0)

    def search(self, text: str, decision: str) -> list[Hit]:
        """Return questions with `text` in question or answer, and with `decision` unless it is
        empty."""
        hits: list[Hit] = []
        for name in self.names():
            with suppress(StoreError), closing(Store(self._root / name, write=False)) as store:
                matches = store.search(text, decision, HITS - len(hits))
                hits += [Hit(name, *astuple(match)) for match in matches]
        return hits

    def page(self, name: str) -> str:
        """Return a run's page, made again only when something was written since.

        Raises StoreError.
        """
        changed = self._changed(name)
        if self._kept is None or self._kept[:2] != (name, changed):
            html = page(read_summary(self._root / name), live=f"/run/{quote(name, safe='')}/now")
            self._kept = (name, changed, html)  # one is enough: a run may be large
        return self._kept[2]

    def now(self, name: str) -> dict[str, Any]:
        """Return how many rounds have ended, and a sentence on the state of the run."""
        with closing(Store(self._root / name, write=False)) as store:
            rounds, written = store.count("rounds"), store.count("completions")
        state, step = self._state(name, rounds)
        if state == "at work" and step:
            about = (
                f"At work: round {step['round']}, {step['step']}. {written:,} completions so far."
            )
        else:
            about = "" if state == "done" else f"This run is {state}."
        return {"rounds": rounds, "text": about}

    def _state(self, name: str, rounds: int) -> tuple[str, dict[str, Any] | None]:
        """Return whether a run is done, at work, stopped or failed, and the last step begun."""
        step, ended = None, ""
        for event in _tail(RunFolder(self._root / name).events):
            if event.get("event") == "StepStarted":
                step, ended = event, ""
            elif event.get("event") == "RunEnded":
                ended = str(event.get("outcome", "done"))
        if ended:
            return ended, step
        if step is None and self._whole(name, rounds):  # judged again, or logged by nobody
            return "done", None
        return ("at work" if time.time() - self._changed(name) < QUIET else "stopped"), step

    def _whole(self, name: str, rounds: int) -> bool:
        """Return whether there are as many rounds as the recipe wants, by its own words."""
        with suppress(selfloop.SelfloopError):
            return rounds > 0 and rounds >= selfloop.open(self._root / name).recipe.get(
                "rounds", rounds
            )
        return False


def _tail(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the last events of a run; the first line may be half of one."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        for line in file.read().decode("utf-8", "replace").splitlines():
            with suppress(ValueError):
                event = parsed(line)
                if isinstance(event, dict):
                    yield event
