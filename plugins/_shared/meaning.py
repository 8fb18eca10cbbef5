"""What two answers that mean the same have in common."""

from selfloop.text.answers import declines, normalise


def meaning(text: str) -> str:
    """Return the normalised text of an answer; all texts that decline have one meaning, ""."""
    return "" if declines(text) else normalise(text)
