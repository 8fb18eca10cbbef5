"""The observer `jsonl`: one JSON object a line for each event, in the run's folder, for scripts and `tail -f`."""

import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from selfloop.events import CompletionDone, Event, RoundEnded
from selfloop.protocols import Component
from selfloop.records import Round
from selfloop.registry.hookspecs import hookimpl
from selfloop.storage.atomic import appending

DECISIONS = ("belief", "declined", "undecided", "dropped", "failed")


class Jsonl:
    """Appends each event to a file, and flushes it; a resumed run goes on in the same file."""

    def __init__(self, path: Path, *, completions: bool) -> None:
        self._path = path
        self._completions = completions
        self._file: BinaryIO | None = None

    def notice(self, event: Event) -> None:
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
    """Return `event` as one line of pure ASCII JSON: lone surrogates are escaped, NaN and infinities are null."""
    body = {"event": type(event).__name__, "time": datetime.now(UTC).isoformat(), **_fields(event)}
    if isinstance(event, RoundEnded):
        body["round"] = _summary(event.round)
    try:
        return json.dumps(body, default=_plain, allow_nan=False)
    except ValueError:  # JSON has no NaN; the second pass costs time only where there is one
        return json.dumps(
            json.loads(json.dumps(body, default=_plain), parse_constant=lambda _: None)
        )


def _summary(ended: Round) -> dict[str, Any]:
    """Return the round with counts for its attempts: each attempt had a line of its own."""
    counts = {
        decision: sum(a.decision == decision for a in ended.attempts) for decision in DECISIONS
    }
    return {
        "number": ended.number,
        "counts": counts,
        "adapter": ended.adapter,
        "failures": ended.failures,
    }


def _plain(value: object) -> object:
    """Turn what JSON does not know into what it knows."""
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, frozenset | set):
        return sorted(value, key=str)
    return str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def build(*, folder: Path, file: str = "events.jsonl", completions: bool = False) -> Jsonl:
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
