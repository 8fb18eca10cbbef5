"""SAR: how unlikely the samples are, less where others back them up (Duan et al.

2023, arXiv 2307.01379).
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

from annotated_types import Gt, Le

from selfloop import Claim, Component, hookimpl

from ._claims import OneByOne, logs, scattered
from ._similarity import alike


class SentSar(OneByOne):
    """Confidence is the geometric mean over the M samples of (t · p_i + Σ_j≠i g_ij · p_j) / (t + M
    − 1). Uncalibrated.

    Up to the constant t / (t + M − 1), which brings it into [0, 1], that is exp(−U) of the paper's
    sentSAR, where U = −(1/M) Σ_i log(p_i + (1/t) Σ_j≠i g_ij · p_j), p_i = p(s_i | x). So it is how
    likely the samples are that are like a sample. It is the cheap part of SAR alone: tokens are not
    weighed by relevance, and the similarity g_ij is the F1 of the two texts' words (1 if they mean
    the same, 0 between one that declines and one that does not), where the paper has a
    cross-encoder. About the question, not the answer. It abstains with fewer than two samples.
    """

    name = "sar"

    def __init__(self, *, t: Annotated[float, Gt(0), Le(1)] = 0.001) -> None:
        self._t = t

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's question."""
        texts, given = scattered(claim), logs(claim.samples)
        backed = [[math.log(self._t) + log] for log in given]
        for i, j in combinations(range(len(given)), 2):
            if near := alike(texts[i], texts[j]):
                backed[i].append(math.log(near) + given[j])
                backed[j].append(math.log(near) + given[i])
        level = sum(map(_log_of_sum, backed)) / len(given) - math.log(self._t + len(given) - 1)
        return min(math.exp(level), 1.0), f"like samples have a mean log-probability of {level:.2f}"


def _log_of_sum(logs: Sequence[float]) -> float:
    """Return log Σ exp(log), also where exp would be 0."""
    top = max(logs)
    return (
        top + math.log(math.fsum(math.exp(log - top) for log in logs)) if top > -math.inf else top
    )


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "how likely the samples are that are alike", frozenset({"logprobs"})
    return [
        Component("sar", SentSar, doc=doc, needs=needs, paper="https://arxiv.org/abs/2307.01379")
    ]
