"""Every question of a run, as the page's script reads it.

Texts of a model are clipped, and their invisible characters are made visible.
"""

import json
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Any
from unicodedata import category

from selfloop import Attempt, Completion, Question, Round
from selfloop.text.display import encodable

PlainRow = dict[str, Any]  # values that JSON can hold

MAX_CHARACTERS = 1000  # of one text; the rest is in the run
# Marks that change the direction of a line, themselves unseen: they are shown by their number,
# for a reader would else see another text than was written.
_DIRECTION_MARKS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def visible(text: str) -> str:
    """Return a text with controls as pictures, marks of direction as numbers, and cut off."""
    beginning = encodable(text[:MAX_CHARACTERS])
    if not beginning.isprintable():
        beginning = "".join(map(_visible_character, beginning))
    more = len(text) - MAX_CHARACTERS
    return f"{beginning}… ({more:,} more characters)" if more > 0 else beginning


def _visible_character(char: str) -> str:
    if char in "\n\t" or char.isprintable():
        return char
    if ord(char) < 32:
        return chr(0x2400 + ord(char))  # Unicode has a picture of each control
    if char in _DIRECTION_MARKS or category(char) in ("Cc", "Co", "Cn", "Cs", "Zl", "Zp"):
        return f"[U+{ord(char):04X}]"
    return char


def question_rows(rounds: Sequence[Round]) -> list[PlainRow]:
    """Return each question with its attempt in each round, in the order first asked."""
    rows: dict[str, PlainRow] = {}
    for ended in rounds:
        for attempt in ended.attempts:
            row = rows.setdefault(attempt.question.text, _question_row(attempt.question))
            row["rounds"].append({"round": ended.number, **_attempt_row(attempt)})
    return list(rows.values())


def _question_row(question: Question) -> PlainRow:
    """Return a question without attempts."""
    about = {
        "source": question.source,
        "topic": question.topic,
        "via": question.via,
        question.variant or "variant of": question.variant_of,
        "gold": " | ".join(filter(None, [*question.gold, question.gold_pattern])),
        "answer to judge": question.answer,
    }
    return {
        "text": visible(question.text),
        "about": {name: visible(text) for name, text in about.items() if text},
        "rounds": [],
    }


def _attempt_row(attempt: Attempt) -> PlainRow:
    """Return an attempt, without the fields that are empty: a run may have very many."""
    samples = Counter(sample.text.strip() for sample in attempt.samples)
    row: PlainRow = {
        "decision": attempt.decision,
        "answer": visible(attempt.answer),
        "confidence": _rounded(attempt.confidence),
        "reason": visible(attempt.reason),
        "chosen": attempt.chosen if attempt.revision else "",
        "draft": _completion_row(attempt.draft),
        "critique": _completion_row(attempt.critique),
        "revision": _completion_row(attempt.revision),
        "samples": [[visible(text), count] for text, count in samples.most_common()],
        "verdicts": [
            [
                verdict.detector,
                _rounded(verdict.confidence),
                visible(verdict.reason),
                verdict.candidate,
            ]
            for verdict in attempt.verdicts
        ],
        "scores": [
            [score.scorer, _rounded(score.value), visible(score.reason)] for score in attempt.scores
        ],
        "failures": [
            f"{failure.step} {failure.component}: {failure.type}: {visible(failure.message)}"
            for failure in attempt.failures
        ],
    }
    if attempt.lowers:
        row["lowers"] = visible(f"{attempt.lowers.question.text} — {attempt.lowers.answer}")
    return {name: value for name, value in row.items() if value not in ("", None, [])}


def _completion_row(completion: Completion | None) -> list[Any] | None:
    """Return text, log-probability of the whole text, and why it ended."""
    if completion is None:
        return None
    logprob = _rounded(sum(completion.logprobs))
    return [visible(completion.text.strip()), logprob, completion.finish]


def _rounded(value: float | None) -> float | None:
    """Return a number as JSON can hold it, which has neither NaN nor infinity."""
    return round(value, 3) if value is not None and isfinite(value) else None


def json_for_script(data: object) -> str:
    """Return data as JSON for a script element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
