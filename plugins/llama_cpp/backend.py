"""`LlamaCpp`: the model, the cache and the scheduler as one `selfloop.protocols.Backend`."""

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from selfloop.errors import ModelError, RequestError
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, Message, ModelInfo, Request

from .. import models
from . import GIVES, chat, context, sampling
from .cache import ROWS, Cache, Token
from .context import SPARE, Size
from .grammar import Grammar
from .model import Model, lib, log
from .sampling import Sampler
from .scheduler import Scheduler
from .tasks import Job, Looking, Scoring, Task, Writing
from .tree import common

PROBES = ("The capital of France is", "Question: How many legs has a spider?\nAnswer:", "Once upon a time")

Item = TypeVar("Item", Request, Continuation)
Array = NDArray[np.float32]


class LlamaCpp:
    """A GGUF model whose completions depend on their request alone: not on the batch, its order or its size.

    One call at a time: a second one ends a `generate` that is not done. Arguments are those of the recipe; see
    `build`. The cache is opened at the first call, as large as that wants it, and again when a later one wants more.
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
        """Load a model; `about` is what to say of its weights. The other arguments are those of `build`."""
        self._n_ctx, self._sequences, self._threads, self._about = n_ctx, sequences, threads, about
        self._model = Model(path)
        self._size = Size(0, 0, 0)
        self._cache: Cache | None = None
        self._scheduler: Scheduler | None = None
        self._adapter: Adapter | None = None
        self._lora: Any = None
        self._bare: list[NDArray[np.float64]] | None = None
        self._calls = 0
        self._running: Iterator[Any] | None = None
        self._info: ModelInfo | None = None
        try:
            if n_ctx:  # so that too large a one is told at once
                self._open([])
        except ModelError:
            self.close()
            raise

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
                versions=(("llama-cpp-python", lib.__version__), ("weights", self._about)),
            )
        return self._info

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield (index, completion) as they finish; see `selfloop.protocols.Backend`.

        `tokens` and `logprobs` hold all that was drawn: the token that ended the text is among them, and so is
        the one that completed a stop string, whose text is cut off. Special tokens have no text.
        """
        yield from self._run(requests, self._writing)

    def loglikelihood(self, pairs: Sequence[Continuation]) -> list[tuple[float, ...] | RequestError]:
        """Return the log-probability of each token of each continuation; see `selfloop.protocols.Backend`."""
        found = dict(self._run(pairs, self._scoring))
        return [found.get(i, ()) for i in range(len(pairs))]

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1)
    ) -> list[Array | RequestError]:
        """Return the last layer's states, after its norm; see `selfloop.protocols.Backend`."""

        def looking(index: int, pair: Continuation) -> Job:
            prompt, tokens = self._split(pair)
            chosen = [place if place >= 0 else len(tokens) + 1 + place for place in places]
            if not chosen or not all(0 <= place <= len(tokens) for place in chosen):
                raise RequestError(
                    f"places must be from 0 to {len(tokens)}, the tokens that follow, not {list(places)}"
                )
            return prompt, [Looking(index, tokens, chosen)]

        found = dict(self._run(pairs, looking, hidden=True))
        return [found[i] for i in range(len(pairs))]

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter; `change` is the largest it made to a log-probability after three probe prompts, in nats.

        Raises ModelError, with the bare model in effect, for a file that is no adapter of this model and for
        one that changes nothing.
        """
        self._begin()
        self._open([])
        self._set(None)
        if self._bare is None:
            self._bare = self._probe()
        if adapter is None:
            return AdapterProof(None, self._change())
        self._set(adapter)
        change = self._change()
        if not change > 0:  # NaN as well
            self._set(None)
            raise ModelError(
                f"the adapter {adapter.path} at scale {adapter.scale} changes nothing: "
                "all its weights are zero, or not numbers"
            )
        return AdapterProof(adapter, change)

    def close(self) -> None:
        """Free the cache and the model, and end the call under way; calling it again does nothing."""
        self._take_over()
        if self._cache:
            self._cache.close()
            self._cache = self._scheduler = None
        self._model.close()

    def _run(
        self, items: Sequence[Item], job: Callable[[int, Item], Job], *, hidden: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) of the tasks that `job` makes of the items, or one RequestError for an item."""
        mine, jobs = self._begin(), list[Job]()
        for index, item in enumerate(items):
            try:
                prompt, tasks = job(index, item)
                after = "max_tokens" if isinstance(item, Request) else "the text after it"
                self._refuse_too_long(len(prompt), max((task.room for task in tasks), default=0), after)
            except RequestError as error:
                yield index, error
                self._still(mine)
                continue
            if tasks:
                jobs.append((prompt, tasks))
        if not jobs:
            return
        cache, scheduler = self._open(jobs)
        cache.hidden = hidden
        self._running = scheduler.run(jobs)
        for found in self._running:
            yield found
            self._still(mine)

    def _still(self, call: int) -> None:
        if call != self._calls:
            raise RuntimeError("a later call of this backend has taken the model over")

    def _begin(self) -> int:
        """Take the model over for a new call; return its number."""
        if not self._model.pointer:
            raise ModelError(f"the model {self._model.path} has been closed")
        return self._take_over()

    def _take_over(self) -> int:
        """End the call that may be under way; return the number of the new one."""
        if self._running is not None:
            self._running.close()  # type: ignore[attr-defined]
            self._running = None
        self._calls += 1
        return self._calls

    def _open(self, jobs: Sequence[Job]) -> tuple[Cache, Scheduler]:
        """Return a cache for these jobs: the one there is, if it is large enough."""
        wanted = context.size(self._model, jobs, n_ctx=self._n_ctx, sequences=self._sequences)
        if self._cache is None or self._scheduler is None or not self._size.covers(wanted):
            if self._cache:
                self._cache.close()
                self._cache = None
            self._cache, self._size = context.open_cache(self._model, wanted, self._threads), wanted
            self._scheduler = Scheduler(
                self._cache, limit=wanted.cells, sequences=wanted.strands, window=self._model.window
            )
            self._apply()
        return self._cache, self._scheduler

    def _writing(self, index: int, request: Request) -> Job:
        settings = request.sampling
        wrong = sampling.reject(settings) or (f"n must be 1 or more, not {request.n}" if request.n < 1 else "")
        if wrong:
            raise RequestError(wrong)
        prompt = self._prompt(request)
        sha256 = self._adapter.sha256 if self._adapter else None
        constrained = settings.grammar or settings.json_schema

        def task(number: int) -> Task:
            grammar = Grammar(self._model, settings) if constrained else None
            sampler = Sampler(settings, request.seed, number, prompt, grammar)
            return Writing(index, number, request, self._model, sampler, sha256)

        return prompt, [task(number) for number in range(request.n) if number not in request.skip]

    def _scoring(self, index: int, pair: Continuation) -> Job:
        prompt, tokens = self._split(pair)
        return prompt, [Scoring(index, tokens)] if tokens else []

    def _prompt(self, asked: Request | Continuation) -> list[int]:
        """Return a prompt in tokens, at least one."""
        tokens = self._model.tokens(self._pieces(asked))
        if not tokens:
            raise RequestError("the prompt is empty, and this model has no token that begins a text; write something")
        return tokens

    def _split(self, pair: Continuation) -> tuple[list[int], list[int]]:
        """Return the tokens before a continuation, at least one, and its own."""
        model, pieces = self._model, self._pieces(pair)
        before = model.tokens(pieces)
        if isinstance(pair.text, str):
            whole = model.tokens([*pieces, chat.Piece(pair.text, False)])
        elif wrong := [token for token in pair.text if not 0 <= token < model.vocab_size]:
            raise RequestError(f"{wrong[0]} is no token of this model, which has {model.vocab_size}")
        else:
            whole = [*before, *pair.text]
        if not whole:
            raise RequestError("there is no text, and this model has no token that begins one; write something")
        same = max(1, common(before, whole))
        return whole[:same], whole[same:]

    def _pieces(self, asked: Request | Continuation) -> list[chat.Piece]:
        if isinstance(asked.prompt, str):
            return [chat.Piece(asked.prompt, False)]
        return self._chat(asked.prompt, asked.open_turn)

    def _chat(self, messages: Sequence[Message], open_turn: bool) -> list[chat.Piece]:
        model = self._model
        if not model.template:
            raise RequestError(f"{model.path.name} is a base model: it has no chat template. Use a text prompt")
        special = {"bos_token": model.bos, "eos_token": model.eos}
        return chat.render(model.template, messages, open_turn=open_turn, special=special)

    def _refuse_too_long(self, prompt: int, answer: int, after: str) -> None:
        total = prompt + answer
        need = f"{prompt} prompt tokens + {answer} that may follow = {total}"
        shorter = f"shorten the prompt or {'lower' if after == 'max_tokens' else 'shorten'} {after}"
        if total > self._model.context:
            raise RequestError(f"{need}, but the model reads at most {self._model.context}: {shorter}")
        if self._n_ctx and total > self._n_ctx:
            raise RequestError(
                f"{need}, but the backend's n_ctx is {self._n_ctx}: raise n_ctx to {total} or more, {shorter}"
            )
        if not self._n_ctx and total > self._size.cells + context.affordable(self._model) - SPARE:
            raise RequestError(f"{need}, for which there is no memory: {shorter}, or close other programs")

    def _set(self, adapter: Adapter | None) -> None:
        """Put an adapter into effect, and let go of the one before."""
        if adapter and not math.isfinite(adapter.scale):
            raise ModelError(f"an adapter's scale must be a number, not {adapter.scale}")
        lora = self._load(adapter) if adapter else None
        before, self._lora, self._adapter = self._lora, lora, adapter
        self._apply()
        if before:
            lib.llama_adapter_lora_free(before)

    def _apply(self) -> None:
        assert self._cache and self._scheduler
        self._scheduler.clear()  # what an adapter has not seen, it cannot have changed
        if self._adapter:
            pointers, scales = (
                (lib.llama_adapter_lora_p_ctypes * 1)(self._lora),
                (ctypes.c_float * 1)(self._adapter.scale),
            )
            status = lib.llama_set_adapters_lora(self._cache.context, pointers, 1, scales)
        else:
            status = lib.llama_set_adapters_lora(self._cache.context, None, 0, None)
        if status:
            raise ModelError(f"llama.cpp cannot use the adapter {self._adapter}: status {status}")

    def _load(self, adapter: Adapter) -> Any:
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
        assert self._cache and self._scheduler
        cache, found = self._cache, []
        cache.hidden = False
        try:
            for probe in PROBES:
                self._scheduler.clear()
                sequence, tokens = cache.take(), self._model.tokens([chat.Piece(probe, False)])[:ROWS]
                last = len(tokens) - 1
                output = cache.decode([Token(token, i, sequence, i == last) for i, token in enumerate(tokens)])
                found.append(output[0].logits.astype(np.float64) - output[0].total)
        finally:  # also after Ctrl-C: the next call must not build on what is there now
            self._scheduler.clear()
        return found
