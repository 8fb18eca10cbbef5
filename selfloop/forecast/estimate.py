"""How long a recipe will take on this machine, and how much memory.

A small sample is run and scaled up. A round or two of a few questions, with the recipe's own
components and prompts, show the requests to the model. Each call is then scaled from its own
counts: the run makes as many calls, each with so many times the requests, each of which goes on for
as many tokens. The common beginning of prompts is still read once. The costs of reading, of writing
and of one more token of the longest completion are fitted to the calls of the sample.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import chain, cycle, islice
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from selfloop import system
from selfloop.config.assembly import NamedComponent, Observers, Pipeline, assemble, build_component
from selfloop.config.recipe import Decide, LoadedRecipe, Recipe
from selfloop.errors import MissingExtraError
from selfloop.events import RoundEnded, RunEnded
from selfloop.forecast.meter import (
    BATCH,
    Call,
    Rates,
    Step,
    StepClock,
    TimedBackend,
    calls_of,
    with_typical_own_lengths,
)
from selfloop.forecast.prefixes import own_lengths, plain_text
from selfloop.loop import run_rounds
from selfloop.protocols import Backend, Observer
from selfloop.records import Attempt, Failure, Message, ModelInfo, Request, Round
from selfloop.steps import auto_samples
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import Store

# of a sample; the second round has sources that the first has not
SAMPLE_QUESTIONS, SAMPLE_ROUNDS = 8, 2
MIN_CONFIDENCE = 1e-9  # a threshold that almost every answer reaches
# Seconds of loading. If it takes longer, something is fetched or made on the way, which a second
# loading finds done.
MAX_LOADING = 10.0
GROWTH = 4  # of the questions, from a sample that took hardly any time to the next
# of a round's time that observers take at most while a run goes on, as `report` does
MAX_RECORDING = 0.05
MAX_ATTEMPTS = 10_000  # that observers are shown as those of a whole run
# times the time to read the lessons: a tune of Gemma 3 270M on two cores (docs/experiments.md)
TUNING_FACTOR = 24
CHARACTERS_PER_TOKEN = 4  # of English text, about; only where tokens and characters are compared


@dataclass(frozen=True)
class Sample:
    """A few questions as they were run: the rounds that ended, the work of the steps, and the
    folder of that run.

    `requests` are those of each call that generated. `recording` are the seconds that it took to
    store the first round and to tell observers that it has ended. `empty_sizes` and `sizes` are the
    bytes of the folder's files before the first round and after the last.
    """

    questions: int
    seconds: float
    ended: list[Round]
    steps: list[Step]
    requests: list[list[Request]]
    recording: float
    folder: Path
    empty_sizes: dict[Path, int]
    sizes: dict[Path, int]

    @property
    def rounds(self) -> int:
        """Return how many rounds were run."""
        return len(self.ended)

    @property
    def attempts(self) -> list[Attempt]:
        """Return the attempts of all rounds, in order."""
        return list(chain.from_iterable(ended.attempts for ended in self.ended))

    @property
    def asked(self) -> int:
        """Return how many questions were not dropped."""
        return sum(attempt.decision != "dropped" for attempt in self.attempts)

    @property
    def troubles(self) -> tuple[str, ...]:
        """Return the failures as texts, each once."""
        texts = (f"{f.step}: {f.component}: {f.message}" for f in self._failures())
        return tuple(dict.fromkeys(texts))

    def _failures(self) -> Iterator[Failure]:
        for ended in self.ended:
            yield from ended.failures
            for attempt in ended.attempts:
                yield from attempt.failures


def run_sample(
    loaded: LoadedRecipe, backend: Backend, questions: int, max_seconds: float, folder: Path
) -> Sample:
    """Run a round or two of so many questions in a new folder; none begins after `max_seconds`.

    But where a recipe has more than two rounds the second is always run: all later ones are taken
    to be like it, and they have more sources and longer prompts than the first.
    """
    small = _small_recipe(loaded, questions)
    steps = list[Step]()
    timed, start = TimedBackend(backend, steps), time.perf_counter()
    with closing(Store(folder, write=True)) as store:
        store.save_file(store.files.recipe, loaded.source.text())
    empty_sizes = _sizes(folder)
    clock: NamedComponent[Observer] = NamedComponent("plan", StepClock(steps))
    observers = [clock, *_watching(loaded, folder)]
    with closing(Store(folder, write=True)) as store:
        assembled = assemble(small, folder, store, timed)
        parts = replace(assembled, observers=Observers(observers))
        store.begin_session({})
        until = start + max_seconds if loaded.recipe.rounds <= SAMPLE_ROUNDS else inf
        ended, recording = _run_rounds(small.recipe, parts, store, until)
    seconds = time.perf_counter() - start
    parts.observers.close()  # but not the backend, which goes on
    return Sample(
        questions,
        seconds,
        ended,
        with_typical_own_lengths(steps),
        timed.requests,
        recording,
        folder,
        empty_sizes,
        _sizes(folder),
    )


def _small_recipe(loaded: LoadedRecipe, questions: int) -> LoadedRecipe:
    """Return the recipe with so many questions a round, and nothing that acts outside the run."""
    changes: dict[str, Any] = {
        "ask": loaded.recipe.ask.model_copy(update={"questions": questions}),
        "rounds": min(SAMPLE_ROUNDS, loaded.recipe.rounds),
        "observers": [],
        "tuner": None,
    }
    if loaded.recipe.answer.samples == "auto":
        # so few questions would all be sampled
        mean = _samples_of_each(loaded.recipe)
        changes["answer"] = loaded.recipe.answer.model_copy(update={"samples": mean})
    if questions < loaded.recipe.ask.questions:
        # A few questions leave too few beliefs for few-shot examples and the like in the second
        # round. So every answer counts as a belief.
        changes["decide"] = Decide(belief=MIN_CONFIDENCE, declined=0.0)
    return replace(loaded, recipe=loaded.recipe.model_copy(update=changes))


def _watching(loaded: LoadedRecipe, folder: Path) -> list[NamedComponent[Observer]]:
    # Only observers that write into the run's folder: a tracker would show a run that is none.
    find = loaded.catalog.find
    local = [spec for spec in loaded.recipe.observers if find("observer", spec.kind).local]
    return [
        NamedComponent(spec.kind, build_component(loaded, "observer", spec, folder))
        for spec in local
    ]


def _run_rounds(
    recipe: Recipe, parts: Pipeline, store: Store, until: float
) -> tuple[list[Round], float]:
    """Run a recipe, and store each round as it ends.

    Return the rounds, and the seconds that storing the first one took.
    """
    ended, recording = list[Round](), 0.0
    for last in run_rounds(recipe, parts, store.history()):
        start = time.perf_counter()
        store.save_round(last)
        parts.observers.emit(RoundEnded(last))
        recording = recording or time.perf_counter() - start
        ended.append(last)
        if time.perf_counter() > until:
            break
    return ended, recording


def _measure_end(loaded: LoadedRecipe, sample: Sample) -> tuple[float, int]:
    """Return the seconds that observers take at the end of a run as large as the recipe's, and the
    bytes it leaves.

    The sample's attempts are stored again and again, until there are as many as in that run. Such a
    run has questions without a topic, for which observers may look for one, even if the sample has
    none.
    """
    times = loaded.recipe.rounds / sample.rounds * loaded.recipe.ask.questions / sample.questions
    attempts = [
        replace(attempt, question=replace(attempt.question, topic=""))
        for attempt in sample.attempts
    ]
    more = min(round((times - 1) * len(attempts)), MAX_ATTEMPTS - len(attempts))
    with closing(Store(sample.folder, write=True)) as store:
        if more > 0:
            copies = tuple(islice(cycle(attempts), more))
            store.save_round(Round(sample.rounds + 1, copies))
        observers, start = Observers(_watching(loaded, sample.folder)), time.perf_counter()
        observers.emit(RunEnded(str(sample.folder), "done"))
        observers.close()
        seconds = time.perf_counter() - start
    return seconds, _bytes_left(sample, times)


def _bytes_left(sample: Sample, times: float) -> int:
    """Return the bytes that a run so many times as large leaves.

    A file that observers wrote anew at the end has its final size. All others grow with the run,
    from their sizes before its first round.
    """
    database = RunFolder(sample.folder).database
    left = dict[Path, float]()
    for file, size in sample.sizes.items():
        empty = sample.empty_sizes.get(file, 0)
        left[file] = empty + (size - empty) * times
    for file, size in _sizes(sample.folder).items():
        if file != database and size > 1.1 * sample.sizes.get(file, 0):
            left[file] = size
    return round(sum(left.values()))


def _sizes(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def rates(steps: Sequence[Step]) -> Rates:
    """Fit the cost of each kind of work; none is negative."""
    import numpy as np
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    calls = calls_of(steps)
    if not calls:
        return Rates()
    work = np.array([call.work() for call in calls])  # (calls, 4)
    # without a scale the characters, which are many, would be all that counts
    scale = np.maximum(work.max(axis=0), 1.0)
    costs, _ = nnls(work / scale, np.array([call.seconds for call in calls]))
    return Rates(*map(float, costs / scale))


@dataclass(frozen=True)
class StepForecast:
    """A step's seconds in the first round, in each later one, and in all rounds, and the tokens
    that it writes."""

    name: str
    first: float
    later: float
    seconds: float
    tokens: int


@dataclass(frozen=True)
class Forecast:
    """The time, memory and disk space that a run will take.

    Memory and disk are in bytes; memory is None where the system does not tell.
    """

    model: ModelInfo
    loading: float
    parts: tuple[StepForecast, ...]
    memory: int | None
    disk: int
    sample: Sample

    @property
    def seconds(self) -> float:
        """Return how long the run will take."""
        return self.loading + sum(part.seconds for part in self.parts)


def forecast(loaded: LoadedRecipe, budget: float) -> Forecast:
    """Run samples for about `budget` seconds, and scale them up.

    Raises MissingExtraError without scipy, SelfloopError if the backend cannot be loaded.
    """
    _require_scipy()
    backend, loading = _open_backend(loaded)
    try:
        with TemporaryDirectory(prefix="selfloop-plan-") as folder:
            system.forget_peak_memory()
            sample = _largest_sample(loaded, backend, budget, Path(folder))
            ending, disk = _measure_end(loaded, sample)
        _fill_cache(backend, sample, loaded.recipe.ask.questions)
        parts = tuple(_step_forecasts(loaded, sample, ending))
        return Forecast(backend.describe(), loading, parts, system.peak_memory(), disk, sample)
    finally:
        backend.close()


def _require_scipy() -> None:
    """Raise MissingExtraError where scipy is not installed, before a model is loaded."""
    try:
        import scipy  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("scipy", "stats", "selfloop plan") from error


def _open_backend(loaded: LoadedRecipe) -> tuple[Backend, float]:
    """Return the backend and the seconds that loading takes.

    If it took long, it is loaded once more: files that are made once are there then.
    """
    backend, seconds = _load_backend(loaded)
    if seconds > MAX_LOADING:
        backend.close()
        backend, seconds = _load_backend(loaded)
    return backend, seconds


def _load_backend(loaded: LoadedRecipe) -> tuple[Backend, float]:
    start = time.perf_counter()
    backend: Backend = build_component(loaded, "backend", loaded.recipe.backend, loaded.base)
    backend.describe()
    return backend, time.perf_counter() - start


def _largest_sample(loaded: LoadedRecipe, backend: Backend, budget: float, folder: Path) -> Sample:
    """Return the largest sample that there is time for.

    Each sample has a folder of its own in `folder`.
    """
    wanted, start = loaded.recipe.ask.questions, time.perf_counter()
    questions = min(SAMPLE_QUESTIONS, wanted)
    while True:
        sample = run_sample(loaded, backend, questions, budget, folder / str(questions))
        spent = time.perf_counter() - start
        # the next sample is taken to last as many times longer as it has more questions
        if questions == wanted or spent + GROWTH * sample.seconds > budget:
            return sample
        questions = min(GROWTH * questions, wanted)


def _step_forecasts(loaded: LoadedRecipe, sample: Sample, ending: float) -> list[StepForecast]:
    """Return the forecast of each step: later rounds are like the last one of the sample."""
    recipe = loaded.recipe
    times, costs = recipe.ask.questions / sample.questions, rates(sample.steps)
    forecasts, later_rounds = list[StepForecast](), recipe.rounds - 1
    for name in dict.fromkeys(step.name for step in sample.steps):
        steps = [step for step in sample.steps if step.name == name]
        # time outside of calls that only the first round takes is spent once
        first = steps[0].at(times, costs, usual=steps[-1].outside_calls)
        later = steps[-1].at(times, costs)
        tokens = round(times * (steps[0].tokens + later_rounds * steps[-1].tokens))
        seconds = first + later_rounds * later
        if name == "answer":
            tuned_rounds, more = _tuned_rounds(recipe), _second_model(recipe, steps[-1])
            seconds += tuned_rounds * costs.seconds(more.work(times))
            tokens += round(tuned_rounds * times * more.tokens)
        forecasts.append(StepForecast(name, first, later, seconds, tokens))
    working = sum(step.later for step in forecasts)
    recording = min(ending, MAX_RECORDING * working)
    recorded = sample.recording + later_rounds * recording + ending
    forecasts.append(StepForecast("record", sample.recording, recording, recorded, 0))
    if recipe.tuner:
        forecasts.append(_tune(loaded, sample, costs))
    return forecasts


def _tuned_rounds(recipe: Recipe) -> int:
    """Return in how many rounds one model answers and another one judges."""
    if recipe.tuner is None or recipe.answer.with_ == recipe.answer.samples_with:
        return 0
    return max(0, recipe.rounds - recipe.tuner.every)


def _samples_of_each(recipe: Recipe) -> int:
    """Return how many samples a question of a large round gets in the mean."""
    samples = recipe.answer.samples
    if samples == "auto":
        return round(auto_samples.SHARE * auto_samples.SAMPLES)
    return samples


def _second_model(recipe: Recipe, step: Step) -> Call:
    """Return the work of a second model in the step `answer`, as one call that takes no time yet.

    It reads the prompts and writes a draft to each. The drafts that differ are read once more: at
    most all of them.
    """
    calls = [call for call in step.calls if call.completions]
    drafts = 1 / (1 + _samples_of_each(recipe))  # of the completions
    return Call(
        seconds=0.0,
        texts=2 * sum(call.texts for call in calls),
        read=2 * sum(call.read for call in calls),
        unshared=2 * sum(call.unshared for call in calls),
        completions=round(drafts * sum(call.completions for call in calls)),
        tokens=round(drafts * sum(call.tokens for call in calls)),
        longest=max((call.longest for call in calls), default=0),
    )


def _tune(loaded: LoadedRecipe, sample: Sample, cost: Rates) -> StepForecast:
    """Return about how long the tunes take, by the time to read their lessons.

    The lessons of a tune are all questions so far, with their answers.
    """
    recipe = loaded.recipe
    assert recipe.tuner
    estimate = loaded.catalog.find("tuner", recipe.tuner.kind).estimate
    # of each training example
    readings = estimate(**recipe.tuner.options) if estimate else 1.0
    calls = calls_of(step for step in sample.steps if step.name == "answer")
    completions = sum(call.completions for call in calls)
    tokens = sum(call.tokens for call in calls)
    question_length = sum(call.unshared for call in calls) / max(sample.asked, 1)
    answer_length = CHARACTERS_PER_TOKEN * tokens / max(completions, 1)
    length = question_length + answer_length
    one_round = TUNING_FACTOR * cost.read * length * recipe.ask.questions * readings
    # the tune after round n reads the questions of n rounds
    rounds = range(recipe.tuner.every, recipe.rounds + 1, recipe.tuner.every)
    tunes = [number * one_round for number in rounds]
    return StepForecast("tune", 0.0, max(tunes, default=0.0), sum(tunes), 0)


def _fill_cache(backend: Backend, sample: Sample, questions: int) -> None:
    """Begin the largest call at the size that it will have in the run.

    The backend then makes all the room for it, which the peak of memory shows.
    """
    times = questions / sample.questions
    if times > 1 and sample.requests:
        calls = [_stretched(requests, round(len(requests) * times)) for requests in sample.requests]
        next(iter(backend.generate(max(calls, key=_demand))), None)


def _stretched(requests: Sequence[Request], count: int) -> list[Request]:
    """Return so many requests that are like the given ones, each with an end of its own as theirs
    have."""
    # too much room is better than too little, so that the median is taken, not the lower quartile
    own_length = int(median(own_lengths([plain_text(request.prompt) for request in requests])))
    stretched = list[Request]()
    for index, request in enumerate(islice(cycle(requests), count)):
        lap = index // len(requests)
        prompt = _varied(request.prompt, own_length, lap) if lap else request.prompt
        stretched.append(replace(request, seed=index, prompt=prompt))
    return stretched


def _varied(
    prompt: str | tuple[Message, ...], own_length: int, number: int
) -> str | tuple[Message, ...]:
    """Return a prompt with a number before the text that is its own.

    So it shares as much with the others as before, and is different from them.
    """
    if isinstance(prompt, str):
        return _numbered(prompt, own_length, number)
    # prompts differ in their last message
    *earlier, last = prompt
    content = _numbered(last.content, own_length, number)
    return (*earlier, replace(last, content=content))


def _numbered(text: str, own_length: int, number: int) -> str:
    start = max(len(text) - own_length, 0)
    return f"{text[:start]}{number} {text[start:]}"


def _demand(requests: Sequence[Request]) -> int:
    """Return about how much of its cache a backend needs for a call, in characters."""
    texts = [plain_text(request.prompt) for request in requests]
    completions = _completion_lengths(requests)
    # a batch at a time: its completions, the ends of their prompts, and one whole prompt
    writing = sum(nlargest(BATCH, completions))
    prompts = sum(nlargest(BATCH, own_lengths(texts)))
    return writing + prompts + max(map(len, texts), default=0)


def _completion_lengths(requests: Iterable[Request]) -> Iterator[int]:
    """Yield the most characters of each completion."""
    for request in requests:
        for _ in range(request.n):
            yield CHARACTERS_PER_TOKEN * request.sampling.max_tokens
