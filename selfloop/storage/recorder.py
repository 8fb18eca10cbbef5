"""Wraps a backend: stored completions and readings are replayed. This is all there is to resume.

A completion is found again by its request: prompt, sampling, seed, model file and adapter. So a
step that runs once more after a kill asks for the same and gets the stored ones; only the rest
reaches the model.
"""

import json
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from selfloop import progress
from selfloop.errors import PluginError, RequestError
from selfloop.events import CompletionDone
from selfloop.guard import (
    ROUNDING,
    ComponentError,
    attribute_errors,
    exactly,
    impossible,
    validate_record,
)
from selfloop.protocols import Backend
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, ModelInfo, Request
from selfloop.storage.store import Store
from selfloop.text.display import encodable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


READING_BATCH = 512  # texts that are read before their arrays are stored
# axes of the array that the model gives for one text: (tokens,), (positions, width), and
# (layers * heads, tokens, tokens) or as the backend has it
AXES = {"loglikelihood": 1, "hidden_states": 2, "attentions": 3}
# Field of `Request`, `Continuation`, `Sampling` or `Message` -> its name in the hash under which
# completions are stored. A field that is renamed keeps its first name there, or no completion of an
# earlier run would be found again.
HASHED_NAMES: Mapping[str, str] = {"decline_bias": "careful"}


@dataclass
class _Wanted:
    """The adapter that requests are for, shared by a recorder and those bound to a step."""

    adapter: Adapter | None = None


@dataclass
class _Loaded:
    """The adapter that the backend has, shared by a recorder and all that come from it.

    It is not known while one is being loaded, and stays so where that fails.
    """

    adapter: Adapter | None = None  # a backend starts with the bare model
    known: bool = True

    def holds(self, adapter: Adapter | None) -> bool:
        """Return whether the backend has this adapter for sure."""
        return self.known and self.adapter == adapter


class Recorder:
    """A `Backend` that stores every completion and reading as it arrives.

    It never asks the wrapped backend for one that is stored.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        on_event: Callable[[CompletionDone], None],
        name: str = "backend",
    ) -> None:
        self._backend = backend
        self._store = store
        self._on_event = on_event
        self.name = name
        self._info = attribute_errors(name, lambda: validate_record(backend.describe(), ModelInfo))
        self._wanted = _Wanted()
        self._loaded = _Loaded()
        self._step = ""

    def for_step(self, step: str) -> "Recorder":
        """Return this recorder bound to a step: its completions are stored under that name.

        The recorder that is bound and the one it comes from share all else, the adapter in effect
        included.
        """
        bound = copy(self)
        bound._step = step
        return bound

    def bare(self) -> "Recorder":
        """Return this recorder bound to the bare model, whatever adapter is in effect.

        The adapters are swapped when the backend is asked for something that is not stored: a step
        that is replayed swaps nothing.
        """
        bound = copy(self)
        bound._wanted = _Wanted()
        return bound

    def describe(self) -> ModelInfo:
        """Return the wrapped backend's description of its model."""
        return self._info

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter; later completions are stored under its hash."""
        proof = self._load(adapter)
        self._wanted.adapter = adapter
        return proof

    @property
    def adapter(self) -> Adapter | None:
        """Return the adapter that is in effect."""
        return self._wanted.adapter

    def _load(self, adapter: Adapter | None) -> AdapterProof:
        # If it fails, the backend may be left with another adapter or with none. Then the next
        # request loads the one that it is for.
        self._loaded.known = False
        proof = attribute_errors(self.name, lambda: _proven(self._backend.load_adapter(adapter)))
        self._loaded.adapter, self._loaded.known = adapter, True
        return proof

    def _load_wanted(self) -> None:
        """Let the backend have the adapter that requests are for."""
        if self._loaded.holds(self.adapter):
            return
        try:
            self._load(self.adapter)
        except ComponentError:
            if self.adapter or self._loaded.adapter:
                raise
            # It had the bare model before it failed to load an adapter, and is wanted to have it.
            self._loaded.known = True

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return stored readings, and ask the model for the others."""
        results = self._read(pairs, "loglikelihood", "float64", self._backend.loglikelihood)
        return [
            result if isinstance(result, RequestError) else tuple(result.tolist())
            for result in results
        ]

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return stored readings, and ask the model for the others."""
        fixed_positions = tuple(positions)  # the caller may change the list
        # the last layer is not named: it was the only one when the first arrays were stored
        of_layer = "" if layer == -1 else f" of layer {layer}"
        return self._read(
            pairs,
            f"hidden_states {list(fixed_positions)}{of_layer}",
            "float32",
            lambda batch: self._backend.hidden_states(batch, fixed_positions, layer),
        )

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return stored readings, and ask the model for the others."""
        return self._read(pairs, "attentions", "float32", self._backend.attentions)

    def _read(
        self,
        pairs: Sequence[Continuation],
        measure: str,
        dtype: str,
        ask: Callable[[tuple[Continuation, ...]], Sequence[Any]],
    ) -> list[Any]:
        """Return an array for each pair, or the RequestError that the backend gave for it.

        `measure` is the method of the backend, with its other arguments, as it goes into the key.
        """
        keys = [self._key(pair, measure) for pair in pairs]
        results: dict[str, Any] = self._store.readings(keys)
        # a text that is asked for twice is read once
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in results}
        to_do = list(missing.items())
        with progress.task("", len(keys), "texts") as task:
            task.skip(len(keys) - len(to_do))
            for start in range(0, len(to_do), READING_BATCH):
                batch = dict(to_do[start : start + READING_BATCH])
                read = partial(_read_batch, batch, measure.split()[0], dtype, ask)
                self._load_wanted()
                answers = attribute_errors(self.name, read)
                # a refusal is not stored: a resumed run asks again, and gets it again
                arrays = {k: v for k, v in answers.items() if not isinstance(v, RequestError)}
                self._store.save_readings(self._step, arrays)
                results |= answers
                task.advance(len(answers))
        return [results[key] for key in keys]

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def key(self, request: Request) -> str:
        """Return the name under which a request's completions are stored.

        `n` and `skip` have no part in it: sample k is the same however many are asked for.
        """
        return self._key(replace(request, n=1, skip=()), "completions")

    def _key(self, asked: Request | Continuation, measure: str) -> str:
        adapter = (self.adapter.sha256, self.adapter.scale) if self.adapter else None
        content = _with_hashed_names(asdict(asked))
        if "sampling" in content and not content["sampling"]["skip_blank"]:
            # completions that were stored before there was this setting keep their key
            del content["sampling"]["skip_blank"]
        content |= {
            "model": self._info.sha256 or self._info.name,
            "adapter": adapter,
            "what": measure,
        }
        return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield stored completions first, then those of the model, as they finish."""
        requests = tuple(requests)  # whoever asks may change the list while the completions come
        # requests of one key ask the same; they wait for the samples of the one that wants the most
        waiting: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            waiting[self.key(request)].append(index)
        largest = dict[str, Request]()
        for key, indices in waiting.items():
            largest[key] = max(map(requests.__getitem__, indices), key=lambda request: request.n)
        to_do: list[tuple[str, Request]] = []
        total = sum(request.n for request in largest.values())
        with progress.task("", total, "completions") as task:
            for key, indices in waiting.items():
                stored = self._store.completions(key)
                for completion in stored.values():
                    yield from self._hand_out(requests, indices, completion, replayed=True)
                request = largest[key]
                skip = tuple(sample for sample in range(request.n) if sample in stored)
                task.skip(len(skip))
                if len(skip) < request.n:
                    to_do.append((key, replace(request, skip=skip)))
            if to_do:
                yield from self._generate(requests, waiting, to_do, task)

    def _generate(
        self,
        requests: Sequence[Request],
        waiting: dict[str, list[int]],
        to_do: list[tuple[str, Request]],
        task: progress.Task,
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        for position, result in self._checked(tuple(request for _, request in to_do)):
            key, request = to_do[position]
            if isinstance(result, RequestError):
                task.advance(request.n - len(request.skip))
                yield from ((i, result) for i in waiting[key])
                continue
            # cleaned here, so that later prompts are built from the same text now as after a resume
            result = replace(result, text=encodable(result.text))
            self._store.save_completion(key, self._step, result)
            task.advance()
            yield from self._hand_out(requests, waiting[key], result, replayed=False)

    def _checked(
        self, requests: tuple[Request, ...]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield the backend's results.

        Raises ComponentError in the name of the backend, whoever is asking, and PluginError where
        the adapter was swapped before the last result came.
        """
        wanted = [set(range(request.n)) - set(request.skip) for request in requests]
        refused: set[int] = set()
        adapter = self.adapter
        self._load_wanted()
        results = attribute_errors(self.name, lambda: iter(self._backend.generate(requests)))
        take_next = partial(_next, results, wanted, refused)
        while True:
            if not self._loaded.holds(adapter):
                raise PluginError(
                    "the adapter was swapped before all completions had come. Take them all first"
                )
            result = attribute_errors(self.name, take_next)
            if result is None:
                return
            yield result

    def _hand_out(
        self,
        requests: Sequence[Request],
        indices: list[int],
        completion: Completion,
        *,
        replayed: bool,
    ) -> Iterator[tuple[int, Completion]]:
        """Give one completion to every request that asked the same and wants this sample."""
        self._on_event(CompletionDone(self._step, len(completion.tokens), replayed))
        yield from ((i, completion) for i in indices if completion.sample < requests[i].n)


def _read_batch(
    batch: Mapping[str, Continuation],
    method: str,
    dtype: str,
    ask: Callable[[tuple[Continuation, ...]], Sequence[Any]],
) -> dict[str, Any]:
    """Return the checked answer of a backend to each continuation, under its key."""
    import numpy as np

    answers = dict[str, Any]()
    results = exactly(ask(tuple(batch.values())), len(batch))
    for key, result in zip(batch, results, strict=True):
        if not isinstance(result, RequestError):
            result = np.array(list(result), dtype)
            _refuse_impossible_reading(result, method)
        answers[key] = result
    return answers


def _with_hashed_names(content: Any) -> Any:
    """Return the fields of a request under the names that go into its hash."""
    if not HASHED_NAMES:
        return content
    if isinstance(content, dict):
        return {HASHED_NAMES.get(k, k): _with_hashed_names(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_with_hashed_names(item) for item in content]
    return content


def _next(
    results: Iterator[Any], wanted: list[set[int]], refused: set[int]
) -> tuple[int, Completion | RequestError] | None:
    """Return the next result of a backend, None at the end.

    Samples that arrived are removed from `wanted`, which has a set for each request; `refused` has
    the requests that got a RequestError. Raises the exceptions of the backend, and ValueError for a
    result that was not asked for.
    """
    try:
        pair: Any = next(results)
    except StopIteration:
        return None
    position, result = operator.index(pair[0]), pair[1]
    if not 0 <= position < len(wanted):
        raise ValueError(f"gave a completion for request {position!r:.40} of {len(wanted)}")
    if isinstance(result, RequestError):
        if position in refused:
            raise ValueError(f"refused request {position} twice")
        refused.add(position)
        return position, result
    result = validate_record(result, Completion)
    if result.sample not in wanted[position]:
        raise ValueError(
            f"gave sample {result.sample} of request {position}, which nobody asked for"
        )
    why = impossible(result)
    if why:
        raise ValueError(f"gave sample {result.sample} of request {position}: {why}")
    wanted[position].remove(result.sample)
    return position, result


def _proven(proof: Any) -> AdapterProof:
    checked = validate_record(proof, AdapterProof)
    why = impossible(checked)
    if why:
        raise ValueError(why)
    return checked


def _refuse_impossible_reading(array: "NDArray[Any]", method: str) -> None:
    """Raise ValueError for numbers that a method cannot give; hidden states may be NaN."""
    axes = AXES[method]
    if array.ndim != axes:
        raise ValueError(f"{method} gave an array of {array.ndim} axes for a text, not {axes}")
    if method == "loglikelihood" and not (array <= ROUNDING).all():
        raise ValueError("loglikelihood gave log-probabilities above 0, or that are no numbers")


class LentBackend:
    """A run's backend as its components have it.

    It answers, but no component can change it for the others.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def describe(self) -> ModelInfo:
        """Return the backend's description of its model."""
        return self._backend.describe()

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Ask the backend."""
        return self._backend.generate(requests)

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Ask the backend."""
        return self._backend.loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Ask the backend."""
        return self._backend.hidden_states(pairs, positions, layer)

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Ask the backend."""
        return self._backend.attentions(pairs)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Raise PluginError: all others would get their answers from another model."""
        raise PluginError("only a tuner may change the adapter that is in effect")

    def close(self) -> None:
        """Do nothing: the run closes its backend at its end."""


class TunersBackend(LentBackend):
    """The same for a tuner, which may load adapters.

    If the tuner fails after that, the run loads the earlier adapter again.
    """

    swapped = False  # whether it has tried to

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter."""
        self.swapped = True
        return self._backend.load_adapter(adapter)
