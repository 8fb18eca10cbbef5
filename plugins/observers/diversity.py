"""The observer `diversity`: how varied a run's questions are, round by round.

Where asking collapses, it prints a line for the user.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from selfloop_plugins._shared.nearest import NearestQuestions

from selfloop import Attempt, Component, Round, hookimpl
from selfloop.events import Event, RoundEnded, RunStarted
from selfloop.storage.atomic import appending
from selfloop.storage.plain_json import parsed
from selfloop.storage.run_folder import RunFolder
from selfloop.text.display import printable
from selfloop.text.english.entities import named_spans
from selfloop.text.english.forms import opening_form
from selfloop.text.english.likeness import Sketch, sketch

Share = Annotated[float, Gt(0), Le(1)]
MAX_PAIRS = 1000  # pairs of questions whose distance is taken
MIN_QUESTIONS = 10  # in a round with fewer questions a share says nothing


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
        self._file = RunFolder(folder).diversity
        self._least_new, self._most_repeats, self._most_form = least_new, most_repeats, most_form
        self._earlier: NearestQuestions | None = None
        self._first_new: int | None = None
        self._entities = set[str]()

    def on_event(self, event: Event) -> None:
        """Measure a round that ended.

        Of a run that goes on, the rounds that are there already come first.
        """
        match event:
            case RunStarted(done=done) if done:
                # imported here: a run that begins anew has no rounds to read
                from selfloop.storage.store import rounds_of

                written = _written_rounds(RunFolder(self._folder).diversity)
                for ended in rounds_of(self._folder):
                    self._take_round(ended, write=ended.number not in written)
            case RoundEnded(round=ended):
                written = _written_rounds(RunFolder(self._folder).diversity)
                figures = self._take_round(ended, write=ended.number not in written)
                for fault in self._faults(figures):
                    _warn(f"asking collapses: round {ended.number}: {fault}")
            case _:
                pass

    def close(self) -> None:
        """Do nothing: each line is written whole."""

    def _take_round(self, ended: Round, *, write: bool) -> dict[str, Any]:
        """Return a round's figures; with `write` they are written as a line too.

        The round's questions count as earlier ones from now on.
        """
        figures = self._measure_round(ended)
        if self._first_new is None:
            self._first_new = figures["new"]
        if write:
            _append(RunFolder(self._folder).diversity, figures)
        return figures

    def _measure_round(self, ended: Round) -> dict[str, Any]:
        asked = [attempt for attempt in ended.attempts if attempt.decision != "dropped"]
        sketches = [sketch(attempt.question) for attempt in asked]
        new, repeats = self._compare(sketches)
        names = set[str]()
        for attempt in asked:
            names.update(name.lower() for name in _entity_names(attempt))
        new_names = names - self._entities
        self._entities |= names
        forms = Counter(opening_form(attempt.question.text) for attempt in asked)
        distances = [*_embedding_distances(asked)]
        return {
            "round": ended.number,
            "asked": len(asked),
            "dropped": len(ended.attempts) - len(asked),
            "new": new,
            "repeats": _share(repeats, len(asked)),
            "entities": len(names),
            "new_entities": len(new_names),
            "forms": len(forms),
            "top_form": _share(max(forms.values(), default=0), len(asked)),
            "lexical_spread": _lexical_spread(sketches, ended.number),
            "embedding_spread": round(sum(distances) / len(distances), 4) if distances else None,
        }

    def _compare(self, sketches: Sequence[Sketch]) -> tuple[int, int]:
        """Return how many questions are new, and how many repeat one of an earlier round.

        A new question is also not near one before it in this round.
        """
        if self._earlier is None:
            self._earlier = NearestQuestions()
        # first against earlier rounds alone, then question by question
        repeated = [self._earlier.nearest(question)[0] >= self._near for question in sketches]
        new = 0
        for question, repeats in zip(sketches, repeated, strict=True):
            new += not repeats and self._earlier.nearest(question)[0] < self._near
            self._earlier.add([question])
        return new, sum(repeated)

    def _faults(self, figures: dict[str, Any]) -> list[str]:
        """Return the signs that asking collapses, each with advice."""
        faults = []
        if figures["round"] > 1 and figures["new"] < self._least_new * (self._first_new or 0):
            advice = "Add sources or topics, raise ask.max_turns, or stop here."
            faults.append(
                f"{figures['new']} new questions, the first round had {self._first_new}. {advice}"
            )
        if figures["asked"] < MIN_QUESTIONS:
            return faults
        if figures["repeats"] > self._most_repeats:
            advice = "Raise the minimum of the scorer novelty, or add sources."
            faults.append(
                f"{figures['repeats']:.0%} of the questions repeat earlier ones. {advice}"
            )
        if figures["top_form"] > self._most_form:
            advice = "Add the scorer balance with minimum 1, or other sources."
            faults.append(f"{figures['top_form']:.0%} of the questions have one form. {advice}")
        return faults


def _entity_names(attempt: Attempt) -> list[str]:
    """Return the names in a question, and the entity that it is about; frames are no entities."""
    question = attempt.question
    about = [question.via] if question.via and question.via.lower() in question.text.lower() else []
    return [*named_spans(question.text), *about]


def _embedding_distances(attempts: Sequence[Attempt]) -> Iterator[float]:
    """Yield the novelty of each question by embeddings, where the recipe scores that."""
    for attempt in attempts:
        for score in attempt.scores:
            if score.scorer.startswith("novelty") and "cosine" in score.reason:
                yield score.value


def _share(count: int, total: int) -> float:
    return round(count / total, 4) if total else 0.0


def _lexical_spread(sketches: Sequence[Sketch], seed: int) -> float | None:
    """Return the mean distance (1 minus Dice) of two questions by their words.

    Of many questions, pairs are drawn by a seed. None for fewer than two.
    """
    count = len(sketches)
    if count < 2:
        return None
    pairs: list[tuple[int, int]] = []
    if count * count < 2 * MAX_PAIRS:  # there are about count² / 2
        for first in range(count):
            pairs += [(first, second) for second in range(first)]
    else:
        rng = random.Random(seed)
        for _ in range(MAX_PAIRS):
            first, second = rng.sample(range(count), 2)
            pairs.append((first, second))
    total = sum(_distance(sketches[first], sketches[second]) for first, second in pairs)
    return round(total / len(pairs), 4)


def _distance(a: Sketch, b: Sketch) -> float:
    total = len(a.words) + len(b.words)
    return 1 - 2 * len(a.words & b.words) / total if total else 0.0


def _written_rounds(path: Path) -> set[int]:
    """Return the numbers of the rounds that have a whole line."""
    rounds = set[int]()
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                rounds.add(parsed(line)["round"])
            except (ValueError, KeyError, TypeError):
                continue  # a killed run left it half written
    return rounds


def _append(path: Path, figures: dict[str, Any]) -> None:
    with appending(path) as file:
        file.write(json.dumps(figures).encode("ascii") + b"\n")


def _warn(line: str) -> None:
    """Print a line on stderr.

    `sys.stderr` is looked up at each call: the live console puts its own there, which keeps the
    picture below the line.
    """
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr.write(printable(line).encode(encoding, "replace").decode(encoding) + "\n")
    sys.stderr.flush()


@hookimpl
def selfloop_observers() -> list[Component]:
    """Offer the observer."""
    doc = "measures how varied the questions are, and says where asking collapses"
    return [Component("diversity", Diversity, doc=doc)]
