"""The one boundary between the loop and the plugins: exceptions and wrong results become data.

A plugin may raise anything, `SystemExit` and `BaseException`s of its own included. Each becomes a
`Failure`. Only errors that stop the whole run pass through: a full disk, no memory, Ctrl-C
(`KeyboardInterrupt` itself), and bugs of the core.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from functools import cache, partial
from itertools import islice
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from selfloop import progress
from selfloop.errors import PluginError, SelfloopError, StoreError, disk_full
from selfloop.records import Adapter, AdapterProof, Completion, Failure, Score, Verdict
from selfloop.registry.isolation import attributed_output

T = TypeVar("T")
A = TypeVar("A")

ROUNDING = 0.01  # nats: in half precision a log-probability of 0 may come out this much above 0
MAX_MESSAGE = 500  # characters that are kept of an exception's message


@dataclass(frozen=True)
class Failed:
    """Stands in place of a result, with the failure."""

    failure: Failure


class ComponentError(PluginError):
    """An exception of one component on its way through the code of another.

    `component` is the one that raised it first, and `error` is the original exception. So a
    detector that asks a broken backend is not blamed for the backend.
    """

    def __init__(self, component: str, error: BaseException) -> None:
        message = safe_message(error)
        if isinstance(error, SelfloopError):
            self.exit_code = error.exit_code
        else:
            message = f"the component {component} is broken: {type(error).__name__}: {message}"
        super().__init__(message)
        # A `Failure` has the class and the message of the original.
        self.component, self.error = component, error


def safe_message(error: BaseException) -> str:
    """Return the message of an exception, even if a plugin wrote its `__str__`."""
    try:
        return str(error)[:MAX_MESSAGE]
    except BaseException as error_in_str:
        if stops_the_run(error_in_str):
            raise
        return "(its message cannot be read)"


def stops_the_run(error: BaseException) -> bool:
    """Return whether an exception passes through a plugin's code and ends the run.

    Ctrl-C raises `KeyboardInterrupt` itself. A subclass of it is the plugin's own invention, and
    counts as a fault of the plugin.
    """
    return isinstance(error, StoreError | MemoryError) or type(error) is KeyboardInterrupt


def attribute_errors(component: str, call: Callable[[], T]) -> T:
    """Return the result of `call`. Raises ComponentError, with the name of `component`.

    An error that already carries the name of an inner component keeps it. Prints of the call go
    to the standard error output, each line with the component's name.
    """
    try:
        with attributed_output(component):
            return call()
    except BaseException as error:
        if isinstance(error, ComponentError) or stops_the_run(error):
            raise  # an inner component has been named already, or the run ends
        if full := disk_full(error):
            # A component without its file would decide otherwise than after a resume, so a full
            # disk stops the run.
            raise full from error
        raise ComponentError(component, error) from error


def capture(step: str, component: str, call: Callable[[], T]) -> T | Failed:
    """Return the result of `call`, or `Failed` with the name of the component that raised."""
    try:
        with progress.task(component):
            return attribute_errors(component, call)
    except ComponentError as error:
        return Failed(failure_of(step, error))


def failure_of(step: str, error: ComponentError) -> Failure:
    """Return the exception of a component as a record."""
    cause = error.error
    return Failure(step, error.component, type(cause).__name__, safe_message(cause))


def capture_each(
    step: str,
    component: str,
    call: Callable[[Sequence[A]], Any],
    items: Sequence[A],
    wanted: type[T],
    note_failure: Callable[[Failure], None],
) -> list[T | Failed]:
    """Return one result for each item. If the batch as a whole fails, try each item alone.

    `call` gets a tuple, so a component that changes its argument changes nobody else's. If every
    item succeeds alone, `note_failure` gets the failure of the batch.
    """
    batch = tuple(items)
    if not batch:
        return []
    whole = capture(step, component, partial(_results_of, call, batch, wanted))
    if not isinstance(whole, Failed):
        return list(whole)
    if len(batch) == 1:
        return [whole]  # the batch was the item alone
    singles: list[T | Failed] = []
    for item in batch:
        single = capture(step, component, partial(_results_of, call, (item,), wanted))
        singles.append(single if isinstance(single, Failed) else single[0])
    if not any(isinstance(result, Failed) for result in singles):
        note_failure(whole.failure)
    return singles


def _results_of(call: Callable[[Sequence[A]], Any], items: Sequence[A], wanted: type[T]) -> list[T]:
    return match_results(call(items), items, wanted)


def match_results(results: Any, items: Sequence[A], wanted: type[T]) -> list[T]:
    """Return one valid record for each item, in the order of the items.

    `results` are in that order, or a mapping from items to results in any order. Raises ValueError
    for a wrong number of results, and TypeError for wrong types.
    """
    if isinstance(results, Mapping):
        # A mapping cannot be out of order, but it can lack an item or have one too many.
        results = _in_order_of(items, results)
    return [validate_record(result, wanted) for result in exactly(results, len(items))]


def exactly(results: Any, count: int) -> list[Any]:
    """Return the `count` results as a new list. Raises ValueError for another number of them."""
    items = at_most(results, count + 1)  # one more than wanted, to see that there are too many
    if len(items) > count:
        number = str(len(results)) if hasattr(results, "__len__") else f"more than {count}"
        raise ValueError(f"gave {number} results for {count} items")
    if len(items) < count:
        raise ValueError(f"gave {len(items)} results for {count} items")
    return items


def at_most(results: Any, limit: int) -> list[Any]:
    """Return the first `limit` results: a generator may never end.

    Raises TypeError for a collection without an order, and for text.
    """
    if isinstance(results, AbstractSet | Mapping | str | bytes):
        raise TypeError(f"gave {_with_article(type(results))}, not a list of results in order")
    return list(islice(results, limit))


def _in_order_of(items: Sequence[A], results: Mapping[A, Any]) -> list[Any]:
    missing = [index for index, item in enumerate(items) if item not in results]
    unknown = len(results) - len(set(items) & set(results))
    if missing:
        raise ValueError(f"gave a mapping without a result for item {missing[0]} of {len(items)}")
    if unknown:
        raise ValueError(f"gave a mapping with {unknown} results for unknown items")
    return [results[item] for item in items]


def validate_record(record: Any, wanted: type[T]) -> T:
    """Return a copy of `record` whose fields all have their declared types. Raises TypeError.

    Numbers of numpy become numbers of Python.
    """
    if not isinstance(record, wanted):
        raise TypeError(f"gave {_with_article(type(record))}, not {_with_article(wanted)}")
    try:
        # Only declared fields are copied: attributes that a plugin adds are left behind.
        values = {field.name: getattr(record, field.name) for field in fields(wanted)}  # type: ignore[arg-type]
        return cast(T, _type_adapter(cast(Any, wanted)).validate_python(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise TypeError(
            f"gave {_with_article(wanted)} whose {where} is {first['input']!r:.60}: {first['msg']}"
        ) from None


def impossible(record: Any) -> str:
    """Return why a record of the right types cannot be right, or an empty string."""
    # Comparisons with NaN are false, so each is written to catch it.
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


def impossible_failure(step: str, component: str, record: Any) -> Failure | None:
    """Return the failure of a component that gave an impossible record; None for a possible one."""
    why = impossible(record)
    return Failure(step, component, "ValueError", why) if why else None


def _impossible_completion(completion: Completion) -> str:
    # Log-probabilities may be missing altogether: those of a text that was never read.
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


def _with_article(kind: type) -> str:
    article = "an" if kind.__name__[0] in "AEIOUaeiou" else "a"
    return f"{article} {kind.__name__}"


@cache  # building a validator takes milliseconds; there are a dozen record types
def _type_adapter(record: type) -> TypeAdapter[Any]:
    return TypeAdapter(record)
