"""Arithmetic of probabilities, without numpy: detectors load with every command."""

import math
from collections.abc import Sequence

# below this, exp(−log_odds) is too large for a float
MIN_LOG_ODDS = -700.0


def sigmoid(log_odds: float) -> float:
    """Return 1 / (1 + exp(−log_odds)), for log-odds of any size; NaN stays NaN."""
    if log_odds <= MIN_LOG_ODDS:
        return 0.0
    return 1 / (1 + math.exp(-log_odds))


def weighted_share(weights: Sequence[float], counts: Sequence[bool]) -> float:
    """Return the share of the weight that counts; 0 where there is no weight."""
    total = sum(weights)
    if not total:
        return 0.0
    counted = [weight for weight, is_counted in zip(weights, counts, strict=True) if is_counted]
    return sum(counted) / total
