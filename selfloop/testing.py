"""For plugin authors: a backend without a model, and tests to subclass. Needs pytest only where it is subclassed.

from selfloop.testing import VerifierContract

class TestMine(VerifierContract):
    component = my_plugin.selfloop_verifiers()[0]
"""

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from selfloop.errors import RequestError
from selfloop.ledger import Past
from selfloop.options import options_model
from selfloop.prompts import Prompts
from selfloop.protocols import Asking, Backend, Component, Judging
from selfloop.records import (
    Adapter,
    AdapterProof,
    Claim,
    Completion,
    Continuation,
    ModelInfo,
    Outcome,
    Question,
    Request,
    Sampling,
    Score,
    Verdict,
)

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

    Which reply is given depends on the prompt, the seed and the sample alone; `{2}` in a reply is the
    pattern's second group. A token is a word. `context` is in words; a longer prompt is refused.
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
        gives = frozenset({"logprobs", "entropies", "chat", "adapters", "loglikelihood", "hidden_states"})
        digest = blake2b(repr(sorted(self._script.items())).encode("utf-8", "replace"), digest_size=8).hexdigest()
        return ModelInfo(
            "scripted", "script", context=self._context, chat=self._chat, capabilities=gives, sha256=digest
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield the replies, last request first: order must not matter to anybody."""
        for index, request in reversed(list(enumerate(requests))):
            prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
            if len(prompt.split()) + request.sampling.max_tokens > self._context:
                yield (
                    index,
                    RequestError(f"prompt of {len(prompt.split())} words is over the context of {self._context}"),
                )
                continue
            for sample in sorted(set(range(request.n)) - set(request.skip)):
                time.sleep(self._delay)
                self.generated += 1
                yield index, self._reply(request, prompt, sample)

    def _reply(self, request: Request, prompt: str, sample: int) -> Completion:
        sha = self._adapter.sha256 if self._adapter else None
        noise = _noise(prompt, request.seed, request.sampling.temperature, sample, sha)
        for pattern, replies in self._script.items():
            if found := re.search(pattern, prompt):
                text = replies[noise[0] % len(replies)]
                text = re.sub(r"\{(\d)\}", lambda m, f=found: f[int(m[1])] or "", text)  # type: ignore[misc]
                break
        else:
            text = ""
        for stop in request.sampling.stop:
            text = text.partition(stop)[0]
        words = text.split(" ")[: request.sampling.max_tokens]
        logprobs = tuple(-noise[i % 60 + 1] / 256 for i in range(len(words)))
        finish = "length" if len(words) == request.sampling.max_tokens else "stop"
        entropies = tuple(-2 * value for value in logprobs) if request.entropy else None
        margin = 2 * math.exp(max(logprobs[0], math.log(0.5))) - 1 if request.entropy else None
        return Completion(" ".join(words), tuple(map(len, words)), logprobs, finish, sample, sha, entropies, margin)  # type: ignore[arg-type]

    def loglikelihood(self, pairs: Sequence[Continuation]) -> list[tuple[float, ...] | RequestError]:
        """Return numbers that depend on the pair and the adapter alone, one a token (or word)."""
        return [tuple(-value / 256 for value in _noise(*seen)[: len(seen[1])]) for seen in map(self._seen, pairs)]

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return states of width 8 that depend on the pair up to the place, the layer, and the adapter, alone."""
        import numpy as np

        found: list[NDArray[np.float32] | RequestError] = []
        for prompt, words, sha in map(self._seen, pairs):
            ends = [place if place >= 0 else len(words) + 1 + place for place in places]
            if not -4 <= layer <= 3:
                found.append(RequestError(f"layer must be from 0 to 3, or -1 to -4 from the last, not {layer}"))
                continue
            if not ends or not all(0 <= end <= len(words) for end in ends):
                found.append(RequestError(f"places must be from 0 to {len(words)}, not {list(places)}"))
                continue
            start = 8 * (3 - layer % 4)
            states = [list(_noise(prompt, words[:end], sha)[start : start + 8]) for end in ends]
            found.append(np.array(states, np.float32) / np.float32(256))
        return found

    def attentions(self, pairs: Sequence[Continuation]) -> "list[NDArray[np.float32] | RequestError]":
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


def _noise(*what: object) -> bytes:
    return blake2b(repr(what).encode("utf-8", "replace")).digest()


CLAIMS = (
    Claim(Question("What is the capital of Egypt?", "test"), Completion("Cairo", (1,), (-0.1,))),
    Claim(Question("?", "test"), Completion("", (), ()), (Completion("", (), ()),)),
    Claim(
        Question("Who was it?", "test"),
        Completion("Ada \x1b[31m Lovelace", (1, 2), (-0.5, float("-inf"))),
        tuple(Completion("Ada Lovelace", (1, 2), (-0.5, -0.25), sample=k) for k in range(4)),
    ),
    Claim(Question("How long?", "test"), Completion("x " * 10_000, (1,) * 10_000, (-1e-3,) * 10_000)),
)


def judging(backend: Backend | None = None, prompts: Path | None = None) -> Judging:
    """Return what a verifier is told: a scripted backend, or the one given, and `prompts` beside the built-in ones."""
    backend = backend or ScriptedBackend()
    render = partial(Prompts([prompts] if prompts else []).render, chat=backend.describe().chat)
    return Judging(backend, render, lambda claims: [()] * len(claims))


def asking(backend: Backend | None = None, prompts: Path | None = None, asked: Sequence[str] = ()) -> Asking:
    """Return what a source or a scorer is told in round 2, with `asked` asked in round 1."""
    told, past = judging(backend, prompts), past_of(asked)
    return Asking(6, 2, 0, 1, told.backend, past, told.prompt)


def past_of(asked: Sequence[str] = (), dropped: Sequence[str] = ()) -> Past:
    """Return what a run knows after a round in which these questions were asked, and these not."""
    found = [Outcome(Question(text, "test"), "undecided", round=1) for text in asked]
    return Past(1, (*found, *(Outcome(Question(text, "test"), "dropped", round=1) for text in dropped)))


class _Contract:
    component: ClassVar[Component]
    options: ClassVar[dict[str, Any]] = {}

    def build(self) -> Any:
        return self.component.build(**self.options)

    def test_options_are_typed(self) -> None:
        """Every option has a type, so that a recipe's mistakes are found before a model loads."""
        for name, field in options_model(self.component.build).model_fields.items():
            assert field.annotation is not Any, f"option {name} has no type"


class VerifierContract(_Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    def test_one_verdict_a_claim(self) -> None:
        """Return as many verdicts as claims, also for none, each in [0, 1] or abstaining with a reason."""
        verifier, told = self.build(), judging(prompts=self.component.prompts)
        assert list(verifier.verify([], told)) == []
        verdicts = list(verifier.verify(CLAIMS, told))
        assert len(verdicts) == len(CLAIMS)
        for verdict in verdicts:
            assert isinstance(verdict, Verdict)
            assert verdict.confidence is not None or verdict.reason, "an abstention says why"
            assert verdict.confidence is None or 0 <= verdict.confidence <= 1

    def test_claims_are_judged_apart(self) -> None:
        """Return the same verdict for a claim alone as among others."""
        told = judging(prompts=self.component.prompts)
        together = list(self.build().verify(CLAIMS, told))
        alone = [next(iter(self.build().verify([claim], told))) for claim in CLAIMS]
        assert together == alone


class ScorerContract(_Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    def test_one_score_a_question(self) -> None:
        """Return as many scores as questions, also for none, each a number."""
        scorer, told = self.build(), asking(prompts=self.component.prompts, asked=["What is the capital of Peru?"])
        questions = [claim.question for claim in CLAIMS]
        assert list(scorer.score([], told)) == []
        scores = list(scorer.score(questions, told))
        assert len(scores) == len(questions)
        assert all(isinstance(s, Score) and s.value == s.value for s in scores)


class CriticContract(_Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    def test_one_critique_a_claim(self) -> None:
        """Return as many critiques as claims, also for none; name a prompt that there is."""
        critic, told = self.build(), judging(prompts=self.component.prompts)
        assert list(critic.critique([], told)) == []
        critiques = list(critic.critique(CLAIMS, told))
        assert len(critiques) == len(CLAIMS)
        assert all(isinstance(one, Completion) for one in critiques)
        assert told.prompt(critic.revise, question="Q?", draft="A", critique="C")


class DemonstratorContract(_Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    def test_one_prompt_a_question(self) -> None:
        """Return as many prompts as questions, also for none, each with its question and one that can be used."""
        demonstrator, told = self.build(), judging(prompts=self.component.prompts)
        assert list(demonstrator.show([], told)) == []
        questions = [claim.question.text for claim in CLAIMS]
        prompts = list(demonstrator.show(questions, told))
        assert len(prompts) == len(questions)
        for question, prompt in zip(questions, prompts, strict=True):
            whole = prompt if isinstance(prompt, str) else "".join(message.content for message in prompt)
            assert question in whole


class BackendContract:
    """Subclass and return an open backend from `backend()`; `prompts` are what it is asked."""

    prompts: ClassVar[Sequence[Any]] = ("Question: What is the capital of Egypt?\nAnswer:", "One, two, three,")

    def backend(self) -> Any:
        """Return the backend under test; it may be shared between tests."""
        raise NotImplementedError

    def _requests(self, n: int, skip: tuple[int, ...] = ()) -> list[Request]:
        sampling = Sampling(0.8, max_tokens=6)
        return [Request(prompt, sampling, n=n, seed=7, skip=skip) for prompt in self.prompts]

    def _all(self, requests: Sequence[Request]) -> dict[tuple[int, int], Completion]:
        found: dict[tuple[int, int], Completion] = {}
        for index, completion in self.backend().generate(requests):
            assert isinstance(completion, Completion), completion
            assert (index, completion.sample) not in found, "a completion came twice"
            found[index, completion.sample] = completion
        return found

    def test_every_sample_once(self) -> None:
        """Yield each wanted sample of each request once, and none that is to be skipped."""
        wanted = {(i, k) for i in range(len(self.prompts)) for k in range(4)}
        assert set(self._all(self._requests(4))) == wanted
        assert set(self._all(self._requests(4, skip=(0, 2)))) == {(i, k) for i, k in wanted if k in (1, 3)}
        assert self._all([]) == {}

    def test_a_sample_depends_on_its_request_alone(self) -> None:
        """Return the same completion whatever n, skip and the rest of the batch are: resume rests on this."""
        together = self._all(self._requests(4))
        for index, request in enumerate(self._requests(4, skip=(0, 1, 2))):
            assert self._all([request])[0, 3] == together[index, 3]

    def test_logprobs_fit_tokens(self) -> None:
        """Return one log-probability for each token, none above 0, and no more tokens than asked for."""
        for completion in self._all(self._requests(2)).values():
            assert len(completion.tokens) == len(completion.logprobs) <= 6
            assert all(value <= 1e-6 for value in completion.logprobs)

    def test_entropies_come_where_they_are_asked_for(self) -> None:
        """Return one entropy a token, none below 0, for a request that wants them, and none for one that does not."""
        for completion in self._all([replace(request, entropy=True) for request in self._requests(2)]).values():
            assert completion.entropies is not None and len(completion.entropies) == len(completion.tokens)
            assert all(value >= 0 for value in completion.entropies)
            assert completion.margin is not None and -1e-6 <= completion.margin <= 1 + 1e-6
        assert all(
            completion.entropies is None and completion.margin is None
            for completion in self._all(self._requests(1)).values()
        )

    def _pairs(self, capability: str) -> list[Continuation]:
        import pytest

        if capability not in self.backend().describe().capabilities:
            pytest.skip(f"the backend has no {capability}")
        return [Continuation(prompt, text) for prompt in self.prompts for text in (" Cairo", " one two three", (3, 4))]

    def test_loglikelihood_of_a_pair_depends_on_it_alone(self) -> None:
        """Return one value at most 0 for each token, the same alone as among others."""
        pairs = self._pairs("loglikelihood")
        found = self.backend().loglikelihood(pairs)
        assert [len(values) for values in found[2::3]] == [2] * len(self.prompts)
        assert all(values and max(values) <= 1e-6 for values in found)
        assert [self.backend().loglikelihood([pair])[0] for pair in pairs] == found
        assert self.backend().loglikelihood([]) == []

    def test_hidden_states_of_a_pair_depend_on_it_alone(self) -> None:
        """Return a state for each place, the same alone as among others; refuse a place beyond the text."""
        pairs = self._pairs("hidden_states")
        found = self.backend().hidden_states(pairs, (0, 1, -1))
        assert len({state.shape for state in found}) == 1 and found[0].shape[0] == 3
        for pair, state in zip(pairs, found, strict=True):
            assert (self.backend().hidden_states([pair], (0, 1, -1))[0] == state).all()
        (refused,) = self.backend().hidden_states(pairs[:1], (99,))
        assert isinstance(refused, RequestError)

    def test_hidden_states_of_a_layer(self) -> None:
        """Return other states for another layer, the same alone as among others, or refuse it; refuse what is none."""
        pairs = self._pairs("hidden_states")
        last = self.backend().hidden_states(pairs)
        for layer in (0, 1, -2):
            found = self.backend().hidden_states(pairs, (0, -1), layer)
            for pair, state, other in zip(pairs, found, last, strict=True):
                if isinstance(state, RequestError):
                    assert "layer" in str(state)
                else:
                    assert state.shape == other.shape and not (state == other).all()
                    assert (self.backend().hidden_states([pair], (0, -1), layer)[0] == state).all()
        assert all(isinstance(one, RequestError) for one in self.backend().hidden_states(pairs, (0,), 999))
