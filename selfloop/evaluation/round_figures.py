"""The figures of each round that show whether a run of several rounds collapses."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from selfloop.records import Round


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """A round's figures; one that does not exist is None.

    * `label_entropy`: how unsure the labels are that a tuner learns from, in bits: the mean binary
      entropy of the confidences. Towards 0, the detectors are sure of everything.
    * `agreement`: the share of the questions to which the base and the tuned model draft the same
      answer. Without an adapter, and where only one of them drafts, there is none.
    * `kept`, `declined`: of the run's held-out questions, the share of the right answers that the
      adapter made in this round still gives, and the share of the wrong ones that it declines.
    """

    round: int
    label_entropy: float | None
    agreement: float | None = None
    kept: float | None = None
    declined: float | None = None

    @property
    def is_tuned(self) -> bool:
        """Return whether an adapter was in effect, or made."""
        return (self.agreement, self.kept, self.declined) != (None, None, None)


def label_entropy(ended: Round) -> float | None:
    """Return the mean binary entropy of a round's confidences, in bits; None without any."""
    confidences = [a.confidence for a in ended.attempts if a.confidence is not None]
    return _mean(map(_binary_entropy, confidences))


def _binary_entropy(p: float) -> float:
    if p in (0.0, 1.0):
        return 0.0
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
