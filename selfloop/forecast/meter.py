"""What a run asks of its backend, call by call, and what each call takes: `forecast.py` counts up from that."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from selfloop.errors import RequestError
from selfloop.events import Event, RoundEnded, RunEnded, StepStarted
from selfloop.protocols import Backend
from selfloop.records import (
    Adapter,
    AdapterProof,
    Completion,
    Continuation,
    Message,
    ModelInfo,
    Request,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AT_ONCE = 64  # completions that a backend may be expected to write at a time
FEW = 3  # texts; of fewer nobody can tell what they would have in common with others


class Rates(NamedTuple):
    """Seconds for a token of the longest completion of a call, for each token and completion, for a character read."""

    step: float = 0.0
    token: float = 0.0
    completion: float = 0.0
    read: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the backend.

    Of the characters `read`, `own` are those of one of the `texts` alone.
    """

    seconds: float
    texts: int
    read: int
    own: int
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

        Of what it takes beside its calls, `usual` is what grows with them; the rest is done once:
        imports, say.
        """
        grows = self.beside if usual is None else min(self.beside, usual)
        return (
            self.beside
            + (times - 1) * grows
            + sum(_longer(call, times, rates) for call in self.calls)
        )

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

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Pass on what the backend yields, and note it."""
        start, lengths = time.perf_counter(), list[int]()
        for index, result in self._backend.generate(requests):
            lengths += [] if isinstance(result, RequestError) else [len(result.tokens)]
            yield index, result
        took, counts = (
            time.perf_counter() - start,
            (len(lengths), sum(lengths), max(lengths, default=0)),
        )
        texts = [text_of(request.prompt) for request in requests]
        self._note(Call(took, *read(texts), *counts))
        self.asked.append(list(requests))

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Pass on what the backend returns, and note it."""
        with self._timed(pairs):
            return self._backend.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Pass on what the backend returns, and note it."""
        with self._timed(pairs):
            return self._backend.hidden_states(pairs, places, layer)

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
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
        took, texts = (
            time.perf_counter() - start,
            [f"{text_of(pair.prompt)}{pair.text}" for pair in pairs],
        )
        self._note(Call(took, *read(texts)))

    def _note(self, call: Call) -> None:
        if self.steps:
            self.steps[-1].calls.append(call)


def text_of(prompt: str | tuple[Message, ...]) -> str:
    return (
        prompt if isinstance(prompt, str) else "\n".join(f"{m.role}: {m.content}" for m in prompt)
    )


def settled(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with calls of a few texts told apart as those of more are: by as much that is a text's own."""
    calls = [call for step in steps for call in step.calls]
    each = [call.own // call.texts for call in calls if call.texts >= FEW]
    usual = sorted(each)[len(each) // 2] if each else None

    def settle(call: Call) -> Call:
        known = usual is None or call.texts >= FEW
        return call if known else replace(call, own=min(call.own, (usual or 0) * call.texts))

    return [replace(step, calls=list(map(settle, step.calls))) for step in steps]


def read(texts: Collection[str]) -> tuple[int, int, int]:
    """Return how many texts differ, the characters read, what is in common once, and those that are one's own."""
    ordered = sorted(set(texts))
    read = sum(map(len, ordered)) - sum(_alike(a, b) for a, b in pairwise(ordered))
    return len(ordered), read, min(read, own_part(ordered) * len(ordered))


def own_part(texts: Collection[str]) -> int:
    """Return how many characters at the end of a text are its own: the lower quartile, for of a few
    texts some may be alone with a beginning that of many others would have too."""
    ends = sorted(own_parts(texts))
    return ends[len(ends) // 4] if ends else 0


def own_parts(texts: Collection[str]) -> list[int]:
    """Return of each different text how many characters no other one begins with."""
    ordered = sorted(set(texts))
    same = [0, *(_alike(a, b) for a, b in pairwise(ordered)), 0]
    return [len(text) - max(same[i : i + 2]) for i, text in enumerate(ordered)]


def _alike(a: str, b: str) -> int:
    """Return with how many of the same characters two texts begin."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
