"""A run as its report shows it, read from its folder: rounds, tunes, times and costs.

Everything that a page or a figure needs is a field or a cached property of `RunSummary`, so that
nothing is computed twice.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from selfloop_plugins._shared.gate_report import GateReport, read_gate

import selfloop
from selfloop import Attempt, History, Round
from selfloop.config.recipe import Decide
from selfloop.errors import ModelError
from selfloop.evaluation.belief_history import Flip, belief_flips, entries_of
from selfloop.evaluation.evaluate import Report, evaluate
from selfloop.evaluation.gold import judged
from selfloop.records import Failure
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import Store, declining_as_in, open_store, parsed_event

UNASKED = ("dropped", "failed")  # decisions on questions that were never answered
# before a model was loaded
NO_MODEL = {"name": "", "architecture": "", "parameters": 0, "file": "", "sha256": ""}
# events at which a step may end; after a kill the next session begins with RunStarted
STEP_BOUNDARIES = ("RunStarted", "StepStarted", "RoundEnded", "RunEnded")
# the integers that a report reads of an event
EVENT_NUMBERS = {"StepStarted": ("round",), "TrainingStep": ("round", "done")}


@dataclass(frozen=True, slots=True)
class TuneSummary:
    """One tune of the run: the loss of each batch (number, loss) as far as it got, and the report
    of its gate, None where there is none that can be read."""

    round: int
    losses: tuple[tuple[int, float], ...]
    gate: GateReport | None = None


@dataclass(frozen=True)
class RunSummary:
    """A run as it is in its folder.

    rounds_planned  rounds that the recipe asks for
    early_failures  of a session that was stopped before the first round had ended
    seconds         by round and step
    spent           completions and tokens by step
    """

    name: str
    folder: Path
    model: Mapping[str, Any]
    recipe: str
    decide: Decide
    rounds_planned: int
    rounds: tuple[Round, ...]
    early_failures: tuple[Failure, ...]
    sessions: Sequence[Mapping[str, str]]
    seconds: Mapping[tuple[int, str], float]
    spent: Mapping[str, tuple[int, int]]
    tunes: tuple[TuneSummary, ...]

    @cached_property
    def history(self) -> History:
        """Return the run's history after its last round."""
        return History.from_rounds(self.rounds)

    @cached_property
    def answered(self) -> list[tuple[int, Attempt]]:
        """Return each attempt with its round, without those that were never answered."""
        attempts = []
        for ended in self.rounds:
            for attempt in ended.attempts:
                if attempt.decision not in UNASKED:
                    attempts.append((ended.number, attempt))
        return attempts

    @cached_property
    def last_attempts(self) -> list[tuple[int, Attempt]]:
        """Return the last attempt at each question, with its round."""
        by_text = {attempt.question.text: (number, attempt) for number, attempt in self.answered}
        return list(by_text.values())

    @cached_property
    def flips(self) -> list[Flip]:
        """Return how later rounds changed the beliefs of earlier ones."""
        return list(belief_flips(entries_of(self.rounds)))

    @cached_property
    def measured(self) -> Report | None:
        """Return the run's figures by gold answers; None where no question has any."""
        with declining_as_in(self.folder):
            has_gold = any(judged(attempt.question, "") is not None for _, attempt in self.answered)
            return evaluate(self.rounds) if has_gold else None

    def count_decision(self, decision: str) -> int:
        """Return how many questions were last decided so."""
        return sum(attempt.decision == decision for _, attempt in self.last_attempts)


def read_summary(folder: Path) -> RunSummary:
    """Return the summary of a run.

    Raises StoreError for a folder that is not a run, or cannot be read.
    """
    with closing(open_store(folder, write=False)) as store:
        return _summary(folder, store)


def _summary(folder: Path, store: Store) -> RunSummary:
    meta, rounds, events = (
        store.meta(),
        tuple(store.rounds()),
        list(_events(RunFolder(folder).events)),
    )
    recipe, decide = _recipe(folder)
    return RunSummary(
        name=str(meta.get("name", folder.name)),
        folder=folder,
        model=NO_MODEL | meta.get("model", {}),
        recipe=RunFolder(folder).recipe.read_text("utf-8", "replace"),
        decide=decide,
        rounds_planned=_int_or(recipe.get("rounds"), len(rounds)),
        rounds=rounds,
        early_failures=store.round_failures(0),
        sessions=store.sessions(),
        seconds=_seconds(events),
        spent=store.usage_by_step(),
        tunes=_tunes(folder, _losses(events)),
    )


def _recipe(folder: Path) -> tuple[Mapping[str, Any], Decide]:
    """Return the recipe as data, and its thresholds; the defaults where they cannot be read."""
    run = selfloop.open(folder)
    with suppress(selfloop.SelfloopError, ValueError):
        return run.recipe, run.decide
    return {}, Decide()


def _int_or(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _tunes(
    folder: Path, losses: Mapping[int, tuple[tuple[int, float], ...]]
) -> tuple[TuneSummary, ...]:
    """Return the tunes of the rounds that have losses in the log, or a folder of adapters."""
    numbers = {*losses, *RunFolder(folder).tuned_rounds()}
    tunes = []
    for number in sorted(numbers):
        gate = None
        with suppress(ModelError, OSError):  # a damaged file is shown as if there were none
            gate = read_gate(RunFolder(folder).adapter(number))
        tunes.append(TuneSummary(number, losses.get(number, ()), gate))
    return tuple(tunes)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events that the observer `jsonl` wrote; a line that a kill cut off is skipped."""
    with suppress(OSError):
        for line in path.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError):
                event = parsed_event(line)
                if isinstance(event, dict) and _is_event(event):
                    yield event


def _is_event(event: Mapping[str, Any]) -> bool:
    """Return whether a line of the log has the fields that are read of its kind.

    Raises ValueError for a time that is not one.
    """
    kind, when = event.get("event"), event.get("time")
    if not isinstance(kind, str) or not isinstance(when, str):
        return False
    numbers = [event.get(key) for key in EVENT_NUMBERS.get(kind, ())]
    has_zone = datetime.fromisoformat(when).tzinfo is not None
    return has_zone and all(isinstance(number, int) for number in numbers)


def _seconds(events: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], float]:
    """Return how long each step took, by round and step, over all sessions.

    A step lasts until the next one begins; in a session that was killed, until its last event.
    """
    seconds: defaultdict[tuple[int, str], float] = defaultdict(float)
    step, began, last_event = None, None, None
    for event in events:
        kind, now = event["event"], datetime.fromisoformat(event["time"])
        if kind in STEP_BOUNDARIES:
            ended = last_event if kind == "RunStarted" else now
            if step and began and ended:
                seconds[step] += (ended - began).total_seconds()
            step = (int(event["round"]), str(event.get("step"))) if kind == "StepStarted" else None
            began = now
        last_event = now
    return dict(seconds)


def _losses(events: Sequence[Mapping[str, Any]]) -> dict[int, tuple[tuple[int, float], ...]]:
    """Return the loss of each batch (number, loss) by round.

    A batch that a resumed tune learns again counts as it was last.
    """
    by_round: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for event in events:
        if event["event"] == "TrainingStep" and isinstance(event.get("loss"), int | float):
            by_round[event["round"]][event["done"]] = event["loss"]
    return {number: tuple(sorted(losses.items())) for number, losses in by_round.items()}
