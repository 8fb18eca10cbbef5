"""`answer.samples: auto`: samples only where one answer does not settle the decision.

Some questions of a round get samples in any case. They are drawn by chance, so that detectors can
fit their scale on them (`combined` does). The detectors then judge the one answer of each other
question. Those whose confidence is nearest to a threshold get samples too, as far as a quarter of
the round's questions has some, and so do those on which every detector abstains.
"""

import math
from collections.abc import Sequence

from selfloop.records import Attempt, Verdict
from selfloop.steps.claims import draft_claim
from selfloop.steps.context import RoundContext
from selfloop.steps.verify import Results, judge

SAMPLES = 8  # of a question that gets any
SHARE = 0.25  # of the questions of a round that get samples, unless detectors abstain
DRAWN = 40  # questions that get samples by chance: enough for `combined` to fit its weights
MIN_CONFIDENCE = 1e-6  # so that the log-odds are finite


def drawn_by_chance(context: RoundContext, attempts: Sequence[Attempt]) -> set[int]:
    """Return the indices of the questions that get samples in any case."""
    live = [i for i, attempt in enumerate(attempts) if attempt.live]
    # by the id of the question: the same ones in any order
    live.sort(key=lambda i: context.seed("auto samples", attempts[i].question.id))
    return set(live[:DRAWN])


def unsettled(context: RoundContext, attempts: Sequence[Attempt], sampled: set[int]) -> set[int]:
    """Return the indices of further questions that get samples; `sampled` have them already."""
    live = [i for i, attempt in enumerate(attempts) if attempt.live]
    if len(live) == len(sampled):
        return set()
    claims = [draft_claim(attempts[i]) for i in live]
    results = judge(context, context.parts.detectors, claims)
    without_confidence: set[int] = set()
    distances: dict[int, float] = {}
    for i, of_claim in zip(live, results, strict=True):
        if i in sampled:
            continue
        confidence = _last_confidence(of_claim)
        if confidence is None:
            without_confidence.add(i)
        else:
            distances[i] = _distance(context, confidence)
    budget = max(0, round(SHARE * len(live)) - len(sampled) - len(without_confidence))
    nearest = sorted(distances, key=lambda i: (distances[i], attempts[i].question.id))
    return without_confidence | set(nearest[:budget])


def _last_confidence(results: Results) -> float | None:
    """Return the confidence of the last detector that does not abstain: the one that decides."""
    confidences = [result.confidence for result in results if isinstance(result, Verdict)]
    return next((value for value in reversed(confidences) if value is not None), None)


def _distance(context: RoundContext, confidence: float) -> float:
    """Return how far a confidence is from the nearest threshold, in log-odds."""
    decide = context.recipe.decide
    thresholds = (decide.belief, decide.declined)
    return min(abs(_log_odds(confidence) - _log_odds(threshold)) for threshold in thresholds)


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, MIN_CONFIDENCE), 1 - MIN_CONFIDENCE)
    return math.log(bounded) - math.log1p(-bounded)
