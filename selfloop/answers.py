"""What counts as the same answer, and what counts as none."""

import re
import string

UNKNOWN = "I don't know"  # how it is said here that there is no answer

# What any question may have: it tells nothing about which question it is.
_COMMON = re.compile(
    r"what|which|who|whom|whose|when|where|why|how|is|are|was|were|be|been|do|does|did|has|have|had|can|could|will|would"
    r"|in|on|at|of|to|for|from|by|with|as|and|or|it|its|he|she|his|her|they|their|there|this|that|many|much|name|called"
)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DECLINES = re.compile(
    r"^\W*(i\s+(do\s*n.?t|do\s+not|can\s*not|can.?t)\s+(know|answer|say|tell)|i.?m\s+not\s+sure|i\s+am\s+not\s+sure"
    r"|idk\b|unknown\W*$|no\s+idea\b|not\s+sure\b|(i.?m\s+|i\s+am\s+)?(sorry|unable)\b)",
    re.IGNORECASE,
)


def normalise(text: str) -> str:
    """Return `text` as the SQuAD scorer compares it: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def content(text: str) -> list[str]:
    """Return the words of a question that say what it is about, in order."""
    return [word for word in normalise(text).split() if not _COMMON.fullmatch(word)]


def declines(text: str) -> bool:
    """Return whether an answer says that it is none ("I don't know", "I'm not sure"), or is empty."""
    return not normalise(text) or _DECLINES.search(text) is not None
