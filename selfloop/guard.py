"""The one boundary between the loop and what plugins do: exceptions and wrong results become `Failure`s.

Only what stops the whole run passes through: a disk that is full, Ctrl-C, and bugs of the core's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from selfloop.errors import PluginError, SelfloopError, StoreError, disk_full
from selfloop.records import Failure

T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True)
class Broken:
    """In place of a result: what went wrong."""

    failure: Failure


class Blamed(PluginError):
    """What one component raised, on its way through the code of another, which is not to blame for it."""

    def __init__(self, component: str, error: BaseException) -> None:
        message = said(error)
        if isinstance(error, SelfloopError):
            self.exit_code = error.exit_code
        else:
            message = f"the component {component} is broken: {type(error).__name__}: {message}"
        super().__init__(message)
        self.component, self.error = component, error


def said(error: BaseException) -> str:
    """Return an exception's message, whatever the plugin that wrote it did."""
    try:
        return str(error)[:500]
    except Exception:  # noqa: BLE001  a `__str__` may raise too
        return "(its message cannot be read)"


def blaming(component: str, call: Callable[[], T]) -> T:
    """Return what `call` gives; what it raises goes on as `Blamed`, on whoever was blamed first."""
    try:
        return call()
    except (StoreError, MemoryError, Blamed):
        raise
    except (Exception, SystemExit) as error:
        if full := disk_full(error):
            raise full from error  # without its file a component would decide otherwise than after a resume
        raise Blamed(component, error) from error


def guarded(step: str, component: str, call: Callable[[], T]) -> T | Broken:
    """Return what `call` gives, or what went wrong, under the name of the component that raised it."""
    try:
        return blaming(component, call)
    except Blamed as blamed:
        return Broken(Failure(step, blamed.component, type(blamed.error).__name__, said(blamed.error)))


def guarded_each(
    step: str,
    component: str,
    call: Callable[[Sequence[A]], Sequence[Any]],
    items: Sequence[A],
    wanted: type[T],
    trouble: Callable[[Failure], None],
) -> list[T | Broken]:
    """Return one result for each item. If the batch cannot be had whole, each item is tried alone.

    If nothing is wrong with any item alone, what was wrong with the batch is told to `trouble`.
    """
    if not items:
        return []
    whole = guarded(step, component, lambda: _checked(call(items), len(items), wanted))
    if not isinstance(whole, Broken):
        return list(whole)
    if len(items) == 1:
        return [whole]
    alone = [guarded(step, component, lambda one=item: _checked(call([one]), 1, wanted)[0]) for item in items]  # type: ignore[misc]
    if not any(isinstance(result, Broken) for result in alone):
        trouble(whole.failure)
    return alone


def _checked(results: Any, count: int, wanted: type[T]) -> list[T]:
    given = list(results)
    if len(given) != count:
        raise ValueError(f"gave {len(given)} results for {count} items")
    return [sound(result, wanted) for result in given]


def sound(record: Any, wanted: type[T]) -> T:
    """Return `record` with every field of its declared type, numpy's numbers as Python's; else raise TypeError."""
    if not isinstance(record, wanted):
        raise TypeError(f"gave {_a(type(record))}, not {_a(wanted)}")
    try:
        values = {field.name: getattr(record, field.name) for field in fields(wanted)}  # type: ignore[arg-type]
        return cast(T, _adapter(cast(Any, wanted)).validate_python(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise TypeError(f"gave {_a(wanted)} whose {where} is {first['input']!r:.60}: {first['msg']}") from None


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOUaeiou' else 'a'} {kind.__name__}"


@cache
def _adapter(record: type) -> TypeAdapter[Any]:
    return TypeAdapter(record)
