"""`Decoding`: what a backend does around its engine, that is all but running the model on tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from selfloop import progress
from selfloop.errors import ModelError, RequestError
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, Request, Sampling

from . import chat, sampling
from .prompting import declining, pieces, split
from .sampling import Grammar, Row, Sampler
from .tasks import Job, Looking, Result, Scoring, Task, Telling, Vocabulary, Writing

PROBES = (
    "The capital of France is",
    "Question: How many legs has a spider?\nAnswer:",
    "Once upon a time",
)

Item = TypeVar("Item", Request, Continuation)
Array = NDArray[np.float32]


class Decoding:
    """A model whose results depend on their request alone: not on the batch, its order or its size.

    One call at a time: a second one ends a `generate` that is not done. A subclass runs the model
    (`_decode`), says what is too long for it (`_refuse_too_long`), and puts adapters into effect
    (`_set`). One that gives the states of other layers than the last says which it has
    (`_refuse_layer`).
    """

    def __init__(self, model: Vocabulary) -> None:
        self._vocabulary = model
        self._adapter: Adapter | None = None
        self._bare: list[Row] | None = None
        self._calls = 0
        self._running: Iterator[Any] | None = None

    def _decode(self, jobs: Sequence[Job], layer: int | None) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as they end.

        With a `layer`, outputs have its states.
        """
        raise NotImplementedError

    def _refuse_too_long(self, prompt: int, answer: int, after: str) -> None:
        """Raise RequestError where a prompt and what may follow it, in tokens, are too long."""
        raise NotImplementedError

    def _refuse_layer(self, layer: int) -> None:
        """Raise RequestError for a layer whose states cannot be had."""
        if layer != -1:
            raise RequestError(
                "this backend gives the states of the last layer (-1) only, not of layer "
                f"{layer}; hf can"
            )

    def _set(self, adapter: Adapter | None) -> None:
        """Put an adapter into effect, or none.

        Raises ModelError for one that is not this model's.
        """
        raise NotImplementedError

    def _alive(self) -> Any:
        """Return the model, or raise ModelError if it has been closed."""
        raise NotImplementedError

    def _grammar(self, settings: Sampling) -> Grammar:
        """Return what the text is held to.

        Raises RequestError for what cannot be read, or is not to be had.
        """
        raise RequestError(
            "this backend cannot hold a text to a grammar or a JSON schema; llama_cpp can"
        )

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield (index, completion) as they finish; see `selfloop.protocols.Backend`.

        `tokens` and `logprobs` hold all that was drawn: the token that ended the text is among
        them, and so is the one that completed a stop string, whose text is cut off. Special tokens
        have no text.
        """
        yield from self._run(requests, self._writing)

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return the log-probability of each token of each continuation; see `selfloop.protocols.Backend`."""
        found = dict(progress.counted("", self._run(pairs, self._scoring), "texts", len(pairs)))
        return [found.get(i, ()) for i in range(len(pairs))]

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> list[Array | RequestError]:
        """Return a layer's states, those of the last after its norm; see `selfloop.protocols.Backend`."""

        def looking(index: int, pair: Continuation) -> Job:
            self._refuse_layer(layer)
            prompt, tokens = split(self._vocabulary, pair)
            chosen = [place if place >= 0 else len(tokens) + 1 + place for place in places]
            if not chosen or not all(0 <= place <= len(tokens) for place in chosen):
                raise RequestError(
                    f"places must be from 0 to {len(tokens)}, the tokens that follow, not "
                    f"{list(places)}"
                )
            return prompt, [Looking(index, tokens, chosen)]

        found = dict(progress.counted("", self._run(pairs, looking, layer), "texts", len(pairs)))
        return [found[i] for i in range(len(pairs))]

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter; `change` is the largest it made to a log-probability after three probe
        prompts, in nats.

        Raises ModelError, with the bare model in effect, for a file that is no adapter of this
        model and for one that changes nothing.
        """
        self._begin()
        self._put(None)
        if self._bare is None:
            self._bare = self._probe()
        if adapter is None:
            return AdapterProof(None, self._change())
        self._put(adapter)
        change = self._change()
        if not change > 0:  # NaN as well
            self._put(None)
            raise ModelError(
                f"the adapter {adapter.path} at scale {adapter.scale} changes nothing: "
                "all its weights are zero, or not numbers; tune again"
            )
        return AdapterProof(adapter, change)

    def _put(self, adapter: Adapter | None) -> None:
        self._set(adapter)
        self._adapter = adapter

    def _change(self) -> float:
        assert self._bare is not None
        return float(
            max(
                np.abs(now - bare).max()
                for now, bare in zip(self._probe(), self._bare, strict=True)
            )
        )

    def _probe(self) -> list[Row]:
        """Return the log-probabilities of every possible next token after each probe prompt."""
        jobs: list[Job] = [
            (self._vocabulary.tokens([chat.Piece(probe, False)]), [Telling(i)])
            for i, probe in enumerate(PROBES)
        ]
        found = dict(self._decode(jobs, None))
        return [np.asarray(found[i], np.float32) for i in range(len(PROBES))]

    def _run(
        self, items: Sequence[Item], job: Callable[[int, Item], Job], layer: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) of the tasks that `job` makes of the items, or one RequestError for an item."""
        mine, jobs = self._begin(), list[Job]()
        for index, item in enumerate(items):
            try:
                prompt, tasks = job(index, item)
                after = "max_tokens" if isinstance(item, Request) else "the text after it"
                self._refuse_too_long(
                    len(prompt), max((task.room for task in tasks), default=0), after
                )
            except RequestError as error:
                yield index, error
                self._still(mine)
                continue
            if tasks:
                jobs.append((prompt, tasks))
        if not jobs:
            return
        self._running = self._decode(jobs, layer)
        for found in self._running:
            yield found
            self._still(mine)

    def _still(self, call: int) -> None:
        if call != self._calls:
            raise RuntimeError("a later call of this backend has taken the model over")

    def _begin(self) -> int:
        """Take the model over for a new call; return its number."""
        self._alive()
        return self._take_over()

    def _take_over(self) -> int:
        """End the call that may be under way; return the number of the new one."""
        if self._running is not None:
            self._running.close()  # type: ignore[attr-defined]
            self._running = None
        self._calls += 1
        return self._calls

    def _writing(self, index: int, request: Request) -> Job:
        settings = request.sampling
        wrong = sampling.reject(settings) or (
            f"n must be 1 or more, not {request.n}" if request.n < 1 else ""
        )
        if wrong:
            raise RequestError(wrong)
        prompt = self._prompt(request)
        sha256 = self._adapter.sha256 if self._adapter else None
        constrained = settings.grammar or settings.json_schema
        declines = declining(self._vocabulary, request) if settings.careful else None

        def task(number: int) -> Task:
            grammar = self._grammar(settings) if constrained else None
            sampler = Sampler(settings, request.seed, number, prompt, grammar, declines)
            return Writing(index, number, request, self._vocabulary, sampler, sha256)

        return prompt, [task(number) for number in range(request.n) if number not in request.skip]

    def _scoring(self, index: int, pair: Continuation) -> Job:
        prompt, tokens = split(self._vocabulary, pair)
        return prompt, [Scoring(index, tokens)] if tokens else []

    def _prompt(self, asked: Request | Continuation) -> list[int]:
        """Return a prompt in tokens, at least one."""
        tokens = self._vocabulary.tokens(pieces(self._vocabulary, asked))
        if not tokens:
            raise RequestError(
                "the prompt is empty, and this model has no token that begins a text; write "
                "something"
            )
        return tokens
