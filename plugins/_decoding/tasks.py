"""Tasks: the work on one sequence after its prompt.

GenerateTask      writes a completion
ScoreTask         gives the log-probabilities of given tokens
HiddenStateTask   gives hidden states at given tokens
NextTokenTask     gives the log-probability of every possible next token

An engine gives a task the model's outputs (`receive`), first the one after the prompt's last token.
The task lists the tokens to read next (`unread`), until it has a `result`.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from selfloop.errors import RequestError
from selfloop.records import Completion, Request

from .chat import Piece
from .sampling import Output, Row, Sampler

Result = Completion | tuple[float, ...] | Row | RequestError


class Vocabulary(Protocol):
    """A model's tokens, and its chat template."""

    name: str
    vocab_size: int
    bos: str
    eos: str

    @property
    def template(self) -> str:
        """Return the template that turns chat messages into a text; empty for a base model."""
        ...

    def tokens(self, pieces: Sequence[Piece]) -> list[int]:
        """Return a prompt's tokens, opened by BOS if the vocabulary wants that.

        Plain text never becomes a control token.
        """
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return a token's bytes, none for a special one; a character may be spread over tokens."""
        ...

    def is_end(self, token: int) -> bool:
        """Return whether a token ends the text."""
        ...


class Task(Protocol):
    """One sequence's work. `index` is the position of its request in the caller's list."""

    index: int
    max_new_tokens: int  # the most that it reads after the prompt, each in a cell of the cache
    unread: list[tuple[int, bool]]  # tokens to be read next, and whether their output is wanted

    @property
    def result(self) -> Result | None:
        """Return the result, None until the task is done."""
        ...

    def receive(self, output: Output) -> None:
        """Use the output after the prompt or after a wanted token.

        Raises RequestError for an output that is not made of numbers.
        """
        ...


# a prompt's tokens, at least one, and its tasks, at least one
Job = tuple[list[int], list[Task]]


class GenerateTask:
    """Writes one sample of a request."""

    def __init__(
        self,
        index: int,
        number: int,
        request: Request,
        model: Vocabulary,
        sampler: Sampler,
        adapter: str | None,
    ) -> None:
        self.index, self.max_new_tokens = index, request.sampling.max_tokens
        self.unread: list[tuple[int, bool]] = []
        self.result: Completion | None = None
        self._number, self._settings, self._model = number, request.sampling, model
        self._sampler, self._adapter = sampler, adapter
        # In bytes, for a character may be spread over tokens. A match never begins inside another
        # character: UTF-8 is made so.
        self._stops = [stop.encode("utf-8", "replace") for stop in request.sampling.stop]
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._entropies: list[float] | None = [] if request.entropy else None
        self._margin: float | None = None
        self._text = bytearray()
        self._drawn = 0  # tokens, also those that were forgotten

    def receive(self, output: Output) -> None:
        """Draw the next token, and end if that was the last."""
        token = self._sampler.draw(output)
        self._drawn += 1
        self._tokens.append(token)
        self._logprobs.append(output.logprob(token))
        if self._entropies is not None:
            if not self._entropies:  # of the first token
                self._margin = output.margin()
            self._entropies.append(output.entropy())
        self.unread.append((token, True))
        finish, length = self._finish(token)
        if not finish and self._is_blank():
            self._forget()
        if finish:
            text = self._text[:length].decode("utf-8", "replace")
            self.result = Completion(
                text=text,
                tokens=tuple(self._tokens),
                logprobs=tuple(self._logprobs),
                finish=finish,
                sample=self._number,
                adapter=self._adapter,
                entropies=None if self._entropies is None else tuple(self._entropies),
                margin=self._margin,
            )

    def _finish(self, token: int) -> tuple[Literal["stop", "length"] | None, int]:
        """Add a token's text; return why the text ends here, if it does, and at how many bytes."""
        before = len(self._text)
        if self._model.is_end(token):
            return "stop", before
        self._text += self._model.token_bytes(token)
        if not self._is_blank():
            # A stop string may begin in the text before. Only where it could end in the new token
            # is searched.
            searches = [
                self._text.find(stop, max(0, before - len(stop) + 1)) for stop in self._stops
            ]
            positions = [position for position in searches if position >= 0]
            if positions:
                return "stop", min(positions)
        return "length" if self._drawn == self.max_new_tokens else None, len(self._text)

    def _is_blank(self) -> bool:
        """Return whether all so far is white space that is not to count (`skip_blank`)."""
        return self._settings.skip_blank and not self._text.strip()

    def _forget(self) -> None:
        """Leave the tokens so far out of the completion; the model has read them."""
        self._text.clear()
        self._tokens.clear()
        self._logprobs.clear()
        if self._entropies is not None:
            self._entropies.clear()


class ScoreTask:
    """Reads given tokens; the result is the log-probability of each, in nats."""

    def __init__(self, index: int, tokens: Sequence[int]) -> None:
        self.index, self.max_new_tokens = index, len(tokens)
        # the output after a token tells of the next one, so the last need not be read
        self.unread = [(token, True) for token in tokens[:-1]]
        self.result: tuple[float, ...] | None = None
        self._tokens = tokens
        self._logprobs: list[float] = []

    def receive(self, output: Output) -> None:
        """Look up the next token's log-probability."""
        self._logprobs.append(output.checked().logprob(self._tokens[len(self._logprobs)]))
        if len(self._logprobs) == len(self._tokens):
            self.result = tuple(self._logprobs)


class HiddenStateTask:
    """Reads given tokens; the result are hidden states, (positions, width).

    Place 0 is the prompt's last token, place i the i-th of the tokens (from 1).
    """

    def __init__(self, index: int, tokens: Sequence[int], positions: Sequence[int]) -> None:
        last = max(positions)
        self.index, self.max_new_tokens = index, last
        self.unread = [(token, i + 1 in positions) for i, token in enumerate(tokens[:last])]
        self.result: Row | None = None
        self._positions = positions
        self._states: dict[int, Row] = {}
        # Outputs come in this order. The one after the prompt always comes, wanted or not.
        self._order = sorted({0, *positions})

    def receive(self, output: Output) -> None:
        """Keep a copy of a hidden state: the engine uses its memory again."""
        assert output.hidden is not None
        if not np.isfinite(output.hidden).all():
            raise RequestError(
                "the model gave hidden states that are not numbers: a damaged file or adapter; "
                "fetch or tune it again"
            )
        self._states[self._order[len(self._states)]] = output.hidden.copy()
        if len(self._states) == len(self._order):
            self.result = np.stack([self._states[position] for position in self._positions])


class NextTokenTask:
    """Reads nothing; the result is the log-probability of every possible next token."""

    def __init__(self, index: int) -> None:
        self.index, self.max_new_tokens = index, 0
        self.unread: list[tuple[int, bool]] = []
        self.result: Row | None = None

    def receive(self, output: Output) -> None:
        """Keep the whole row, also with NaN in it: so the caller knows a damaged adapter."""
        self.result = output.logits - np.float32(output.total)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two texts both begin with."""
    shorter = min(len(a), len(b))
    return next((i for i in range(shorter) if a[i] != b[i]), shorter)
