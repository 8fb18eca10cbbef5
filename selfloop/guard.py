"""The one boundary between the loop and what plugins do: exceptions and wrong results become `Failure`s.

Only what stops the whole run passes through: a disk that is full, Ctrl-C, and bugs of the core's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from selfloop.errors import StoreError
from selfloop.records import Failure

T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True)
class Broken:
    """In place of a result: what went wrong."""

    failure: Failure


def guarded(step: str, component: str, call: Callable[[], T]) -> T | Broken:
    """Return what `call` gives, or what went wrong, under the component's name."""
    try:
        return call()
    except (StoreError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  a plugin may raise anything; it is data from here on
        return Broken(Failure(step, component, type(error).__name__, str(error)[:500]))


def guarded_each(
    step: str, component: str, call: Callable[[Sequence[A]], Sequence[Any]], items: Sequence[A], wanted: type[T]
) -> list[T | Broken]:
    """Return one result for each item. If the batch cannot be had whole, each item is tried alone."""
    if not items:
        return []
    whole = guarded(step, component, lambda: _checked(call(items), len(items), wanted))
    if not isinstance(whole, Broken):
        return list(whole)
    if len(items) == 1:
        return [whole]
    return [result for item in items for result in guarded_each(step, component, call, [item], wanted)]


def _checked(results: Any, count: int, wanted: type[T]) -> list[T]:
    given = list(results)
    if len(given) != count:
        raise ValueError(f"gave {len(given)} results for {count} items")
    for result in given:
        if not isinstance(result, wanted):
            raise TypeError(f"gave a {type(result).__name__}, not a {wanted.__name__}")
    return given
