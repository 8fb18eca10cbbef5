"""Regular expressions that users write: the `regex` package can stop a search after some time."""

from functools import lru_cache
from typing import TYPE_CHECKING

from selfloop.errors import RecipeError

if TYPE_CHECKING:
    import regex

SECONDS = 1.0  # that a pattern may take for one text
_TRIAL_SECONDS = 0.1
# characters: an exponential pattern is lost on far fewer, a quadratic one passes
_TRIAL_LENGTH = 400


def checked(pattern: str) -> str:
    """Return `pattern` if it is a regular expression, and one that ends soon on texts made of its
    own characters.

    Raises ValueError, whose message says why it is none.
    """
    import regex

    try:
        compiled = _compiled(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}: {pattern!r:.80}") from error
    characters = dict.fromkeys(char for char in f"{pattern}a1 " if char.isalnum() or char.isspace())
    listed = "".join(characters)
    for char in listed[:12]:
        repeated = char * _TRIAL_LENGTH + "\N{INVERTED QUESTION MARK}"
        try:
            compiled.search(repeated, timeout=_TRIAL_SECONDS)
            compiled.search(listed + repeated + listed, timeout=_TRIAL_SECONDS)
        except TimeoutError as error:
            raise ValueError(
                f"takes too long on a text of {_TRIAL_LENGTH} characters: {pattern!r:.80}. "
                "Write it without a repeat inside a repeat"
            ) from error
    return pattern


def found(pattern: str, text: str) -> bool:
    """Return whether `pattern` is found in `text`, ignoring case.

    Raises RecipeError where that takes over a second.
    """
    try:
        return _compiled(pattern).search(text, timeout=SECONDS) is not None
    except TimeoutError as error:
        raise RecipeError(
            f"the regular expression {pattern!r:.80} takes longer than {SECONDS:g} s on an answer "
            f"of {len(text):,} "
            "characters. Write it without a repeat inside a repeat."
        ) from error


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> "regex.Pattern[str]":
    import regex

    return regex.compile(pattern, regex.IGNORECASE | regex.VERSION0)
