"""Regular expressions that are compiled where they are first used: `selfloop --help` loads every plugin."""

import re
from typing import Any, cast


class _Lazy:
    def __init__(self, text: str, flags: int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._text, self._flags), name)
        setattr(self, name, found)  # asked for once
        return found


def pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return what `re.compile` does, as far as its methods go, without compiling it yet."""
    return cast("re.Pattern[str]", _Lazy(text, flags))
