"""How long a recipe will take on this machine, and how much memory: a little of it is played, and
counted up.

A round or two of a few questions, with the recipe's own parts and prompts, say what is asked of the
model. What each call would be with all questions is reckoned from its own counts: as many calls,
each with so many times the requests, each of which goes on for as many tokens; what prompts have in
common is still read once. What reading, writing and one more token of the longest cost is fitted to
the calls of the sample.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from selfloop.config.assembly import Named, Observers, Parts, assemble, built
from selfloop.config.recipe import Decide, Loaded, Recipe
from selfloop.events import RoundEnded, RunEnded
from selfloop.forecast.machine import forget_peak, peak
from selfloop.forecast.meter import AT_ONCE, Meter, Rates, Step, own_parts, settled, text_of
from selfloop.loop import play
from selfloop.protocols import Backend, Observer
from selfloop.records import Message, ModelInfo, Request, Round
from selfloop.storage.store import DATABASE, RECIPE, Store

QUESTIONS, ROUNDS = 8, 2  # of a sample; the second round has sources that the first has not
ANY = 1e-9  # a confidence that almost every answer has
SLOW = 10.0  # seconds that loading takes if something is fetched or made on the way
LARGER = 4  # times the questions of a sample that took no time to speak of
# of a round's time that observers take at most while a run goes on, as `report` does
RECORDING = 0.05
MOST = 10_000  # attempts that observers are shown as those of a whole run
# times what reading the lessons takes: a tune of Gemma 3 270M on two cores (docs/experiments.md)
TUNING = 24


@dataclass(frozen=True)
class Sample:
    """A few questions as they were played: the rounds that ended, what the steps took, and the
    folder it lies in.

    `recording` are the seconds that it took to store the first round and to tell observers that it
    has ended. `empty` and `left` are the sizes of the folder's files before anything was played and
    after.
    """

    questions: int
    seconds: float
    ended: list[Round]
    steps: list[Step]
    calls: list[list[Request]]
    recording: float
    folder: Path
    empty: dict[Path, int]
    left: dict[Path, int]

    @property
    def rounds(self) -> int:
        """Return how many rounds were played."""
        return len(self.ended)

    @property
    def asked(self) -> int:
        """Return how many questions were not dropped."""
        return sum(a.decision != "dropped" for r in self.ended for a in r.attempts)

    @property
    def troubles(self) -> tuple[str, ...]:
        """Return what went wrong, each thing once."""
        failures = [
            f
            for r in self.ended
            for f in (*r.failures, *(f for a in r.attempts for f in a.failures))
        ]
        return tuple(dict.fromkeys(f"{f.step}: {f.component}: {f.message}" for f in failures))


def played(
    loaded: Loaded, backend: Backend, questions: int, patience: float, folder: Path
) -> Sample:
    """Play a round or two of so many questions in a new folder; none begins after `patience`
    seconds.

    But where a recipe has more than two rounds the second is always played: all later ones are
    taken to be like it, and they have more sources and longer prompts than the first. A few
    questions leave too few beliefs for what is made of them then, such as demonstrations, so every
    answer counts as one.
    """
    ask = loaded.recipe.ask.model_copy(update={"questions": questions})
    less: dict[str, Any] = {
        "ask": ask,
        "rounds": min(ROUNDS, loaded.recipe.rounds),
        "observers": [],
        "tuner": None,
    }
    if questions < loaded.recipe.ask.questions:
        less["decide"] = Decide(belief=ANY, declined=0.0)
    small = replace(loaded, recipe=loaded.recipe.model_copy(update=less))
    meter, start = Meter(backend), time.perf_counter()
    with closing(Store(folder, write=True)) as store:
        store.save_file(RECIPE, loaded.source.text())
    empty = _sizes(folder)
    watching = _watching(loaded, folder)
    with closing(Store(folder, write=True)) as store:
        parts = replace(
            assemble(small, folder, store, meter),
            notice=Observers([Named("plan", meter), *watching]),
        )
        store.begin_session({})
        until = start + patience if loaded.recipe.rounds <= ROUNDS else inf
        ended, recording = _rounds(small.recipe, parts, store, until)
    took = time.perf_counter() - start
    Observers(watching).close()  # without the meter, which is the backend too, and not done yet
    return Sample(
        questions,
        took,
        ended,
        settled(meter.steps),
        meter.asked,
        recording,
        folder,
        empty,
        _sizes(folder),
    )


def _watching(loaded: Loaded, folder: Path) -> list[Named[Observer]]:
    # Only observers that write into the run's folder: a tracker would show a run that is none.
    find = loaded.catalog.find
    local = [spec for spec in loaded.recipe.observers if find("observer", spec.kind).local]
    return [Named(spec.kind, built(loaded, "observer", spec, folder)) for spec in local]


def _rounds(recipe: Recipe, parts: Parts, store: Store, until: float) -> tuple[list[Round], float]:
    """Play the rounds of a recipe, each stored as it ends; return them, and what storing the first one took."""
    ended, recording = list[Round](), 0.0
    for one in play(recipe, parts, store.past()):
        start = time.perf_counter()
        store.save_round(one)
        parts.notice(RoundEnded(one))
        recording = recording or time.perf_counter() - start
        ended.append(one)
        if time.perf_counter() > until:
            break
    return ended, recording


def _ending(loaded: Loaded, sample: Sample) -> tuple[float, int]:
    """Return the seconds that observers take at the end of a run as large as the recipe's, and the
    bytes it leaves.

    What was played is stored again and again, for there to be as much as in that run. Such a run
    has questions without a topic, for which observers may look for one, even if the sample has
    none.
    """
    times = loaded.recipe.rounds / sample.rounds * loaded.recipe.ask.questions / sample.questions
    attempts = [
        replace(a, question=replace(a.question, topic=""))
        for one in sample.ended
        for a in one.attempts
    ]
    more = min(round((times - 1) * len(attempts)), MOST - len(attempts))
    with closing(Store(sample.folder, write=True)) as store:
        if more > 0:
            store.save_round(
                Round(sample.rounds + 1, tuple(attempts[i % len(attempts)] for i in range(more)))
            )
        observers, start = Observers(_watching(loaded, sample.folder)), time.perf_counter()
        observers(RunEnded(str(sample.folder), "done"))
        observers.close()
        took = time.perf_counter() - start
    return took, _bytes(sample, times)


def _bytes(sample: Sample, times: float) -> int:
    """Return what a run so many times as large leaves.

    What is written anew at the end is then as large as it will be; all else grows with what is
    played.
    """
    empty, left = sample.empty, sample.left
    grown = {
        file: empty.get(file, 0) + (size - empty.get(file, 0)) * times
        for file, size in left.items()
    }
    whole = _sizes(sample.folder).items()
    anew = {
        file: size
        for file, size in whole
        if file.name != DATABASE and size > 1.1 * left.get(file, 0)
    }
    return round(sum((grown | anew).values()))


def _sizes(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def rates(steps: Sequence[Step]) -> Rates:
    """Fit what a call's work costs; no cost is below nothing."""
    import numpy as np
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    calls = [call for step in steps for call in step.calls]
    if not calls:
        return Rates()
    work = np.array([call.work() for call in calls])
    # else the characters, which are many, would be all that counts
    scale = np.maximum(work.max(axis=0), 1.0)
    found, _ = nnls(work / scale, np.array([call.seconds for call in calls]))
    return Rates(*(float(one) for one in found / scale))


@dataclass(frozen=True)
class Part:
    """A step's seconds in the first round, in each later one, and in all rounds, and the tokens that it writes."""

    name: str
    first: float
    later: float
    seconds: float
    tokens: int


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Memory and disk are in bytes; memory is None where the system does not tell.
    """

    model: ModelInfo
    loading: float
    parts: tuple[Part, ...]
    memory: int | None
    disk: int
    sample: Sample

    @property
    def seconds(self) -> float:
        """Return how long the run will take."""
        return self.loading + sum(part.seconds for part in self.parts)


def forecast(loaded: Loaded, budget: float) -> Forecast:
    """Play samples for about `budget` seconds, and count them up.

    Raises SelfloopError for what cannot be loaded.
    """
    backend, loading = _opened(loaded)
    try:
        with TemporaryDirectory(prefix="selfloop-plan-") as folder:
            forget_peak()
            sample = _sampled(loaded, backend, budget, Path(folder))
            ending, disk = _ending(loaded, sample)
        _stretch(backend, sample, loaded.recipe.ask.questions)
        parts = tuple(_parts(loaded, sample, ending))
        return Forecast(backend.describe(), loading, parts, peak(), disk, sample)
    finally:
        backend.close()


def _opened(loaded: Loaded) -> tuple[Backend, float]:
    """Return the backend and how long loading takes: once more if it took long, for what is made once is there then."""
    backend, took = _loaded(loaded)
    if took > SLOW:
        backend.close()
        backend, took = _loaded(loaded)
    return backend, took


def _loaded(loaded: Loaded) -> tuple[Backend, float]:
    start = time.perf_counter()
    backend: Backend = built(loaded, "backend", loaded.recipe.backend, loaded.base)
    backend.describe()
    return backend, time.perf_counter() - start


def _sampled(loaded: Loaded, backend: Backend, budget: float, folder: Path) -> Sample:
    """Return the largest sample that there is time for; each lies in a folder of its own in `folder`."""
    questions, start = min(QUESTIONS, loaded.recipe.ask.questions), time.perf_counter()
    while True:
        sample = played(loaded, backend, questions, budget, folder / str(questions))
        spent = time.perf_counter() - start
        if questions == loaded.recipe.ask.questions or spent + LARGER * sample.seconds > budget:
            return sample
        questions = min(LARGER * questions, loaded.recipe.ask.questions)


def _parts(loaded: Loaded, sample: Sample, ending: float) -> list[Part]:
    """Return the forecast of each step: later rounds are as the last one that was played."""
    recipe = loaded.recipe
    times, cost = recipe.ask.questions / sample.questions, rates(sample.steps)
    made, more = list[Part](), recipe.rounds - 1
    for name in dict.fromkeys(step.name for step in sample.steps):
        own = [step for step in sample.steps if step.name == name]
        first, later = own[0].at(times, cost, own[-1].beside), own[-1].at(times, cost)
        tokens = round(times * (own[0].tokens + more * own[-1].tokens))
        made.append(Part(name, first, later, first + more * later, tokens))
    later = min(ending, RECORDING * sum(part.later for part in made))
    made.append(
        Part("record", sample.recording, later, sample.recording + more * later + ending, 0)
    )
    return [*made, _tune(loaded, sample, cost)] if recipe.tuner else made


def _tune(loaded: Loaded, sample: Sample, cost: Rates) -> Part:
    """Return about how long the tunes take, by what reading their lessons takes: all questions so far, and answers."""
    recipe = loaded.recipe
    assert recipe.tuner
    estimate = loaded.catalog.find("tuner", recipe.tuner.kind).estimate
    readings = estimate(**recipe.tuner.options) if estimate else 1.0  # of each lesson
    calls = [call for step in sample.steps if step.name == "answer" for call in step.calls]
    written = sum(call.completions for call in calls)
    length = sum(call.own for call in calls) / max(sample.asked, 1) + 4 * sum(
        c.tokens for c in calls
    ) / max(written, 1)
    each = TUNING * cost.read * length * recipe.ask.questions * readings
    tunes = [
        number * each for number in range(recipe.tuner.every, recipe.rounds + 1, recipe.tuner.every)
    ]
    return Part("tune", 0.0, max(tunes, default=0.0), sum(tunes), 0)


def _stretch(backend: Backend, sample: Sample, questions: int) -> None:
    """Begin the largest call at the size that the run will have it, so that the backend makes all the room for it."""
    times = questions / sample.questions
    if times > 1 and sample.calls:
        made = [_stretched(requests, round(len(requests) * times)) for requests in sample.calls]
        next(iter(backend.generate(max(made, key=_demand))), None)


def _stretched(requests: Sequence[Request], count: int) -> list[Request]:
    """Return so many requests that are like the given ones, each with an end of its own as theirs have."""
    # rather too much than too little
    own = int(median(own_parts([text_of(request.prompt) for request in requests])))
    return [
        replace(request, seed=i, prompt=_varied(request.prompt, own, i // len(requests)))
        for i, request in ((i, requests[i % len(requests)]) for i in range(count))
    ]


def _varied(prompt: str | tuple[Message, ...], own: int, number: int) -> str | tuple[Message, ...]:
    if isinstance(prompt, str):
        return (
            f"{prompt[: len(prompt) - own]}{number} {prompt[len(prompt) - own :]}"
            if number
            else prompt
        )
    *before, last = prompt
    return (
        *before,
        replace(last, content=str(_varied(last.content, min(own, len(last.content)), number))),
    )


def _demand(requests: Sequence[Request]) -> int:
    """Return about how much of its cache a backend needs for a call, in characters."""
    texts = [text_of(request.prompt) for request in requests]
    rooms = sorted((4 * r.sampling.max_tokens for r in requests for _ in range(r.n)), reverse=True)
    return (
        sum(rooms[:AT_ONCE])
        + sum(sorted(own_parts(texts), reverse=True)[:AT_ONCE])
        + max(map(len, texts), default=0)
    )
