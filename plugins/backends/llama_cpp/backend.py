"""`LlamaCpp`: the model, the cache and the scheduler as one `selfloop.protocols.Backend`."""

import ctypes
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfloop_plugins import models
from selfloop_plugins._decoding.backend import DecodingBackend
from selfloop_plugins._decoding.tasks import Job, Result

from selfloop.errors import ModelError, RequestError
from selfloop.records import Adapter, ModelInfo, Sampling

from . import GIVES, context
from .cache import Cache
from .context import SPARE_CELLS, Size
from .grammar import Grammar
from .model import Model, lib, log
from .scheduler import Scheduler


class LlamaCpp(DecodingBackend):
    """A GGUF model whose completions depend on their request alone: not on the batch, its order or
    its size.

    One call at a time: a second one ends a `generate` that is not done. Arguments are those of the
    recipe; see `build`. The cache is opened at the first call, as large as that wants it, and again
    when a later one wants more.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int | None = None,
        sequences: int | None = None,
        threads: int | None = None,
        about: str = "shipped",
    ) -> None:
        """Load a model; `about` describes its weights.

        The other arguments are those of `build`.
        """
        self._model = Model(path)
        super().__init__(self._model)
        self._n_ctx, self._sequences, self._threads, self._about = n_ctx, sequences, threads, about
        self._size = Size(0, 0, 0)
        self._cache: Cache | None = None
        self._scheduler: Scheduler | None = None
        self._lora: Any = None
        self._info: ModelInfo | None = None
        try:
            if n_ctx:  # so that one that is too large is refused at once
                self._open([])
        except ModelError:
            self.close()
            raise

    def describe(self) -> ModelInfo:
        """Return the file's facts, its sha256, and the versions that run it."""
        if self._info is None:
            model = self._model
            self._info = ModelInfo(
                name=model.meta("general.name") or model.path.stem,
                architecture=model.meta("general.architecture"),
                parameters=model.parameters,
                context=model.context,
                chat=bool(model.template),
                capabilities=GIVES,
                file=str(model.path),
                sha256=models.sha256(model.path),
                versions=(("llama-cpp-python", lib.__version__), ("weights", self._about)),
            )
        return self._info

    def close(self) -> None:
        """Free the cache and the model, and end the call under way.

        Calling it again does nothing.
        """
        self._end_call_under_way()
        if self._cache:
            self._cache.close()
            self._cache = self._scheduler = None
        self._model.close()

    def _open_model(self) -> Model:
        if not self._model.pointer:
            raise ModelError(f"the model {self._model.path} has been closed")
        return self._model

    def _decode(self, jobs: Sequence[Job], layer: int | None) -> Iterator[tuple[int, Result]]:
        cache, scheduler = self._open(jobs)
        cache.hidden = layer is not None
        return scheduler.run(jobs)

    def _grammar(self, settings: Sampling) -> Grammar:
        return Grammar(self._model, settings)

    def _open(self, jobs: Sequence[Job]) -> tuple[Cache, Scheduler]:
        """Return a cache for these jobs: the one at hand, if it is large enough."""
        wanted = context.wanted_size(
            self._model, jobs, n_ctx=self._n_ctx, sequences=self._sequences
        )
        if self._cache is None or self._scheduler is None or not self._size.covers(wanted):
            if self._cache:
                self._cache.close()
                self._cache = None
            self._cache, self._size = context.open_cache(self._model, wanted, self._threads), wanted
            self._scheduler = Scheduler(
                self._cache, limit=wanted.cells, sequences=wanted.slots, window=self._model.window
            )
            self._apply(self._adapter)
        return self._cache, self._scheduler

    def _refuse_too_long(self, prompt: int, answer: int, after: str) -> None:
        total = prompt + answer
        need = f"{prompt} prompt tokens + {answer} that may follow = {total}"
        verb = "lower" if after == "max_tokens" else "shorten"
        shorter = f"shorten the prompt or {verb} {after}"
        if total > self._model.context:
            raise RequestError(
                f"{need}, but the model reads at most {self._model.context}: {shorter}"
            )
        if self._n_ctx and total > self._n_ctx:
            raise RequestError(
                f"{need}, but the backend's n_ctx is {self._n_ctx}: raise n_ctx to {total} or "
                f"more, {shorter}"
            )
        if (
            not self._n_ctx
            and total > self._size.cells + context.affordable(self._model) - SPARE_CELLS
        ):
            raise RequestError(
                f"{need}, for which there is no memory: {shorter}, or close other programs"
            )

    def _apply_adapter(self, adapter: Adapter | None) -> None:
        """Put an adapter into effect, and let go of the one before."""
        self._open([])
        if adapter and not math.isfinite(adapter.scale):
            raise ModelError(f"an adapter's scale must be a number, not {adapter.scale}")
        lora = self._load_lora(adapter) if adapter else None
        before, self._lora = self._lora, lora
        self._apply(adapter)
        if before:  # only now: until then the context used it
            lib.llama_adapter_lora_free(before)

    def _apply(self, adapter: Adapter | None) -> None:
        assert self._cache and self._scheduler
        self._scheduler.clear()  # keys and values of another adapter are worth nothing
        chosen: tuple[Any, int, Any] = (None, 0, None)
        if adapter:
            pointers = (lib.llama_adapter_lora_p_ctypes * 1)(self._lora)
            scales = (ctypes.c_float * 1)(adapter.scale)
            chosen = (pointers, 1, scales)
        status = log().call(lib.llama_set_adapters_lora, self._cache.context, *chosen)
        if status:
            raise ModelError(
                f"llama.cpp cannot use the adapter {adapter}: status {status}. Tune again"
            )

    def _load_lora(self, adapter: Adapter) -> Any:
        path = Path(adapter.path)
        models.check_gguf(path)
        pointer = log().call(
            lib.llama_adapter_lora_init,
            self._model.pointer,
            str(path).encode(),
            free=lib.llama_adapter_lora_free,
        )
        if not pointer:
            raise ModelError(f"{path} is no adapter for {self._model.path.name}: {log().reason}")
        return pointer
