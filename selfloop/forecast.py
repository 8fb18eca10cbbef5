"""How long a recipe will take on this machine, and how much memory: a little of it is played, and counted up.

A round or two of a few questions, with the recipe's own parts and prompts, say what is asked of the model. What each
call would be with all questions is reckoned from its own counts: as many calls, each with so many times the requests,
each of which goes on for as many tokens; what prompts have in common is still read once. What reading, writing and one
more token of the longest cost is fitted to the calls of the sample.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from selfloop.assemble import Named, Observers, assemble, built
from selfloop.errors import RequestError
from selfloop.events import Event, RoundEnded, RunEnded, StepStarted
from selfloop.loop import play
from selfloop.machine import forget_peak, peak
from selfloop.protocols import Backend
from selfloop.recipe import Loaded, Recipe
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, Message, ModelInfo, Request, Round
from selfloop.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUESTIONS, ROUNDS = 8, 2  # of a sample; the second round has sources that the first has not
SLOW = 10.0  # seconds that loading takes if something is fetched or made on the way
LARGER = 4  # times the questions of a sample that took no time to speak of
AT_ONCE = 64  # completions that a backend may be expected to write at a time
TUNING = 24  # times what reading the lessons takes: a tune of Gemma 3 270M on two cores (docs/experiments.md)


class Rates(NamedTuple):
    """Seconds for a token of the longest completion of a call, for each token and completion, for a character read."""

    step: float = 0.0
    token: float = 0.0
    completion: float = 0.0
    read: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the backend. Of the characters `read`, `own` are those of one request alone."""

    seconds: float
    read: int
    own: int
    requests: int = 0
    completions: int = 0
    tokens: int = 0
    longest: int = 0

    def work(self, times: float = 1.0) -> tuple[float, float, float, float]:
        """Return what `Rates` are for, of this call with so many times the requests."""
        tokens, read = self.tokens * times, self.read - self.own + self.own * times
        return max(self.longest, tokens / AT_ONCE), tokens, self.completions * times, read


@dataclass
class Step:
    """One step of a round of the sample."""

    round: int
    name: str
    seconds: float = 0.0
    calls: list[Call] = field(default_factory=list)

    def at(self, times: float, rates: Rates, usual: float | None = None) -> float:
        """Return the seconds that the step takes with so many times the questions.

        Of what it takes beside its calls, `usual` is what grows with them; the rest is done once: imports, say.
        """
        grows = self.beside if usual is None else min(self.beside, usual)
        return self.beside + (times - 1) * grows + sum(_longer(call, times, rates) for call in self.calls)

    @property
    def beside(self) -> float:
        """Return the seconds that are spent outside calls of the backend."""
        return self.seconds - sum(call.seconds for call in self.calls)

    @property
    def tokens(self) -> int:
        """Return how many tokens were written."""
        return sum(call.tokens for call in self.calls)


def _longer(call: Call, times: float, rates: Rates) -> float:
    more = sum(r * (b - a) for r, a, b in zip(rates, call.work(), call.work(times), strict=True))
    return call.seconds + more


class Meter:
    """A `Backend` and an observer: notes what each step asks of the backend, and how long that takes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.steps: list[Step] = []
        self.asked: list[list[Request]] = []
        self._began: float | None = None

    def notice(self, event: Event) -> None:
        """Start and stop the clock of a step."""
        if isinstance(event, StepStarted | RoundEnded | RunEnded) and self._began is not None:
            self.steps[-1].seconds, self._began = time.perf_counter() - self._began, None
        if isinstance(event, StepStarted):
            self.steps.append(Step(event.round, event.step))
            self._began = time.perf_counter()

    def describe(self) -> ModelInfo:
        """Return what the backend says of its model."""
        return self._backend.describe()

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | RequestError]]:
        """Pass on what the backend yields, and note it."""
        start, lengths = time.perf_counter(), list[int]()
        for index, result in self._backend.generate(requests):
            lengths += [] if isinstance(result, RequestError) else [len(result.tokens)]
            yield index, result
        took, counts = time.perf_counter() - start, (len(lengths), sum(lengths), max(lengths, default=0))
        texts = [_text(request.prompt) for request in requests]
        self._note(Call(took, *_read(texts), len(texts), *counts))
        self.asked.append(list(requests))

    def loglikelihood(self, pairs: Sequence[Continuation]) -> list[tuple[float, ...] | RequestError]:
        """Pass on what the backend returns, and note it."""
        with self._timed(pairs):
            return self._backend.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Pass on what the backend returns, and note it."""
        with self._timed(pairs):
            return self._backend.hidden_states(pairs, places, layer)

    def attentions(self, pairs: Sequence[Continuation]) -> "list[NDArray[np.float32] | RequestError]":
        """Pass on what the backend returns, and note it."""
        with self._timed(pairs):
            return self._backend.attentions(pairs)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter."""
        return self._backend.load_adapter(adapter)

    def close(self) -> None:
        """Do nothing: whoever made the backend goes on with it, and closes it."""

    @contextmanager
    def _timed(self, pairs: Sequence[Continuation]) -> Iterator[None]:
        start = time.perf_counter()
        yield
        took, texts = time.perf_counter() - start, [f"{_text(pair.prompt)}{pair.text}" for pair in pairs]
        self._note(Call(took, *_read(texts), len(texts)))

    def _note(self, call: Call) -> None:
        if self.steps:
            self.steps[-1].calls.append(call)


def _text(prompt: str | tuple[Message, ...]) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m.role}: {m.content}" for m in prompt)


def _read(texts: Collection[str]) -> tuple[int, int]:
    """Return how many characters are read, what texts have in common once, and how many of those are one's own."""
    ordered = sorted(set(texts))
    read = sum(map(len, ordered)) - sum(_alike(a, b) for a, b in pairwise(ordered))
    return read, min(read, _own(ordered) * len(ordered))


def _own(texts: Collection[str]) -> int:
    """Return how many characters at the end of a text are its own: the lower quartile, for of a few texts some may be
    alone with a beginning that of many others would have too."""
    ends = sorted(_ends(texts))
    return ends[len(ends) // 4] if ends else 0


def _ends(texts: Collection[str]) -> list[int]:
    """Return of each different text how many characters no other one begins with."""
    ordered = sorted(set(texts))
    same = [0, *(_alike(a, b) for a, b in pairwise(ordered)), 0]
    return [len(text) - max(same[i : i + 2]) for i, text in enumerate(ordered)]


def _alike(a: str, b: str) -> int:
    """Return with how many of the same characters two texts begin."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _demand(requests: Sequence[Request]) -> int:
    """Return about how much of its cache a backend needs for a call, in characters."""
    texts = [_text(request.prompt) for request in requests]
    rooms = sorted((4 * r.sampling.max_tokens for r in requests for _ in range(r.n)), reverse=True)
    return sum(rooms[:AT_ONCE]) + sum(sorted(_ends(texts), reverse=True)[:AT_ONCE]) + max(map(len, texts), default=0)


@dataclass(frozen=True)
class Sample:
    """A few questions as they were played: what the steps took, and what was left of them on the disk."""

    questions: int
    rounds: int
    asked: int
    seconds: float
    steps: list[Step]
    bytes: int
    troubles: tuple[str, ...]
    calls: list[list[Request]]


def played(loaded: Loaded, backend: Backend, questions: int, patience: float) -> Sample:
    """Play a round or two of so many questions in a folder that goes away; none begins after `patience` seconds."""
    rounds = min(ROUNDS, loaded.recipe.rounds)
    ask = loaded.recipe.ask.model_copy(update={"questions": questions})
    small = loaded.recipe.model_copy(update={"ask": ask, "rounds": rounds, "observers": [], "tuner": None})
    meter, ended, start = Meter(backend), list[Round](), time.perf_counter()
    with TemporaryDirectory(prefix="selfloop-plan-") as name:
        folder = Path(name)
        with closing(Store(folder, write=True)) as store:
            parts = assemble(replace(loaded, recipe=small), folder, store, meter)
            parts = replace(parts, notice=Observers([Named("plan", meter)]))
            store.begin_session({})
            for one in play(small, parts, store.past()):
                store.save_round(one)
                parts.notice(RoundEnded(one))
                ended.append(one)
                if time.perf_counter() - start > patience:
                    break
        size = sum(
            file.stat().st_size for file in folder.rglob("*") if file.is_file()
        )  # now that it is all in one file
    took = time.perf_counter() - start
    asked = sum(a.decision != "dropped" for r in ended for a in r.attempts)
    return Sample(questions, len(ended), asked, took, meter.steps, size, _troubles(ended), meter.asked)


def _troubles(rounds: Sequence[Round]) -> tuple[str, ...]:
    """Return what went wrong, each thing once."""
    failures = [f for r in rounds for f in (*r.failures, *(f for a in r.attempts for f in a.failures))]
    return tuple(dict.fromkeys(f"{f.step}: {f.component}: {f.message}" for f in failures))


def rates(steps: Sequence[Step]) -> Rates:
    """Fit what a call's work costs; no cost is below nothing."""
    import numpy as np
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    calls = [call for step in steps for call in step.calls]
    if not calls:
        return Rates()
    work = np.array([call.work() for call in calls])
    scale = np.maximum(work.max(axis=0), 1.0)  # else the characters, which are many, would be all that counts
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
    """What a run will take. Memory and disk are in bytes; memory is None where the system does not tell."""

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
    """Play samples for about `budget` seconds, and count them up. Raises SelfloopError for what cannot be loaded."""
    backend, loading = _opened(loaded)
    try:
        forget_peak()
        sample = _sampled(loaded, backend, budget)
        _stretch(backend, sample, loaded.recipe.ask.questions)
        parts = tuple(_parts(loaded.recipe, sample))
        disk = round(sample.bytes * loaded.recipe.rounds / sample.rounds * _times(loaded.recipe, sample))
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


def _sampled(loaded: Loaded, backend: Backend, budget: float) -> Sample:
    """Return the largest sample that there is time for."""
    questions, start = min(QUESTIONS, loaded.recipe.ask.questions), time.perf_counter()
    while True:
        sample = played(loaded, backend, questions, budget)
        spent = time.perf_counter() - start
        if questions == loaded.recipe.ask.questions or spent + LARGER * sample.seconds > budget:
            return sample
        questions = min(LARGER * questions, loaded.recipe.ask.questions)


def _times(recipe: Recipe, sample: Sample) -> float:
    return recipe.ask.questions / sample.questions


def _parts(recipe: Recipe, sample: Sample) -> Iterator[Part]:
    """Yield the forecast of each step: later rounds are as the last one that was played."""
    times, cost = _times(recipe, sample), rates(sample.steps)
    for name in dict.fromkeys(step.name for step in sample.steps):
        own = [step for step in sample.steps if step.name == name]
        first, later = own[0].at(times, cost, own[-1].beside), own[-1].at(times, cost)
        more = recipe.rounds - 1
        tokens = round(times * (own[0].tokens + more * own[-1].tokens))
        yield Part(name, first, later, first + more * later, tokens)
    if recipe.tuner:
        yield _tune(recipe, sample, cost)


def _tune(recipe: Recipe, sample: Sample, cost: Rates) -> Part:
    """Return about how long the tunes take, by what reading their lessons takes: all questions so far, and answers."""
    assert recipe.tuner
    calls = [call for step in sample.steps if step.name == "answer" for call in step.calls]
    asked = sum(call.requests for call in calls) or 1
    length = sum(call.own for call in calls) / asked + 4 * sum(call.tokens for call in calls) / asked
    each = TUNING * cost.read * length * recipe.ask.questions * float(recipe.tuner.options.get("epochs", 1))
    tunes = [number * each for number in range(recipe.tuner.every, recipe.rounds + 1, recipe.tuner.every)]
    return Part("tune", 0.0, max(tunes, default=0.0), sum(tunes), 0)


def _stretch(backend: Backend, sample: Sample, questions: int) -> None:
    """Begin the largest call at the size that the run will have it, so that the backend makes all the room for it."""
    times = questions / sample.questions
    if times > 1 and sample.calls:
        made = [_stretched(requests, round(len(requests) * times)) for requests in sample.calls]
        next(iter(backend.generate(max(made, key=_demand))), None)


def _stretched(requests: Sequence[Request], count: int) -> list[Request]:
    """Return so many requests that are like the given ones, each with an end of its own as theirs have."""
    own = _own([_text(request.prompt) for request in requests])
    return [
        replace(request, seed=i, prompt=_varied(request.prompt, own, i // len(requests)))
        for i, request in ((i, requests[i % len(requests)]) for i in range(count))
    ]


def _varied(prompt: str | tuple[Message, ...], own: int, number: int) -> str | tuple[Message, ...]:
    if isinstance(prompt, str):
        return f"{prompt[: len(prompt) - own]}{number} {prompt[len(prompt) - own :]}" if number else prompt
    *before, last = prompt
    return (*before, replace(last, content=str(_varied(last.content, min(own, len(last.content)), number))))
