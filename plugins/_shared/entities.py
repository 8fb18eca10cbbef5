"""Sentences of a text and the named entities in it: names, dates and numbers.

They are found by rules, or by spaCy (extra `spacy`). The patterns are text, compiled where they are
first used, because `selfloop --help` loads this file too.
"""

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from selfloop.errors import MissingExtra, RecipeError
from selfloop.text.answers import normalise

PIPELINE = "en_core_web_sm"  # the one that Self-Prompting uses
Recogniser = Callable[[str], list[str]]

_END_MARKS = ".!?。！？؟।"
# A sentence ends at its mark and the quotes after it, before white space; scripts without spaces
# need none. An initial ("J. K. Rowling") and the abbreviations that names begin with end nothing.
_ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "St", "Mt", "Jr", "ca")
_ABBREVIATED = r"(?<!\b\w\.)" + "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATIONS)
_BREAK = rf"(?<=[.!?؟।])(?:{_ABBREVIATED})\s+|(?<=[.!?][\"”’)])\s+|(?<=[。！？])\s*"

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
)
_NUMBER = r"\d+(?:[.,]\d+)*"
_DATE = rf"\d{{1,2}} {_MONTH}(?:,? \d{{3,4}})?|{_MONTH} \d{{1,2}}(?:, \d{{3,4}})?|{_MONTH} \d{{4}}"
_NO_UNIT = (
    "a|about|after|and|are|as|at|because|before|between|but|by|for|from|had|has|have|he|in|into|is"
    "|it|of|on|or|she|than|that|the|there|they|to|under|until|was|were|when|where|which|while|who"
    "|with"
)
_COUNT = rf"(?:\${_NUMBER}|{_NUMBER}%?)(?: (?:hundred|thousand|million|billion|trillion))?"
_UNIT = rf"(?<!%) (?:(?:square|cubic) )?(?!(?:{_NO_UNIT})\b)[a-zà-ÿ]+"
# "$5 million", "12 astronauts", "40%"
_QUANTITY = rf"{_COUNT}(?:{_UNIT})?"
_NAME = r"(?:(?!\d)\w)(?:[\w'’&-]|\.(?=\w))*"
_UPPER = rf"(?=[A-ZÀ-ÖØ-ÞĀ-ŽΑ-ΩА-Я])(?:(?:(?:[A-Z]\.)+|(?:St|Mt|Dr|Mr|Mrs)\.)(?= \w)|{_NAME})"
# small words within a name: "Leonardo da Vinci"
_LINK = r"(?: (?:of|of the|de|del|della|da|van|von|der|den|al|bin|ibn|la|le))?"
_SPAN = rf"{_UPPER}(?:{_LINK} {_UPPER})*(?: \d\d?\b)?"
# not a part of a longer number or word
_NUMBERS = rf"(?<![\d.,A-Za-z])(?:{_DATE}|{_QUANTITY})(?![\dA-Za-z])"
_QUOTED = r"[\"“]([^\"“”]{2,60})[\"”]"
# words that begin a sentence with a capital and name nothing
_OPENERS = (
    r"a|after|all|although|an|and|another|are|as|at|because|before|both|but|by|during|each|even"
    r"|every|few|first|for|from|he|her|here|his|how|however|i|if|in|is|it|its|many|more|most|much"
    r"|no|not|now|of|on|once|one|other|our|over|she|since|so|some|such|that|the|their|then|there"
    r"|these|they|this|those|though|through|today|to|two|under|until|was|we|were|what|when|where"
    r"|which|while|who|with|you|your|according|also|among|around|between|despite|due|following|like"
    r"|near|only|several|three|unlike|within|without"
)


def sentences(text: str) -> list[str]:
    """Return the whole sentences of a text, each once; an unfinished last one is dropped."""
    parts = [part.strip() for part in re.split(_BREAK, " ".join(text.split())) if part]
    parts = [part for part in parts if part]
    if parts and not parts[-1].rstrip('"”’)').endswith(tuple(_END_MARKS)):
        parts.pop()
    # of two with the same words the first is kept, in the place of the last
    distinct: dict[str, str] = {}
    for part in reversed(parts):
        distinct[normalise(part) or part] = part
    return list(distinct.values())[::-1]


def spans(text: str) -> list[str]:
    """Return names, dates, numbers and quoted titles, in order, each once.

    A lone word that only begins sentences is no name.
    """
    candidates = _names(text)
    candidates += [(match.start(), match[0]) for match in re.finditer(_NUMBERS, text)]
    # a title counts from its quote, so that it comes before names in the quotes
    candidates += [(match.start(1) - 1, match[1]) for match in re.finditer(_QUOTED, text)]
    # by place; of two at one place ("May", "May 1999") the longer first
    candidates.sort(key=lambda candidate: (candidate[0], -len(candidate[1])))
    chosen: dict[str, None] = {}
    end = 0
    for start, span in candidates:
        # of two that overlap ("Apollo 11", "11 astronauts") the first
        if start >= end:
            chosen[span] = None
            end = start + len(span)
    return list(chosen)


def _names(text: str) -> list[tuple[int, str]]:
    """Return the names of a text, with their places."""
    names: list[tuple[int, str]] = []
    openings: list[tuple[int, str]] = []  # lone words that begin a sentence
    within_sentences: set[str] = set()
    for match in re.finditer(_SPAN, text):
        name = _without_openers(match[0])
        if not name:
            continue
        place = match.start() + match[0].index(name)
        # "" is in the marks, too: also where nothing is before it
        begins_sentence = text[: match.start()].rstrip(' "“‘(')[-1:] in _END_MARKS
        if begins_sentence and match[0].startswith(name) and " " not in name:
            openings.append((place, name))
        else:
            names.append((place, name))
            within_sentences.add(name)
    # such a word is a name if it is one elsewhere
    names += [(place, name) for place, name in openings if name in within_sentences]
    return names


def _without_openers(span: str) -> str:
    """Return a span of capitalised words without the words before its name, or ""."""
    words = re.sub(r"['’]s?$", "", span).split()
    # "One of the Greek gods": "One", "of" and "the" go
    while words and not _may_begin_name(words[0]):
        words = words[1:]
    return " ".join(words) if words and len(words[0]) > 1 else ""


def _may_begin_name(word: str) -> bool:
    return word[0].isupper() and not re.fullmatch(_OPENERS, word, re.IGNORECASE)


def answers(passage: str, entities: Sequence[str], max_words: int) -> list[str]:
    """Return the entities that can be answers.

    They are in the passage, have at most `max_words` words, and are no part of another one.
    """
    passage_words = normalise(passage)
    candidates: dict[str, str] = {}
    for entity in entities:
        text = " ".join(entity.split()).strip(" .,;:!?\"'“”‘’()[]*-–")
        name = normalise(text)
        if name and name in passage_words and len(text.split()) <= max_words:
            candidates.setdefault(name, text)
    whole = []
    for name, text in candidates.items():
        if not any(name in other and name != other for other in candidates):
            whole.append(text)
    return whole


def recogniser(ner: str, wanted_by: str) -> Recogniser:
    """Return the function that finds the entities of a text: `spans`, or spaCy's for "spacy".

    Raises MissingExtra or RecipeError where spaCy or its model is not installed.
    """
    if ner != "spacy":
        return spans
    check_spacy(wanted_by)
    return lambda text: [entity.text for entity in _spacy()(text).ents]


def check_spacy(wanted_by: str) -> None:
    """Raise MissingExtra without spaCy, RecipeError without its model; neither is loaded."""
    if importlib.util.find_spec("spacy") is None:
        raise MissingExtra("spacy", "spacy", wanted_by)
    if importlib.util.find_spec(PIPELINE) is None:
        raise RecipeError(
            f"{wanted_by} needs spaCy's model {PIPELINE}. Do: python -m spacy download {PIPELINE}"
        )


@cache
def _spacy() -> Any:
    return importlib.import_module("spacy").load(PIPELINE)
