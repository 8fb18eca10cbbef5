"""Wraps a backend: what the model said or read before is replayed, not done again. This is all there is to resume.

A completion is found again by what was asked: prompt, sampling, seed, model file and adapter. So a step
that runs once more after a kill asks for the same and gets what is stored; only the rest reaches the model.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from selfloop.errors import RequestError, StoreError, disk_full
from selfloop.events import CompletionDone
from selfloop.guard import Blamed, blaming, sound
from selfloop.protocols import Backend
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, ModelInfo, Request
from selfloop.store import Store
from selfloop.text import encodable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


AT_ONCE = 512  # texts that are read before what came of them is stored


class Recorder:
    """A `Backend` that stores every completion and reading as it arrives and never asks for one that is stored."""

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
        """Return what is stored, and ask the model for the rest."""
        found = self._read(pairs, "loglikelihood", "float64", self._backend.loglikelihood)
        return [one if isinstance(one, RequestError) else tuple(one.tolist()) for one in found]

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return what is stored, and ask the model for the rest."""
        what = f"hidden_states {list(places)}{'' if layer == -1 else f' of layer {layer}'}"
        return self._read(pairs, what, "float32", lambda some: self._backend.hidden_states(some, places, layer))

    def attentions(self, pairs: Sequence[Continuation]) -> "list[NDArray[np.float32] | RequestError]":
        """Return what is stored, and ask the model for the rest."""
        return self._read(pairs, "attentions", "float32", self._backend.attentions)

    def _read(
        self, pairs: Sequence[Continuation], what: str, form: str, ask: Callable[[list[Continuation]], Sequence[Any]]
    ) -> list[Any]:
        import numpy as np

        def read(keys: list[str]) -> dict[str, Any]:
            results = ask([missing[key] for key in keys])
            made = [one if isinstance(one, RequestError) else np.asarray(list(one), form) for one in results]
            return dict(zip(keys, made, strict=True))

        keys = [self._name(pair, what) for pair in pairs]
        found: dict[str, Any] = self._store.readings(keys)
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in found}
        to_do = list(missing)
        for start in range(0, len(to_do), AT_ONCE):
            made = blaming(self.name, partial(read, to_do[start : start + AT_ONCE]))
            self._store.save_readings(self.step, {k: v for k, v in made.items() if not isinstance(v, RequestError)})
            found |= made
        return [found[key] for key in keys]

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def key(self, request: Request) -> str:
        """Return the name under which a request's completions are stored; `n` and `skip` have no part in it."""
        return self._name(replace(request, n=1, skip=()), "completions")

    def _name(self, asked: Request | Continuation, what: str) -> str:
        adapter = (self._adapter.sha256, self._adapter.scale) if self._adapter else None
        text = asdict(asked) | {"model": self._info.sha256 or self._info.name, "adapter": adapter, "what": what}
        return blake2b(json.dumps(text, sort_keys=True).encode(), digest_size=16).hexdigest()

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
            if full := disk_full(error):
                raise full from error
            raise Blamed(self.name, error) from error

    def _hand_out(
        self, requests: Sequence[Request], indices: list[int], completion: Completion, *, replayed: bool
    ) -> Iterator[tuple[int, Completion]]:
        """Give one completion to every request that asked the same and wants this sample."""
        self._notice(CompletionDone(self.step, len(completion.tokens), replayed))
        yield from ((i, completion) for i in indices if completion.sample < requests[i].n)
