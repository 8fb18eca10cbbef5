"""What is done with one sequence after its prompt: write a completion, score given tokens, look at
hidden states.

A task is fed outputs of the model, first the one after the prompt's last token, and says which
tokens to read next (`unread`), until it has a `result`.
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
    """A model's tokens, and what it says of itself."""

    name: str
    vocab_size: int
    bos: str
    eos: str

    @property
    def template(self) -> str:
        """Return what turns chat messages into a text; empty for a base model."""
        ...

    def tokens(self, pieces: Sequence[Piece]) -> list[int]:
        """Return a prompt's tokens, opened by BOS where the vocabulary wants that; plain text becomes no control."""
        ...

    def piece(self, token: int) -> bytes:
        """Return a token's bytes, none for a special one; a character may be spread over tokens."""
        ...

    def ends(self, token: int) -> bool:
        """Return whether a token ends the text."""
        ...


class Task(Protocol):
    """One sequence's work. `index` is the place of its request in the caller's list."""

    index: int
    room: int  # the most cells it takes after the prompt
    unread: list[tuple[int, bool]]  # tokens to be read next, and whether their output is wanted

    @property
    def result(self) -> Result | None:
        """Return what came of it, None until it is done."""
        ...

    def take(self, output: Output) -> None:
        """Use the output after the prompt or after a wanted token.

        Raises RequestError if it makes no sense.
        """
        ...


# a prompt's tokens, at least one, and what is to be done with it, at least one
Job = tuple[list[int], list[Task]]


class Writing:
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
        self.index, self.room = index, request.sampling.max_tokens
        self.unread: list[tuple[int, bool]] = []
        self.result: Completion | None = None
        self._number, self._settings, self._model = number, request.sampling, model
        self._sampler, self._adapter = sampler, adapter
        # In bytes, since a character may be spread over tokens; UTF-8 never matches inside a
        # character.
        self._stops = [stop.encode("utf-8", "replace") for stop in request.sampling.stop]
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._entropies: list[float] | None = [] if request.entropy else None
        self._margin: float | None = None
        self._text = bytearray()
        self._drawn = 0

    def take(self, output: Output) -> None:
        """Draw the next token, and end if that was the last."""
        token = self._sampler.draw(output)
        self._drawn += 1
        self._tokens.append(token)
        self._logprobs.append(output.logprob(token))
        if self._entropies is not None:
            self._margin = output.margin() if not self._entropies else self._margin
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
        """Take in a token's text; return whether and why it ends here, and after how many bytes."""
        before = len(self._text)
        if self._model.ends(token):
            return "stop", before
        self._text += self._model.piece(token)
        if self._is_blank():
            return "length" if self._drawn == self.room else None, len(self._text)
        found = [self._text.find(stop, max(0, before - len(stop) + 1)) for stop in self._stops]
        if any(at >= 0 for at in found):
            return "stop", min(at for at in found if at >= 0)
        return "length" if self._drawn == self.room else None, len(self._text)

    def _is_blank(self) -> bool:
        """Return whether there is nothing yet but white space, which is no part of the text."""
        return self._settings.skip_blank and not self._text.strip()

    def _forget(self) -> None:
        """Leave out what was written so far."""
        self._text.clear()
        self._tokens.clear()
        self._logprobs.clear()
        if self._entropies is not None:
            self._entropies.clear()


class Scoring:
    """Reads given tokens; the result is the log-probability of each."""

    def __init__(self, index: int, tokens: Sequence[int]) -> None:
        self.index, self.room = index, len(tokens)
        self.unread = [(token, True) for token in tokens[:-1]]
        self.result: tuple[float, ...] | None = None
        self._tokens = tokens
        self._logprobs: list[float] = []

    def take(self, output: Output) -> None:
        """Look up the next token's log-probability."""
        self._logprobs.append(output.checked().logprob(self._tokens[len(self._logprobs)]))
        if len(self._logprobs) == len(self._tokens):
            self.result = tuple(self._logprobs)


class Looking:
    """Reads given tokens; the result are hidden states, (places, width).

    Place 0 is the prompt's last token, place i the i-th of the tokens.
    """

    def __init__(self, index: int, tokens: Sequence[int], places: Sequence[int]) -> None:
        last = max(places)
        self.index, self.room = index, last
        self.unread = [(token, i + 1 in places) for i, token in enumerate(tokens[:last])]
        self.result: Row | None = None
        self._places = places
        self._found: dict[int, Row] = {}
        self._order = sorted({0, *places})

    def take(self, output: Output) -> None:
        """Keep a copy of a hidden state."""
        assert output.hidden is not None
        if not np.isfinite(output.hidden).all():
            raise RequestError(
                "the model gave hidden states that are not numbers: a damaged file or adapter; "
                "fetch or tune it again"
            )
        self._found[self._order[len(self._found)]] = output.hidden.copy()
        if len(self._found) == len(self._order):
            self.result = np.stack([self._found[place] for place in self._places])


class Telling:
    """Reads nothing; the result is the log-probability of every token that may come after the prompt."""

    def __init__(self, index: int) -> None:
        self.index, self.room = index, 0
        self.unread: list[tuple[int, bool]] = []
        self.result: Row | None = None

    def take(self, output: Output) -> None:
        """Keep the whole row, also where it has what is no number: that is for who asks to see."""
        self.result = output.logits - np.float32(output.total)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts both begin with."""
    most = min(len(one), len(other))
    return next((i for i in range(most) if one[i] != other[i]), most)
