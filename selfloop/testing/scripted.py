"""A backend without a model: replies from a script, the same every time.

Shipped, for tests and dry runs.
"""

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from selfloop.errors import RequestError
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, ModelInfo, Request
from selfloop.text.thoughts import trailing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A small world: the first pattern found in the prompt picks the replies one of which is given.
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
    r"": [
        "What is the capital of Egypt?",
        "Which planet is the largest one?",
        "not a question at all",
        "How many legs does a spider have?",
        "Who painted the ceiling of the chapel?",
        "When did the first railway open?",
    ],
}


class ScriptedBackend:
    """A `Backend` that answers from a script: pattern -> replies. Quick, and the same every time.

    Which reply is given depends on the prompt, the sample and, of what is drawn, the seed; `{2}` in
    a reply is the pattern's second group. A token is a word. `context` is in words; a longer prompt
    is refused. Where a prompt ends in a thought ("<think>"), the script is asked for what is before
    it, and a reply that begins with the thought goes on.
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
        """Return a model that can do everything a script can."""
        gives = frozenset(
            {"logprobs", "entropies", "chat", "adapters", "loglikelihood", "hidden_states"}
        )
        digest = blake2b(
            repr(sorted(self._script.items())).encode("utf-8", "replace"), digest_size=8
        ).hexdigest()
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
        """Yield the replies, last request first: order must not matter to anybody."""
        for index, request in reversed(list(enumerate(requests))):
            prompt = (
                request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
            )
            if len(prompt.split()) + request.sampling.max_tokens > self._context:
                yield (
                    index,
                    RequestError(
                        f"prompt of {len(prompt.split())} words is over the context of "
                        f"{self._context}"
                    ),
                )
                continue
            for sample in sorted(set(range(request.n)) - set(request.skip)):
                time.sleep(self._delay)
                self.generated += 1
                yield index, self._reply(request, prompt, sample)

    def _reply(self, request: Request, prompt: str, sample: int) -> Completion:
        sha = self._adapter.sha256 if self._adapter else None
        asked, begun = _before_thought(request, prompt)
        # what is greedy depends on no seed
        seed = request.seed if request.sampling.temperature else 0
        noise = _noise(prompt, seed, request.sampling.temperature, sample, sha)
        for pattern, replies in self._script.items():
            if found := re.search(pattern, asked):
                rests = [
                    reply.removeprefix(begun) for reply in replies if reply.startswith(begun)
                ] or [""]
                text = rests[noise[0] % len(rests)]
                text = re.sub(r"\{(\d)\}", lambda m, f=found: f[int(m[1])] or "", text)  # type: ignore[misc]
                break
        else:
            text = ""
        text = text.lstrip() if request.sampling.skip_blank else text
        for stop in request.sampling.stop:
            text = text.partition(stop)[0]
        words = text.split(" ")[: request.sampling.max_tokens]
        logprobs = tuple(-noise[i % 60 + 1] / 256 for i in range(len(words)))
        finish = "length" if len(words) == request.sampling.max_tokens else "stop"
        entropies = tuple(-2 * value for value in logprobs) if request.entropy else None
        margin = 2 * math.exp(max(logprobs[0], math.log(0.5))) - 1 if request.entropy else None
        return Completion(
            " ".join(words),
            tuple(map(len, words)),
            logprobs,
            finish,
            sample,
            sha,
            entropies,
            margin,
        )  # type: ignore[arg-type]

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return numbers that depend on the pair and the adapter alone, one a token (or word)."""
        return [
            tuple(-value / 256 for value in _noise(*seen)[: len(seen[1])])
            for seen in map(self._seen, pairs)
        ]

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return states of width 8 that depend on the pair up to the place, the layer, and the adapter, alone."""
        import numpy as np

        found: list[NDArray[np.float32] | RequestError] = []
        for prompt, words, sha in map(self._seen, pairs):
            ends = [place if place >= 0 else len(words) + 1 + place for place in places]
            if not -4 <= layer <= 3:
                found.append(
                    RequestError(
                        f"layer must be from 0 to 3, or -1 to -4 from the last, not {layer}"
                    )
                )
                continue
            if not ends or not all(0 <= end <= len(words) for end in ends):
                found.append(
                    RequestError(f"places must be from 0 to {len(words)}, not {list(places)}")
                )
                continue
            start = 8 * (3 - layer % 4)
            states = [list(_noise(prompt, words[:end], sha)[start : start + 8]) for end in ends]
            found.append(np.array(states, np.float32) / np.float32(256))
        return found

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return weights of 3 layers of 2 heads that depend on the pair and the adapter alone."""
        import numpy as np

        tokens = [len(seen[1]) for seen in map(self._seen, pairs)]
        seeds = [int.from_bytes(_noise(*seen)[:8], "big") for seen in map(self._seen, pairs)]
        return [
            np.random.default_rng(seed).random((3, 2, count), np.float32)
            for seed, count in zip(seeds, tokens, strict=True)
        ]

    def _seen(self, pair: Continuation) -> tuple[str, tuple[Any, ...], str | None]:
        prompt = pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1].content
        words = tuple(pair.text.split()) if isinstance(pair.text, str) else pair.text
        return prompt, words, self._adapter.sha256 if self._adapter else None

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Take the adapter; replies differ under it."""
        self._adapter = adapter
        return AdapterProof(adapter, 1.0 if adapter else 0.0)

    def close(self) -> None:
        """Do nothing."""


def _before_thought(request: Request, prompt: str) -> tuple[str, str]:
    """Return a prompt's last message without the thought that it ends in, and that thought, or an empty string."""
    start = trailing(prompt)
    if start is None or prompt.rstrip().endswith(":"):  # the prompt's own "Answer:" comes after it
        return prompt, ""
    asked, begun = prompt[:start], prompt[start:]
    if not asked and not isinstance(request.prompt, str) and len(request.prompt) > 1:
        asked = request.prompt[-2].content  # the thought is a message of its own
    return asked, begun


def _noise(*what: object) -> bytes:
    return blake2b(repr(what).encode("utf-8", "replace")).digest()


class Limited(ScriptedBackend):
    """A scripted backend that gives the capabilities `gives` and no others: it fails who uses what they do not need."""

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
        """Return a model with these capabilities alone."""
        return replace(super().describe(), capabilities=self._gives)

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield the replies."""
        if any(request.entropy for request in requests):
            self._need("entropies")
        return super().generate(requests)

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return what the script gives."""
        self._need("loglikelihood")
        return super().loglikelihood(pairs)

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return what the script gives."""
        self._need("hidden_states")
        return super().hidden_states(pairs, places, layer)

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return what the script gives."""
        self._need("attentions")
        return super().attentions(pairs)

    def _need(self, capability: str) -> None:
        assert capability in self._gives, (
            f"the component asks the backend for {capability}, but its Component does not say "
            f"needs={{{capability!r}}}"
        )
