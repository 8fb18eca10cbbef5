"""Wraps a backend: what the model said or read before is replayed, not done again. This is all
there is to resume.

A completion is found again by what was asked: prompt, sampling, seed, model file and adapter. So a
step that runs once more after a kill asks for the same and gets what is stored; only the rest
reaches the model.
"""

import json
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from selfloop import progress
from selfloop.errors import PluginError, RequestError
from selfloop.events import CompletionDone
from selfloop.guard import ROUNDING, attribute_errors, exactly, impossible, validate_record
from selfloop.protocols import Backend
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, ModelInfo, Request
from selfloop.storage.store import Store
from selfloop.text.display import encodable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


AT_ONCE = 512  # texts that are read before what came of them is stored
# of the array that is read of one text
AXES = {"loglikelihood": 1, "hidden_states": 2, "attentions": 3}


@dataclass
class _InEffect:
    """The adapter that is in effect, shared by a recorder and those bound to a step."""

    adapter: Adapter | None = None


class Recorder:
    """A `Backend` that stores every completion and reading as it arrives and never asks for one that is stored."""

    def __init__(
        self,
        backend: Backend,
        store: Store,
        notice: Callable[[CompletionDone], None],
        name: str = "backend",
    ) -> None:
        self._backend = backend
        self._store = store
        self._notice = notice
        self.name = name
        self._info = attribute_errors(name, lambda: validate_record(backend.describe(), ModelInfo))
        self._in_effect = _InEffect()
        self._step = ""

    def for_step(self, step: str) -> "Recorder":
        """Return this recorder bound to a step: its completions are stored under that name.

        The recorder that is bound and the one it comes from share all else, the adapter in effect
        included.
        """
        bound = copy(self)
        bound._step = step
        return bound

    def describe(self) -> ModelInfo:
        """Return what the wrapped backend says of its model."""
        return self._info

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter; what is generated from now on is stored under its hash."""
        proof = attribute_errors(self.name, lambda: _proven(self._backend.load_adapter(adapter)))
        self._in_effect.adapter = adapter
        return proof

    @property
    def adapter(self) -> Adapter | None:
        """Return the adapter that is in effect."""
        return self._in_effect.adapter

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return what is stored, and ask the model for the rest."""
        found = self._read(pairs, "loglikelihood", "float64", self._backend.loglikelihood)
        return [one if isinstance(one, RequestError) else tuple(one.tolist()) for one in found]

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return what is stored, and ask the model for the rest."""
        own_places = tuple(places)
        what = f"hidden_states {list(own_places)}{'' if layer == -1 else f' of layer {layer}'}"
        return self._read(
            pairs,
            what,
            "float32",
            lambda some: self._backend.hidden_states(some, own_places, layer),
        )

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return what is stored, and ask the model for the rest."""
        return self._read(pairs, "attentions", "float32", self._backend.attentions)

    def _read(
        self,
        pairs: Sequence[Continuation],
        what: str,
        form: str,
        ask: Callable[[tuple[Continuation, ...]], Sequence[Any]],
    ) -> list[Any]:
        import numpy as np

        def read(keys: list[str]) -> dict[str, Any]:
            results = exactly(ask(tuple(missing[key] for key in keys)), len(keys))
            made = [
                one if isinstance(one, RequestError) else np.array(list(one), form)
                for one in results
            ]
            for array in (one for one in made if not isinstance(one, RequestError)):
                _refuse_impossible_reading(array, what.split()[0])
            return dict(zip(keys, made, strict=True))

        keys = [self._name(pair, what) for pair in pairs]
        found: dict[str, Any] = self._store.readings(keys)
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in found}
        to_do = list(missing)
        with progress.task("", len(keys), "texts") as task:
            task.skip(len(keys) - len(to_do))
            for start in range(0, len(to_do), AT_ONCE):
                made = attribute_errors(self.name, partial(read, to_do[start : start + AT_ONCE]))
                self._store.save_readings(
                    self._step, {k: v for k, v in made.items() if not isinstance(v, RequestError)}
                )
                found |= made
                task.advance(len(made))
        return [found[key] for key in keys]

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def key(self, request: Request) -> str:
        """Return the name under which a request's completions are stored; `n` and `skip` have no part in it."""
        return self._name(replace(request, n=1, skip=()), "completions")

    def _name(self, asked: Request | Continuation, what: str) -> str:
        adapter = (self.adapter.sha256, self.adapter.scale) if self.adapter else None
        plain = asdict(asked)
        if "sampling" in plain and not plain["sampling"]["skip_blank"]:
            # what was stored before there was such a setting keeps its name
            del plain["sampling"]["skip_blank"]
        text = plain | {
            "model": self._info.sha256 or self._info.name,
            "adapter": adapter,
            "what": what,
        }
        return blake2b(json.dumps(text, sort_keys=True).encode(), digest_size=16).hexdigest()

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield what is stored first, then what the model still has to do, as it finishes."""
        requests = tuple(requests)  # whoever asks may change the list while the completions come
        waiting: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            waiting[self.key(request)].append(index)
        to_do: list[tuple[str, Request]] = []
        total = sum(max(requests[i].n for i in indices) for indices in waiting.values())
        with progress.task("", total, "completions") as task:
            for key, indices in waiting.items():
                stored = self._store.completions(key)
                most = max((requests[i] for i in indices), key=lambda request: request.n)
                for completion in stored.values():
                    yield from self._hand_out(requests, indices, completion, replayed=True)
                missing = set(range(most.n)) - set(stored)
                task.skip(most.n - len(missing))
                if missing:
                    to_do.append(
                        (
                            key,
                            replace(most, skip=tuple(k for k in range(most.n) if k not in missing)),
                        )
                    )
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
            # cleaned here, so that later prompts are built from the same text now and after a
            # resume
            result = replace(result, text=encodable(result.text))
            self._store.save_completion(key, self._step, result)
            task.advance()
            yield from self._hand_out(requests, waiting[key], result, replayed=False)

    def _checked(
        self, requests: tuple[Request, ...]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield what the backend gives. Raises ComponentError in the name of the backend."""
        wanted = [set(range(request.n)) - set(request.skip) for request in requests]
        refused: set[int] = set()
        results = attribute_errors(self.name, lambda: iter(self._backend.generate(requests)))
        while (
            found := attribute_errors(self.name, lambda: _next(results, wanted, refused))
        ) is not None:
            yield found

    def _hand_out(
        self,
        requests: Sequence[Request],
        indices: list[int],
        completion: Completion,
        *,
        replayed: bool,
    ) -> Iterator[tuple[int, Completion]]:
        """Give one completion to every request that asked the same and wants this sample."""
        self._notice(CompletionDone(self._step, len(completion.tokens), replayed))
        yield from ((i, completion) for i in indices if completion.sample < requests[i].n)


def _next(
    results: Iterator[Any], wanted: list[set[int]], refused: set[int]
) -> tuple[int, Completion | RequestError] | None:
    """Return what a backend gives next, None at the end. Raises what it raises, and ValueError for
    what is not asked.

    What `wanted` of each request has come is taken away; `refused` are the requests that got a
    RequestError.
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
    if why := impossible(result):
        raise ValueError(f"gave sample {result.sample} of request {position}: {why}")
    wanted[position].remove(result.sample)
    return position, result


def _proven(proof: Any) -> AdapterProof:
    made = validate_record(proof, AdapterProof)
    if why := impossible(made):
        raise ValueError(why)
    return made


def _refuse_impossible_reading(array: "NDArray[Any]", what: str) -> None:
    """Raise ValueError for numbers that cannot be what was asked for; hidden states of a model may be NaN."""
    if array.ndim != AXES[what]:
        raise ValueError(f"{what} gave an array of {array.ndim} axes for a text, not {AXES[what]}")
    if what == "loglikelihood" and not (array <= ROUNDING).all():
        raise ValueError("loglikelihood gave log-probabilities above 0, or that are no numbers")


class LentBackend:
    """A run's backend as its components have it: it answers, but one component does not change it for the others."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def describe(self) -> ModelInfo:
        """Return what the backend says of its model."""
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
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Ask the backend."""
        return self._backend.hidden_states(pairs, places, layer)

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Ask the backend."""
        return self._backend.attentions(pairs)

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Raise PluginError: what the others are told would come of another model."""
        raise PluginError("only a tuner may change the adapter that is in effect")

    def close(self) -> None:
        """Do nothing: the run closes its backend at its end."""


class TunersBackend(LentBackend):
    """The same for a tuner, which may load adapters; after it has failed, the run loads the one before again."""

    swapped = False  # whether it has tried to

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter."""
        self.swapped = True
        return self._backend.load_adapter(adapter)
