"""Any record, with any text and any number in it, comes back out of the store as it went in.

But for lone surrogates: no UTF-8 holds them, so they come back as "?", as the store's docstring
says.
"""

import types
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfloop.records import (
    Adapter,
    Attempt,
    Completion,
    Decision,
    Failure,
    Question,
    Round,
    Verdict,
)
from selfloop.storage.store import Store
from selfloop.text.display import encodable

pytestmark = pytest.mark.slow  # each example has a database of its own

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),  # lone surrogates too
    st.sampled_from(
        [
            "",
            "\0",
            "\ud800",
            "a\udc80b",
            "\x1b[2J",
            "'; DROP TABLE rounds; --",
            "\ufeff",
            "x" * 10_000,
        ]
    ),
)
NUMBERS = st.floats()  # NaN and infinities too
WHOLE = st.integers(-(2**63), 2**63 - 1)  # of SQLite


@cache
def records(kind: Any) -> st.SearchStrategy[Any]:
    """Return what makes any value of a type, a record's from the types of its fields."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{field.name: records(hints[field.name]) for field in fields(kind)})
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return st.sampled_from(arguments)
    if get_origin(kind) is tuple and arguments[1:] == (...,):
        return st.lists(records(arguments[0]), max_size=2).map(tuple)
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of([records(argument) for argument in arguments])
    return {str: TEXT, int: WHOLE, float: NUMBERS, type(None): st.none()}[kind]


def stored(value: Any) -> Any:
    """Return a record as the store may hold it, and so that NaN is equal to NaN."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, tuple):
        return tuple(map(stored, value))
    if is_dataclass(value):
        return (type(value), *(stored(getattr(value, field.name)) for field in fields(value)))
    return value


@contextmanager
def a_store() -> Iterator[Store]:
    with TemporaryDirectory() as folder, closing(Store(Path(folder), write=True)) as store:
        store.begin_session({"selfloop": "test"})
        yield store


DECIDED = st.builds(
    lambda attempt, decision: replace(attempt, decision=decision),
    records(Attempt),
    records(Decision),
)
ROUNDS = st.builds(
    Round,
    st.integers(1, 2**31),
    st.lists(DECIDED, max_size=2).map(tuple),
    records(Adapter | None),
    st.lists(records(Failure), max_size=2).map(tuple),
)
ODD = "\ud800\0"
ODD_FAILURE = Failure(ODD, ODD, ODD, ODD)
ODD_ATTEMPT = Attempt(
    Question(ODD, ODD, gold=(ODD,)),
    verdicts=(Verdict(ODD, float("nan"), ODD),),
    failures=(ODD_FAILURE,),
    decision="failed", reason=ODD, confidence=float("inf"),
)  # fmt: skip


@given(ROUNDS)
@example(Round(1, (ODD_ATTEMPT,), Adapter(ODD, ODD, 1, float("nan")), (ODD_FAILURE,)))
def test_a_round_comes_back(ended: Round) -> None:
    with a_store() as store:
        store.save_round(ended)
        (found,) = store.rounds()
        assert stored(found) == stored(ended)
        assert store.count("attempts") == len(ended.attempts)
        assert len(store.digest()) == 64


@given(records(Completion), TEXT)
@example(Completion("\ud800", logprobs=(float("-inf"), float("nan"))), "\ud800")
def test_a_completion_comes_back(completion: Completion, step: str) -> None:
    with a_store() as store:
        store.save_completion("key", step, completion)
        (found,) = store.completions("key").items()
        assert found[0] == completion.sample
        assert stored(found[1]) == stored(completion)


@given(st.lists(records(Failure), max_size=3))
def test_failures_outside_a_round_come_back(failures: list[Failure]) -> None:
    with a_store() as store:
        store.save_failures(failures)
        assert stored(store.round_failures(0)) == stored(tuple(failures))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda part: st.one_of(st.lists(part, max_size=2), st.dictionaries(TEXT, part, max_size=2)),
    max_leaves=5,
)


@given(JSON)
def test_what_is_pinned_comes_back(value: Any) -> None:
    with a_store() as store:
        store.set_meta(anything=value)
        assert store.meta() == {"anything": value}


@given(st.lists(NUMBERS, max_size=5), st.sampled_from(["float32", "float64"]))
def test_readings_come_back_to_the_last_bit(numbers: list[float], form: str) -> None:
    with np.errstate(over="ignore"):
        reading = np.array(numbers, form)
    with a_store() as store:
        store.save_readings("verify", {"key": reading})
        (found,) = store.readings(["key", "other"]).values()
    assert found.dtype == reading.dtype and found.tobytes() == reading.tobytes()
