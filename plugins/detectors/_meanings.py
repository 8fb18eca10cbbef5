"""Which of a question's samples mean the same, and over how many meanings they scatter."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from selfloop_plugins._shared.meaning import meaning

from selfloop import Claim, VerifyContext
from selfloop.errors import RequestError

from ._reading import choice_texts

Same = Literal["text", "alias", "model", "nli"]
Entails = Callable[[Sequence[tuple[str, str]]], list[bool]]
AreAlike = Callable[[str, str], bool]
# with the space that a tokenizer puts before a word
CHOICES = (" Yes", " No")


def meanings(
    claims: Sequence[Claim], context: VerifyContext, same: Same, entails: Entails | None = None
) -> list[list[str]]:
    """Return for each claim the meaning of each sample, named by the first sample with it.

    `text`: two samples mean the same if their normalised texts are equal.
    `alias`: the words of one stand in the other, in order and side by side ("da Vinci", "Leonardo
    da Vinci").
    `model`: the model finds " Yes" likelier than " No" when asked whether the two are the same
    answer to the question. All pairs are read in one call; those that it cannot read differ.
    `nli`: each follows from the other by `entails`, both said after the question (Kuhn et al. 2023,
    arXiv 2302.09664).

    All texts that decline have one meaning, the empty text.
    """
    texts = [_sample_texts(claim) for claim in claims]
    if same == "text":
        return texts
    if same == "alias":
        return [_clustered(claim_texts, _is_alias) for claim_texts in texts]
    # the costly ways look at all pairs of all claims at once, so that they make one call
    pairs = _pairs(texts)
    alike = (
        _entailing_pairs(claims, pairs, entails)
        if entails
        else _pairs_the_model_finds_alike(claims, pairs, context)
    )
    return [
        _clustered(claim_texts, _PairLookup(index, alike))
        for index, claim_texts in enumerate(texts)
    ]


def _sample_texts(claim: Claim) -> list[str]:
    return [meaning(sample.text) for sample in claim.samples]


def entropy_confidence(
    meanings: Sequence[str], weights: Sequence[float]
) -> tuple[float, float, int]:
    """Return 1 − U / log M, the entropy U (nats) of M samples over meanings, and their number.

    `weights` are the samples' shares of probability, up to a common factor.
    """
    # the probability of a meaning is that of all its wordings
    masses: dict[str, float] = defaultdict(float)
    for name, weight in zip(meanings, weights, strict=True):
        masses[name] += weight
    whole = sum(masses.values())
    shares = [mass / whole for mass in masses.values()]
    entropy = -sum(share * math.log(share) for share in shares if share > 0)
    # log M is the entropy of M samples that all mean something else
    confidence = 1 - entropy / math.log(len(meanings))
    # rounding may leave the range by a little
    return min(max(confidence, 0.0), 1.0), abs(entropy), len(masses)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two distinct texts that samples of one claim have; `claim` is the claim's position."""

    claim: int
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class _PairLookup:
    """Tells whether two texts of one claim are alike, from the results for all pairs."""

    claim: int
    alike: Mapping[Pair, bool]

    def __call__(self, first: str, second: str) -> bool:
        return self.alike[Pair(self.claim, first, second)]


def _clustered(texts: Sequence[str], are_alike: AreAlike) -> list[str]:
    """Return each text's cluster, named by its first text.

    A text is compared with the first of each cluster only (Kuhn et al. 2023), so that the result
    depends on the order of the samples, but the cost is one comparison a cluster.
    """
    heads: list[str] = []
    cluster_of: dict[str, str] = {"": ""}  # texts that decline are a cluster of their own
    for text in texts:
        if text in cluster_of:
            continue
        head = next((head for head in heads if are_alike(head, text)), None)
        if head is None:
            heads.append(text)
        cluster_of[text] = text if head is None else head
    return [cluster_of[text] for text in texts]


def _is_alias(first: str, second: str) -> bool:
    # the spaces keep "Rome" out of "Jerome"
    return f" {first} " in f" {second} " or f" {second} " in f" {first} "


def _pairs(texts: Sequence[Sequence[str]]) -> list[Pair]:
    """Return each two distinct texts of a claim that say something, first seen first."""
    pairs: list[Pair] = []
    for index, claim_texts in enumerate(texts):
        distinct = [text for text in dict.fromkeys(claim_texts) if text]
        pairs += [Pair(index, first, second) for first, second in combinations(distinct, 2)]
    return pairs


def _entailing_pairs(
    claims: Sequence[Claim], pairs: Sequence[Pair], entails: Entails
) -> dict[Pair, bool]:
    """Return for each pair whether each of its texts follows from the other."""
    forward = []
    for pair in pairs:
        question = claims[pair.claim].question.text
        forward.append((f"{question} {pair.first}", f"{question} {pair.second}"))
    # one direction alone would make "Paris" and "Paris or Rome" the same
    backward = [(second, first) for first, second in forward]
    follows, leads = entails(forward), entails(backward)
    return {pair: a and b for pair, a, b in zip(pairs, follows, leads, strict=True)}


def _pairs_the_model_finds_alike(
    claims: Sequence[Claim], pairs: Sequence[Pair], context: VerifyContext
) -> dict[Pair, bool]:
    """Return for each pair whether the model calls its texts the same answer."""
    prompts = [
        context.prompt(
            "same_answer",
            question=claims[pair.claim].question.text,
            one=pair.first,
            other=pair.second,
        )
        for pair in pairs
    ]
    results = context.backend.loglikelihood(choice_texts(prompts, CHOICES))
    # each prompt has two results in a row: that of " Yes", then that of " No"
    return {
        pair: _is_likelier(yes, no)
        for pair, yes, no in zip(pairs, results[::2], results[1::2], strict=True)
    }


def _is_likelier(
    yes: tuple[float, ...] | RequestError, no: tuple[float, ...] | RequestError
) -> bool:
    if isinstance(yes, RequestError) or isinstance(no, RequestError):
        return False
    return math.fsum(yes) > math.fsum(no)  # never where one is not a number
