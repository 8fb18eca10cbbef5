"""Helpers of the sources that go by topics: reading topics files, and shares of topics."""

from collections.abc import Sequence
from pathlib import Path

from selfloop.errors import RecipeError


def topic_lines(path: Path) -> list[str]:
    """Return the lines of a topics file; raise RecipeError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"ask.sources: cannot read the topics file {path}: {error}. Give UTF-8 text."
        ) from error


def topics_from(path: Path | None, listed: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return the lines that hold the topics, and how messages call the place they stand in.

    A topics file goes before the topics listed in the recipe.
    """
    if path is None:
        return listed, "topics"
    return topic_lines(path), f"the topics file {path}"


def no_topics(where: str) -> RecipeError:
    """Return the error of a place without a topic."""
    return RecipeError(
        f"ask.sources: {where} has no topics. Name one at least, or leave the option out."
    )
