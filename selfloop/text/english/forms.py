"""The entity of a question, and its form: the question without the entity.

Two forms: `masked_form` keeps all other words ("what is the capital of _"), and tells which
questions a model may confuse by style. `opening_form` ends at the first word with a meaning ("what
is the capital"), and tells whether a round asks the same way too often.
"""

import re
from collections.abc import Sequence

from selfloop.text.answers import content
from selfloop.text.english.words import AUXILIARIES, QUESTION_WORDS
from selfloop.text.patterns import any_of, listed, pattern

# --- the entity

# Words that may begin a question with a capital and are no names.
_OPENER = pattern(
    any_of(
        (
            *QUESTION_WORDS,
            *(word for word in AUXILIARIES if word not in ("am", "may", "might", "must")),
            *listed("""
            name in on at for of to from by with during about after before under the a an if as it
            this that these those among since until according between i
            """),
        )
    ),
    re.IGNORECASE,
)
# "Bank OF England", "Leonardo DA Vinci"
_JOINING_WORD = pattern("of|the|de|la|le|van|von|der|den|da|di|du|del|el|al")
_MAX_JOINING_WORDS = 2
_QUOTED_TITLE = pattern(r"[\"“]([^\"“”]{2,80})[\"”]")
# "O'Neill", "AT&T", "J." before another capital
_NAME_WORD = pattern(r"[^\W_](?:[\w'’.&-]*\w)?(?:\.(?=\s[A-Z]))?")
_POSSESSIVE_END = pattern(r"(?:['’]s)?$")
_NUMBER = pattern(r"\d[\d.,]*")


def entity_span(text: str, via: str = "") -> tuple[int, int] | None:
    """Return where in a question its entity stands: start and end, None without one.

    The entity is `via` where the question names it, else a quoted title, else the longest
    capitalised span. A word that begins the sentence is no name, unless another one follows: "Mount
    Everest is in which country?"
    """
    if via:
        named = re.search(rf"(?<!\w){re.escape(via)}(?!\w)", text, re.IGNORECASE)
        if named:
            return _with_article(text, named.span())
    if title := _QUOTED_TITLE.search(text):
        return title.span(1)
    spans = _capitalised_spans(text)
    longest = max(spans, key=lambda span: span[1] - span[0], default=None)
    return _with_article(text, longest) if longest else None


def _with_article(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """Return a name's span with the "the" before it: it is "the Nile", but not "the Egypt"."""
    start, end = span
    is_capitalised = text[start : start + 1].isupper()
    if is_capitalised and text[:start].endswith(" the "):
        return start - len("the "), end
    return span


def _capitalised_spans(text: str) -> list[tuple[int, int]]:
    """Return where names stand: capitalised words in a row, small words between them included."""
    spans: list[tuple[int, int]] = []
    words = list(_NAME_WORD.finditer(text))
    first = 0
    while first < len(words):
        if not _begins_name(words, first):
            first += 1
            continue
        last = _last_of_name(text, words, first)
        # a lone capital at the beginning is that of the sentence
        if first or last > first:
            end = words[last].end() - _possessive_length(words[last][0])
            spans.append((words[first].start(), end))
        first = last + 1
    return spans


def _last_of_name(text: str, words: Sequence[re.Match[str]], first: int) -> int:
    """Return the index of the last word of the name that begins with the word `first`."""
    last, place = first, first + 1
    while place < len(words) and place - last <= _MAX_JOINING_WORDS + 1:
        if text[words[place - 1].end() : words[place].start()] != " ":
            break  # a comma ends a name
        word = words[place][0]
        # "Apollo 11": a number right behind the name belongs to it
        if _has_capital(word) or (word.isdigit() and place == last + 1):
            last = place
        elif not _JOINING_WORD.fullmatch(word):
            break
        place += 1
    return last


def _possessive_length(word: str) -> int:
    """Return the length of the "'s" that a word ends in, or 0."""
    end = _POSSESSIVE_END.search(word)
    return len(end[0]) if end else 0


def _has_capital(word: str) -> bool:
    return word[0].isupper() and word != "I"


def _begins_name(words: Sequence[re.Match[str]], place: int) -> bool:
    word = words[place][0]
    return _has_capital(word) and not (place == 0 and _OPENER.fullmatch(word))


# --- the forms

# Characters that stand for the entity and for a number while the text is taken apart.
_ENTITY_MARK, _NUMBER_MARK = "\x00", "\x01"
_FORM_TOKEN = pattern(rf"[\w'’-]+|{_ENTITY_MARK}|{_NUMBER_MARK}")
_MASKS = {_ENTITY_MARK: "_", _NUMBER_MARK: "#"}


def masked_form(text: str, via: str = "") -> str:
    """Return a question in lower case, its entity masked by "_" and its numbers by "#"."""
    span = entity_span(text, via)
    masked = f"{text[: span[0]]} {_ENTITY_MARK} {text[span[1] :]}" if span else text
    masked = _NUMBER.sub(f" {_NUMBER_MARK} ", masked.lower())
    return " ".join(_MASKS.get(token, token) for token in _FORM_TOKEN.findall(masked))


_OPENING_WORD = pattern(r"[^\W_]+(?:['’.-][^\W_]+)*")
_MAX_OPENING_WORDS = 8  # a question may be of common words alone


def opening_form(text: str) -> str:
    """Return a question up to its first word with a meaning, a name or a number masked by "_"."""
    opening: list[str] = []
    for place, word in enumerate(_OPENING_WORD.findall(text)[:_MAX_OPENING_WORDS]):
        if place and (word[0].isupper() or word[0].isdigit()):
            return " ".join([*opening, "_"])
        opening.append(word.lower())
        if content(word):
            break
    return " ".join(opening)
