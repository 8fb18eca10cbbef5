"""Names, dates, numbers and quoted titles in a text, by rules."""

import re
from collections.abc import Iterable, Iterator, Sequence

from selfloop.text.answers import normalise
from selfloop.text.english.sentences import SENTENCE_ENDS
from selfloop.text.patterns import any_of, listed, pattern

# --- dates and numbers

_MONTH = any_of(
    listed("""
    January February March April May June July August September October November December
    """)
)
_NUMBER = r"\d+(?:[.,]\d+)*"
# "7 November 1867", "May 14, 1998", "May 1999"
_DATE = (
    rf"\d{{1,2}} (?:{_MONTH})(?:,? \d{{3,4}})?"
    rf"|(?:{_MONTH}) \d{{1,2}}(?:, \d{{3,4}})?"
    rf"|(?:{_MONTH}) \d{{4}}"
)
_MAGNITUDE = "hundred|thousand|million|billion|trillion"
# Words that follow a number and are no unit: "in 1990 HE moved".
_NO_UNIT = any_of(
    listed("""
    a about after and are as at because before between but by for from had has have he in into is it
    of on or she than that the there they to under until was were when where which while who with
    """)
)
_COUNT = rf"(?:\${_NUMBER}|{_NUMBER}%?)(?: (?:{_MAGNITUDE}))?"  # "$5", "12%", "3.5 million"
_UNIT = rf"(?<!%) (?:(?:square|cubic) )?(?!(?:{_NO_UNIT})\b)[a-zà-ÿ]+"  # " square metres"
# A number stands alone: neither "B52" nor "3rd" holds one.
_DATE_OR_QUANTITY = pattern(rf"(?<![\d.,A-Za-z])(?:{_DATE}|{_COUNT}(?:{_UNIT})?)(?![\dA-Za-z])")
_QUOTED_TITLE = pattern(r"[\"“]([^\"“”]{2,60})[\"”]")

# --- names

_NAME_WORD = r"(?:(?!\d)\w)(?:[\w'’&-]|\.(?=\w))*"
# "Curie"; initials ("J. R. R.") and titles ("St.") only before another word
_CAPITALISED = (
    r"(?=[A-ZÀ-ÖØ-ÞĀ-ŽΑ-ΩА-Я])"
    rf"(?:(?:(?:[A-Z]\.)+|(?:St|Mt|Dr|Mr|Mrs)\.)(?= \w)|{_NAME_WORD})"
)
_JOINING_WORDS = r"(?: (?:of|of the|de|del|della|da|van|von|der|den|al|bin|ibn|la|le))?"
# "Bank of the West", "Apollo 11"
_CAPITALISED_SPAN = pattern(rf"{_CAPITALISED}(?:{_JOINING_WORDS} {_CAPITALISED})*(?: \d\d?\b)?")
_POSSESSIVE_END = pattern(r"['’]s?$")
# Words that begin a sentence with a capital and name nothing.
_OPENER = pattern(
    any_of(
        listed("""
        a after all although an and another are as at because before both but by during each even
        every few first for from he her here his how however i if in is it its many more most much
        no not now of on once one other our over she since so some such that the their then there
        these they this those though through today to two under until was we were what when where
        which while who with you your according also among around between despite due following like
        near only several three unlike within without
        """)
    ),
    re.IGNORECASE,
)

Placed = tuple[int, str]  # where a span begins, and the span


def named_spans(text: str) -> list[str]:
    """Return names, dates, numbers and quoted titles, each once, in order.

    A lone word that only begins sentences is no name.
    """
    placed = [*_names(text), *_dates_and_quantities(text), *_quoted_titles(text)]
    spans: dict[str, None] = {}
    end = 0
    # Of two that overlap ("Apollo 11", "11 astronauts") the first counts; of two that begin at one
    # place ("May", "May 1999") the longer one.
    for start, span in sorted(placed, key=lambda item: (item[0], -len(item[1]))):
        if start >= end:
            spans[span] = None
            end = start + len(span)
    return list(spans)


def _names(text: str) -> list[Placed]:
    """Return the capitalised spans that name something."""
    names: list[Placed] = []
    opening: list[Placed] = []  # lone words at the beginning of a sentence
    inside: set[str] = set()  # names that stand elsewhere in a sentence
    for match in _CAPITALISED_SPAN.finditer(text):
        name = _without_openers(match[0])
        if not name:
            continue
        placed = (match.start() + match[0].index(name), name)
        # The slice is empty at the beginning of the text, and an empty text is in any other.
        begins_sentence = text[: match.start()].rstrip(' "“‘(')[-1:] in SENTENCE_ENDS
        if begins_sentence and match[0].startswith(name) and " " not in name:
            opening.append(placed)
        else:
            names.append(placed)
            inside.add(name)
    names += [(start, name) for start, name in opening if name in inside]
    return names


def _without_openers(span: str) -> str:
    """Return a capitalised span without the words before its name; empty without a name.

    "One of the Greek gods" loses three words.
    """
    words = _POSSESSIVE_END.sub("", span).split()
    while words and (_OPENER.fullmatch(words[0]) or not words[0][0].isupper()):
        words = words[1:]
    return " ".join(words) if words and len(words[0]) > 1 else ""


def _dates_and_quantities(text: str) -> Iterator[Placed]:
    for match in _DATE_OR_QUANTITY.finditer(text):
        yield match.start(), match[0]


def _quoted_titles(text: str) -> Iterator[Placed]:
    for match in _QUOTED_TITLE.finditer(text):
        # the place of the quotation mark: before any name within the title
        yield match.start(1) - 1, match[1]


def possible_answers(passage: str, texts: Sequence[str], max_words: int) -> list[str]:
    """Return those of `texts` that can be answers to a question about a passage.

    They stand in the passage, have at most `max_words` words, and are no part of another.
    """
    whole = normalise(passage)
    by_words: dict[str, str] = {}
    for text in texts:
        bare = " ".join(text.split()).strip(" .,;:!?\"'“”‘’()[]*-–")
        words = normalise(bare)
        if words and words in whole and len(bare.split()) <= max_words:
            by_words.setdefault(words, bare)
    return [text for words, text in by_words.items() if not _is_part_of_another(words, by_words)]


def _is_part_of_another(words: str, others: Iterable[str]) -> bool:
    return any(words in other and words != other for other in others)
