"""A component's options, declared once: the fields of a frozen dataclass.

A component's `build` and `check` take the same options as keyword arguments, and selfloop reads
their types, limits and defaults from the signature of `build`. With `takes`, the dataclass is that
signature for both:

    @dataclass(frozen=True, kw_only=True)
    class Options:
        path: Path
        limit: Annotated[int, Ge(1)] = 10

    @takes(Options)
    def build(options: Options) -> Source: ...
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")
Result = TypeVar("Result")


def takes(
    options_class: type[Options],
) -> Callable[[Callable[[Options], Result]], Callable[..., Result]]:
    """Let a function of an options object take the object's fields as keyword arguments."""
    signature = inspect.signature(options_class)
    hints = get_type_hints(options_class, include_extras=True)

    def decorate(function: Callable[[Options], Result]) -> Callable[..., Result]:
        @wraps(function)
        def with_keywords(**values: Any) -> Result:
            return function(options_class(**values))

        # `wraps` has copied those of the function that takes the object
        with_keywords.__annotations__ = hints
        with_keywords.__signature__ = signature  # type: ignore[attr-defined]
        return with_keywords

    return decorate
