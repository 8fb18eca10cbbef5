"""`DecodingBackend`: a backend but for its engine, which runs the model on tokens.

A request becomes a job: the tokens of its prompt, and the tasks after it (`tasks.py`). The engine
of a subclass runs jobs in batches and yields the results of tasks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from selfloop import progress
from selfloop.errors import ModelError, RequestError
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, Request, Sampling

from . import chat, sampling
from .prompting import decline_token, pieces, split
from .sampling import Grammar, Row, Sampler
from .tasks import (
    GenerateTask,
    HiddenStateTask,
    Job,
    NextTokenTask,
    Result,
    ScoreTask,
    Task,
    Vocabulary,
)

# prompts after which an adapter's effect is measured: a sentence, a question, a story
PROBES = (
    "The capital of France is",
    "Question: How many legs has a spider?\nAnswer:",
    "Once upon a time",
)

Item = TypeVar("Item", Request, Continuation)
Array = NDArray[np.float32]


class DecodingBackend:
    """A model whose results depend on their request alone: not on the batch, its order or its size.

    One call at a time: a second one ends a `generate` that is not done. A subclass runs the model
    (`_decode`), refuses texts that are too long for it (`_refuse_too_long`), and puts adapters into
    effect (`_apply_adapter`). One that gives the states of other layers than the last overrides
    `_refuse_layer`.
    """

    def __init__(self, model: Vocabulary) -> None:
        self._vocabulary = model
        self._adapter: Adapter | None = None
        # of the bare model after each probe, computed at the first adapter
        self._bare_rows: list[Row] | None = None
        self._calls = 0  # the number of the call that has the model
        self._running: Iterator[Any] | None = None

    def _decode(self, jobs: Sequence[Job], layer: int | None) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as they end.

        With a `layer`, outputs have its states.
        """
        raise NotImplementedError

    def _refuse_too_long(self, prompt: int, answer: int, after: str) -> None:
        """Raise RequestError where a prompt and its completion, in tokens, may be too long."""
        raise NotImplementedError

    def _refuse_layer(self, layer: int) -> None:
        """Raise RequestError for a layer whose states cannot be had."""
        if layer != -1:
            raise RequestError(
                "this backend gives the states of the last layer (-1) only, not of layer "
                f"{layer}; hf can"
            )

    def _apply_adapter(self, adapter: Adapter | None) -> None:
        """Put an adapter into effect, or none.

        Raises ModelError for one that is not this model's.
        """
        raise NotImplementedError

    def _open_model(self) -> Any:
        """Return the model, or raise ModelError if it has been closed."""
        raise NotImplementedError

    def _grammar(self, settings: Sampling) -> Grammar:
        """Return the grammar of a request that has one.

        Raises RequestError for a grammar that cannot be read, and from a backend without grammars.
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
        yield from self._run(requests, self._generate_job)

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return the log-probability, in nats, of each token of each continuation.

        See `selfloop.protocols.Backend`.
        """
        results = self._run(pairs, self._score_job)
        by_index = dict(progress.counted("", results, "texts", len(pairs)))
        # an empty continuation has no task, and so no result
        return [by_index.get(i, ()) for i in range(len(pairs))]

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> list[Array | RequestError]:
        """Return a layer's states, (positions, width); those of the last layer after its norm.

        See `selfloop.protocols.Backend`.
        """

        def hidden_state_job(index: int, pair: Continuation) -> Job:
            self._refuse_layer(layer)
            prompt, tokens = split(self._vocabulary, pair)
            # position 0 is the prompt's last token: there is one position more than tokens
            from_start = [at if at >= 0 else len(tokens) + 1 + at for at in positions]
            if not from_start or not all(0 <= at <= len(tokens) for at in from_start):
                raise RequestError(
                    f"positions must be from 0 to {len(tokens)}, the tokens that follow, not "
                    f"{list(positions)}"
                )
            return prompt, [HiddenStateTask(index, tokens, from_start)]

        results = self._run(pairs, hidden_state_job, layer)
        by_index = dict(progress.counted("", results, "texts", len(pairs)))
        return [by_index[i] for i in range(len(pairs))]

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter, and prove that it is in effect.

        The proof's `change` is the largest it made to a log-probability after three probe prompts,
        in nats.

        Raises ModelError, with the bare model in effect, for a file that is no adapter of this
        model and for one that changes nothing.
        """
        self._start_call()
        self._switch_adapter(None)
        if self._bare_rows is None:
            self._bare_rows = self._probe()
        if adapter is None:
            return AdapterProof(None, self._largest_change())
        self._switch_adapter(adapter)
        change = self._largest_change()
        if not change > 0:  # NaN as well
            self._switch_adapter(None)
            raise ModelError(
                f"the adapter {adapter.path} at scale {adapter.scale} changes nothing: "
                "all its weights are zero, or not numbers; tune again"
            )
        return AdapterProof(adapter, change)

    def _switch_adapter(self, adapter: Adapter | None) -> None:
        self._apply_adapter(adapter)
        self._adapter = adapter

    def _largest_change(self) -> float:
        """Return the largest |change| of a log-probability that the adapter makes, in nats."""
        assert self._bare_rows is not None
        pairs = zip(self._probe(), self._bare_rows, strict=True)
        return float(max(np.abs(now - bare).max() for now, bare in pairs))

    def _probe(self) -> list[Row]:
        """Return the log-probabilities of every possible next token after each probe prompt."""
        jobs: list[Job] = [
            (self._vocabulary.tokens([chat.Piece(probe, False)]), [NextTokenTask(i)])
            for i, probe in enumerate(PROBES)
        ]
        rows = dict(self._decode(jobs, None))
        return [np.asarray(rows[i], np.float32) for i in range(len(PROBES))]

    def _run(
        self, items: Sequence[Item], job: Callable[[int, Item], Job], layer: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) of the tasks that `job` makes of the items.

        An item that cannot be served yields one RequestError. Raises RuntimeError when it is asked
        for more after a later call has begun.
        """
        call, jobs = self._start_call(), list[Job]()
        for index, item in enumerate(items):
            try:
                prompt, tasks = job(index, item)
                after = "max_tokens" if isinstance(item, Request) else "the text after it"
                longest = max((task.max_new_tokens for task in tasks), default=0)
                self._refuse_too_long(len(prompt), longest, after)
            except RequestError as error:
                yield index, error
                self._check_current(call)
                continue
            if tasks:
                jobs.append((prompt, tasks))
        if not jobs:
            return
        self._running = self._decode(jobs, layer)
        for result in self._running:
            yield result
            self._check_current(call)  # the caller may have begun another one meanwhile

    def _check_current(self, call: int) -> None:
        if call != self._calls:
            raise RuntimeError("a later call of this backend has taken the model over")

    def _start_call(self) -> int:
        """Take the model over for a new call; return its number."""
        self._open_model()
        return self._end_call_under_way()

    def _end_call_under_way(self) -> int:
        """End the call that may be under way; return the number of the new one."""
        if self._running is not None:
            self._running.close()  # type: ignore[attr-defined]
            self._running = None
        self._calls += 1
        return self._calls

    def _generate_job(self, index: int, request: Request) -> Job:
        settings = request.sampling
        error = sampling.settings_error(settings)
        if not error and request.n < 1:
            error = f"n must be 1 or more, not {request.n}"
        if error:
            raise RequestError(error)
        prompt = self._prompt_tokens(request)
        sha256 = self._adapter.sha256 if self._adapter else None
        constrained = settings.grammar or settings.json_schema
        declines = decline_token(self._vocabulary, request) if settings.decline_bias else None

        def task(number: int) -> Task:
            # a grammar keeps where a sample stands in it: each has its own
            grammar = self._grammar(settings) if constrained else None
            sampler = Sampler(settings, request.seed, number, prompt, grammar, declines)
            return GenerateTask(index, number, request, self._vocabulary, sampler, sha256)

        return prompt, [task(number) for number in range(request.n) if number not in request.skip]

    def _score_job(self, index: int, pair: Continuation) -> Job:
        prompt, tokens = split(self._vocabulary, pair)
        return prompt, [ScoreTask(index, tokens)] if tokens else []

    def _prompt_tokens(self, asked: Request | Continuation) -> list[int]:
        """Return a prompt in tokens, at least one."""
        tokens = self._vocabulary.tokens(pieces(self._vocabulary, asked))
        if not tokens:
            raise RequestError(
                "the prompt is empty, and this model has no token that begins a text; write "
                "something"
            )
        return tokens
