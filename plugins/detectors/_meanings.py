"""Which of a question's samples mean the same: by their words, by one holding the other, or by asking the model."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal

from selfloop import Claim, Judging
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError
from selfloop.records import Continuation

from ._claims import meaning

Same = Literal["text", "alias", "model", "nli"]
Entails = Callable[[Sequence[tuple[str, str]]], list[bool]]
CHOICES = (" Yes", " No")


def meanings(
    claims: Sequence[Claim], judging: Judging, same: Same, entails: Entails | None = None
) -> list[list[str]]:
    """Return for each claim the meaning of each sample: the text of the first sample that means the
    same.

    `text`: the normalised texts are equal. `alias`: the words of one are found in the other, in
    order and side by side ("da Vinci", "Leonardo da Vinci"). `model`: the model finds " Yes"
    likelier than " No" when asked whether the two are the same answer to the question; all pairs
    are read in one call, and what it cannot read differs. Texts that decline are one meaning, the
    empty text. `nli`: each follows from the other, both said after the question, by `entails` (Kuhn
    et al. 2023, arXiv 2302.09664).
    """
    texts = [[meaning(sample.text) for sample in claim.samples] for claim in claims]
    if same == "text":
        return texts
    if same == "alias":
        alike = _alias
    else:
        alike = _following(claims, texts, entails) if entails else _asked(claims, texts, judging)
    return [_clustered(own, lambda a, b, k=k: alike(k, a, b)) for k, own in enumerate(texts)]  # type: ignore[misc]


def _clustered(texts: Sequence[str], alike: Callable[[str, str], bool]) -> list[str]:
    """Return each text's cluster, named by its first; one is compared with the first of each (Kuhn et al. 2023)."""
    firsts: list[str] = []
    named: dict[str, str] = {"": ""}
    for text in texts:
        if text not in named:
            named[text] = next((first for first in firsts if alike(first, text)), text)
            firsts += [text] if named[text] == text else []
    return [named[text] for text in texts]


def _alias(claim: int, one: str, other: str) -> bool:
    return f" {one} " in f" {other} " or f" {other} " in f" {one} "


def _pairs(texts: Sequence[Sequence[str]]) -> list[tuple[int, str, str]]:
    """Return each two distinct texts of a claim that say something, with the claim's number."""
    distinct = [[text for text in dict.fromkeys(own) if text] for own in texts]
    return [
        (k, one, other) for k, own in enumerate(distinct) for one, other in combinations(own, 2)
    ]


def _following(
    claims: Sequence[Claim], texts: Sequence[Sequence[str]], entails: Entails
) -> Callable[[int, str, str], bool]:
    pairs = _pairs(texts)
    said = [
        (f"{claims[k].question.text} {one}", f"{claims[k].question.text} {other}")
        for k, one, other in pairs
    ]
    there, back = entails(said), entails([(other, one) for one, other in said])
    both = {pair: a and b for pair, a, b in zip(pairs, there, back, strict=True)}
    return lambda k, one, other: both[k, one, other]


def _asked(
    claims: Sequence[Claim], texts: Sequence[Sequence[str]], judging: Judging
) -> Callable[[int, str, str], bool]:
    pairs = _pairs(texts)
    prompts = [
        judging.prompt("same_answer", question=claims[k].question.text, one=a, other=b)
        for k, a, b in pairs
    ]
    read = iter(
        judging.backend.loglikelihood(
            [Continuation(p, choice, is_open(p)) for p in prompts for choice in CHOICES]
        )
    )
    said = {pair: _likelier(yes, no) for pair, yes, no in zip(pairs, read, read, strict=True)}
    return lambda k, one, other: said[k, one, other]


def _likelier(yes: tuple[float, ...] | RequestError, no: tuple[float, ...] | RequestError) -> bool:
    if isinstance(yes, RequestError) or isinstance(no, RequestError):
        return False
    return math.fsum(yes) > math.fsum(no)  # never so where one is not a number
