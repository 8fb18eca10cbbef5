"""Probabilities out of log-odds, without numpy: detectors load with every command."""

import math

# below this, exp(−log_odds) is too large for a float
MIN_LOG_ODDS = -700.0


def sigmoid(log_odds: float) -> float:
    """Return 1 / (1 + exp(−log_odds)), for log-odds of any size; NaN stays NaN."""
    if log_odds <= MIN_LOG_ODDS:
        return 0.0
    return 1 / (1 + math.exp(-log_odds))
