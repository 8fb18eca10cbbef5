"""How alike two questions are, by their content words, in any order.

A question is reduced to a `Sketch` once. `likeness` compares two sketches by the Dice coefficient
of their words: twice the words in common, over the words of both.
"""

import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from selfloop.records import Question
from selfloop.text.answers import content, normalise
from selfloop.text.english.words import ORDINALS
from selfloop.text.gist import gist
from selfloop.text.patterns import any_of, pattern

MAX_LIKENESS_APART = 0.6  # of two questions that ask for different things
MIN_SPELLING_RATIO = 90  # of 100: words so alike by letters are one word, spelt twice
MAX_LENGTH_DIFFERENCE = 2  # letters, between two spellings of a word
_MIN_LONG_WORD = 6  # letters: of shorter words another letter makes another word

_WORD = pattern(r"[^\W_]+(?:['’.][^\W_]+)*")
# scripts that put no spaces between words: Chinese, Japanese, Korean
_UNSPACED_SCRIPT = pattern(r"[\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
# "Where is Oslo LOCATED?": says nothing more
_FILLER = pattern(
    "then|today|now|currently|actually|exactly|located|situated|found|famous|known|usually"
    "|officially"
)
# Words and the word that is compared in their place.
_SYNONYMS = {
    "biggest": "largest",
    "greatest": "largest",
    "author": "write",
    "wrote": "write",
    "written": "write",
    "writer": "write",
    "movie": "film",
    "nation": "country",
    "began": "begin",
    "begun": "begin",
    "start": "begin",
    "established": "found",
    "died": "die",
    "death": "die",
    "colour": "color",
}
# Words that tell two things of a kind apart, as numbers do: "the FIRST president", "NORTHERN Iran".
_TELLING_APART = pattern(
    rf"{any_of(ORDINALS)}|last|next|previous|two|three|four|five|six|seven|eight|nine|ten"
    r"|not|male|female|(north|south|east|west)(ern)?"
)
SIGNED = pattern(r"[+#*/×÷=<>^%&@$€£√]|-\d|^-$|\d[.,:/]\d")  # C++, -5, 1.5, the plus of 5 + 3
_POSSESSIVE = pattern(r"['’]s\b")
# "invention", "invented", "inventor" have the stem "invent"
_ENDING = pattern(r"(?:ations?|ions?|ings?|ers?|ors?|ed|es|s|e|y)$")
_MIN_STEM = 4  # letters
# The kind of answer that the question words ask for; the first that matches counts.
_KINDS = (
    ("when", pattern(r"\bwhen\b|\b(?:what|which) (?:year|date)\b")),
    ("where", pattern(r"\bwhere\b")),
    ("why", pattern(r"\bwhy\b")),
    ("how many", pattern(r"\bhow (?:many|much)\b|\bwhat number of\b")),
    ("how", pattern(r"\bhow\b(?! (?:many|much))")),
)


@dataclass(frozen=True, slots=True)
class Sketch:
    """The parts of a question that are compared.

    `words` are stems without those that any question may have; `marked` are those of them that are
    names or numbers, `long` those that may be misspelt. `kind` is "when", "where", "why", "how
    many", "how" or empty. `variant_of` is the text that the question was made from.
    """

    text: str
    words: frozenset[str]
    marked: frozenset[str]
    long: frozenset[str]
    kind: str = ""
    variant_of: str = ""

    def related(self, other: "Sketch") -> bool:
        """Return whether one was made from the other, or both from a third.

        Such questions are meant to be alike.
        """
        return bool(self.variant_of) and self.variant_of in (other.text, other.variant_of)


def sketch(question: Question) -> Sketch:
    """Return the sketch of a question."""
    text = question.text
    kind, plain = _without_kind(_plain(text).replace("capital city", "capital"))
    # a question of filler words alone is compared by all its words
    stems = [_stem(word) for word in content(plain) if not _FILLER.fullmatch(word)]
    # numbers and signs as they are written: 5 + 3 is not 5 - 3
    signed = frozenset(word for word in gist(text) if SIGNED.search(word))
    words = signed | frozenset(_parts(stems or normalise(plain).split()))
    marked = {word for word in words if _tells_apart(word)} | signed
    marked.update(_stem(word) for word in _words_of_names(text))
    return Sketch(
        text,
        words,
        words & marked,
        frozenset(word for word in words if is_long(word)),
        kind,
        question.variant_of if question.variant else "",
    )


def likeness(left: Sketch, right: Sketch) -> float:
    """Return the share of words in common (Dice), in [0, 1].

    It is at most `MAX_LIKENESS_APART` where the questions ask for different things. They do if a
    name or a number of one is not the other's, or one asks when and the other where. A name that
    only one of them has ("Paris", "Paris, France") is a word like any other.
    """
    if not (left.words and right.words):
        return float(left.words == right.words)
    left_only, right_only = left.words - right.words, right.words - left.words
    typos = 0
    if not left.long.isdisjoint(left_only) and not right.long.isdisjoint(right_only):
        typos = _count_typos(left_only, right_only)
    in_common = len(left.words) - len(left_only) + typos
    value = 2 * in_common / (len(left.words) + len(right.words))
    if value <= MAX_LIKENESS_APART:
        return value
    return MAX_LIKENESS_APART if _ask_apart(left, right, left_only, right_only, typos) else value


def _ask_apart(
    left: Sketch,
    right: Sketch,
    left_only: Collection[str],
    right_only: Collection[str],
    typos: int,
) -> bool:
    """Return whether two questions with many words in common ask for different things."""
    if left.kind != right.kind:
        return True
    if any(_tells_apart(word) for word in (*left_only, *right_only)):
        return True
    # where all words of one are spellings of words of the other, no name is left over
    if typos >= min(len(left_only), len(right_only)):
        return False
    left_has_name = not left.marked.isdisjoint(left_only)
    right_has_name = not right.marked.isdisjoint(right_only)
    return left_has_name or right_has_name


def is_long(word: str) -> bool:
    """Return whether a word is long enough that another spelling of it can be told."""
    return len(word) >= _MIN_LONG_WORD and word.isalpha()


def is_typo(word: str, other: str) -> bool:
    """Return whether two long words are one word in two spellings."""
    from rapidfuzz import fuzz  # a sixtieth of a second, which --help must not pay

    is_near = abs(len(other) - len(word)) <= MAX_LENGTH_DIFFERENCE
    return is_near and fuzz.ratio(word, other) >= MIN_SPELLING_RATIO


def _count_typos(left_only: Collection[str], right_only: Collection[str]) -> int:
    """Return how many words of the left are words of the right, spelt otherwise; each goes once."""
    unmatched = {word for word in right_only if is_long(word)}
    count = 0
    for word in sorted(word for word in left_only if is_long(word)):
        spellings = [other for other in unmatched if is_typo(word, other)]
        if spellings:
            unmatched.remove(min(spellings))
            count += 1
    return count


def _without_kind(plain: str) -> tuple[str, str]:
    """Return the kind of answer that a question asks for, and its text without those words."""
    for kind, asks_for in _KINDS:
        if asked := asks_for.search(plain):
            return kind, plain[: asked.start()] + plain[asked.end() :]
    return "", plain


def _words_of_names(text: str) -> Iterator[str]:
    """Yield the words with a capital, but the first, and those that end in a digit."""
    for place, word in enumerate(_WORD.findall(text)):
        if place and word[0].isupper():
            yield from content(_plain(word))
        if word[-1].isdigit():
            yield from content(word)


def _plain(text: str) -> str:
    """Return a text in lower case, without accents and possessives.

    "São" becomes "sao" and "Peru's" "peru".
    """
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        bare = "".join(char for char in decomposed if not unicodedata.combining(char))
        text = unicodedata.normalize("NFC", bare)
    return _POSSESSIVE.sub("", text.lower())


def _tells_apart(word: str) -> bool:
    """Return whether a word tells two things of a kind apart: a number, or an ordinal word."""
    return _TELLING_APART.fullmatch(word) is not None or any(char.isdigit() for char in word)


def _stem(word: str) -> str:
    """Return a word as it is compared: without its ending, and one for all synonyms."""
    word = _SYNONYMS.get(word, word)
    if _TELLING_APART.fullmatch(word) or not word.isalpha():
        return word
    if word.endswith("ies"):
        word = word.removesuffix("ies") + "y"
    stem = _ENDING.sub("", word)
    if len(stem) >= _MIN_STEM:
        return _SYNONYMS.get(stem, stem)
    # a short word loses no more than the "s" of a plural
    return word.removesuffix("s") if len(word) >= _MIN_STEM else word


def _parts(words: Collection[str]) -> Iterator[str]:
    """Yield each word, and of a text without spaces each two characters that stand together."""
    for word in words:
        if len(word) > 2 and _UNSPACED_SCRIPT.search(word):
            for place in range(len(word) - 1):
                yield word[place : place + 2]
        else:
            yield word
