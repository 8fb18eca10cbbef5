"""Regular expressions that are compiled where they are first used.

Every plugin is loaded for `selfloop --help`, and compiling all their patterns would take longer
than the command.
"""

import re
from typing import Any, cast


class _LazyPattern:
    """Compiles its text at the first method that is asked for."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(re.compile(self._text, self._flags), name)
        setattr(self, name, attribute)  # the next time it is found without this method
        return attribute


def pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return an object with the methods of `re.compile(text, flags)`, not compiled yet."""
    return cast("re.Pattern[str]", _LazyPattern(text, flags))
