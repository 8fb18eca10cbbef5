"""What a model has read is stored like what it has said, and is not read again."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfloop.errors import ModelError, PluginError, RequestError
from selfloop.events import CompletionDone
from selfloop.guard import ComponentError
from selfloop.records import Adapter, AdapterProof, Completion, Continuation, Request, Sampling
from selfloop.storage import recorder
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store
from selfloop.testing import ScriptedBackend

PAIRS = [
    Continuation("Question: What is the capital of Egypt?\nAnswer:", text)
    for text in (" Cairo", " Giza", "", (1,))
]


class Reads(ScriptedBackend):
    """Counts the texts it reads; refuses long ones."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        self.read += len(pairs)
        results = super().loglikelihood(pairs)
        return [
            RequestError("too long") if len(p.prompt) > 100 else f
            for p, f in zip(pairs, results, strict=True)
        ]

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> Any:
        self.read += len(pairs)
        return super().hidden_states(pairs, places, layer)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Reads, Recorder]]:
    store = Store(tmp_path / "run", write=True)
    store.begin_session({})
    backend = Reads()
    yield backend, Recorder(backend, store, lambda event: None)
    store.close()


def test_what_was_read_is_not_read_again(
    pair: tuple[Reads, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "READING_BATCH", 3)
    backend, recorded = pair
    first = recorded.loglikelihood([*PAIRS, PAIRS[0]])
    assert first == backend.loglikelihood([*PAIRS, PAIRS[0]])
    for logprobs in first:
        assert all(type(value) is float for value in logprobs)  # type: ignore[union-attr]
    backend.read = 0
    assert recorded.loglikelihood(PAIRS[::-1]) == first[3::-1]
    assert backend.read == 0
    states = recorded.hidden_states(PAIRS, (0, -1))
    assert backend.read == 4
    again = recorded.hidden_states(PAIRS, (0, -1))
    assert backend.read == 4
    for result, same, right in zip(states, again, backend.hidden_states(PAIRS), strict=True):
        assert result.dtype == same.dtype == np.float32  # type: ignore[union-attr]
        assert np.array_equal(result, right) and np.array_equal(same, right)
    recorded.hidden_states(PAIRS, (-1,))
    assert backend.read == 12
    inner = recorded.hidden_states(PAIRS, (-1,), 1)
    assert backend.read == 16
    assert all(
        np.array_equal(result, right)
        for result, right in zip(inner, backend.hidden_states(PAIRS, (-1,), 1), strict=True)
    )


def test_a_refused_text_is_asked_again(pair: tuple[Reads, Recorder]) -> None:
    backend, recorded = pair
    pairs = [PAIRS[0], Continuation("x" * 200, "y")]
    for read in (2, 3):
        results = recorded.loglikelihood(pairs)
        assert isinstance(results[0], tuple) and isinstance(results[1], RequestError)
        assert backend.read == read


def test_another_adapter_reads_anew(pair: tuple[Reads, Recorder]) -> None:
    backend, recorded = pair
    bare = recorded.loglikelihood(PAIRS[:1])
    recorded.load_adapter(Adapter("a.gguf", "abc"))
    assert recorded.loglikelihood(PAIRS[:1]) != bare
    assert backend.read == 2


@pytest.mark.parametrize("wrong", [[], [(0.0,)] * 5, [("x",)], [None], None])
def test_a_backend_that_reads_wrongly_is_blamed(wrong: Any, pair: tuple[Reads, Recorder]) -> None:
    backend, recorded = pair
    backend.loglikelihood = lambda pairs: wrong  # type: ignore[method-assign]
    with pytest.raises(ComponentError) as caught:
        recorded.loglikelihood(PAIRS[:1])
    assert caught.value.component == "backend"


def test_a_recorder_bound_to_a_step_stores_under_its_name(tmp_path: Path) -> None:
    events: list[CompletionDone] = []
    store = Store(tmp_path / "run", write=True)
    store.begin_session({})
    recorded = Recorder(ScriptedBackend(), store, events.append)
    request = Request("Answer:", Sampling())
    answering, verifying = recorded.for_step("answer"), recorded.for_step("verify")
    (first,) = answering.generate([request])
    (again,) = verifying.generate([request])
    assert first == again
    assert [(event.step, event.replayed) for event in events] == [
        ("answer", False),
        ("verify", True),
    ]
    assert set(store.usage_by_step()) == {"answer"}
    # the adapter is that of the model, whoever loads it
    verifying.load_adapter(Adapter("a.gguf", "abc"))
    assert recorded.adapter == answering.adapter == Adapter("a.gguf", "abc")
    ((_, under_adapter),) = answering.generate([request])
    assert isinstance(under_adapter, Completion) and under_adapter.adapter == "abc"
    store.close()


# --- adapters


class Swaps(Reads):
    """Notes each swap; an adapter that is broken leaves the bare model, as llama_cpp does."""

    def __init__(self) -> None:
        super().__init__()
        self.swaps: list[str | None] = []
        self.broken = ""

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        name = adapter.sha256 if adapter else None
        self.swaps.append(name)
        super().load_adapter(None)
        if name is not None and name == self.broken:
            raise ModelError("it changes nothing")
        return super().load_adapter(adapter)


@pytest.fixture
def swapping(tmp_path: Path) -> Iterator[tuple[Swaps, Recorder]]:
    store = Store(tmp_path / "run", write=True)
    store.begin_session({})
    backend = Swaps()
    yield backend, Recorder(backend, store, lambda event: None)
    store.close()


TUNED, OTHER = Adapter("a.gguf", "abc"), Adapter("b.gguf", "def")


def reply(recorded: Recorder, prompt: str = "Answer:") -> Completion:
    ((_, completion),) = recorded.generate([Request(prompt, Sampling())])
    assert isinstance(completion, Completion)
    return completion


def test_the_bare_model_is_asked_whatever_adapter_is_in_effect(
    swapping: tuple[Swaps, Recorder],
) -> None:
    backend, recorded = swapping
    bare, before = recorded.bare(), recorded.loglikelihood(PAIRS[:1])
    recorded.load_adapter(TUNED)
    assert reply(bare).adapter is None
    assert reply(recorded).adapter == "abc"
    assert bare.loglikelihood(PAIRS[:1]) == before
    assert bare.loglikelihood(PAIRS[1:2]) == ScriptedBackend().loglikelihood(PAIRS[1:2])
    assert (bare.adapter, recorded.adapter) == (None, TUNED)
    assert backend.swaps == ["abc", None, "abc", None]
    assert bare.for_step("ask").adapter is None


def test_stored_answers_swap_nothing(swapping: tuple[Swaps, Recorder]) -> None:
    backend, recorded = swapping
    recorded.load_adapter(TUNED)
    bare = recorded.bare()
    asked = [reply(bare), reply(recorded), bare.loglikelihood(PAIRS), recorded.loglikelihood(PAIRS)]
    backend.swaps.clear()
    again = [reply(bare), reply(recorded), bare.loglikelihood(PAIRS), recorded.loglikelihood(PAIRS)]
    assert again == asked
    assert backend.swaps == []


def test_without_an_adapter_the_bare_model_is_the_same(swapping: tuple[Swaps, Recorder]) -> None:
    backend, recorded = swapping
    assert reply(recorded) == reply(recorded.bare())
    request = Request("Answer:", Sampling())
    assert recorded.key(request) == recorded.bare().key(request)
    assert backend.swaps == []


def test_after_a_swap_that_fails_the_adapter_in_effect_is_loaded_again(
    swapping: tuple[Swaps, Recorder],
) -> None:
    backend, recorded = swapping
    recorded.load_adapter(TUNED)
    backend.broken = "def"
    with pytest.raises(ComponentError, match="changes nothing"):
        recorded.load_adapter(OTHER)
    assert recorded.adapter == TUNED
    assert reply(recorded).adapter == "abc"
    assert backend.swaps == ["abc", "def", "abc"]


def test_a_swap_that_fails_is_the_backends_fault(swapping: tuple[Swaps, Recorder]) -> None:
    backend, recorded = swapping
    recorded.load_adapter(TUNED)
    reply(recorded.bare(), "Which?")
    backend.broken = "abc"
    for call in (lambda: reply(recorded), lambda: recorded.loglikelihood(PAIRS)):
        with pytest.raises(ComponentError) as caught:
            call()
        assert caught.value.component == "backend"
    assert reply(recorded.bare()).adapter is None


def test_completions_that_are_under_way_are_not_mixed_with_another_models(
    swapping: tuple[Swaps, Recorder],
) -> None:
    _, recorded = swapping
    recorded.load_adapter(TUNED)
    under_way = recorded.generate([Request(f"{i} Answer:", Sampling()) for i in range(2)])
    next(under_way)
    reply(recorded.bare())
    with pytest.raises(PluginError, match="Take them all first"):
        next(under_way)
