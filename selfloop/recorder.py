"""Wraps a backend: what was generated before is replayed, not generated again. This is all there is to resume.

A completion is found again by what was asked: prompt, sampling, seed, model file and adapter. So a step
that runs once more after a kill asks for the same and gets what is stored; only the rest reaches the model.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from selfloop.errors import RequestError, StoreError
from selfloop.events import CompletionDone
from selfloop.guard import Blamed, blaming, sound
from selfloop.protocols import Backend
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, ModelInfo, Request
from selfloop.store import Store
from selfloop.text import encodable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Recorder:
    """A `Backend` that stores every completion as it arrives and never asks for one that is stored."""

    def __init__(
        self, backend: Backend, store: Store, notice: Callable[[CompletionDone], None], name: str = "backend"
    ) -> None:
        self._backend = backend
        self._store = store
        self._notice = notice
        self.name = name
        self._info = blaming(name, lambda: sound(backend.describe(), ModelInfo))
        self._adapter: Adapter | None = None
        self.step = ""

    def describe(self) -> ModelInfo:
        """Return what the wrapped backend says of its model."""
        return self._info

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter; what is generated from now on is stored under its hash."""
        proof = blaming(self.name, lambda: sound(self._backend.load_adapter(adapter), AdapterProof))
        self._adapter = adapter
        return proof

    def loglikelihood(self, pairs: Sequence[Continuation]) -> list[tuple[float, ...] | RequestError]:
        """Ask the model; it generates nothing, so nothing is stored."""
        return blaming(self.name, lambda: self._backend.loglikelihood(pairs))

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1)
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Ask the model; it generates nothing, so nothing is stored."""
        return blaming(self.name, lambda: self._backend.hidden_states(pairs, places))

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def key(self, request: Request) -> str:
        """Return the name under which a request's completions are stored; `n` and `skip` have no part in it."""
        asked = asdict(replace(request, n=1, skip=()))
        adapter = (self._adapter.sha256, self._adapter.scale) if self._adapter else None
        asked |= {"model": self._info.sha256 or self._info.name, "adapter": adapter}
        return blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield what is stored first, then what the model still has to do, as it finishes."""
        waiting: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            waiting[self.key(request)].append(index)
        to_do: list[tuple[str, Request]] = []
        for key, indices in waiting.items():
            stored = self._store.completions(key)
            most = max((requests[i] for i in indices), key=lambda request: request.n)
            for completion in stored.values():
                yield from self._hand_out(requests, indices, completion, replayed=True)
            if missing := set(range(most.n)) - set(stored):
                to_do.append((key, replace(most, skip=tuple(k for k in range(most.n) if k not in missing))))
        if to_do:
            yield from self._generate(requests, waiting, to_do)

    def _generate(
        self, requests: Sequence[Request], waiting: dict[str, list[int]], to_do: list[tuple[str, Request]]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        for position, result in self._checked([request for _, request in to_do]):
            key = to_do[position][0]
            if isinstance(result, RequestError):
                yield from ((i, result) for i in waiting[key])
                continue
            # cleaned here, so that later prompts are built from the same text now and after a resume
            result = replace(result, text=encodable(result.text))
            self._store.save_completion(key, self.step, result)
            yield from self._hand_out(requests, waiting[key], result, replayed=False)

    def _checked(self, requests: list[Request]) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield what the backend gives; what is wrong with it is `Blamed` on the backend, whoever is asking."""
        wanted = [set(range(request.n)) - set(request.skip) for request in requests]
        try:
            for position, result in self._backend.generate(requests):
                if not isinstance(position, int) or not 0 <= position < len(requests):
                    raise ValueError(f"gave a completion for request {position!r:.40} of {len(requests)}")
                if not isinstance(result, RequestError):
                    result = sound(result, Completion)
                    if result.sample not in wanted[position]:
                        raise ValueError(f"gave sample {result.sample} of request {position}, which nobody asked for")
                    wanted[position].remove(result.sample)
                yield position, result
        except (StoreError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise Blamed(self.name, error) from error

    def _hand_out(
        self, requests: Sequence[Request], indices: list[int], completion: Completion, *, replayed: bool
    ) -> Iterator[tuple[int, Completion]]:
        """Give one completion to every request that asked the same and wants this sample."""
        self._notice(CompletionDone(self.step, len(completion.tokens), replayed))
        yield from ((i, completion) for i in indices if completion.sample < requests[i].n)
