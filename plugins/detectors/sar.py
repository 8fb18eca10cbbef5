"""SAR: how unlikely the samples are, less where others back them up.

Duan et al. 2023, arXiv 2307.01379.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

from annotated_types import Gt, Le

from selfloop import Claim, Component, hookimpl

from ._claims import PerClaimDetector, sample_logprobs, sample_meanings
from ._similarity import similarity


class SentSar(PerClaimDetector):
    """Confidence is the mean over the M samples of (t · p_i + Σ_j≠i g_ij · p_j) / (t + M − 1).

    The mean is geometric. Up to the constant t / (t + M − 1), which brings it into [0, 1], that is
    exp(−U) of the paper's sentSAR: U = −(1/M) Σ_i log(p_i + (1/t) Σ_j≠i g_ij · p_j), p_i = p(s_i |
    x). It is high where likely samples resemble one another.

    It is the cheap part of SAR alone: tokens are not weighed by relevance. The similarity g_ij is
    the F1 of the two texts' words, where the paper has a cross-encoder; it is 1 for one meaning,
    and 0 between a sample that declines and one that does not. Uncalibrated. It judges the
    question, not the answer. It abstains with fewer than two samples.
    """

    name = "sar"

    def __init__(self, *, t: Annotated[float, Gt(0), Le(1)] = 0.001) -> None:
        self._t = t

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the confidence for the claim's question."""
        meanings = sample_meanings(claim)
        logprobs = sample_logprobs(claim.samples)
        # for each sample the logs of the terms of its sum: its own, then one for each like sample
        terms = [[math.log(self._t) + logprob] for logprob in logprobs]
        for i, j in combinations(range(len(logprobs)), 2):
            # g is the same in both directions
            alike = similarity(meanings[i], meanings[j])
            if alike:
                terms[i].append(math.log(alike) + logprobs[j])
                terms[j].append(math.log(alike) + logprobs[i])
        # in logs throughout: probabilities of whole texts are too small for floats
        mean = sum(map(_log_sum_exp, terms)) / len(logprobs)
        level = mean - math.log(self._t + len(logprobs) - 1)
        return min(math.exp(level), 1.0), f"like samples have a mean log-probability of {level:.2f}"


def _log_sum_exp(logs: Sequence[float]) -> float:
    """Return log Σ exp(log), also where exp would be 0."""
    highest = max(logs)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(log - highest) for log in logs))


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how likely the samples are that are alike"
    needs = frozenset({"logprobs"})
    paper = "https://arxiv.org/abs/2307.01379"
    return [Component("sar", SentSar, doc=doc, needs=needs, paper=paper)]
