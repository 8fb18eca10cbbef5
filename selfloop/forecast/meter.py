"""Measures the calls of a run to its backend; `estimate.py` scales them up.

`StepClock` hears of steps and `TimedBackend` of calls. They share one list of steps, to which the
clock adds a step as it begins, and the backend a call to the last step.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from selfloop.errors import RequestError
from selfloop.events import Event, RoundEnded, RunEnded, StepStarted
from selfloop.forecast.prefixes import plain_text, reading
from selfloop.protocols import Backend
from selfloop.records import (
    Adapter,
    AdapterProof,
    Completion,
    Continuation,
    ModelInfo,
    Request,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 64  # completions that a backend may be expected to write at a time
# Texts of a call. Fewer do not show which beginning they would share with others.
MIN_TEXTS = 3


class Rates(NamedTuple):
    """The cost of a call's work, in seconds.

    `step` is for a token of the longest completion, for which the whole batch takes a step; `token`
    and `completion` are for each of them, and `read` for a character that is read.
    """

    step: float = 0.0
    token: float = 0.0
    completion: float = 0.0
    read: float = 0.0

    def seconds(self, work: "Work") -> float:
        """Return the seconds that some work takes."""
        return sum(rate * amount for rate, amount in zip(self, work, strict=True))


class Work(NamedTuple):
    """How much of each of `Rates` a call has."""

    steps: float
    tokens: float
    completions: float
    read: float


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the backend.

    `texts` are different; of the characters `read`, `unshared` belong to one text alone.
    `longest` is the most tokens of one completion.
    """

    seconds: float
    texts: int
    read: int
    unshared: int
    completions: int = 0
    tokens: int = 0
    longest: int = 0

    def work(self, times: float = 1.0) -> Work:
        """Return the work of this call with so many times the requests."""
        tokens = self.tokens * times
        return Work(
            # a call of more than one batch goes on as long as its batches do, one after another
            steps=max(self.longest, tokens / BATCH),
            tokens=tokens,
            completions=self.completions * times,
            # common beginnings are read once, however many prompts there are
            read=self.read - self.unshared + self.unshared * times,
        )

    def seconds_at(self, times: float, rates: Rates) -> float:
        """Return the seconds of this call with so many times the requests."""
        before, after = self.work(), self.work(times)
        return self.seconds + sum(
            rate * (larger - smaller)
            for rate, smaller, larger in zip(rates, before, after, strict=True)
        )


@dataclass
class Step:
    """One step of a round of the sample."""

    round: int
    name: str
    seconds: float = 0.0
    calls: list[Call] = field(default_factory=list)

    def at(self, times: float, rates: Rates, usual: float | None = None) -> float:
        """Return the seconds that the step takes with so many times the questions.

        `usual` are the seconds outside of calls that grow with the questions. The rest of this
        step's is spent once: on imports, say.
        """
        growing = self.outside_calls if usual is None else min(self.outside_calls, usual)
        outside = self.outside_calls + (times - 1) * growing
        return outside + sum(call.seconds_at(times, rates) for call in self.calls)

    @property
    def outside_calls(self) -> float:
        """Return the seconds that are spent outside calls of the backend."""
        return self.seconds - sum(call.seconds for call in self.calls)

    @property
    def tokens(self) -> int:
        """Return how many tokens were written."""
        return sum(call.tokens for call in self.calls)


class StepClock:
    """An observer that adds each step to a list, and times it."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._began: float | None = None  # None while no step is at work

    def on_event(self, event: Event) -> None:
        """Start and stop the clock of a step."""
        # a step ends where the next one begins, or with its round
        if isinstance(event, StepStarted | RoundEnded | RunEnded) and self._began is not None:
            self._steps[-1].seconds = time.perf_counter() - self._began
            self._began = None
        if isinstance(event, StepStarted):
            self._steps.append(Step(event.round, event.step))
            self._began = time.perf_counter()

    def close(self) -> None:
        """Do nothing: a clock holds nothing open."""


class TimedBackend:
    """A `Backend` that adds each call of another one to the last of a list of steps."""

    def __init__(self, backend: Backend, steps: list[Step]) -> None:
        self._backend = backend
        self._steps = steps
        self.requests: list[list[Request]] = []  # of each call of `generate`

    def describe(self) -> ModelInfo:
        """Return the backend's description of its model."""
        return self._backend.describe()

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Pass on the backend's results, and note the call."""
        start, lengths = time.perf_counter(), list[int]()
        for index, result in self._backend.generate(requests):
            if not isinstance(result, RequestError):
                lengths.append(len(result.tokens))
            yield index, result
        seconds = time.perf_counter() - start
        prompts = [plain_text(request.prompt) for request in requests]
        completions, tokens, longest = len(lengths), sum(lengths), max(lengths, default=0)
        self._note(Call(seconds, *reading(prompts), completions, tokens, longest))
        self.requests.append(list(requests))

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Pass on the backend's results, and note the call."""
        with self._timed(pairs):
            return self._backend.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Pass on the backend's results, and note the call."""
        with self._timed(pairs):
            return self._backend.hidden_states(pairs, positions, layer)

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Pass on the backend's results, and note the call."""
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
        seconds = time.perf_counter() - start
        texts = [f"{plain_text(pair.prompt)}{pair.text}" for pair in pairs]
        self._note(Call(seconds, *reading(texts)))

    def _note(self, call: Call) -> None:
        if self._steps:  # before the first step the backend is only asked for its description
            self._steps[-1].calls.append(call)


def calls_of(steps: Iterable[Step]) -> list[Call]:
    """Return the calls of all steps, in order."""
    return list(chain.from_iterable(step.calls for step in steps))


def with_typical_own_lengths(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with `unshared` mended in calls of a few texts.

    One text alone seems to be its own from its first character. In a larger call it would have as
    much of its own as the texts of other calls have.
    """
    large = [call for call in calls_of(steps) if call.texts >= MIN_TEXTS]
    own_lengths = sorted(call.unshared // call.texts for call in large)
    if not own_lengths:
        return [replace(step, calls=list(step.calls)) for step in steps]
    typical = own_lengths[len(own_lengths) // 2]  # the median

    def mended(call: Call) -> Call:
        if call.texts >= MIN_TEXTS:
            return call
        return replace(call, unshared=min(call.unshared, typical * call.texts))

    return [replace(step, calls=list(map(mended, step.calls))) for step in steps]
