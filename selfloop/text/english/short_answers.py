"""Whether a few words can answer a question.

They cannot where it asks why, how to, for a description ("Who was Ada Lovelace?"), a definition, an
explanation, a list or an opinion.
"""

import re

from selfloop.text.english.words import EXPLAINED_NOUNS, MEASURES, NAME_PARTICLES, OFFICES
from selfloop.text.patterns import any_of, pattern

_BE = r"(?:is|are|was|were)(?: |['’]s )"
# how many, how long; "how do you say" asks for a word
_MEASURE = rf"{any_of(MEASURES)}|do you (?:say|spell)"
_EXPLAINED = any_of(EXPLAINED_NOUNS)

# Reasons why an answer takes more than a few words, and the patterns of such questions. The first
# pattern that matches gives the reason. Each line has an example.
_LONG_ANSWERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "asks why",
        (
            r"^(?:in which country |so )?why\b",  # Why is the sky blue?
            r"\bfor what reason\b",  # For what reason did Rome fall?
            r"^what (?:makes|made|led)\b",  # What made Rome fall?
        ),
    ),
    (
        "asks how",
        (
            rf"^how (?!(?:{_MEASURE})\b)",  # How did Rome fall?
            r"\bin what (?:ways?|manner)\b",  # In what way do bees dance?
            r"\bhow (?:to|can|does|do|did)\b(?! you (?:say|spell))",  # Do you know how to dance?
        ),
    ),
    (
        "asks for a text",
        (
            r"^(?:can|could|would|will) you\b",  # Can you tell a joke?
            r"^(?:describe|explain|discuss|compare|summari[sz]e|tell)\b",  # Explain gravity?
        ),
    ),
    (
        "asks for an opinion",
        (
            # What do you think of Rome?
            r"\b(?:do|did|would) you (?:think|feel|like|prefer|believe|recommend|know)\b",
            r"\bopinions?\b|\bfavou?rite\b",  # What is the favourite food of children?
            r"\bbest (?:way|thing|place|method|name|time)\b|\bbetter\b",  # Is tea better?
            r"\bshould (?:i|we|you|one|people)\b",  # Where should I live?
            # What is the most beautiful city?
            r"\bmost (?:beautiful|interesting|exciting|delicious)\b",
            r"\b(?:is|are) it (?:good|bad|wrong|right|important|worth)\b",  # Why is it good?
        ),
    ),
    (
        "asks what if",
        (
            r"^what (?:would|will|might|could|if)\b|\bwhat if\b",  # What would Rome be today?
            r"^what (?:can|should) (?:be|we|you|i|one|people)\b",  # What can be done?
        ),
    ),
    (
        "asks what happened",
        (
            # What happened in Rome?
            r"^what (?:happened|happens|occurred|took place|is it like|was it like|does \w+ do)\b",
        ),
    ),
    (
        "asks for an explanation",
        (
            # What is the significance of Rome?
            rf"^what {_BE}(?:the |a |an |some of the |some )?(?:\w+ ){{0,2}}(?:{_EXPLAINED})\b",
            r"^what (?:significance|importance|impact|effects?|role)\b",  # What role had Rome?
        ),
    ),
    (
        "asks for a list",
        (
            # What are the main rivers of Peru?
            rf"^what {_BE}(?:some|(?:the )?(?:main|major|key|basic|common|different|various))\b"
            r".*\b\w+s\b",
            # Name three rivers of Peru?
            r"^(?:name|list|give) (?:all|some|three|four|five|several|\d)\b",
        ),
    ),
    (
        "asks for a description",
        (
            r"\b(?:known|famous|remembered) (?:for|as)?(?: today)?\?$",  # What is Rome known for?
            r"\bmean(?: by [^?]*)?\?$",  # What does "rome" mean?
            r"^what do(?:es)? (?:\w+ ){1,3}do\?$",  # What does the liver do?
            r"^what (?:is|are|was|were) (?:\w+ ){1,4}about\?$",  # What is Hamlet about?
        ),
    ),
    (
        "asks for a definition",
        (
            # What is a spider? But: What is a young spider called?
            rf"^what {_BE}an? "
            r"(?!.*\b(?:called|named|known as|made of|made from|used for)\b)",
        ),
    ),
)
_REASONS = tuple(
    (pattern(any_of(patterns), re.IGNORECASE), reason) for reason, patterns in _LONG_ANSWERS
)

_PARTICLES = any_of(NAME_PARTICLES)
_NAME_WORD = r"[A-Z0-9][\w'’.&-]*"
# "Ada Lovelace", "the Bank of England", "Ludwig van Beethoven"
_NAME = (
    rf"(?-i:(?:(?:{_NAME_WORD})|(?:{_PARTICLES}|of|and|the))"
    rf"(?: (?:{_NAME_WORD}|{_PARTICLES}|of|and|the))*)"
)
# Nothing but a name, or one or two words, after "who was": anything can be said of it.
_ASKS_WHO_IS = pattern(
    rf"^(?:who|what)(?: (?:is|are|was|were)|['’]s) (?:the )?({_NAME}|[a-z-]+(?: [a-z-]+)?)\?$",
    re.IGNORECASE,
)
# "Peru's capital", "capital of Peru", "first man", "2 plus 2", "largest planet"
_RELATION = pattern(
    r"['’]s? |\b(?:of|in|on|at|to|for|by|first|second|last|only|plus|times|minus)\b|\d|\b\w+est\b",
    re.IGNORECASE,
)
_OFFICE = pattern(rf"\b(?:{any_of(OFFICES)})\b")  # "the Pope", "the King of Spain"
_OWNER_OR_SUM = pattern(r"\w['’]s? \w|\d ?[-+*/x×] ?\d")  # "Peru's capital", "2 + 2"


def long_answer_reason(text: str) -> str:
    """Return why a few words cannot answer a question, or an empty string if they may.

    `text` has single spaces.
    """
    for long_answer, reason in _REASONS:
        if long_answer.search(text):
            return reason
    asks_who_is = _ASKS_WHO_IS.match(text)
    if asks_who_is is None:
        return ""
    subject = asks_who_is[1]
    if _is_a_relation(subject):
        return ""
    is_name = subject[0].isupper()
    is_person = text[:3].lower() == "who"
    return "asks for a description" if is_person or is_name else "asks for a definition"


def _is_a_relation(subject: str) -> bool:
    """Return whether words name a thing by something else, so that its name is the answer.

    "France's capital", "capital of France": they do. "Ada Lovelace": it does not.
    """
    if _OFFICE.search(subject):
        return True
    # a name has no relation in it ("Bank of England") but an owner before it
    relation = _OWNER_OR_SUM if subject[0].isupper() else _RELATION
    return relation.search(subject) is not None
