"""Does an answer only repeat words of its question? English rules, with a few words of others."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

from selfloop.text.answers import declines
from selfloop.text.patterns import pattern

_WORD = pattern(r"[^\W_]+(?:['’][^\W_]+)*['’]?")
# scripts without spaces between words: Thai, Lao, Chinese, Japanese, Korean
_UNSPACED_SCRIPT = pattern(r"[\u0e00-\u0eff\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
_QUESTION_WORD = pattern(
    r"what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can"
    r"|could|will|would|should"
)
# words that carry nothing of an answer by themselves
_FUNCTION_WORD = pattern(
    r"a|an|the|is|are|was|were|be|been|do|does|did|has|have|had|in|on|at|of|to|for|from|by|with|as"
    r"|and|or|it|its|he|she|they|his|her|their|this|that|these|those|there|called|named|name"
)
_OR = pattern(
    r"\b(?:or|oder|ou|или|lub|albo|veya|atau|eller)\b|还是|還是|それとも|또는|아니면|หรือ",
    re.IGNORECASE,
)
# "which of A and B", "between A and B, which", "which is larger between A and B", "who won, A vs B"
_OFFERS_TWO = pattern(
    r"\b(?:which|who) of\b|^\W*(?:of|between)\b.*\b(?:which|who)\b"
    r"|\b(?:which|who)\b.*\b(?:vs|versus)\b"
    r"|\b(?:which|who) (?:one |\w+ )?(?:is|was|are|has|won|came)\b.*\bbetween\b",
    re.IGNORECASE,
)
_AND_OR_VERSUS = pattern(r"\b(?:and|vs|versus)\b", re.IGNORECASE)
_CLAUSE_BREAK = pattern(r"[,;:?!()—–]|\s-\s")
# questions about the form of a word have an answer that looks like it
_ASKS_FOR_WORD_FORM = pattern(
    r"\b(?:plural|singular|tense|participle|gerund|infinitive|comparative|superlative|noun|verb"
    r"|adjective|adverb|spell|spelled|spelt|spelling|anagram|abbreviat\w+|lower ?case|upper ?case"
    r"|rhymes?)\b",
    re.IGNORECASE,
)
# an ending of plurals and verbs, and the letters in its place without it
_ENDINGS = (
    ("s", ""),
    ("es", ""),
    ("ies", "y"),
    ("ed", ""),
    ("ed", "e"),
    ("ing", ""),
    ("ing", "e"),
)
MIN_STEM_LETTERS = 3


def echoes(question: str, answer: str) -> bool:
    """Return whether an answer has words, and only words of the question.

    An answer that the question offers as a choice is not an echo, nor is a new name made of the
    question's words ("Mexico City"), nor the answer to a question about the form of a word.
    """
    answer_words = _words(answer)
    if not answer_words or declines(answer) or _ASKS_FOR_WORD_FORM.search(question):
        return False
    question_words = _words(question)
    if _UNSPACED_SCRIPT.search(answer):
        # words cannot be told apart, so the whole answer must stand in the question
        stands_in_it = "".join(answer_words) in "".join(question_words)
        return stands_in_it and not _OR.search(question)
    content_words = [word for word in answer_words if not _FUNCTION_WORD.fullmatch(word)]
    content_words = content_words or answer_words
    if not _covers(question_words, content_words) or _is_new_name(answer, question):
        return False
    return not any(_covers(choice, content_words) for choice in _choices(question))


def _covers(available: Sequence[str], words: Sequence[str]) -> bool:
    """Return whether each of `words`, in some form, is available: apart, or joined in one word."""
    forms: set[str] = set()
    for word in available:
        forms |= _forms(word)
    for first, second in pairwise(available):
        forms |= _forms(first + second)  # "base ball" covers "baseball"
    each_is_covered = all(forms & _forms(word) for word in words)
    return each_is_covered or bool(forms & _forms("".join(words)))


def _words(text: str) -> list[str]:
    """Return the words of a text without case, accents and possessives; a hyphen parts two."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    if not text.isascii():
        # NFKD takes Korean syllables apart; put them together again
        plain = unicodedata.normalize("NFC", plain)
    return [re.sub(r"['’]s?$", "", word).replace("’", "'") for word in _WORD.findall(plain)]


def _forms(word: str) -> set[str]:
    """Return a word with and without endings of plurals and verbs; short words have one form."""
    forms = {word}
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= MIN_STEM_LETTERS:
            stem = word.removesuffix(ending)
            forms.add(stem + replacement)
            is_doubled = len(stem) > MIN_STEM_LETTERS and stem[-1] == stem[-2]
            if ending in ("ed", "ing") and is_doubled:
                forms.add(stem[:-1])  # swimming, swim
    return forms


def _is_new_name(answer: str, question: str) -> bool:
    """Return whether an answer is a name of several words that the question does not contain."""
    articles = ("a", "an", "the", "of")
    names = [word for word in _WORD.findall(answer) if word.lower() not in articles]
    if len(names) < 2 or not all(name[0].isupper() for name in names):
        return False
    name_words = _words(" ".join(names))
    question_words = _words(question)
    for start in range(len(question_words)):
        window = question_words[start : start + len(name_words)]
        if len(window) == len(name_words) and _covers(window, name_words):
            return False
    return not _FUNCTION_WORD.fullmatch(name_words[0])


def _choices(question: str) -> Iterator[list[str]]:
    """Yield the words of each answer that a question offers.

    They stand on both sides of "or", and in the list before it.
    """
    conjunction = _OR.search(question)
    if conjunction is None:
        yield from _choices_of_two(question)
        return
    before, after = question[: conjunction.start()], question[conjunction.end() :]
    *listed, last = _CLAUSE_BREAK.split(before)
    for part in listed:
        words = _words(part)
        if words and not _has_question_word(words):
            yield words
    last_words = _words(last)
    if _has_question_word(last_words):
        # "Is Mars or Venus larger?": the choice is next to "or", read from there to the left
        yield _leading_phrase(last_words[::-1])
    else:
        yield last_words
    yield _leading_phrase(_words(_CLAUSE_BREAK.split(after.lstrip(" ,"))[0]))


def _choices_of_two(question: str) -> Iterator[list[str]]:
    """Yield the two sides of "and" or "versus" where a question asks which of them."""
    conjunction = _AND_OR_VERSUS.search(question)
    if not conjunction or not _OFFERS_TWO.search(question):
        return
    before = _CLAUSE_BREAK.split(question[: conjunction.start()])[-1]
    after = _CLAUSE_BREAK.split(question[conjunction.end() :].lstrip(" .,"))[0]
    yield _leading_phrase(_words(before)[::-1])
    yield _leading_phrase(_words(after))


def _has_question_word(words: Sequence[str]) -> bool:
    return any(_QUESTION_WORD.fullmatch(word) for word in words)


def _leading_phrase(words: Sequence[str]) -> list[str]:
    """Return the words up to the next function or question word, less articles at the start."""
    phrase: list[str] = []
    for word in words:
        if _FUNCTION_WORD.fullmatch(word) or _QUESTION_WORD.fullmatch(word):
            if phrase or word not in ("a", "an", "the"):
                break
            continue
        phrase.append(word)
    return phrase
