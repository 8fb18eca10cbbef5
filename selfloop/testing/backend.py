"""The requirements on a backend."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Any, ClassVar

from selfloop.errors import RequestError
from selfloop.protocols import CAPABILITIES
from selfloop.records import Completion, Continuation, ModelInfo, Request, Sampling
from selfloop.testing.contract import check_record, explained_tuple_errors

# (index of the request, number of the sample) -> completion
Completions = dict[tuple[int, int], Completion]

LOGPROB_ROUNDING = 1e-6  # nats, and of the margin: the rounding of single precision above a bound


class BackendContract:
    """Subclass, and return an open backend from `backend()`. `prompts` are sent to it."""

    prompts: ClassVar[Sequence[Any]] = (
        "Question: What is the capital of Egypt?\nAnswer:",
        "One, two, three,",
    )

    def backend(self) -> Any:
        """Return the backend under test; it may be shared between tests."""
        raise NotImplementedError

    def _requests(self, n: int, skip: tuple[int, ...] = (), **sampling: Any) -> list[Request]:
        options = Sampling(**{"temperature": 0.8, "max_tokens": 6} | sampling)
        return [Request(prompt, options, n=n, seed=7, skip=skip) for prompt in self.prompts]

    def _generate(self, requests: Sequence[Request]) -> Completions:
        completions: Completions = {}
        batch = tuple(requests)  # as a run passes them
        before = deepcopy(batch)
        with explained_tuple_errors("generate()"):
            results = list(self.backend().generate(batch))
        for index, result in results:
            assert not isinstance(result, RequestError), f"request {index} was refused: {result}"
            completion = check_record("generate()", result, Completion)
            assert index in range(len(requests)), (
                f"generate() gave index {index} for {len(requests)} requests"
            )
            assert (index, completion.sample) not in completions, (
                f"sample {completion.sample} of request {index} came twice"
            )
            completions[index, completion.sample] = completion
        assert batch == before, "generate() changed the requests; others work with them too"
        return completions

    def test_it_says_what_it_is(self) -> None:
        """Return a `ModelInfo` with a name and known capabilities, the same each time."""
        info = check_record("describe()", self.backend().describe(), ModelInfo)
        assert info.name, "describe() gives the model no name"
        unknown = info.capabilities - CAPABILITIES.keys()
        assert not unknown, (
            f"no capability is called {', '.join(sorted(unknown))}; there are "
            f"{', '.join(CAPABILITIES)}"
        )
        assert info == self.backend().describe(), "describe() says something else the second time"

    def test_every_sample_once(self) -> None:
        """Yield each wanted sample of each request once, and none that is to be skipped."""
        wanted = set(product(range(len(self.prompts)), range(4)))
        _assert_samples(self._generate(self._requests(4)), wanted)
        without_skipped = {(i, k) for i, k in wanted if k not in (0, 2)}
        _assert_samples(self._generate(self._requests(4, skip=(0, 2))), without_skipped)
        assert self._generate([]) == {}

    def test_a_sample_depends_on_its_request_alone(self) -> None:
        """Return the same completion for any n and skip, and in any batch.

        A resumed run relies on it.
        """
        together = self._generate(self._requests(4))
        # the last of four samples, alone and with the first three skipped
        for index, request in enumerate(self._requests(4, skip=(0, 1, 2))):
            alone = self._generate([request])[0, 3]
            assert alone == together[index, 3], (
                f"sample 3 of {request.prompt!r:.60} is {alone.text!r} alone and "
                f"{together[index, 3].text!r} in a batch"
            )

    def test_the_draft_is_greedy(self) -> None:
        """Return the same text for any seed at temperature 0."""
        texts: list[dict[tuple[int, int], str]] = []
        for seed in (1, 2):
            greedy = self._requests(1, temperature=0.0)
            completions = self._generate([replace(request, seed=seed) for request in greedy])
            texts.append({key: completion.text for key, completion in completions.items()})
        assert texts[0] == texts[1], "at temperature 0 the text depends on the seed"

    def test_logprobs_fit_tokens(self) -> None:
        """Return one log-probability for each token, none above 0, and at most `max_tokens`."""
        for completion in self._generate(self._requests(2)).values():
            tokens, logprobs = completion.tokens, completion.logprobs
            assert len(tokens) <= 6, f"{len(tokens)} tokens came where max_tokens is 6"
            assert len(tokens) == len(logprobs), (
                f"{len(logprobs)} log-probabilities came with {len(tokens)} tokens"
            )
            assert all(value <= LOGPROB_ROUNDING for value in logprobs), (
                f"log-probabilities above 0, or no numbers: {logprobs}"
            )

    def test_text_ends_before_what_stops_it(self) -> None:
        """Cut a text before the first of `stop`."""
        for (index, _), whole in self._generate(self._requests(1, temperature=0.0)).items():
            if len(whole.text) > 2:
                stop = whole.text[2:4]  # two characters in the middle of the text
                request = self._requests(1, temperature=0.0, stop=(stop,))[index]
                (cut,) = self._generate([request]).values()
                kept = whole.text.partition(stop)[0]
                assert cut.text == kept, (
                    f"with stop {stop!r} the text is {cut.text!r}, not {kept!r}"
                )

    def test_a_request_too_long_is_refused_alone(self) -> None:
        """Yield one `RequestError` for a prompt over the context, and all other completions."""
        context = self.backend().describe().context
        if not context:
            return  # it has no limit
        # more words than the context has tokens
        short = self._requests(1)[0]
        long = replace(short, prompt="x " * (context + 9))
        results = list(self.backend().generate([long, short]))
        kinds = sorted((index, isinstance(result, RequestError)) for index, result in results)
        assert kinds == [(0, True), (1, False)], (
            f"of a long request and a short one came (index, refused): {kinds}"
        )

    def test_entropies_come_where_they_are_asked_for(self) -> None:
        """Return one entropy for each token, none below 0, if the request wants them.

        Return no entropies for a request that does not.
        """
        for completion in self._generate(self._requests(1)).values():
            unasked = completion.entropies is None and completion.margin is None
            assert unasked, "entropies and margin come unasked for"
        self._skip_without("entropies")
        requests = [replace(request, entropy=True) for request in self._requests(2)]
        for completion in self._generate(requests).values():
            entropies, margin = completion.entropies, completion.margin
            fits = entropies is not None and len(entropies) == len(completion.tokens)
            assert fits, f"entropies are {entropies} for {len(completion.tokens)} tokens"
            assert all(value >= 0 for value in entropies or ()), (
                f"entropies are below 0: {entropies}"
            )
            low, high = -LOGPROB_ROUNDING, 1 + LOGPROB_ROUNDING
            assert margin is not None and low <= margin <= high, (
                f"the margin is {margin}, not from 0 to 1"
            )

    def _skip_without(self, capability: str) -> None:
        import pytest  # only the subclasses need it

        if capability not in self.backend().describe().capabilities:
            pytest.skip(f"the backend has no {capability}")

    def _pairs(self, capability: str) -> tuple[Continuation, ...]:
        self._skip_without(capability)
        # one word, several words, and two tokens by their ids
        texts: tuple[str | tuple[int, ...], ...] = (" Cairo", " one two three", (3, 4))
        return tuple(Continuation(prompt, text) for prompt, text in product(self.prompts, texts))

    def test_loglikelihood_of_a_pair_depends_on_it_alone(self) -> None:
        """Return one value at most 0 for each token, the same alone as among others."""
        pairs = self._pairs("loglikelihood")
        logprobs = self.backend().loglikelihood(pairs)
        assert len(logprobs) == len(pairs), (
            f"loglikelihood() gave {len(logprobs)} results for {len(pairs)} pairs"
        )
        # every third text of `_pairs` is two tokens, and not words
        lengths = [len(values) for values in logprobs[2::3]]
        assert lengths == [2] * len(self.prompts), f"two tokens have {lengths} log-probabilities"
        valid = all(map(_are_logprobs, logprobs))
        assert valid, f"log-probabilities are above 0, or no numbers: {logprobs}"
        alone = [self.backend().loglikelihood((pair,))[0] for pair in pairs]
        assert alone == list(logprobs), (
            "a pair's log-probabilities depend on the pairs beside it, or on their order"
        )
        assert list(self.backend().loglikelihood(())) == []

    def test_hidden_states_of_a_pair_depend_on_it_alone(self) -> None:
        """Return a state for each place, the same alone as among others.

        Refuse a place beyond the text.
        """
        pairs = self._pairs("hidden_states")
        states = self.backend().hidden_states(pairs, (0, 1, -1))
        assert len(states) == len(pairs), (
            f"hidden_states() gave {len(states)} results for {len(pairs)} pairs"
        )
        shapes = {state.shape for state in states}
        assert len(shapes) == 1 and states[0].shape[0] == 3, (
            f"states at three places have the shapes {shapes}"
        )
        # bit for bit: a probe that reads them must give the same after a resume
        for pair, state in zip(pairs, states, strict=True):
            alone = self.backend().hidden_states([pair], (0, 1, -1))[0]
            assert (alone == state).all(), "a pair's states depend on the pairs beside it"
        (refused,) = self.backend().hidden_states(pairs[:1], (99,))
        assert isinstance(refused, RequestError)

    def test_hidden_states_of_a_layer(self) -> None:
        """Return other states for another layer, the same alone as among others, or refuse it.

        Refuse a layer that the model does not have.
        """
        pairs = self._pairs("hidden_states")
        last_layer = self.backend().hidden_states(pairs)
        for layer in (0, 1, -2):
            states = self.backend().hidden_states(pairs, (0, -1), layer)
            for pair, state, last in zip(pairs, states, last_layer, strict=True):
                if isinstance(state, RequestError):
                    assert "layer" in str(state)
                else:
                    assert state.shape == last.shape and not (state == last).all()
                    (alone,) = self.backend().hidden_states([pair], (0, -1), layer)
                    assert (alone == state).all()
        refusals = self.backend().hidden_states(pairs, (0,), 999)
        assert all(isinstance(refusal, RequestError) for refusal in refusals)


def _are_logprobs(values: Sequence[float]) -> bool:
    """Return whether there are values, and none is NaN or above 0."""
    return bool(values) and all(-math.inf <= value <= LOGPROB_ROUNDING for value in values)


def _assert_samples(completions: Completions, wanted: set[tuple[int, int]]) -> None:
    missing = sorted(wanted - completions.keys())
    unwanted = sorted(completions.keys() - wanted)
    assert not missing, f"these (request, sample) never came: {missing}"
    assert not unwanted, f"these (request, sample) were not wanted, and came: {unwanted}"
