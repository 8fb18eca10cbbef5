"""What a report tells of a run, read from its folder: rounds, tunes, what it cost.

Nothing is computed twice later.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from selfloop_plugins.commands.beliefs import Flip, entries_of, flips

import selfloop
from selfloop import Attempt, Past, Round
from selfloop.config.recipe import Decide
from selfloop.evaluation.evaluate import Report, evaluate
from selfloop.evaluation.gold import judged
from selfloop.records import Failure
from selfloop.storage.plain_json import parsed
from selfloop.storage.store import RECIPE, Store, declining_as_in, opened

EVENTS = "events.jsonl"
UNASKED = ("dropped", "failed")
# before a model was loaded
UNKNOWN = {"name": "", "architecture": "", "parameters": 0, "file": "", "sha256": ""}


@dataclass(frozen=True, slots=True)
class Tune:
    """One tune of the run: the loss of each batch that was told of, and what the gate found, where it got so far."""

    round: int
    losses: tuple[tuple[int, float], ...]
    about: Mapping[str, Any]

    @property
    def gate(self) -> Mapping[str, Any]:
        """Return the gate's figures, empty where there are none."""
        found: Mapping[str, Any] = self.about.get("gate", {})
        return found


@dataclass(frozen=True)
class Facts:
    """A run as it lies in its folder. `seconds` are by round and step, `spent` completions and
    tokens by step.

    `before` is what went wrong before the first round had ended, in a session that was stopped
    then.
    """

    name: str
    folder: Path
    model: Mapping[str, Any]
    recipe: str
    decide: Decide
    wanted: int
    rounds: tuple[Round, ...]
    before: tuple[Failure, ...]
    sessions: Sequence[Mapping[str, str]]
    seconds: Mapping[tuple[int, str], float]
    spent: Mapping[str, tuple[int, int]]
    tunes: tuple[Tune, ...]

    @cached_property
    def past(self) -> Past:
        """Return what the run knows after its last round."""
        return Past.of(self.rounds)

    @cached_property
    def asked(self) -> list[tuple[int, Attempt]]:
        """Return each attempt with its round, without those that were never answered."""
        return [
            (one.number, a)
            for one in self.rounds
            for a in one.attempts
            if a.decision not in UNASKED
        ]

    @cached_property
    def last(self) -> list[tuple[int, Attempt]]:
        """Return the last attempt at each question, with its round."""
        return list(
            {attempt.question.text: (number, attempt) for number, attempt in self.asked}.values()
        )

    @cached_property
    def flips(self) -> list[Flip]:
        """Return how later rounds changed what earlier ones held."""
        return list(flips(entries_of(self.rounds)))

    @cached_property
    def measured(self) -> Report | None:
        """Return the run's figures by gold answers; None where no question has any."""
        with declining_as_in(self.folder):
            known = any(judged(attempt.question, "") is not None for _, attempt in self.asked)
            return evaluate(self.rounds) if known else None


def read(folder: Path) -> Facts:
    """Return the facts of a run. Raises StoreError for what is no run, or cannot be read."""
    with closing(opened(folder, write=False)) as store:
        return _facts(folder, store)


def _facts(folder: Path, store: Store) -> Facts:
    meta, rounds, events = store.meta(), tuple(store.rounds()), list(_events(folder / EVENTS))
    recipe, decide = _recipe(folder)
    losses = _losses(events)
    tuned = sorted(
        losses.keys()
        | {int(path.name[6:]) for path in folder.glob("adapters/round-[0-9][0-9][0-9]")}
    )
    return Facts(
        name=str(meta.get("name", folder.name)),
        folder=folder,
        model=UNKNOWN | meta.get("model", {}),
        recipe=(folder / RECIPE).read_text("utf-8", "replace"),
        decide=decide,
        wanted=_whole(recipe.get("rounds"), len(rounds)),
        rounds=rounds,
        before=store.lost(0),
        sessions=store.sessions(),
        seconds=_seconds(events),
        spent=store.spent(),
        tunes=tuple(
            Tune(n, losses.get(n, ()), _about(folder / f"adapters/round-{n:03}/gate.json"))
            for n in tuned
        ),
    )


def _recipe(folder: Path) -> tuple[Mapping[str, Any], Decide]:
    """Return the recipe as data, and its thresholds; a report is made all the same if they cannot be read."""
    run = selfloop.open(folder)
    with suppress(selfloop.SelfloopError, ValueError):
        return run.recipe, run.decide
    return {}, Decide()


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what the observer `jsonl` wrote; a line that a kill cut off is passed by."""
    with suppress(OSError):
        for line in path.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError):
                found = parsed(line)
                if isinstance(found, dict) and _is_event(found):
                    yield found


def _is_event(found: Mapping[str, Any]) -> bool:
    """Return whether a line of the log has what is read of its kind.

    Raises ValueError for a time that is none.
    """
    when = found.get("time")
    if not isinstance(found.get("event"), str) or not isinstance(when, str):
        return False
    wanted = {"StepStarted": ("round",), "BatchLearnt": ("round", "done")}.get(found["event"], ())
    return datetime.fromisoformat(when).tzinfo is not None and all(
        isinstance(found.get(key), int) for key in wanted
    )


def _seconds(events: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], float]:
    """Return how long each step took, over all sessions: until the next began, or to the last sign of life."""
    found: defaultdict[tuple[int, str], float] = defaultdict(float)
    step, began, before = None, None, None
    for event in events:
        kind, now = event["event"], datetime.fromisoformat(event["time"])
        if kind in ("RunStarted", "StepStarted", "RoundEnded", "RunEnded"):
            until = before if kind == "RunStarted" else now
            if step and began and until:
                found[step] += (until - began).total_seconds()
            step = (int(event["round"]), str(event.get("step"))) if kind == "StepStarted" else None
            began = now
        before = now
    return dict(found)


def _losses(events: Sequence[Mapping[str, Any]]) -> dict[int, tuple[tuple[int, float], ...]]:
    """Return the loss of each batch by round; a batch that a resumed tune learns again counts as it was last."""
    found: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for event in events:
        if event["event"] == "BatchLearnt" and isinstance(event.get("loss"), int | float):
            found[event["round"]][event["done"]] = event["loss"]
    return {number: tuple(sorted(own.items())) for number, own in found.items()}


def _about(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        found = parsed(path.read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
