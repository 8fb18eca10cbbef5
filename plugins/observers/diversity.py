"""`diversity`: how varied a run's questions are, round by round, and a line to the user where asking collapses."""

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from selfloop_plugins._shared.nearest import NearestQuestions

from selfloop import Attempt, Component, Round, hookimpl
from selfloop.events import Event, RoundEnded, RunStarted
from selfloop.storage.atomic import appending
from selfloop.storage.plain_json import parsed
from selfloop.text.display import printable
from selfloop.text.english.entities import named_spans
from selfloop.text.english.forms import opening_form
from selfloop.text.english.likeness import Sketch, sketch

Share = Annotated[float, Gt(0), Le(1)]
FILE = "diversity.jsonl"
PAIRS = 1000  # pairs of questions whose distance is taken
FEW = 10  # in a round with fewer questions a share says nothing


class Diversity:
    """Measures each round's questions against those of the rounds before, into `diversity.jsonl` in
    the run's folder.

    `asked`; `new`: near none before, nor another of the round; `repeats`: the share near one of an
    earlier round (likeness of `near` and more; variants aside); `entities` and `forms`, distinct;
    `top_form`: the largest form's share; `lexical_spread`: the mean distance of two questions by
    their words; `embedding_spread`: the mean `novelty` by embeddings, where the recipe scores that.
    Asking collapses if `new` falls under `least_new` of the first round's, `repeats` are over
    `most_repeats`, or one form is over `most_form`.
    """

    def __init__(
        self,
        *,
        folder: Path,
        near: Share = 0.8,
        least_new: Annotated[float, Ge(0), Le(1)] = 0.5,
        most_repeats: Share = 0.05,
        most_form: Share = 0.5,
    ) -> None:
        self._folder, self._near = folder, near
        self._least_new, self._most_repeats, self._most_form = least_new, most_repeats, most_form
        self._earlier: NearestQuestions | None = None
        self._first_new: int | None = None
        self._entities = set[str]()

    def notice(self, event: Event) -> None:
        """Measure a round that ended; of a run that goes on, the rounds that are there already first."""
        match event:
            case RunStarted(done=done) if done:
                from selfloop.storage.store import rounds_of

                written = _written(self._folder / FILE)
                for ended in rounds_of(self._folder):
                    self._take(ended, write=ended.number not in written)
            case RoundEnded(round=ended):
                for fault in self._faults(
                    self._take(ended, write=ended.number not in _written(self._folder / FILE))
                ):
                    _say(f"asking collapses: round {ended.number}: {fault}")
            case _:
                pass

    def close(self) -> None:
        """Do nothing: each line is written whole."""

    def _take(self, ended: Round, *, write: bool) -> dict[str, Any]:
        """Return a round's figures, written as a line if wanted; its questions count as earlier ones from now on."""
        found = self._measured(ended)
        if self._first_new is None:
            self._first_new = found["new"]
        if write:
            _append(self._folder / FILE, found)
        return found

    def _measured(self, ended: Round) -> dict[str, Any]:
        asked = [attempt for attempt in ended.attempts if attempt.decision != "dropped"]
        sketches = [sketch(attempt.question) for attempt in asked]
        new, repeats = self._compared(sketches)
        names = {name.lower() for attempt in asked for name in _names(attempt)}
        forms = Counter(opening_form(attempt.question.text) for attempt in asked)
        known, self._entities = self._entities, self._entities | names
        spread = [
            s.value
            for a in asked
            for s in a.scores
            if s.scorer.startswith("novelty") and "cosine" in s.reason
        ]
        return {
            "round": ended.number,
            "asked": len(asked),
            "dropped": len(ended.attempts) - len(asked),
            "new": new,
            "repeats": _share(repeats, len(asked)),
            "entities": len(names),
            "new_entities": len(names - known),
            "forms": len(forms),
            "top_form": _share(max(forms.values(), default=0), len(asked)),
            "lexical_spread": _spread(sketches, ended.number),
            "embedding_spread": round(sum(spread) / len(spread), 4) if spread else None,
        }

    def _compared(self, sketches: Sequence[Sketch]) -> tuple[int, int]:
        """Return how many are near no other before them, and how many are near one of an earlier round."""
        if self._earlier is None:
            self._earlier = NearestQuestions()
        repeated = [self._earlier.nearest(one)[0] >= self._near for one in sketches]
        new = 0
        for one, repeats in zip(sketches, repeated, strict=True):
            new += not repeats and self._earlier.nearest(one)[0] < self._near
            self._earlier.add([one])
        return new, sum(repeated)

    def _faults(self, found: dict[str, Any]) -> list[str]:
        """Return what shows that asking collapses, each with what to do."""
        faults = []
        if found["round"] > 1 and found["new"] < self._least_new * (self._first_new or 0):
            advice = "Add sources or topics, raise ask.turns, or stop here."
            faults.append(
                f"{found['new']} new questions, the first round had {self._first_new}. {advice}"
            )
        if found["asked"] < FEW:
            return faults
        if found["repeats"] > self._most_repeats:
            advice = "Raise the minimum of the scorer novelty, or add sources."
            faults.append(f"{found['repeats']:.0%} of the questions repeat earlier ones. {advice}")
        if found["top_form"] > self._most_form:
            advice = "Add the scorer balance with minimum 1, or other sources."
            faults.append(f"{found['top_form']:.0%} of the questions have one form. {advice}")
        return faults


def _names(attempt: Attempt) -> list[str]:
    """Return the names in a question, and the entity that it is about; frames are no entities."""
    question = attempt.question
    about = [question.via] if question.via and question.via.lower() in question.text.lower() else []
    return [*named_spans(question.text), *about]


def _share(count: int, total: int) -> float:
    return round(count / total, 4) if total else 0.0


def _spread(sketches: Sequence[Sketch], seed: int) -> float | None:
    """Return the mean distance (1 minus Dice) of pairs of questions by their words; of many, pairs drawn by a seed."""
    count = len(sketches)
    if count < 2:
        return None
    pairs = [(i, j) for i in range(count) for j in range(i)] if count * count < 2 * PAIRS else []
    rng = random.Random(seed)
    pairs = pairs or [tuple(rng.sample(range(count), 2)) for _ in range(PAIRS)]  # type: ignore[misc]
    return round(sum(_distance(sketches[i], sketches[j]) for i, j in pairs) / len(pairs), 4)


def _distance(one: Sketch, other: Sketch) -> float:
    total = len(one.words) + len(other.words)
    return 1 - 2 * len(one.words & other.words) / total if total else 0.0


def _written(path: Path) -> set[int]:
    """Return the rounds that have a whole line."""
    found = set[int]()
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                found.add(parsed(line)["round"])
            except (ValueError, KeyError, TypeError):
                continue  # a killed run left it half written
    return found


def _append(path: Path, found: dict[str, Any]) -> None:
    with appending(path) as file:
        file.write(json.dumps(found).encode("ascii") + b"\n")


def _say(line: str) -> None:
    """Print a line on stderr as it is now: the live console has put its own there, and keeps its picture below."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr.write(printable(line).encode(encoding, "replace").decode(encoding) + "\n")
    sys.stderr.flush()


@hookimpl
def selfloop_observers() -> list[Component]:
    """Offer the observer."""
    doc = "measures how varied the questions are, and says where asking collapses"
    return [Component("diversity", Diversity, doc=doc)]
