"""What a model has read is stored like what it has said, and is not read again."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfloop.errors import RequestError
from selfloop.events import CompletionDone
from selfloop.guard import ComponentError
from selfloop.records import Adapter, Completion, Continuation, Request, Sampling
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
