"""`LlamaCpp`: the model, the cache and the scheduler as one `selfloop.protocols.Backend`."""

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from selfloop.errors import ModelError, RequestError
from selfloop.records import Adapter, AdapterProof, Completion, Message, ModelInfo, Request

from .. import models
from . import GIVES, chat, sampling
from .engine import ROWS, SLACK, SPARE, Cache, Job, Scheduler, Token
from .model import Model, lib, log

PROBES = ("The capital of France is", "Question: How many legs has a spider?\nAnswer:", "Once upon a time")


class LlamaCpp:
    """A GGUF model whose completions depend on their request alone: not on the batch, its order or its size.

    One `generate` at a time: a second call ends the first. Arguments are those of the recipe; see `build`.
    """

    def __init__(self, path: Path, *, n_ctx: int = 8192, sequences: int = 32, threads: int | None = None) -> None:
        self._n_ctx, self._sequences = n_ctx, sequences
        self._model = Model(path)
        self._context: Any = None
        self._cache: Cache | None = None
        try:
            self._context = _open(self._model, n_ctx=n_ctx, sequences=sequences, threads=threads)
        except ModelError:
            self.close()
            raise
        self._cache = Cache(self._context, n_ctx + SLACK, sequences, self._model.vocab_size)
        self._adapter: Adapter | None = None
        self._bare: list[NDArray[np.float64]] | None = None
        self._calls = 0
        self._info: ModelInfo | None = None

    def describe(self) -> ModelInfo:
        """Return what the file says of itself, its sha256, and the versions that run it."""
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
                versions=(("llama-cpp-python", lib.__version__),),
            )
        return self._info

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield (index, completion) as they finish; see `selfloop.protocols.Backend`.

        `tokens` and `logprobs` hold all that was drawn: the token that ended the text is among them, and so is
        the one that completed a stop string, whose text is cut off. Special tokens have no text.
        """
        self._calls += 1
        mine, jobs = self._calls, []
        for index, request in enumerate(requests):
            try:
                jobs.append(Job(index, request, self._prompt(request)))
            except RequestError as error:
                yield index, error
        for result in self._scheduler().run([job for job in jobs if job.numbers]):
            yield result
            if mine != self._calls:
                raise RuntimeError("a later call of generate() or load_adapter() has taken the model over")

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter; `change` is the largest it made to a log-probability after three probe prompts, in nats.

        Raises ModelError, with the bare model in effect, for a file that is no adapter of this model and for
        one that changes nothing.
        """
        self._calls += 1
        self._set(None)
        if self._bare is None:
            self._bare = self._probe()
        if adapter is None:
            return AdapterProof(None, self._change())
        self._set(adapter)
        change = self._change()
        if not change > 0:  # NaN as well
            self._set(None)
            raise ModelError(f"the adapter {adapter.path} changes nothing: all its weights are zero, or not numbers")
        return AdapterProof(adapter, change)

    def close(self) -> None:
        """Free the cache and the model; calling it again does nothing."""
        if self._cache:
            self._cache.close()
            self._cache = None
        if self._context:
            lib.llama_free(self._context)
            self._context = None
        self._model.close()

    def _open_cache(self) -> Cache:
        if self._cache is None:
            raise ModelError(f"the model {self._model.path} has been closed")
        return self._cache

    def _scheduler(self) -> Scheduler:
        sha256 = self._adapter.sha256 if self._adapter else None
        return Scheduler(self._model, self._open_cache(), limit=self._n_ctx, sequences=self._sequences, adapter=sha256)

    def _prompt(self, request: Request) -> list[int]:
        """Return a request's prompt in tokens; raise RequestError where it can never be served."""
        wrong = sampling.reject(request.sampling) or (f"n must be 1 or more, not {request.n}" if request.n < 1 else "")
        if wrong:
            raise RequestError(wrong)
        prompt = request.prompt
        tokens = self._model.tokens(prompt if isinstance(prompt, str) else self._chat(prompt, request.open_turn))
        if not tokens:
            raise RequestError("the prompt is empty, and this model has no token that begins a text; write something")
        self._refuse_too_long(len(tokens), request.sampling.max_tokens)
        return tokens

    def _chat(self, messages: Sequence[Message], open_turn: bool) -> list[chat.Piece]:
        model = self._model
        if not model.template:
            raise RequestError(f"{model.path.name} is a base model: it has no chat template. Use a text prompt")
        special = {"bos_token": model.bos, "eos_token": model.eos}
        return chat.render(model.template, messages, open_turn=open_turn, special=special)

    def _refuse_too_long(self, prompt: int, answer: int) -> None:
        need = f"{prompt} prompt tokens + max_tokens {answer} = {prompt + answer}"
        if prompt + answer > self._model.context:
            raise RequestError(
                f"{need}, but the model reads at most {self._model.context}: shorten the prompt or lower max_tokens"
            )
        if prompt + answer > self._n_ctx:
            raise RequestError(
                f"{need}, but the backend's n_ctx is {self._n_ctx}: "
                f"raise n_ctx to {prompt + answer} or more, shorten the prompt or lower max_tokens"
            )

    def _set(self, adapter: Adapter | None) -> None:
        if adapter:
            pointers, scales = (lib.llama_adapter_lora_p_ctypes * 1)(self._lora(adapter)), (ctypes.c_float * 1)(1.0)
            status = lib.llama_set_adapters_lora(self._context, pointers, 1, scales)
        else:
            status = lib.llama_set_adapters_lora(self._context, None, 0, None)
        if status:
            raise ModelError(f"llama.cpp cannot use the adapter {adapter.path if adapter else None}: status {status}")
        self._adapter = adapter

    def _lora(self, adapter: Adapter) -> Any:
        path = Path(adapter.path)
        models.check_gguf(path)
        with log().listening() as said:
            pointer = lib.llama_adapter_lora_init(self._model.pointer, str(path).encode())
        if not pointer:
            raise ModelError(f"{path} is no adapter for {self._model.path.name}: {said.reason}")
        return pointer

    def _change(self) -> float:
        assert self._bare is not None
        return float(max(np.abs(now - bare).max() for now, bare in zip(self._probe(), self._bare, strict=True)))

    def _probe(self) -> list[NDArray[np.float64]]:
        """Return the log-probabilities of every possible next token after each probe prompt."""
        cache, found = self._open_cache(), []
        for probe in PROBES:
            cache.clear()
            tokens = self._model.tokens(probe)[:ROWS]
            rows = [Token(token, i, 0, i + 1 == len(tokens)) for i, token in enumerate(tokens)]
            row = cache.decode(rows)[0].astype(np.float64)
            found.append(row - row.max() - np.log(np.exp(row - row.max()).sum()))
        return found


def _open(model: Model, *, n_ctx: int, sequences: int, threads: int | None) -> Any:
    """Return a llama.cpp context that meets the conditions in `engine.py`; ModelError if memory does not suffice."""
    cells = n_ctx + SLACK
    needed, free = cells * _bytes_a_cell(model), psutil.virtual_memory().available
    advice = f"Lower n_ctx (now {n_ctx}) or sequences (now {sequences})."
    if needed > free:  # the system might promise memory that it has not got, and kill the process later
        raise ModelError(f"a cache of {needed / 2**30:.1f} GiB does not fit the {free / 2**30:.1f} GiB free. {advice}")
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified, params.swa_full = cells, sequences + SPARE, True, True
    params.n_batch = params.n_ubatch = ROWS
    params.n_outputs_max = max(ROWS, sequences + SPARE)  # llama.cpp aborts where it is below n_seq_max
    params.n_threads = params.n_threads_batch = threads or psutil.cpu_count(logical=False) or 1
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
    with log().listening() as said:
        context = lib.llama_init_from_model(model.pointer, params)
    if not context:
        raise ModelError(f"llama.cpp cannot make a context for {model.path}: {said.reason}. {advice}")
    return context


def _bytes_a_cell(model: Model) -> int:
    """Return about how much one token takes in the cache: 16-bit keys and values of every layer."""
    arch = model.meta("general.architecture")

    def number(key: str, default: int) -> int:
        text = model.meta(f"{arch}.{key}")
        return int(text) if text.isdigit() else default

    heads = number("attention.head_count", 1) or 1
    head = number("embedding_length", 0) // heads
    widths = number("attention.key_length", head) + number("attention.value_length", head)
    return 2 * number("block_count", 0) * number("attention.head_count_kv", heads) * widths
