"""`answerable`: whether a few words can answer a question. Rules for English, no model."""

import re
from collections.abc import Sequence

from selfloop_plugins._shared.patterns import pattern

from selfloop import Asking, Component, Question, Score, hookimpl

LONGEST = 1000  # characters that the rules look at
_BE = r"(?:is|are|was|were)(?: |['’]s )"
_MEASURES = (
    "many|much|long|old|tall|high|far|fast|big|large|deep|heavy|wide|often|hot|cold|thick|small|young|late|early|wealthy"
    "|rich|strong|loud|bright|close|soon|quickly|is|are|do you (?:say|spell)"
)
_ABSTRACT = (
    "differences?|relationship|connection|significance|importance|meaning|definition|effects?|impacts?|influence|reasons?"
    "|history|process|best "
    "way|purpose|function|role|point|idea|concept|theme|summary|explanation|consequences?"
    "|advantages?|disadvantages?|benefits?|steps|problem|relevance|story|plot|theory|main "
    "idea|characteristics"
)
# What a question that takes more than a few words looks like, and how that is called.
_RULES: tuple[tuple[str, str], ...] = (
    (
        r"^(?:in which country |so )?why\b|\bfor what reason\b|^what (?:makes|made|led)\b",
        "asks why",
    ),
    (rf"^how (?!(?:{_MEASURES})\b)|\bin what (?:ways?|manner)\b", "asks how"),
    (r"\bhow (?:to|can|does|do|did)\b(?! you (?:say|spell))", "asks how"),
    (
        r"^(?:can|could|would|will) "
        r"you\b|^(?:describe|explain|discuss|compare|summari[sz]e|tell)\b",
        "asks for a text",
    ),
    (
        r"\b(?:do|did|would) you (?:think|feel|like|prefer|believe|recommend|know)\b",
        "asks for an opinion",
    ),
    (
        r"\bopinions?\b|\bfavou?rite\b|\bbest (?:way|thing|place|method|name|time)\b|\bbetter\b",
        "asks for an opinion",
    ),
    (
        r"\bshould (?:i|we|you|one|people)\b|\bmost (?:beautiful|interesting|exciting|delicious)\b",
        "asks for an opinion",
    ),
    (r"\b(?:is|are) it (?:good|bad|wrong|right|important|worth)\b", "asks for an opinion"),
    (r"^what (?:would|will|might|could|if)\b|\bwhat if\b", "asks what if"),
    (r"^what (?:can|should) (?:be|we|you|i|one|people)\b", "asks what if"),
    (
        r"^what (?:happened|happens|occurred|took place|is it like|was it like|does \w+ do)\b",
        "asks what happened",
    ),
    (
        rf"^what {_BE}(?:the |a |an |some of the |some )?(?:\w+ ){{0,2}}(?:{_ABSTRACT})\b",
        "asks for an explanation",
    ),
    (r"^what (?:significance|importance|impact|effects?|role)\b", "asks for an explanation"),
    (
        rf"^what {_BE}(?:some|(?:the "
        r")?(?:main|major|key|basic|common|different|various))\b.*\b\w+s\b",
        "asks for a list",
    ),
    (r"^(?:name|list|give) (?:all|some|three|four|five|several|\d)\b", "asks for a list"),
    (
        r"\b(?:known|famous|remembered) (?:for|as)?(?: today)?\?$|\bmean(?: by [^?]*)?\?$",
        "asks for a description",
    ),
    (
        r"^what do(?:es)? (?:\w+ ){1,3}do\?$|^what (?:is|are|was|were) (?:\w+ ){1,4}about\?$",
        "asks for a description",
    ),
    (
        rf"^what {_BE}an? (?!.*\b(?:called|named|known as|made of|made from|used for)\b)",
        "asks for a definition",
    ),
)
_LONG = tuple((pattern(text, re.IGNORECASE), reason) for text, reason in _RULES)
_SMALL = "van|von|de|der|la|le|al|bin|ibn|da|di"
_NAME = rf"(?-i:(?:(?:[A-Z0-9][\w'’.&-]*)|(?:{_SMALL}|of|and|the))(?: (?:[A-Z0-9][\w'’.&-]*|{_SMALL}|of|and|the))*)"
# Nothing but a name, or one or two words, after "who was": anything can be said.
_DESCRIBES = pattern(
    rf"^(?:who|what)(?: (?:is|are|was|were)|['’]s) (?:the )?({_NAME}|[a-z-]+(?: [a-z-]+)?)\?$",
    re.IGNORECASE,
)
_RELATION = pattern(
    r"['’]s? |\b(?:of|in|on|at|to|for|by|first|second|last|only|plus|times|minus)\b|\d|\b\w+est\b",
    re.IGNORECASE,
)
_OFFICE = pattern(
    r"\b(?:CEO|CFO|PM|President|King of|Queen of|Prime Minister|Capital|Mayor|Pope)\b"
)


class Answerable:
    """1 for a question that a few words can answer, 0 with the reason for one that cannot.

    Not in a few words: why, how to, descriptions ("Who was Ada Lovelace?"), definitions,
    explanations, lists, opinions.
    """

    def score(self, questions: Sequence[Question], asking: Asking) -> list[Score]:
        """Return 1 or 0 for each question."""
        faults = [_fault(" ".join(question.text[:LONGEST].split())) for question in questions]
        return [Score("answerable", 0.0 if fault else 1.0, fault) for fault in faults]


def _fault(text: str) -> str:
    for rule, reason in _LONG:
        if rule.search(text):
            return reason
    said = _DESCRIBES.match(text)
    if said and not _describes_by_relation(said[1]):
        return (
            "asks for a description"
            if text[:3].lower() == "who" or said[1][0].isupper()
            else "asks for a definition"
        )
    return ""


def _describes_by_relation(said: str) -> bool:
    """Return whether words name their object by something else: "France's capital", "the capital of France"."""
    if _OFFICE.search(said):
        return True
    if said[0].isupper():
        return bool(re.search(r"\w['’]s? \w|\d ?[-+*/x×] ?\d", said)) or bool(
            re.match(r"[a-z]", said)
        )
    return bool(_RELATION.search(said))


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [
        Component(
            "answerable", Answerable, doc="1 for a question that a few words can answer, else 0"
        )
    ]
