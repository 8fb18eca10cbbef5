"""A backend without a model, for tests and dry runs: replies from a script, always the same."""

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from selfloop.config.prompts import Prompt
from selfloop.errors import RequestError
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, ModelInfo, Request
from selfloop.text.thoughts import trailing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A small world. The first pattern that matches the prompt has the replies to choose from.
WORLD: Mapping[str, Sequence[str]] = {
    r"(Examples:|[|]|=== list)\s*$": [
        "Nile | Paris | Mars | Tea | Mozart | Ada Lovelace | Peru | Iron | Oslo | Chess |"
    ],
    r"Corrected answer:\s*$": ["Cairo", "Jupiter", "forty two", "I don't know"],
    r"Check:\s*$": ["The answer is right.", "The answer is wrong: it is another."],
    r"Answer:\s*$": ["Cairo", "Cairo", "Cairo", "Jupiter", "forty two", "I don't know"],
    r"(Topic: ([^\n(]+?)(?: \([^\n]*\))?\n)Question:\s*$": [
        "Where in the world can {2} be found?",
        "Who was the first to write about {2}?",
        "What is {2} best known for today?",
        "In which year was {2} first named?",
    ],
    # the empty pattern matches every prompt: the model asks
    r"": [
        "What is the capital of Egypt?",
        "Which planet is the largest one?",
        "not a question at all",
        "How many legs does a spider have?",
        "Who painted the ceiling of the chapel?",
        "When did the first railway open?",
    ],
}


LAYERS, WIDTH = 4, 8  # of the hidden states


class ScriptedBackend:
    """A `Backend` that answers from a script: pattern -> replies. It is quick and deterministic.

    The reply depends on the prompt, the sample and, unless it is greedy, the seed. `{2}` in a reply
    is the second group of the pattern. A token is a word. `context` is in words; a longer prompt is
    refused. `delay` is in seconds for each completion. If a prompt ends in a thought ("<think>"),
    the script gets the part before it, and only replies that begin with the thought fit.
    """

    def __init__(
        self,
        script: Mapping[str, Sequence[str]] = WORLD,
        *,
        chat: bool = False,
        context: int = 100_000,
        delay: float = 0.0,
    ) -> None:
        self._script = script
        self._chat, self._context, self._delay = chat, context, delay
        self._adapter: Adapter | None = None
        self.generated = 0

    def describe(self) -> ModelInfo:
        """Return a model with all capabilities of a script; its sha256 depends on the script."""
        gives = frozenset(
            {"logprobs", "entropies", "chat", "adapters", "loglikelihood", "hidden_states"}
        )
        script = repr(sorted(self._script.items())).encode("utf-8", "replace")
        digest = blake2b(script, digest_size=8).hexdigest()
        return ModelInfo(
            "scripted",
            "script",
            context=self._context,
            chat=self._chat,
            capabilities=gives,
            sha256=digest,
        )

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield the replies, the last request first: nobody may rely on an order."""
        for index, request in reversed(list(enumerate(requests))):
            prompt = _last_message(request.prompt)
            words = len(prompt.split())
            if words + request.sampling.max_tokens > self._context:
                why = f"prompt of {words} words is over the context of {self._context}"
                yield index, RequestError(why)
                continue
            # `skip` are samples that the recorder has stored already
            for sample in sorted(set(range(request.n)) - set(request.skip)):
                time.sleep(self._delay)
                self.generated += 1
                yield index, self._reply(request, prompt, sample)

    def _reply(self, request: Request, prompt: str, sample: int) -> Completion:
        sampling = request.sampling
        adapter = self._adapter.sha256 if self._adapter else None
        asked, thought = _split_thought(request, prompt)
        seed = request.seed if sampling.temperature else 0  # a greedy text depends on no seed
        noise = _noise(prompt, seed, sampling.temperature, sample, adapter)
        text = _choose_reply(self._script, asked, thought, noise[0])
        text = text.lstrip() if sampling.skip_blank else text
        # the earliest of the stops cuts, whatever their order
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        words = text.split(" ")[: sampling.max_tokens]
        # 64 bytes of noise: the first chose the reply, and 60 of the others repeat as
        # log-probabilities from -1 to 0
        logprobs = tuple(-noise[i % 60 + 1] / 256 for i in range(len(words)))
        entropies = margin = None
        if request.entropy:
            entropies = tuple(-2 * value for value in logprobs)
            # as if all probability that the first word leaves were on one other: p - (1 - p)
            margin = 2 * math.exp(max(logprobs[0], math.log(0.5))) - 1
        return Completion(
            " ".join(words),
            tuple(map(len, words)),
            logprobs,
            "length" if len(words) == sampling.max_tokens else "stop",
            sample,
            adapter,
            entropies,
            margin,
        )

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return one number for each token (or word), from the pair and the adapter alone."""
        # one byte of noise for each token: values from -1 to 0
        results: list[tuple[float, ...] | RequestError] = []
        for prompt, tokens, adapter in map(self._inputs_of, pairs):
            noise = _noise(prompt, tokens, adapter)
            results.append(tuple(-value / 256 for value in noise[: len(tokens)]))
        return results

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return states of width 8 of a model with 4 layers.

        They depend on the adapter, the layer, and the pair up to the place alone.
        """
        import numpy as np

        results: list[NDArray[np.float32] | RequestError] = []
        for prompt, tokens, adapter in map(self._inputs_of, pairs):
            # place 0 is the end of the prompt, place i that of token i, -1 that of the last one
            ends = [at if at >= 0 else len(tokens) + 1 + at for at in positions]
            if not -LAYERS <= layer < LAYERS:
                why = f"layer must be from 0 to 3, or -1 to -4 from the last, not {layer}"
                results.append(RequestError(why))
                continue
            if not ends or not all(0 <= end <= len(tokens) for end in ends):
                why = f"positions must be from 0 to {len(tokens)}, not {list(positions)}"
                results.append(RequestError(why))
                continue
            # each layer has 8 of the noise's 64 bytes, the last layer the first of them
            start = WIDTH * (LAYERS - 1 - layer % LAYERS)
            states: list[list[int]] = []
            for end in ends:
                noise = _noise(prompt, tokens[:end], adapter)
                states.append(list(noise[start : start + WIDTH]))
            results.append(np.array(states, np.float32) / np.float32(256))
        return results

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return weights of 3 layers of 2 heads, from the pair and the adapter alone."""
        import numpy as np

        results: list[NDArray[np.float32] | RequestError] = []
        for prompt, tokens, adapter in map(self._inputs_of, pairs):
            seed = int.from_bytes(_noise(prompt, tokens, adapter)[:8], "big")
            weights = np.random.default_rng(seed).random((3, 2, len(tokens)), np.float32)
            results.append(weights)
        return results

    def _inputs_of(self, pair: Continuation) -> tuple[str, tuple[Any, ...], str | None]:
        """Return the prompt, the tokens (or words) and the adapter that a reading depends on."""
        tokens = tuple(pair.text.split()) if isinstance(pair.text, str) else pair.text
        adapter = self._adapter.sha256 if self._adapter else None
        return _last_message(pair.prompt), tokens, adapter

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Take the adapter. Replies differ under it."""
        self._adapter = adapter
        return AdapterProof(adapter, 1.0 if adapter else 0.0)

    def close(self) -> None:
        """Do nothing."""


def _last_message(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1].content


def _choose_reply(
    script: Mapping[str, Sequence[str]], asked: str, thought: str, number: int
) -> str:
    """Return the rest of a reply that begins with `thought`, its groups filled in.

    The first pattern that matches `asked` has the replies, and `number` chooses among those that
    fit. Return an empty string if no pattern matches, or no reply fits.
    """
    for pattern, replies in script.items():
        match = re.search(pattern, asked)
        if match is None:
            continue
        rests = [reply.removeprefix(thought) for reply in replies if reply.startswith(thought)]
        rest = rests[number % len(rests)] if rests else ""
        return re.sub(r"\{(\d)\}", partial(_group_of, match), rest)
    return ""


def _group_of(match: re.Match[str], placeholder: re.Match[str]) -> str:
    """Return the group of `match` that a placeholder such as `{2}` stands for."""
    return match[int(placeholder[1])] or ""


def _split_thought(request: Request, prompt: str) -> tuple[str, str]:
    """Return a prompt's last message without the thought that it ends in, and that thought.

    The thought is an empty string if there is none.
    """
    start = trailing(prompt)
    if start is None or prompt.rstrip().endswith(":"):  # the prompt's own "Answer:" comes after it
        return prompt, ""
    asked, thought = prompt[:start], prompt[start:]
    if not asked and not isinstance(request.prompt, str) and len(request.prompt) > 1:
        asked = request.prompt[-2].content  # the thought is a message of its own
    return asked, thought


def _noise(*parts: object) -> bytes:
    """Return 64 bytes that depend on the parts alone."""
    return blake2b(repr(parts).encode("utf-8", "replace")).digest()


class Limited(ScriptedBackend):
    """A scripted backend with the capabilities `gives` and no others.

    A component that uses another capability than those it declares fails with an AssertionError.
    """

    def __init__(
        self,
        gives: Iterable[str],
        *,
        chat: bool = False,
        script: Mapping[str, Sequence[str]] = WORLD,
    ) -> None:
        super().__init__(script, chat=chat)
        self._gives = frozenset(gives)

    def describe(self) -> ModelInfo:
        """Return a model with these capabilities."""
        return replace(super().describe(), capabilities=self._gives)

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield the replies of the script."""
        if any(request.entropy for request in requests):
            self._need("entropies")
        return super().generate(requests)

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return the values of the script."""
        self._need("loglikelihood")
        return super().loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return the values of the script."""
        self._need("hidden_states")
        return super().hidden_states(pairs, positions, layer)

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return the values of the script."""
        self._need("attentions")
        return super().attentions(pairs)

    def _need(self, capability: str) -> None:
        assert capability in self._gives, (
            f"the component asks the backend for {capability}, but its Component does not say "
            f"needs={{{capability!r}}}"
        )
