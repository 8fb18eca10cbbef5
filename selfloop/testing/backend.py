"""What a backend must do."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

from selfloop.errors import RequestError
from selfloop.protocols import CAPABILITIES
from selfloop.records import Completion, Continuation, ModelInfo, Request, Sampling
from selfloop.testing.contract import checked, taking_tuples

Found = dict[tuple[int, int], Completion]


class BackendContract:
    """Subclass and return an open backend from `backend()`; `prompts` are what it is asked."""

    prompts: ClassVar[Sequence[Any]] = (
        "Question: What is the capital of Egypt?\nAnswer:",
        "One, two, three,",
    )

    def backend(self) -> Any:
        """Return the backend under test; it may be shared between tests."""
        raise NotImplementedError

    def _requests(self, n: int, skip: tuple[int, ...] = (), **sampling: Any) -> list[Request]:
        how = Sampling(**{"temperature": 0.8, "max_tokens": 6} | sampling)
        return [Request(prompt, how, n=n, seed=7, skip=skip) for prompt in self.prompts]

    def _all(self, requests: Sequence[Request]) -> Found:
        found: Found = {}
        given = tuple(requests)  # as a run hands them over
        before = deepcopy(given)
        with taking_tuples("generate()"):
            results = list(self.backend().generate(given))
        for index, result in results:
            assert not isinstance(result, RequestError), f"request {index} was refused: {result}"
            completion = checked("generate()", result, Completion)
            assert index in range(len(requests)), (
                f"generate() gave index {index} for {len(requests)} requests"
            )
            assert (index, completion.sample) not in found, (
                f"sample {completion.sample} of request {index} came twice"
            )
            found[index, completion.sample] = completion
        assert given == before, "generate() changed the requests; others work with them too"
        return found

    def test_it_says_what_it_is(self) -> None:
        """Return a `ModelInfo` with a name and known capabilities, the same each time."""
        info = checked("describe()", self.backend().describe(), ModelInfo)
        assert info.name, "describe() gives the model no name"
        unknown = info.capabilities - CAPABILITIES.keys()
        assert not unknown, (
            f"no capability is called {', '.join(sorted(unknown))}; there are "
            f"{', '.join(CAPABILITIES)}"
        )
        assert info == self.backend().describe(), "describe() says something else the second time"

    def test_every_sample_once(self) -> None:
        """Yield each wanted sample of each request once, and none that is to be skipped."""
        wanted = {(i, k) for i in range(len(self.prompts)) for k in range(4)}
        _has(self._all(self._requests(4)), wanted)
        _has(self._all(self._requests(4, skip=(0, 2))), {(i, k) for i, k in wanted if k in (1, 3)})
        assert self._all([]) == {}

    def test_a_sample_depends_on_its_request_alone(self) -> None:
        """Return the same completion whatever n, skip and the rest of the batch are: resume rests on this."""
        together = self._all(self._requests(4))
        for index, request in enumerate(self._requests(4, skip=(0, 1, 2))):
            alone = self._all([request])[0, 3]
            assert alone == together[index, 3], (
                f"sample 3 of {request.prompt!r:.60} is {alone.text!r} alone and "
                f"{together[index, 3].text!r} in a batch"
            )

    def test_the_draft_is_greedy(self) -> None:
        """Return at temperature 0 the same text whatever the seed is."""
        first, other = (
            self._all(
                [replace(request, seed=seed) for request in self._requests(1, temperature=0.0)]
            )
            for seed in (1, 2)
        )
        texts = [{place: one.text for place, one in found.items()} for found in (first, other)]
        assert texts[0] == texts[1], "at temperature 0 the text depends on the seed"

    def test_logprobs_fit_tokens(self) -> None:
        """Return one log-probability for each token, none above 0, and no more tokens than asked for."""
        for completion in self._all(self._requests(2)).values():
            tokens, logprobs = completion.tokens, completion.logprobs
            assert len(tokens) <= 6, f"{len(tokens)} tokens came where max_tokens is 6"
            assert len(tokens) == len(logprobs), (
                f"{len(logprobs)} log-probabilities came with {len(tokens)} tokens"
            )
            assert all(value <= 1e-6 for value in logprobs), (
                f"log-probabilities above 0, or no numbers: {logprobs}"
            )

    def test_text_ends_before_what_stops_it(self) -> None:
        """Cut a text before the first of `stop`."""
        for (index, _), whole in self._all(self._requests(1, temperature=0.0)).items():
            if len(whole.text) > 2:
                stop = whole.text[2:4]
                (cut,) = self._all(
                    [self._requests(1, temperature=0.0, stop=(stop,))[index]]
                ).values()
                kept = whole.text.partition(stop)[0]
                assert cut.text == kept, (
                    f"with stop {stop!r} the text is {cut.text!r}, not {kept!r}"
                )

    def test_a_request_too_long_is_refused_alone(self) -> None:
        """Yield one `RequestError` for a prompt that is over the context, and the completions of the others."""
        if not (context := self.backend().describe().context):
            return
        short = self._requests(1)[0]
        results = list(
            self.backend().generate([replace(short, prompt="x " * (context + 9)), short])
        )
        kinds = sorted((index, isinstance(result, RequestError)) for index, result in results)
        assert kinds == [(0, True), (1, False)], (
            f"of a long request and a short one came (index, refused): {kinds}"
        )

    def test_entropies_come_where_they_are_asked_for(self) -> None:
        """Return one entropy a token, none below 0, for a request that wants them, and none for one that does not."""
        for completion in self._all(self._requests(1)).values():
            unasked = completion.entropies is None and completion.margin is None
            assert unasked, "entropies and margin come unasked for"
        self._needed("entropies")
        for completion in self._all(
            [replace(request, entropy=True) for request in self._requests(2)]
        ).values():
            entropies, margin = completion.entropies, completion.margin
            fits = entropies is not None and len(entropies) == len(completion.tokens)
            assert fits, f"entropies are {entropies} for {len(completion.tokens)} tokens"
            assert all(value >= 0 for value in entropies or ()), (
                f"entropies are below 0: {entropies}"
            )
            assert margin is not None and -1e-6 <= margin <= 1 + 1e-6, (
                f"the margin is {margin}, not from 0 to 1"
            )

    def _needed(self, capability: str) -> None:
        import pytest

        if capability not in self.backend().describe().capabilities:
            pytest.skip(f"the backend has no {capability}")

    def _pairs(self, capability: str) -> tuple[Continuation, ...]:
        self._needed(capability)
        texts: tuple[str | tuple[int, ...], ...] = (" Cairo", " one two three", (3, 4))
        return tuple(Continuation(prompt, text) for prompt in self.prompts for text in texts)

    def test_loglikelihood_of_a_pair_depends_on_it_alone(self) -> None:
        """Return one value at most 0 for each token, the same alone as among others."""
        pairs = self._pairs("loglikelihood")
        found = self.backend().loglikelihood(pairs)
        assert len(found) == len(pairs), (
            f"loglikelihood() gave {len(found)} results for {len(pairs)} pairs"
        )
        lengths = [len(values) for values in found[2::3]]
        assert lengths == [2] * len(self.prompts), f"two tokens have {lengths} log-probabilities"
        good = all(
            values and all(-math.inf <= value <= 1e-6 for value in values) for values in found
        )
        assert good, f"log-probabilities are above 0, or no numbers: {found}"
        alone = [self.backend().loglikelihood((pair,))[0] for pair in pairs]
        assert alone == list(found), (
            "a pair's log-probabilities depend on the pairs beside it, or on their order"
        )
        assert list(self.backend().loglikelihood(())) == []

    def test_hidden_states_of_a_pair_depend_on_it_alone(self) -> None:
        """Return a state for each place, the same alone as among others; refuse a place beyond the text."""
        pairs = self._pairs("hidden_states")
        found = self.backend().hidden_states(pairs, (0, 1, -1))
        assert len(found) == len(pairs), (
            f"hidden_states() gave {len(found)} results for {len(pairs)} pairs"
        )
        shapes = {state.shape for state in found}
        assert len(shapes) == 1 and found[0].shape[0] == 3, (
            f"states at three places have the shapes {shapes}"
        )
        for pair, state in zip(pairs, found, strict=True):
            alone = self.backend().hidden_states([pair], (0, 1, -1))[0]
            assert (alone == state).all(), "a pair's states depend on the pairs beside it"
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
        assert all(
            isinstance(one, RequestError) for one in self.backend().hidden_states(pairs, (0,), 999)
        )


def _has(found: Found, wanted: set[tuple[int, int]]) -> None:
    missing, more = sorted(wanted - found.keys()), sorted(found.keys() - wanted)
    assert not missing, f"these (request, sample) never came: {missing}"
    assert not more, f"these (request, sample) were not wanted, and came: {more}"
