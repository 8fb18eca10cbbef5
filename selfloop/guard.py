"""The one boundary between the loop and what plugins do: exceptions and wrong results become
`Failure`s.

A plugin may raise anything, `SystemExit` and its own `BaseException`s included. Only what stops the
whole run passes through: a disk that is full, no memory, Ctrl-C (`KeyboardInterrupt` itself), and
bugs of the core's own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from functools import cache
from itertools import islice
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from selfloop import progress
from selfloop.errors import PluginError, SelfloopError, StoreError, disk_full
from selfloop.records import Adapter, AdapterProof, Completion, Failure, Score, Verdict
from selfloop.registry.isolation import attributed_output

T = TypeVar("T")
A = TypeVar("A")

ROUNDING = 0.01  # nats: a log-probability of 0 in half precision may come out as much above it


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
    except BaseException as another:
        if stops_the_run(another):
            raise
        return "(its message cannot be read)"  # a `__str__` may raise too


def stops_the_run(error: BaseException) -> bool:
    """Return whether an exception passes through a plugin's code: the run cannot go on, or the user
    has stopped it.

    Ctrl-C raises KeyboardInterrupt itself; a class of a plugin's own that is derived from it is the
    plugin's.
    """
    return isinstance(error, StoreError | MemoryError) or type(error) is KeyboardInterrupt


def blaming(component: str, call: Callable[[], T]) -> T:
    """Return what `call` gives; what it raises goes on as `Blamed`, on whoever was blamed first.

    What it prints goes to the standard error output, with the component's name.
    """
    try:
        with attributed_output(component):
            return call()
    except BaseException as error:
        if isinstance(error, Blamed) or stops_the_run(error):
            raise
        if full := disk_full(error):
            # without its file a component would decide otherwise than after a resume
            raise full from error
        raise Blamed(component, error) from error


def guarded(step: str, component: str, call: Callable[[], T]) -> T | Broken:
    """Return what `call` gives, or what went wrong, under the name of the component that raised it."""
    try:
        with progress.task(component):
            return blaming(component, call)
    except Blamed as blamed:
        return Broken(failure_of(step, blamed))


def failure_of(step: str, blamed: Blamed) -> Failure:
    """Return what a component raised, as data."""
    return Failure(step, blamed.component, type(blamed.error).__name__, said(blamed.error))


def guarded_each(
    step: str,
    component: str,
    call: Callable[[Sequence[A]], Any],
    items: Sequence[A],
    wanted: type[T],
    trouble: Callable[[Failure], None],
) -> list[T | Broken]:
    """Return one result for each item. If the batch cannot be had whole, each item is tried alone.

    The component gets a tuple: nothing that it does to it reaches anybody else. If nothing is wrong
    with any item alone, what was wrong with the batch is told to `trouble`.
    """
    batch = tuple(items)
    if not batch:
        return []
    whole = guarded(step, component, lambda: matched(call(batch), batch, wanted))
    if not isinstance(whole, Broken):
        return list(whole)
    if len(batch) == 1:
        return [whole]
    alone = [_guarded_alone(step, component, call, item, wanted) for item in batch]
    if not any(isinstance(result, Broken) for result in alone):
        trouble(whole.failure)
    return alone


def _guarded_alone(
    step: str, component: str, call: Callable[[Sequence[A]], Any], item: A, wanted: type[T]
) -> T | Broken:
    return guarded(step, component, lambda: matched(call((item,)), (item,), wanted)[0])


def matched(results: Any, items: Sequence[A], wanted: type[T]) -> list[T]:
    """Return one sound result for each item, in the order of the items. Raises ValueError and
    TypeError.

    `results` are in that order, or a mapping from items to results, whose order does not matter.
    """
    if isinstance(results, Mapping):
        results = _by_item(results, items)
    return [sound(result, wanted) for result in in_order(results, len(items))]


def in_order(results: Any, count: int) -> list[Any]:
    """Return `count` results as a list of one's own. Raises ValueError and TypeError."""
    found = listed(results, count + 1)
    if len(found) > count:
        number = str(len(results)) if hasattr(results, "__len__") else f"more than {count}"
        raise ValueError(f"gave {number} results for {count} items")
    if len(found) < count:
        raise ValueError(f"gave {len(found)} results for {count} items")
    return found


def listed(results: Any, most: int) -> list[Any]:
    """Return at most so many results, for a generator may have no end.

    Raises TypeError for what has no order.
    """
    if isinstance(results, AbstractSet | Mapping | str | bytes):
        raise TypeError(f"gave {_a(type(results))}, not a list of results in order")
    return list(islice(results, most))


def _by_item(results: Mapping[A, Any], items: Sequence[A]) -> list[Any]:
    missing = [place for place, item in enumerate(items) if item not in results]
    unknown = len(results) - len(set(items) & set(results))
    if missing:
        raise ValueError(f"gave a mapping without a result for item {missing[0]} of {len(items)}")
    if unknown:
        raise ValueError(f"gave a mapping with {unknown} results for what is no item")
    return [results[item] for item in items]


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
        raise TypeError(
            f"gave {_a(wanted)} whose {where} is {first['input']!r:.60}: {first['msg']}"
        ) from None


def impossible(record: Any) -> str:
    """Return why a record of right types cannot be right, or an empty string."""
    match record:
        case Verdict(confidence=confidence) if confidence is not None and not 0 <= confidence <= 1:
            return f"confidence {confidence} is not in [0, 1]"
        case Score(value=value) if not math.isfinite(value):
            return f"the score {value} is not a finite number"
        case Adapter(scale=scale) if not math.isfinite(scale):
            return f"the adapter's scale {scale} is not a finite number"
        case AdapterProof(change=change) if math.isnan(change):
            return "the change that the adapter makes is no number"
        case Completion():
            return _impossible_completion(record)
    return ""


def _impossible_completion(completion: Completion) -> str:
    tokens, logprobs, entropies = len(completion.tokens), completion.logprobs, completion.entropies
    if logprobs and len(logprobs) != tokens:
        return f"a completion of {tokens} tokens has {len(logprobs)} log-probabilities"
    if not all(value <= ROUNDING for value in logprobs):
        return "a completion has log-probabilities above 0, or that are no numbers"
    if entropies is not None and len(entropies) != tokens:
        return f"a completion of {tokens} tokens has {len(entropies)} entropies"
    if not all(value >= -ROUNDING for value in entropies or ()):
        return "a completion has entropies below 0, or that are no numbers"
    if completion.margin is not None and not -ROUNDING <= completion.margin <= 1 + ROUNDING:
        return f"the margin {completion.margin} is not in [0, 1]"
    return ""


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOUaeiou' else 'a'} {kind.__name__}"


@cache
def _adapter(record: type) -> TypeAdapter[Any]:
    return TypeAdapter(record)
