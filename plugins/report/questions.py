"""Every question of a run, as the page's script reads it.

What a model wrote is clipped, and made visible.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unicodedata import category

from selfloop import Attempt, Completion, Round
from selfloop.text.display import encodable

Plain = dict[str, Any]

LONGEST = 1000  # characters of one text; the rest is in the run
# What turns a line around without being seen: shown by its number, for else a reader sees what was
# not written.
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Return a text that shows what is in it: controls as pictures, marks of direction as numbers, its end cut off."""
    kept = encodable(text[:LONGEST])
    if not kept.isprintable():
        kept = "".join(map(_shown, kept))
    more = len(text) - LONGEST
    return f"{kept}… ({more:,} more characters)" if more > 0 else kept


def _shown(char: str) -> str:
    if char in "\n\t" or char.isprintable():
        return char
    if ord(char) < 32:
        return chr(0x2400 + ord(char))
    if char in _TURNS or category(char) in ("Cc", "Co", "Cn", "Cs", "Zl", "Zp"):
        return f"[U+{ord(char):04X}]"
    return char


def questions(rounds: Sequence[Round]) -> list[Plain]:
    """Return each question with what became of it in each round, in the order first asked."""
    found: dict[str, Plain] = {}
    for ended in rounds:
        for attempt in ended.attempts:
            own = found.setdefault(attempt.question.text, _question(attempt))
            own["rounds"].append({"round": ended.number, **_attempt(attempt)})
    return list(found.values())


def _question(attempt: Attempt) -> Plain:
    one = attempt.question
    about = {
        "source": one.source,
        "topic": one.topic,
        "via": one.via,
        one.variant or "variant of": one.variant_of,
    }
    gold = [*one.gold, one.gold_pattern]
    about |= {"gold": " | ".join(filter(None, gold)), "answer to judge": one.answer}
    return {
        "text": visible(one.text),
        "about": {k: visible(v) for k, v in about.items() if v},
        "rounds": [],
    }


def _attempt(attempt: Attempt) -> Plain:
    """Return what is there of an attempt; what is missing takes no room."""
    found: Plain = {
        "decision": attempt.decision,
        "answer": visible(attempt.answer),
        "confidence": _short(attempt.confidence),
        "reason": visible(attempt.reason),
        "chosen": attempt.chosen if attempt.revision else "",
        "draft": _said(attempt.draft),
        "critique": _said(attempt.critique),
        "revision": _said(attempt.revision),
        "samples": [
            [visible(t), n]
            for t, n in Counter(one.text.strip() for one in attempt.samples).most_common()
        ],
        "verdicts": [
            [v.verifier, _short(v.confidence), visible(v.reason), v.candidate]
            for v in attempt.verdicts
        ],
        "scores": [[s.scorer, _short(s.value), visible(s.reason)] for s in attempt.scores],
        "failures": [
            f"{f.step} {f.component}: {f.type}: {visible(f.message)}" for f in attempt.failures
        ],
    }
    if attempt.lowers:
        found["lowers"] = visible(f"{attempt.lowers.question.text} — {attempt.lowers.answer}")
    return {key: value for key, value in found.items() if value not in ("", None, [])}


def _said(completion: Completion | None) -> list[Any] | None:
    """Return a text and its log-probability; how likely it was in all."""
    return completion and [
        visible(completion.text.strip()),
        _short(sum(completion.logprobs)),
        completion.finish,
    ]  # type: ignore[return-value]


def _short(value: float | None) -> float | None:
    return (
        None if value is None or value != value or abs(value) == float("inf") else round(value, 3)
    )


def embedded(data: object) -> str:
    """Return data as JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
