"""What a finished run is worth, by gold answers: how often it is right, how well it knows, what its
decisions bring.

Only questions with gold answers count, and of those only the ones that were answered: a question
that failed is counted apart and stands in no metric. All intervals are those of `metrics.interval`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
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

DETECTION = {
    "auroc": metrics.auroc,
    "aurc": metrics.aurc,
    "ece": metrics.ece,
    "brier": metrics.brier,
}


@dataclass(frozen=True)
class Answered:
    """One question and what became of it; `verdicts` are the verifiers' confidences in the answer,
    None: abstained.

    `columns` are the other columns of the question's row in the data.
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
class Detector:
    """How well one confidence tells right answers from wrong ones; where it abstains it counts as
    0.

    `metrics` are AUROC, AURC, ECE and Brier. The other two are for plotting: what
    `metrics.risk_coverage` and `metrics.reliability` return, by name.
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
    know; such an answer is none that is right. `match` is how answers were compared with gold
    answers: a name as `gold.match_named` takes it.
    """

    questions: int
    failed: int
    without_gold: int
    silent: float
    accuracy: dict[str, Estimate]
    confidence: Detector
    verifiers: dict[str, Detector]
    policies: dict[str, dict[str, Estimate]]
    answers: list[Answered]
    match: str = EXACT.name

    def plain(self) -> dict[str, Any]:
        """Return all but the single answers as what JSON knows: an estimate is {value, low, high}, NaN is None."""
        return {
            part.name: _plain(getattr(self, part.name))
            for part in fields(self)
            if part.name != "answers"
        }

    def columns(self) -> dict[str, list[Any]]:
        """Return the single answers as a table, with a column `verifier_NAME` for each verifier.

        The data's own columns follow; one whose name is taken is called `data_NAME`.
        """
        names = ("question", "answer", "right", "decision", "confidence")
        table = {name: [getattr(one, name) for one in self.answers] for name in names}
        table |= {
            f"verifier_{name}": [one.verdicts.get(name) for one in self.answers]
            for name in self.verifiers
        }
        own = evened([one.columns for one in self.answers])
        return table | {
            f"data_{name}" if name in table else name: values for name, values in own.items()
        }


def evaluate(rounds: Iterable[Round], match: Match = EXACT) -> Report:
    """Measure the attempts of a run whose questions have gold answers; what was dropped was not
    asked.

    `match` is how an answer is compared with gold answers.
    """
    asked = [
        attempt for ended in rounds for attempt in ended.attempts if attempt.decision != "dropped"
    ]
    known = [attempt for attempt in asked if judged(attempt.question, "") is not None]
    answers = [_answered(attempt, match) for attempt in known if attempt.draft is not None]
    right = np.array([one.right for one in answers], bool)
    drafts = np.array([one.draft_right for one in answers], bool)
    silent = np.array([declines(one.answer) for one in answers], bool)
    held = np.array([one.decision == "belief" for one in answers], bool)
    names = dict.fromkeys(name for one in answers for name in one.verdicts)
    return Report(
        questions=len(answers),
        failed=len(known) - len(answers),
        without_gold=len(asked) - len(known),
        silent=float(silent.mean()) if len(answers) else np.nan,
        accuracy={"draft": _estimate(drafts), "chosen": _estimate(right)},
        confidence=detector([one.confidence for one in answers], right),
        verifiers={
            name: detector([one.verdicts.get(name) for one in answers], right) for name in names
        },
        policies=policies(right, silent, held),
        answers=answers,
        match=match.name,
    )


def detector(confidences: Sequence[float | None], right: Bools) -> Detector:
    """Measure one confidence for each answer; one that abstains everywhere has no metrics (NaN), not middling ones."""
    given = np.array([confidence or 0.0 for confidence in confidences])
    silent = np.array([confidence is None for confidence in confidences], bool)
    if silent.all():
        given, right = given[:0], right[:0]
    thresholds, coverage, risk = metrics.risk_coverage(given, right)
    mean, share, count = metrics.reliability(given, right)
    return Detector(
        abstains=float(silent.mean()) if len(silent) else np.nan,
        metrics={
            name: interval(partial(metric, given, right), len(given))
            for name, metric in DETECTION.items()
        },
        risk_coverage={
            "threshold": thresholds.tolist(),
            "coverage": coverage.tolist(),
            "risk": risk.tolist(),
        },
        reliability={"confidence": mean.tolist(), "right": share.tolist(), "count": count.tolist()},
    )


def policies(right: Bools, silent: Bools, held: Bools) -> dict[str, dict[str, Estimate]]:
    """Return `metrics.decisions` of answering what is `held`, and of three policies that no
    detector is needed for.

    "always answer" gives every answer the model gave: where it said that it does not know
    (`silent`), so does the policy. "always decline" gives none. "random" gives as many as the run,
    picked blindly from those the model gave; its figures are the expectations over that choice, in
    closed form (AED's is that of the expected shares).
    """
    given = ~silent
    rate = held.sum() / max(1, given.sum())
    # Each answer counts as given `rate` times and as declined for the rest: a share is then its
    # expectation.
    mixed = metrics.decisions(np.tile(right, 2), np.concatenate([silent, np.ones_like(silent)]))

    def blindly(metric: Metric) -> Metric:
        def expected(weights: Floats) -> Floats:
            return metric(np.concatenate([weights * rate, weights * (1 - rate)], -1))

        return expected

    by_policy = {
        "run": metrics.decisions(right, ~held),
        "always answer": metrics.decisions(right, silent),
        "always decline": metrics.decisions(right, np.ones_like(right)),
        "random": {name: blindly(metric) for name, metric in mixed.items()},
    }
    return {
        policy: {name: interval(metric, len(right)) for name, metric in found.items()}
        for policy, found in by_policy.items()
    }


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


def _estimate(right: Bools) -> Estimate:
    return interval(partial(metrics.mean, right), len(right))


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return _plain(value._asdict())
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value
