"""Echo: an answer in nothing but the question's own words says nothing of what the model knows."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from selfloop import Claim, Component, hookimpl
from selfloop.text.answers import declines
from selfloop.text.patterns import pattern

from ._claims import Abstain, OneByOne

UNTOLD = 0.5

_WORD = pattern(r"[^\W_]+(?:['’][^\W_]+)*['’]?")
# scripts without spaces
_WIDE = pattern(r"[\u0e00-\u0eff\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
_ASKING = pattern(
    r"what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can|could|will|would|should"
)
# Words that carry nothing of an answer by themselves.
_FUNCTION = pattern(
    r"a|an|the|is|are|was|were|be|been|do|does|did|has|have|had|in|on|at|of|to|for|from|by|with|as|and|or|it|its|he|she"
    r"|they|his|her|their|this|that|these|those|there|called|named|name"
)
_OR = pattern(
    r"\b(?:or|oder|ou|или|lub|albo|veya|atau|eller)\b|还是|還是|それとも|또는|아니면|หรือ",
    re.IGNORECASE,
)
# "which of A and B", "between A and B, which", "which is larger between A and B", "who won, A vs B"
_AMONG = pattern(
    r"\b(?:which|who) "
    r"of\b|^\W*(?:of|between)\b.*\b(?:which|who)\b|\b(?:which|who)\b.*\b(?:vs|versus)\b"
    r"|\b(?:which|who) (?:one |\w+ )?(?:is|was|are|has|won|came)\b.*\bbetween\b",
    re.IGNORECASE,
)
_ALTERNATIVE = pattern(r"\b(?:and|vs|versus)\b", re.IGNORECASE)
_BREAK = pattern(r"[,;:?!()—–]|\s-\s")
# Questions about the form of a word have an answer that looks like it.
_FORM = pattern(
    r"\b(?:plural|singular|tense|participle|gerund|infinitive|comparative|superlative|noun|verb|adjective|adverb|spell"
    r"|spelled|spelt|spelling|anagram|abbreviat\w+|lower ?case|upper ?case|rhymes?)\b",
    re.IGNORECASE,
)


class Echo(OneByOne):
    """Confidence is 0.5 if every word of the answer stands in the question ("What sport is
    baseball? Baseball").

    Neither true nor made up: with thresholds around 0.5 it stays undecided, and nothing is taught
    of it. Likelihoods and agreement favour such answers, for words that are in view are easy to
    say. List it last, for the last verifier that can tell decides; it abstains from all other
    answers.

    Words are compared without case, accents, and the endings of plurals, possessives and verbs
    ("What is Hermes's name? Hermes"). It abstains where the answer is one that the question offers
    to choose from ("Is Mars or Venus larger? Venus"), where the question is about the form of a
    word ("What is the plural of sheep?"), and where names of the question stand in a new order
    ("What is the capital city of Mexico? Mexico City"). A right one goes as well ("What is the
    capital of Singapore?").
    """

    name = "echo"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return 0.5, or abstain."""
        if not echoes(claim.question.text, claim.answer.text):
            raise Abstain("the answer says something that the question does not")
        return UNTOLD, "the answer only says words of the question again"


def echoes(question: str, answer: str) -> bool:
    """Return whether an answer has words, and none but those of the question, which offers it as no choice."""
    said = _words(answer)
    if not said or declines(answer) or _FORM.search(question):
        return False
    if _WIDE.search(answer):
        return "".join(said) in "".join(_words(question)) and not _OR.search(question)
    asked = _words(question)
    told = [word for word in said if not _FUNCTION.fullmatch(word)] or said
    if not _covered(told, asked) or _is_new_name(answer, question):
        return False
    return not any(_covered(told, choice) for choice in _choices(question))


def _covered(words: list[str], among: list[str]) -> bool:
    """Return whether each of the words, in some form, is among the others: apart, or written as one or two words."""
    forms = set[str]().union(*map(_forms, among), *(_forms(a + b) for a, b in pairwise(among)))
    return all(forms & _forms(word) for word in words) or bool(forms & _forms("".join(words)))


def _words(text: str) -> list[str]:
    """Return the words of a text without case, accents and possessives; a hyphen parts two."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    if not text.isascii():
        plain = unicodedata.normalize("NFC", plain)
    return [re.sub(r"['’]s?$", "", word).replace("’", "'") for word in _WORD.findall(plain)]


def _forms(word: str) -> set[str]:
    """Return a word with and without the endings of plurals and verbs; words of three letters have none."""
    found = {word}
    for ending, instead in (
        ("s", ""),
        ("es", ""),
        ("ies", "y"),
        ("ed", ""),
        ("ed", "e"),
        ("ing", ""),
        ("ing", "e"),
    ):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            stem = word.removesuffix(ending)
            found.add(stem + instead)
            if ending in ("ed", "ing") and len(stem) > 3 and stem[-1] == stem[-2]:
                found.add(stem[:-1])  # swimming, swim
    return found


def _is_new_name(answer: str, question: str) -> bool:
    """Return whether an answer is a name of several words which does not stand so in the question."""
    names = [word for word in _WORD.findall(answer) if word.lower() not in ("a", "an", "the", "of")]
    if len(names) < 2 or not all(name[0].isupper() for name in names):
        return False
    said, asked = _words(" ".join(names)), _words(question)
    together = (asked[i : i + len(said)] for i in range(len(asked)))
    apart = not any(_covered(said, window) and len(window) == len(said) for window in together)
    return apart and not _FUNCTION.fullmatch(said[0])


def _choices(question: str) -> Iterator[list[str]]:
    """Yield the words of each answer that a question offers: what stands beside "or", and in a list before it."""
    if (at := _OR.search(question)) is None:
        yield from _pair(question)
        return
    before, after = question[: at.start()], question[at.end() :]
    *listed, last = _BREAK.split(before)
    for part in listed:
        words = _words(part)
        if words and not any(map(_ASKING.fullmatch, words)):
            yield words
    yield _beside(list(reversed(_words(last)))) if _has_asking(last) else _words(last)
    yield _beside(_words(_BREAK.split(after.lstrip(" ,"))[0]))


def _pair(question: str) -> Iterator[list[str]]:
    """Yield the two sides of "and" or "versus" where a question asks which of them."""
    at = _ALTERNATIVE.search(question)
    if at and _AMONG.search(question):
        before, after = (
            _BREAK.split(question[: at.start()])[-1],
            _BREAK.split(question[at.end() :].lstrip(" .,"))[0],
        )
        yield _beside(list(reversed(_words(before))))
        yield _beside(_words(after))


def _has_asking(text: str) -> bool:
    return any(map(_ASKING.fullmatch, _words(text)))


def _beside(words: list[str]) -> list[str]:
    """Return the words from the first up to the next one that carries nothing; articles at the beginning are passed."""
    found = list[str]()
    for word in words:
        if _FUNCTION.fullmatch(word) or _ASKING.fullmatch(word):
            if found or word not in ("a", "an", "the"):
                break
            continue
        found.append(word)
    return found


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    return [
        Component("echo", Echo, doc="leaves undecided what only says the question's words again")
    ]
