"""Regular expressions that are compiled at their first use.

`selfloop --help` loads every plugin. Compiling all rules of English there would take longer than
all the rest of it.
"""

import re
from collections.abc import Iterable
from typing import Any, cast


class _LazyPattern:
    """Stands in for an `re.Pattern` and compiles it when a method is first asked for."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        method = getattr(re.compile(self._text, self._flags), name)
        # kept on the instance: Python then no longer calls `__getattr__` for this name
        setattr(self, name, method)
        return method


def pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return a stand-in for `re.compile(text, flags)`. A wrong pattern raises at its first use."""
    return cast("re.Pattern[str]", _LazyPattern(text, flags))


def any_of(words: Iterable[str]) -> str:
    """Return the words, or patterns of words, as alternatives: "in|on|at"."""
    return "|".join(words)


def listed(words: str) -> tuple[str, ...]:
    """Return the words of a table, which stand with white space between them."""
    return tuple(words.split())
