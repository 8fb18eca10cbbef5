"""The counts that end a run: for each round and in all."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from selfloop.evaluation import flips
from selfloop.failed_steps import FailedStep, cause_text, failed_detectors, failed_steps
from selfloop.history import History
from selfloop.records import Decision, Round
from selfloop.storage.store import Store, declining_as_in

# Parts of a reason that belong to one question: brackets and quoted words.
_OF_ONE_QUESTION = re.compile(r"\s*\([^()]*\)|'[^']{2,}'|\"[^\"]{2,}\"")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LENGTH = re.compile(r"\s*\d+ words\s*")


def run_summary(folder: Path) -> dict[str, Any]:
    """Return a run's counts as data for JSON. Raises StoreError."""
    with closing(Store(folder, write=False)) as store:
        rounds = list(store.rounds())
        reasons = drop_reasons(rounds)
        with declining_as_in(folder):
            revisions = _revisions(rounds)
        surest_first = sorted(
            History.from_rounds(rounds).beliefs, key=lambda belief: -belief.confidence
        )
        return {
            "run": str(folder),
            "rounds": [_counts(ended) for ended in rounds],
            "completions": store.count("completions"),
            "failures": store.count("failures"),
            "dropped": {scorer: sum(counts.values()) for scorer, counts in reasons.items()},
            "dropped_for": reasons,
            "flips": revisions,
            "failed_steps": [_failed_step(step) for step in failed_steps(rounds)],
            "failed_detectors": [_failed_step(step) for step in failed_detectors(rounds)],
            "beliefs": [
                {
                    "question": belief.question.text,
                    "answer": belief.answer,
                    "confidence": belief.confidence,
                }
                for belief in surest_first
            ],
        }


def drop_reasons(rounds: Iterable[Round]) -> dict[str, dict[str, int]]:
    """Return, for each scorer, how many questions it dropped for each reason.

    The scorer that dropped most comes first.
    """
    by_scorer: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for ended in rounds:
        for attempt in ended.attempts:
            if attempt.decision == "dropped":
                # A reason reads "novelty: like '...'"
                scorer, _, reason = attempt.reason.partition(":")
                by_scorer[scorer][_general(reason)] += 1
    ordered = sorted(by_scorer.items(), key=lambda item: (-item[1].total(), item[0]))
    return {scorer: dict(counts.most_common()) for scorer, counts in ordered}


def _general(reason: str) -> str:
    """Return a reason without the parts that belong to one question, so that like ones count."""
    if _LENGTH.fullmatch(reason):
        return "too short or too long"
    # Inside a quotation an apostrophe has a backslash; it does not end the quotation.
    bare = _OF_ONE_QUESTION.sub("", reason.replace("\\'", "’"))
    words = _NUMBER.sub("n", bare).split()
    general = " ".join(words).strip(" ,;:")
    return "like an earlier one" if general == "like" else general


def _revisions(rounds: Iterable[Round]) -> dict[str, dict[str, int]]:
    """Return, for each change that revisions made, their number and that of the accepted ones."""
    attempts = list(chain.from_iterable(ended.attempts for ended in rounds))
    accepted = flips.counts(attempts, accepted=True)
    return {
        change: {"revisions": count, "accepted": accepted[change]}
        for change, count in flips.counts(attempts).most_common()
    }


def _failed_step(step: FailedStep) -> dict[str, Any]:
    return {
        "round": step.round,
        "step": step.step,
        "questions": step.questions,
        "cause": cause_text(step.cause),
    }


def _counts(ended: Round) -> dict[str, int]:
    asked = [attempt for attempt in ended.attempts if attempt.decision != "dropped"]
    return {
        "round": ended.number,
        "asked": len(asked),
        **{decision: ended.count(decision) for decision in get_args(Decision)},
        "revised": sum(attempt.chosen == "revision" for attempt in asked),
    }
