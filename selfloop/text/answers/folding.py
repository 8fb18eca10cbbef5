"""One spelling for each character: compatibility forms, letter case, accents, quotes, dashes,
digits, invisible ones.

Accents of Latin and Greek letters are dropped, for a model asked in English writes "Sao Paulo" as
often as "São Paulo", and two answers to one question hardly ever differ in an accent alone. Marks
that make another letter stay: the й of Russian, the voiced kana of Japanese, the vowels of Indic
scripts.
"""

import re
from unicodedata import combining, decimal, normalize

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
_POWER = re.compile(f"(?<=[0-9)])([{_SUPERSCRIPTS}]+)")
_VULGAR = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")
_ONE_FOR_ONE = {
    "’": "'", "‘": "'", "‛": "'", "`": "'", "´": "'", "ʻ": "'", "ʼ": "'", "ʹ": "'", "′": "'",
    "＇": "'", "‚": "'",
    "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"', "″": '"', "‹": '"', "›": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "﹣": "-",
    "⁄": "/", "∕": "/", "٪": "%", "٫": ".", "٬": ",", "،": ",", "؛": ";", "؟": "?", "。": ".",
    "、": ",",
    "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ħ": "h",
    "ŧ": "t",
    "ي": "ی", "ى": "ی", "ك": "ک", "ـ": "", "♯": "#", "ς": "σ", "™": "", "®": "", "©": "",
    "…": "...", "№": "no ",
    "µ": "μ", "·": "・", "•": " ",
}  # fmt: skip
_MAP = str.maketrans(_ONE_FOR_ONE)
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_LATIN_MARKS = re.compile("(?<=[a-z\u03b1-\u03c9])[\u0300-\u036f]+")
_CYRILLIC_STRESS = re.compile("(?<=[аеиоуыэюяіє])[\u0300\u0301]+")
_YO = re.compile("е\u0308")
_VOWEL_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0655\u0670]")


def folded(text: str) -> str:
    """Return `text` in lower case, with one character for each group of look-alikes.

    White space is single.
    """
    if text.isascii():
        return " ".join(text.lower().replace("`", "'").split())
    text = _POWER.sub(lambda match: "^" + match[1], _VULGAR.sub(" ", text))
    for _ in range(3):  # folding the case of a decomposed text may compose and decompose it anew
        text = _INVISIBLE.sub("", text.translate(_MAP))
        text = normalize("NFKD", text).casefold()
    text = normalize("NFKD", text).translate(_MAP)
    text = _YO.sub("е", _CYRILLIC_STRESS.sub("", _LATIN_MARKS.sub("", text)))
    text = _VOWEL_POINTS.sub("", text)
    text = normalize("NFKC", _ordered(text))
    return " ".join("".join(map(_digit, text)).translate(_MAP).split())


def _ordered(text: str) -> str:
    """Return a decomposed text without the marks that it begins with: they belong to no letter."""
    start = 0
    while start < len(text) and combining(text[start]):
        start += 1
    return text[start:]


def _digit(char: str) -> str:
    if char.isascii():
        return char
    value = decimal(char, None)
    return char if value is None else str(value)
