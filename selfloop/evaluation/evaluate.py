"""How good a finished run is by gold answers: accuracy, confidence quality, decisions.

Only questions with gold answers count, and of those only the ones that were answered: a question
that failed is counted apart and is in no metric. All intervals are those of `metrics.interval`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfloop.data.cells import evened
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import EXACT, Match, judged
from selfloop.evaluation.metrics import Estimate, Floats, Metric, interval
from selfloop.records import Attempt, Round
from selfloop.text.answers import declines

Bools = NDArray[np.bool_]

# how well a confidence tells right answers from wrong ones
DETECTION = {
    "auroc": metrics.auroc,
    "aurc": metrics.aurc,
    "ece": metrics.ece,
    "brier": metrics.brier,
}


@dataclass(frozen=True)
class Answered:
    """One question, its answer and its decision.

    `verdicts` are the detectors' confidences in the answer; None: abstained. `columns` are the
    other columns of the question's row in the data.
    """

    question: str
    answer: str
    right: bool
    draft_right: bool
    decision: str
    confidence: float | None
    verdicts: dict[str, float | None]
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfidenceQuality:
    """How well one confidence tells right answers from wrong ones.

    Where it abstains it counts as 0; `abstains` is the share of such answers. `metrics` are AUROC,
    AURC, ECE and Brier. The other two are for plotting: the results of `metrics.risk_coverage` and
    `metrics.reliability`, by name.
    """

    abstains: float
    metrics: dict[str, Estimate]
    risk_coverage: dict[str, list[float]]
    reliability: dict[str, list[float]]


@dataclass(frozen=True)
class Report:
    """All metrics of a run. `accuracy` is that of the `draft` and of the `chosen` answers.

    `policies` holds the run's own decisions ("run") and three that need no detector, see
    `policies`. `silent` is the share of questions to which the model itself said that it does not
    know; such an answer counts as wrong. `match` is how answers were compared with gold
    answers: a name as `gold.match_named` takes it.
    """

    questions: int
    failed: int
    without_gold: int
    silent: float
    accuracy: dict[str, Estimate]
    confidence: ConfidenceQuality
    detectors: dict[str, ConfidenceQuality]
    policies: dict[str, dict[str, Estimate]]
    answers: list[Answered]
    match: str = EXACT.name

    def plain(self) -> dict[str, Any]:
        """Return all but the single answers as JSON has them.

        An estimate is {value, low, high}, and NaN is None.
        """
        return {
            part.name: _plain(getattr(self, part.name))
            for part in fields(self)
            if part.name != "answers"
        }

    def columns(self) -> dict[str, list[Any]]:
        """Return the single answers as a table, with a column `detector_NAME` for each detector.

        The data's own columns follow; one whose name is taken is called `data_NAME`.
        """
        table = {
            name: self._column(name)
            for name in ("question", "answer", "right", "decision", "confidence")
        }
        for name in self.detectors:
            table[f"detector_{name}"] = [answer.verdicts.get(name) for answer in self.answers]
        data = evened(self._column("columns"))
        renamed = {name if name not in table else f"data_{name}": data[name] for name in data}
        return table | renamed

    def _column(self, name: str) -> list[Any]:
        return [getattr(answer, name) for answer in self.answers]


def evaluate(rounds: Iterable[Round], match: Match = EXACT) -> Report:
    """Measure the attempts of a run whose questions have gold answers.

    `match` is how an answer is compared with gold answers. Dropped questions were not asked.
    """
    attempts = list(chain.from_iterable(ended.attempts for ended in rounds))
    asked = [attempt for attempt in attempts if attempt.decision != "dropped"]
    # an empty answer is judged too: None says that there is no gold answer
    with_gold = [attempt for attempt in asked if judged(attempt.question, "") is not None]
    answers = [_answered(attempt, match) for attempt in with_gold if attempt.draft is not None]
    right = np.array([answer.right for answer in answers], bool)
    draft_right = np.array([answer.draft_right for answer in answers], bool)
    silent = np.array([declines(answer.answer) for answer in answers], bool)
    beliefs = np.array([answer.decision == "belief" for answer in answers], bool)
    detectors = dict[str, ConfidenceQuality]()
    for name in dict.fromkeys(chain.from_iterable(answer.verdicts for answer in answers)):
        detectors[name] = confidence_quality(
            [answer.verdicts.get(name) for answer in answers], right
        )
    return Report(
        questions=len(answers),
        failed=len(with_gold) - len(answers),
        without_gold=len(asked) - len(with_gold),
        silent=float(silent.mean()) if len(answers) else np.nan,
        accuracy={"draft": _accuracy(draft_right), "chosen": _accuracy(right)},
        confidence=confidence_quality([answer.confidence for answer in answers], right),
        detectors=detectors,
        policies=policies(right, silent, beliefs),
        answers=answers,
        match=match.name,
    )


def confidence_quality(confidences: Sequence[float | None], right: Bools) -> ConfidenceQuality:
    """Measure one confidence for each answer.

    One that abstains everywhere has no metrics (NaN), not middling ones.
    """
    values = np.array([confidence or 0.0 for confidence in confidences])
    abstains = np.array([confidence is None for confidence in confidences], bool)
    if abstains.all():
        # of no answers every metric is NaN
        values, right = values[:0], right[:0]
    thresholds, coverage, risk = metrics.risk_coverage(values, right)
    mean, share, count = metrics.reliability(values, right)
    return ConfidenceQuality(
        abstains=float(abstains.mean()) if len(abstains) else np.nan,
        metrics={
            name: interval(partial(metric, values, right), len(values))
            for name, metric in DETECTION.items()
        },
        risk_coverage={
            "threshold": thresholds.tolist(),
            "coverage": coverage.tolist(),
            "risk": risk.tolist(),
        },
        reliability={"confidence": mean.tolist(), "right": share.tolist(), "count": count.tolist()},
    )


def policies(right: Bools, silent: Bools, beliefs: Bools) -> dict[str, dict[str, Estimate]]:
    """Return `metrics.decisions` of answering with `beliefs` alone, and of three policies that need
    no detector.

    "always answer" gives every answer the model gave: where the model said that it does not know
    (`silent`), so does the policy. "always decline" gives none. "random" gives as many as the run,
    picked blindly from those the model gave; its figures are the expectations over that choice, in
    closed form (AED's is that of the expected shares).
    """
    answered = ~silent
    rate = beliefs.sum() / max(1, answered.sum())
    # Each answer counts as given `rate` times and as declined for the rest: a share is then its
    # expectation. So the first half of these arrays is about answering, the second about declining.
    mixed = metrics.decisions(np.tile(right, 2), np.concatenate([silent, np.ones_like(silent)]))
    by_policy = {
        "run": metrics.decisions(right, ~beliefs),
        "always answer": metrics.decisions(right, silent),
        "always decline": metrics.decisions(right, np.ones_like(right)),
        "random": {name: _expected(metric, rate) for name, metric in mixed.items()},
    }
    return {policy: _intervals(by_name, len(right)) for policy, by_name in by_policy.items()}


def _expected(metric: Metric, rate: float) -> Metric:
    """Return a metric of answers that are each given with the probability `rate`."""

    def expected(weights: Floats) -> Floats:
        return metric(np.concatenate([weights * rate, weights * (1 - rate)], -1))

    return expected


def _intervals(by_name: Mapping[str, Metric], questions: int) -> dict[str, Estimate]:
    return {name: interval(metric, questions) for name, metric in by_name.items()}


def _answered(attempt: Attempt, match: Match) -> Answered:
    assert attempt.draft is not None
    return Answered(
        question=attempt.question.text,
        answer=attempt.answer,
        right=bool(judged(attempt.question, attempt.answer, match)),
        draft_right=bool(judged(attempt.question, attempt.draft.text, match)),
        decision=str(attempt.decision),
        confidence=attempt.confidence,
        verdicts=attempt.confidences(attempt.chosen),
        columns=attempt.question.other_columns,
    )


def _accuracy(right: Bools) -> Estimate:
    return interval(partial(metrics.mean, right), len(right))


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):  # a tuple, which JSON would have without its names
        return _plain(value._asdict())
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
