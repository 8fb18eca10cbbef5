"""Recognisers of the entities of a passage: rules, or spaCy (extra `spacy`)."""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from selfloop.errors import MissingExtraError, RecipeError
from selfloop.text.english.entities import named_spans

Recogniser = Callable[[str], list[str]]
PIPELINE = "en_core_web_sm"  # the paper of Self-Prompting uses it


def recogniser(ner: Literal["spans", "spacy"], wanted_by: str) -> Recogniser:
    """Return a function from a text to the entities in it.

    Raises MissingExtraError without spaCy and RecipeError without its model, where `ner` is
    "spacy".
    """
    if ner != "spacy":
        return named_spans
    check_spacy(wanted_by)
    return _spacy_entities


def check_spacy(wanted_by: str) -> None:
    """Raise MissingExtraError without spaCy, RecipeError without its model; neither is loaded."""
    if importlib.util.find_spec("spacy") is None:
        raise MissingExtraError("spacy", "spacy", wanted_by)
    if importlib.util.find_spec(PIPELINE) is None:
        raise RecipeError(
            f"{wanted_by} needs spaCy's model {PIPELINE}. Do: python -m spacy download {PIPELINE}"
        )


def _spacy_entities(text: str) -> list[str]:
    return [entity.text for entity in _spacy()(text).ents]


@cache
def _spacy() -> Any:
    return importlib.import_module("spacy").load(PIPELINE)
