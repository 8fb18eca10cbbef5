"""The normal form that two answers of one meaning share."""

from selfloop.text.answers import declines, normalise


def meaning(text: str) -> str:
    """Return the normalised text of an answer; all texts that decline have one meaning, ""."""
    return "" if declines(text) else normalise(text)
