"""Whole sentences of a text."""

from selfloop.text.answers import normalise
from selfloop.text.patterns import pattern

SENTENCE_ENDS = ".!?。！？؟।"
# "Dr. No" and "J. K. Rowling" have a full stop that ends no sentence
_ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "St", "Mt", "Jr", "ca")
_NOT_ABBREVIATED = r"(?<!\b\w\.)" + "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATIONS)
# A sentence ends at its mark and the quotes after it, before white space. In scripts that put no
# space there it ends at its mark.
_BREAK = pattern(rf"(?<=[.!?؟।])(?:{_NOT_ABBREVIATED})\s+|(?<=[.!?][\"”’)])\s+|(?<=[。！？])\s*")


def whole_sentences(text: str) -> list[str]:
    """Return the whole sentences of a text, each once; an unfinished last one is left out.

    Of several with the same words the spelling of the first stands at the place of the last.
    """
    parts = [part.strip() for part in _BREAK.split(" ".join(text.split()))]
    sentences = [part for part in parts if part]
    if sentences and not sentences[-1].rstrip('"”’)').endswith(tuple(SENTENCE_ENDS)):
        sentences.pop()
    by_words: dict[str, str] = {}
    for sentence in reversed(sentences):
        by_words[normalise(sentence) or sentence] = sentence
    return list(reversed(by_words.values()))
