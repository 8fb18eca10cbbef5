"""The house rule for "the same answer": two answers are the same if `normalise` makes one text of
them.

So to be the same is an equivalence, and one text stands for all that are: detectors count with it.

Differences of spelling are removed: letter case, accents, quotes, dashes, brackets, sentence marks,
articles before a word, separators of thousands, the names of months and units. Differences of
meaning stay: signs, decimal points, units, the symbols of C++, C#, A+ and AT&T. docs/evaluation.md
lists them with the reasons.
"""

import re
import string
from functools import lru_cache

from selfloop.text.answers.figures import WORDS, figures
from selfloop.text.answers.folding import folded
from selfloop.text.patterns import listed

# characters of an answer or a question; of longer texts only the last few are remembered
CACHED = 256
_ROUNDS = 8

_ARTICLES = ("a", "an", "the")
# "A" is no article in "Vitamin A deficiency", "Type A blood" and the like.
_LETTERED = frozenset(
    listed("""
    vitamin hepatitis influenza protein factor group type plan class grade schedule section appendix
    annex option answer letter model team point block level part series phase side zone tier
    category division note key string unit room building gate platform line route exhibit figure
    table chapter volume hemophilia haemophilia
    """)
)
# ... nor in "A and B" and "A minor".
_NO_NOUN = frozenset({"and", "or", "is", "minor", "major", "negative", "positive", "sharp", "flat"})

_LETTER = r"[^\W\d_]"
_PLAIN = re.compile(r"\s*[A-Za-z]+(?:,?\s+[A-Za-z]+)*[.,?]?\s*")
_FIGURE = re.compile(r"\d")
_WORD = re.compile(r"[a-z]+")
_HAS_SYMBOL = re.compile(r"[-+#*!.^=<>≤≥≠±÷√∞×∑∫]|sharp|flat|(?:pos|neg)")
_HAS_JOINT = re.compile(r"[-'&./\d]|\b[a-z] |mt|dr|jr|sr|vs")
_ROMAN = re.compile(r"(?<=[^\W\d_] )(?=[ivxl]{2})(x{0,3}|xl)(ix|iv|v?i{0,3})(?!\w)")
_ROMAN_LETTER = re.compile(rf"(?<={_LETTER}{_LETTER} )([ivx])(?=$| of )")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50}
_NTH = re.compile(rf"(?<={_LETTER}{_LETTER} )the (\d+)(?:st|nd|rd|th)(?=$| of )")

_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3}|~~)(?=\S)([^*~]*?[^\s*~])\1(?![\w*])")
_ANSWER_IS = re.compile(
    r"^\W*(?:(?:the|my) )?(?:(?:correct|right|final) )?answer(?: is|:|: is) (?=.)"
)
_N = re.compile(r" ?'n'? ?(?!\w)|(?<= )n' ")
_AND = re.compile(r" ?& ?")
_MOUNT = re.compile(r"(?<!\w)(mt|dr|jr|sr|vs)(?:\.|(?= |$))")
_SPELT_OUT = {"mt": "mount ", "dr": "doctor ", "jr": "junior ", "sr": "senior ", "vs": "versus "}
_NUMBERED = re.compile(r"(?<!\w)(?:no\.? ?|nr\.? ?|n° ?|number |# ?)(?=\d)")
_FIRST_NUMBERED = re.compile(r"^\W*no (?=\d+$)")

# Symbols that make a name are held by characters of the private area while all other punctuation
# goes.
_HOLD = {".": "\ue000", "-": "\ue001", "+": "\ue002", "#": "\ue003", "*": "\ue004", "!": "\ue005"}
_HELD = str.maketrans({private: symbol for symbol, private in _HOLD.items()})
_PRIVATE = re.compile("[\ue000-\ue005]")
_NOTE = re.compile(r"(?<!\w)([a-g])(?: |-)(sharp|flat)(?!\w)")
_BLOOD = re.compile(r"(?<!\w)(a|b|ab|o)(?: |-)(positive|negative|pos|neg)(?!\w)")
_SPACED_PLUS = re.compile(r"(?<=(?<!\w)[a-z]) (?=\+\+(?!\w))")
_AFTER_LETTER = re.compile(rf"(?<={_LETTER})(\+{{1,2}}|#)(?![\w+#])")
_AFTER_DIGIT = re.compile(r"(?<=\d)\+(?![\w+])")
_MINUS_NAME = re.compile(r"(?<!\w)([a-z]{1,2}\d?)(--?)(?![\w-])")
_STAR_NAME = re.compile(r"(?<![\w*])([a-z]{1,2})\*(?![\w*])")
_FACTORIAL = re.compile(r"(?<!\w)([nkmx])!(?!\w)")
_DOT_NAME = re.compile(r"(?<![\w.])\.(?=[a-z]{2,4}(?!\w))")
_INSIDE = re.compile(r"(?<=\w)!(?=\w)")
_NEGATIVE = re.compile(r"(?<![\w).\ue000-\ue005])-(?=\.?\d)")
_PLUS_SIGN = re.compile(r"(?<=[\w)]) ?(?<!\+)\+(?!\+) ?(?=[\w(])")
_RELATION = re.compile(r"\s*([=<>≤≥≠±÷√∞×∑∫])\s*")
_POWER_OF_LETTER = re.compile(rf"(?<={_LETTER})\^(?=[\d-])")

_INITIALS = re.compile(rf"(?<!\w){_LETTER}(?:\. ?{_LETTER}(?!\w))+\.?")
_DOT_WITHIN = re.compile(rf"(?<={_LETTER})\.(?={_LETTER})")
_SLASH_WITHIN = re.compile(rf"(?<!\w)({_LETTER}{{1,2}})/({_LETTER}{{1,2}})(?!\w)")
_PREFIX = re.compile(rf"(?<!\w)((?![α-ω]){_LETTER}|re|co|non|anti|pre|semi|multi)-(?={_LETTER})")
_SHORT_MODEL = re.compile(rf"(?<!\w)({_LETTER}{{1,2}})[- ](?=\d)")  # B-52, R2-D2
_LETTER_AFTER = re.compile(rf"(?<=\d)-(?={_LETTER}(?!\w))")  # 3-D
_LONG_MODEL = re.compile(rf"(?<!\w)({_LETTER}{{3,}})-?(?=\d)")  # COVID-19
_WORD_AFTER = re.compile(rf"(?<![\w.])(\d+)-?(?!st|nd|rd|th)(?={_LETTER}{{2,}})")  # 7up
_BETWEEN_FIGURES = re.compile(
    r"(?<=\d)(?: [;,()\[\]\"]+|[;,()\[\]\"]+ )[ ;,()\[\]\"]*(?=[-\ue001]?\d)"
)
_LOOSE = re.compile(r"(?<!\d)[.:/^,-]|[.:/^,-](?!\d)")
# Marks are no letters to `re`, but part of the words of many scripts.
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963"
    "\u0966-\u0dff"
    "\u0e00-\u0e4e\u0e80-\u0ecd\u0f18-\u0fbc\u1000-\u1049\u1056-\u109f\u1780-\u17d3\u3099\u309a"
)
_PUNCTUATION = re.compile(rf"[^\w\s.:/^,\-%°=<>≤≥≠±÷√∞×∑∫$@♭€£¥₹{_MARKS}\ue000-\ue006]|_")
_LOOSE_SYMBOL = re.compile(r"(?<!\d)%|(?<!\w)[$@€£¥₹]|[$@€£¥₹](?!\w)|(?<!\d )°(?![cf])")
_WIDE = "\u2e80-\u2fff\u3005-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_WIDE_SPACE = re.compile(f"(?<=[{_WIDE}]) (?=[{_WIDE}])")
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "θ": "theta",
    "λ": "lambda", "μ": "mu", "π": "pi", "σ": "sigma", "φ": "phi", "χ": "chi", "ψ": "psi",
    "ω": "omega", "ρ": "rho", "τ": "tau",
}  # fmt: skip
_ONLY_SYMBOL = re.compile(r"[+=<>≤≥≠±÷√∞×∑∫%&@$€£¥₹/♭]+")
_SYMBOLS_ALONE = re.compile(r"[+\-=<>≤≥≠±÷√∞×∑∫%&@$€£¥₹/]")

_ONES = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
_ROMANS: set[str] = set()  # below 50, but without the bare tens
for _tens in ("", "x", "xx", "xxx", "xl"):
    _ROMANS.update(f"{_tens}{ones}" for ones in _ONES)
# A text of plain words has one of these only if it needs more than its articles dropped.
_SPECIAL = frozenset(
    (
        *WORDS,
        *_ROMANS,
        *listed("x xx xxx sharp flat positive negative pos neg minus answer number no"),
        *listed("mt dr jr sr vs nr ad bc"),
    )
)


def normalise(text: str) -> str:
    """Return the one text that stands for all answers which are the same as `text`; empty if it
    says nothing.

    It is words with single spaces. `normalise(normalise(x)) == normalise(x)`; NFC and NFD give the
    same.
    """
    return _remembered(text) if len(text) <= CACHED else _remembered_long(text)


def squad_normalise(text: str) -> str:
    """Return `text` as the published SQuAD scorer compares it: lower case, no ASCII punctuation, no
    articles.

    Rajpurkar et al. 2016, arXiv 1606.05250. For comparison with papers: it makes 15 of 1.5, and C
    of C++.
    """
    plain = "".join(char for char in text.lower() if char not in _SQUAD_PUNCTUATION)
    return " ".join(_SQUAD_ARTICLES.sub(" ", plain).split())


_SQUAD_PUNCTUATION = frozenset(string.punctuation)
_SQUAD_ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(maxsize=2**16)
def _remembered(text: str) -> str:
    return _normalised(text)


@lru_cache(maxsize=64)  # a detector asks for the same samples several times
def _remembered_long(text: str) -> str:
    return _normalised(text)


def _normalised(text: str) -> str:
    for _ in range(_ROUNDS):
        if _PLAIN.fullmatch(text):
            words = text.lower().replace(",", " ").rstrip(" .?\n\t\r").split()
            if _SPECIAL.isdisjoint(words) and all(
                len(word) > 1 or word in "ai" for word in words[:-1]
            ):
                return " ".join(_without_articles(words))
        next_text = _step(text)
        if next_text == text:
            break
        text = next_text
    return text


def _step(text: str) -> str:
    """Return the text one round nearer to its normal form.

    A rule may make room for another, so there are several.
    """
    text = _PRIVATE.sub("", folded(text))
    bare = text
    if not text.isascii() and _PLAIN.fullmatch(text):
        return text
    if "*" in text or "_" in text or "~~" in text:
        text = _EMPHASIS.sub(r"\2", text)
    if "answer" in text:
        text = _ANSWER_IS.sub("", text)
    has_figure = _FIGURE.search(text) is not None
    if has_figure or not WORDS.isdisjoint(_WORD.findall(text)):
        text = figures(_NUMBERED.sub("no ", text))
        has_figure = _FIGURE.search(text) is not None
    if _HAS_SYMBOL.search(text):
        text = _hold_symbols(text)
    if _HAS_JOINT.search(text):
        text = _joined(text).replace("'", "")
    if has_figure:
        text = _BETWEEN_FIGURES.sub(" \ue006 ", text)
    text = _LOOSE.sub(" ", _PUNCTUATION.sub(" ", text))
    text = _LOOSE_SYMBOL.sub(" ", text).replace("\ue006", ",")
    text = " ".join(text.split())
    if not text.isascii():
        text = _WIDE_SPACE.sub("", text)
    text = _ROMAN_LETTER.sub(_roman, _ROMAN.sub(_roman, text))
    if has_figure:
        text = _NTH.sub(r"\1", _FIRST_NUMBERED.sub("", text))
    words = _without_articles([_GREEK.get(word, word) for word in text.split()])
    return " ".join(words).translate(_HELD) or _alone(bare)


def _hold_symbols(text: str) -> str:
    """Return the text with the symbols that make a name, or a sign, held by private characters."""
    text = _NOTE.sub(lambda m: f"{m[1]}{'#' if m[2] == 'sharp' else '♭'}", text)
    text = _BLOOD.sub(lambda m: f"{m[1]}{'+' if m[2].startswith('pos') else '-'}", text)
    text = _SPACED_PLUS.sub("", text)
    text = _AFTER_LETTER.sub(lambda m: "".join(_HOLD[symbol] for symbol in m[1]), text)
    text = _AFTER_DIGIT.sub(_HOLD["+"], text)
    text = _MINUS_NAME.sub(lambda m: m[1] + _HOLD["-"] * len(m[2]), text)
    text = _STAR_NAME.sub(rf"\1{_HOLD['*']}", text)
    text = _FACTORIAL.sub(rf"\1{_HOLD['!']}", text)
    text = _INSIDE.sub(_HOLD["!"], text)
    text = _DOT_NAME.sub(_HOLD["."], text)
    text = _NEGATIVE.sub(_HOLD["-"], text)
    text = _PLUS_SIGN.sub(f" {_HOLD['+']} ", text)
    text = _POWER_OF_LETTER.sub("", text)
    return _RELATION.sub(r" \1 ", text)


def _joined(text: str) -> str:
    """Return the text with words that are written in several ways in one: D. C., e-mail, R&B."""
    text = _AND.sub(" and ", _N.sub(" and ", text))
    text = _MOUNT.sub(lambda m: _SPELT_OUT[m[1]], text)
    text = _INITIALS.sub(lambda m: m[0].replace(".", "").replace(" ", ""), text)
    text = _DOT_WITHIN.sub("", text)
    text = _SLASH_WITHIN.sub(r"\1\2", text)
    text = _PREFIX.sub(r"\1", text)
    text = _SHORT_MODEL.sub(_short_model, text)
    text = _LETTER_AFTER.sub("", text)
    return _WORD_AFTER.sub(r"\1 ", _LONG_MODEL.sub(r"\1 ", text))


def _short_model(match: re.Match[str]) -> str:
    """Join "B-52", and "B 52", but not "in 1999"."""
    return (
        match[1]
        if match[0].endswith("-") or (len(match[1]) == 1 and match[1] not in "ai")
        else match[0]
    )


def _roman(match: re.Match[str]) -> str:
    """Return a numeral below 50 in digits."""
    values = [_ROMAN_VALUES[letter] for letter in match[0]]
    followed = zip(values, [*values[1:], 0], strict=True)
    return (
        str(sum(-value if value < after else value for value, after in followed)) if values else ""
    )


def _without_articles(words: list[str]) -> list[str]:
    """Return the words less the articles that stand before a word.

    "A", "Vitamin A" and "The The" keep theirs.
    """
    kept: list[str] = []
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        is_letter = word == "a" and ((kept and kept[-1] in _LETTERED) or following in _NO_NOUN)
        if word not in _ARTICLES or not following or is_letter:
            kept.append(word)
    says_more = kept == ["a"] or any(word not in _ARTICLES for word in kept)
    return kept if says_more else words


def _alone(text: str) -> str:
    """Return the symbols of a text that has no words.

    The answer to "Which sign stands for a sum?" is "+".
    """
    return "".join(_SYMBOLS_ALONE.findall(text)) if _ONLY_SYMBOL.search(text) else ""
