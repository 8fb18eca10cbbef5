"""Whether a question asks for the same as another, or from its answer's side, as far as words tell.

The rules are strict, for a small model errs often: they would rather leave out a good question.
"""

import re
from typing import NamedTuple

from selfloop.text.answers import content, normalise
from selfloop.text.english.words import QUESTION_WORDS
from selfloop.text.patterns import any_of, listed, pattern

_STEM = 4  # letters that tell a word again: "capital", "capitals"
_WORD = pattern(r"\w+")
# "In which ...", "Who ..."
_BEGINS_AS_QUESTION = pattern(
    rf"((in|on|at|of|to|from|by|for|with) )?({any_of(QUESTION_WORDS)})\b", re.IGNORECASE
)
# the noun after "which" or "what": "Which RIVER ..."; not "What is ..."
_ASKED_NOUN = pattern(r"\b(?:which|what) (?!is\b|are\b|was\b|were\b|do|did\b)(\w+)")


class _Asked(NamedTuple):
    """A question word, as a pattern, and the nouns that ask for the same."""

    question_words: str
    nouns: tuple[str, ...]


# "Who wrote it?" and "When was it written?" are two questions; "Which author wrote it?" is the
# first one again.
_ASKED_KINDS = {
    "person": _Asked(
        "who|whom|whose",
        listed("""
            person man woman author writer painter artist composer inventor director founder
            """),
    ),
    "time": _Asked("when", listed("year date day month century decade time")),
    "place": _Asked(
        "where",
        listed("""
            place country city continent location state region town birthplace area part
            """),
    ),
    "count": _Asked("how (?:many|much)", ("number", "amount")),
    "measure": _Asked(
        "how (?:long|far|high|old|tall|big|large|deep|fast)",
        listed("length distance height age size depth speed"),
    ),
    "reason": _Asked("why", ("reason", "cause", "purpose")),
}
_ASKS_FOR = {
    kind: pattern(rf"\b({asked.question_words})s?\b", re.IGNORECASE)
    for kind, asked in _ASKED_KINDS.items()
}
_MAY_ASK_FOR = {
    kind: pattern(rf"\b({any_of((asked.question_words, *asked.nouns))})s?\b", re.IGNORECASE)
    for kind, asked in _ASKED_KINDS.items()
}


def begins_as_question(text: str) -> bool:
    """Return whether a text begins with a question word, or a preposition and one."""
    return _BEGINS_AS_QUESTION.match(text) is not None


def rewords(text: str, question: str, answer: str) -> bool:
    """Return whether `text` asks for the same as `question`.

    It keeps all names and numbers and more than two thirds of the content words. It adds none but
    nouns that stand for a question word ("who", "author"). It seeks the same, and does not name the
    answer.
    """
    if _gives_away(text, question, answer):
        return False
    # a new name or number may be anywhere in the old text, also in lower case
    if not names_in(question) <= _words(text) or not names_in(text) <= _words(question):
        return False
    stems, new_stems = _content_stems(question), _content_stems(text)
    if 3 * len(stems & new_stems) <= 2 * len(stems):
        return False
    stand_ins: set[str] = set()
    for kind in _kinds(question, _ASKS_FOR):
        stand_ins.update(noun[:_STEM] for noun in _ASKED_KINDS[kind].nouns)
    if not new_stems | asked_nouns(text) <= stems | stand_ins:
        return False
    return _kinds(question, _ASKS_FOR) <= _kinds(text, _MAY_ASK_FOR) and _kinds(
        text, _ASKS_FOR
    ) <= _kinds(question, _MAY_ASK_FOR)


def reverses(text: str, question: str, answer: str, entity: str) -> bool:
    """Return whether `text` names the answer to `question`, and asks for its entity.

    `entity` is the entity of the question, or empty.
    """
    words, name = f" {normalise(text)} ", normalise(entity)
    if f" {normalise(answer)} " not in words or (name and f" {name} " in words):
        return False
    stems = [word[:_STEM] for word in content(text)]
    if len(set(stems)) < len(stems):
        return False  # "Which string has four strings?" gives itself away
    nouns = asked_nouns(question)
    if nouns & asked_nouns(text):
        return False  # it seeks the same
    about = _content_stems(question) - nouns
    # it keeps some of the question's content words, but not all
    return bool(about & set(stems)) and not about <= set(stems)


def asked_nouns(text: str) -> set[str]:
    """Return how the nouns begin that a question names after "which" or "what".

    "Which river ..." has "rive".
    """
    return {noun[:_STEM] for noun in _ASKED_NOUN.findall(text.lower())}


def names_in(text: str) -> set[str]:
    """Return the capitalised words of a question but the first, and its numbers; in lower case."""
    names = set()
    for place, word in enumerate(_WORD.findall(text)):
        if word[0].isdigit() or (place and word[0].isupper()):
            names.add(word.lower())
    return names


def _gives_away(text: str, question: str, answer: str) -> bool:
    """Return whether a text names the answer, which the question does not."""
    name = normalise(answer)
    if not name:
        return False
    return f" {name} " in f" {normalise(text)} " and f" {name} " not in f" {normalise(question)} "


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _content_stems(text: str) -> set[str]:
    return {word[:_STEM] for word in content(text)}


def _kinds(text: str, patterns: dict[str, re.Pattern[str]]) -> set[str]:
    """Return the kinds of thing that a question asks for, by one of the tables of patterns."""
    return {kind for kind, asks in patterns.items() if asks.search(text)}
