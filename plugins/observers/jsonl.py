"""The observer `jsonl`: a line of JSON for each event, in the run's folder.

It is for scripts and for `tail -f`.
"""

import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, get_args

from selfloop.events import CompletionDone, Event, RoundEnded
from selfloop.protocols import Component
from selfloop.records import Decision, Round
from selfloop.registry.hookspecs import hookimpl
from selfloop.storage.atomic import appending
from selfloop.storage.run_folder import EVENTS


class Jsonl:
    """Appends each event to a file, and flushes it; a resumed run goes on in the same file."""

    def __init__(self, path: Path, *, completions: bool) -> None:
        self._path = path
        self._completions = completions
        self._file: BinaryIO | None = None

    def on_event(self, event: Event) -> None:
        """Write `event` as one line."""
        if isinstance(event, CompletionDone) and not self._completions:
            return
        if self._file is None:
            self._file = appending(self._path)
        self._file.write(line(event).encode("ascii") + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def line(event: Event) -> str:
    """Return `event` as one line of JSON, all of it ASCII.

    Lone surrogates are escaped; NaN and infinities are null, for JSON has neither.
    """
    body = {"event": type(event).__name__, "time": datetime.now(UTC).isoformat(), **_fields(event)}
    if isinstance(event, RoundEnded):
        body["round"] = _round_summary(event.round)
    try:
        return json.dumps(body, default=_to_json, allow_nan=False)
    except ValueError:  # the second pass costs time only if there is a NaN
        with_nan = json.dumps(body, default=_to_json)
        return json.dumps(json.loads(with_nan, parse_constant=lambda _: None))


def _round_summary(ended: Round) -> dict[str, Any]:
    """Return the round with counts in place of its attempts: each attempt had its own line."""
    counts = {decision: ended.count(decision) for decision in get_args(Decision)}
    return {
        "number": ended.number,
        "counts": counts,
        "adapter": ended.adapter,
        "failures": ended.failures,
    }


def _to_json(value: object) -> object:
    """Return a value of the types that JSON has: called for a value of any other type."""
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, frozenset | set):
        return sorted(value, key=str)  # a set's own order changes from run to run
    return str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def build(*, folder: Path, file: str = EVENTS, completions: bool = False) -> Jsonl:
    """Make the observer; `completions` also writes a line for each completion, which are many."""
    return Jsonl(folder / file, completions=completions)


@hookimpl
def selfloop_observers() -> list[Component]:
    """Offer `jsonl`."""
    return [
        Component(
            "jsonl",
            build,
            doc="writes every event as a line of JSON into the run's folder",
            local=True,
        )
    ]
