"""Sentences of a text and the named entities in it: names, dates and numbers, by rules or by spaCy (extra `spacy`)."""

import importlib
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from selfloop.errors import MissingExtra, RecipeError
from selfloop.text.answers import normalise

PIPELINE = "en_core_web_sm"  # the one that the paper uses
# The patterns are text, compiled where they are first used: `selfloop --help` loads this file too.
_ENDS = ".!?。！？؟।"
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
    "a|about|after|and|are|as|at|because|before|between|but|by|for|from|had|has|have|he|in|into|is|it|of|on|or|she|than"
    "|that|the|there|they|to|under|until|was|were|when|where|which|while|who|with"
)
_COUNT = rf"(?:\${_NUMBER}|{_NUMBER}%?)(?: (?:hundred|thousand|million|billion|trillion))?"
_UNIT = rf"(?<!%) (?:(?:square|cubic) )?(?!(?:{_NO_UNIT})\b)[a-zà-ÿ]+"
_QUANTITY = rf"{_COUNT}(?:{_UNIT})?"
_NAME = r"(?:(?!\d)\w)(?:[\w'’&-]|\.(?=\w))*"
_UPPER = rf"(?=[A-ZÀ-ÖØ-ÞĀ-ŽΑ-ΩА-Я])(?:(?:(?:[A-Z]\.)+|(?:St|Mt|Dr|Mr|Mrs)\.)(?= \w)|{_NAME})"
_LINK = r"(?: (?:of|of the|de|del|della|da|van|von|der|den|al|bin|ibn|la|le))?"
_SPAN = rf"{_UPPER}(?:{_LINK} {_UPPER})*(?: \d\d?\b)?"
_NUMBERS = rf"(?<![\d.,A-Za-z])(?:{_DATE}|{_QUANTITY})(?![\dA-Za-z])"
_QUOTED = r"[\"“]([^\"“”]{2,60})[\"”]"
# Words that begin a sentence with a capital and name nothing.
_OPENERS = (
    r"a|after|all|although|an|and|another|are|as|at|because|before|both|but|by|during|each|even|every|few|first"
    r"|for|from|he|her|here|his|how|however|i|if|in|is|it|its|many|more|most|much|no|not|now|of|on|once|one"
    r"|other|our|over|she|since|so|some|such|that|the|their|then|there|these|they|this|those|though|through"
    r"|today|to|two|under|until|was|we|were|what|when|where|which|while|who|with|you|your|according|also|among"
    r"|around|between|despite|due|following|like|near|only|several|three|unlike|within|without"
)


def sentences(text: str) -> list[str]:
    """Return the whole sentences of a text, each once; an unfinished last one is dropped."""
    parts = [
        part.strip() for part in re.split(_BREAK, " ".join(text.split())) if part and part.strip()
    ]
    if parts and not parts[-1].rstrip('"”’)').endswith(tuple(_ENDS)):
        parts.pop()
    return list({normalise(part) or part: part for part in reversed(parts)}.values())[::-1]


def spans(text: str) -> list[str]:
    """Return names, dates, numbers and quoted titles, in order.

    A lone word that only begins sentences is no name.
    """
    names, inside = list[tuple[int, str]](), set[str]()
    opening = list[tuple[int, str]]()
    for match in re.finditer(_SPAN, text):
        if name := _named(match[0]):
            # also where nothing is before it
            first = text[: match.start()].rstrip(' "“‘(')[-1:] in _ENDS
            alone = first and match[0].startswith(name) and " " not in name
            (opening if alone else names).append((match.start() + match[0].index(name), name))
            inside |= set() if alone else {name}
    names += [(at, name) for at, name in opening if name in inside]
    numbers = [(match.start(), match[0]) for match in re.finditer(_NUMBERS, text)]
    # before what is in the quotes
    numbers += [(match.start(1) - 1, match[1]) for match in re.finditer(_QUOTED, text)]
    found, end = dict[str, None](), 0
    for at, span in sorted(names + numbers, key=lambda found: (found[0], -len(found[1]))):
        if (
            at >= end
        ):  # of two that overlap ("Apollo 11", "11 astronauts") the first, of "May" and "May 1999" the longer
            found[span], end = None, at + len(span)
    return list(found)


def _named(span: str) -> str:
    """Return a span of capitalised words without the words before its name, or an empty string."""
    words = re.sub(r"['’]s?$", "", span).split()
    while words and (
        re.fullmatch(_OPENERS, words[0], re.IGNORECASE) or not words[0][0].isupper()
    ):  # "One of the Greek gods": all three
        words = words[1:]
    return " ".join(words) if words and len(words[0]) > 1 else ""


def answers(passage: str, found: Sequence[str], longest: int) -> list[str]:
    """Return what of `found` can be answers: in the passage, at most `longest` words, no part of another."""
    whole, kept = normalise(passage), dict[str, str]()
    for text in found:
        text = " ".join(text.split()).strip(" .,;:!?\"'“”‘’()[]*-–")
        name = normalise(text)
        if name and name in whole and len(text.split()) <= longest:
            kept.setdefault(name, text)
    return [
        text
        for name, text in kept.items()
        if not any(name in other and name != other for other in kept)
    ]


def recogniser(ner: str, wanted_by: str) -> Any:
    """Return spaCy's pipeline for `ner` "spacy", or what `spans` does; raise if spaCy or its model is not there."""
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
