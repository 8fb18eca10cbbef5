"""Hands a run's figures to a sink, which writes them to one tracker."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import selfloop
from selfloop.errors import MissingExtraError
from selfloop.events import Event, RoundEnded, RunEnded, RunStarted
from selfloop.storage import atomic

from .metrics import Figure, RunMetrics

MAX_SETTING_CHARACTERS = 500  # of a setting's value: every version of MLflow takes as many

Setting = str | int | float | bool
Settings = Mapping[str, Setting]

_log = logging.getLogger("selfloop.trackers")


class Sink(Protocol):
    """One tracker. Anything it raises ends it, and not the run."""

    def open_run(self, name: str, settings: Settings) -> None:
        """Open the tracker's run; `name` tells this run from others."""
        ...

    def log_figures(self, figures: Sequence[Figure]) -> None:
        """Write numbers."""
        ...

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text that belongs to a round."""
        ...

    def close_run(self, outcome: str) -> None:
        """Close; `outcome` is done, stopped or failed."""
        ...


class Tracker:
    """The observer: hands a run's figures to a sink."""

    def __init__(self, sink: Sink, folder: Path) -> None:
        self._sink, self._metrics, self._open = sink, RunMetrics(folder), False

    def on_event(self, event: Event) -> None:
        """Write the event's figures."""
        if isinstance(event, RunStarted):
            self._sink.open_run(Path(event.folder).resolve().name, run_settings(event))
            self._open = True
        figures = list(self._metrics.figures_of(event))
        if figures:
            self._sink.log_figures(figures)
        if isinstance(event, RoundEnded) and (adapter := event.round.adapter):
            self._sink.log_text("adapter", adapter.sha256, event.round.number)
        if isinstance(event, RunEnded):
            self._end(event.outcome)

    def close(self) -> None:
        """Close the tracker, if the run's end has not done so."""
        self._end("failed")

    def _end(self, outcome: str) -> None:
        if self._open:
            self._open = False
            self._sink.close_run(outcome)


def run_settings(event: RunStarted) -> Settings:
    """Return a run's recipe, flat (`ask.questions`), and its model."""
    model = event.model
    about = {
        "selfloop": selfloop.__version__,
        "model.name": model.name,
        "model.sha256": model.sha256,
    }
    return about | dict(_flat(selfloop.Run(Path(event.folder)).recipe))


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Setting]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, str | int | float | bool):
            yield f"{above}{key}", value
        else:  # a list, or nothing: trackers take neither
            yield f"{above}{key}", json.dumps(value)


def tracker_id(path: Path, form: str, make: Callable[[], str]) -> tuple[str, bool]:
    """Return the id of this run in a tracker, and whether it is new.

    It is kept in the file `path`, so that a resumed run goes on in it; a new one is made by `make`.
    An id that does not match `form`, a regular expression, was cut off: the tracker gets a new run.
    """
    if path.is_file():
        stored = path.read_text(encoding="utf-8", errors="replace").strip()
        if re.fullmatch(form, stored):
            return stored, False
        _log.warning(
            "%s is damaged: the tracker gets a new run, and the old one stays as it is", path
        )
    new = make()
    atomic.write_text(path, f"{new}\n")
    return new, True


def require(package: str, name: str) -> None:
    """Raise MissingExtraError if the package of the observer `name` is not there."""
    try:
        import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, name, f"The observer {name}") from error
