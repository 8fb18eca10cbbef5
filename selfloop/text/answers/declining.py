"""The one rule for declining: whether an answer says, in its own words, that the model does not
know.

A text declines if, after politeness ("Sorry, but ..."), it begins with a denial of one's own
knowledge (I, we, or no subject, a negation, a verb or noun of knowing), or states that nobody knows
or that there is no such thing. A hedge behind an answer ("Paris, but I'm not sure") declines
nothing; a guess behind a denial ("I don't know, Paris?") does not take the denial back. But the
mark that a tuned model writes behind an answer which it does not believe declines: "Paris (I don't
know)", or "It is Paris. Though I don't know this for certain." A text that is written like a title
("I Can't Tell You Why", "No Idea (band)") is a name, unless it is nothing but the denial ("I Don't
Know").

The denials of each language stand in `denials.txt`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path

from selfloop.text.answers.bounded import found
from selfloop.text.answers.folding import folded
from selfloop.text.answers.same import normalise
from selfloop.text.patterns import listed

UNKNOWN = "I don't know"  # how it is said here that there is no answer
# the words that a tuned model writes behind an answer, or a reply in a chat, which it does not
# believe (the tuner `lora`, `decide: after`)
MARK = f" ({UNKNOWN})"
# "Though" follows the end of a sentence alone, and rarely: a bracket, made likelier there, comes
# within sentences too, and is closed by other words (docs/experiments.md)
MARK_IN_CHAT = f" Though {UNKNOWN} this for certain."

DENIALS = Path(__file__).parent / "denials.txt"
LONGEST = 400  # characters that are looked at: words further on do not turn an answer into none
_POLITE_PARTS = 4

_SECTION = re.compile(r"^== (\w+) ?(.*)\n((?:(?!== ).*\n?)*)", re.MULTILINE)
_PART = re.compile(r"\{([a-z_]+)\}")
_NOT_A_WORD = "\ue010"  # holds `\W` while a pattern is folded, which makes lower case of it
# The joint of politeness and the text that follows it.
_JOINT = (
    r"(?:\s*[,.!:;-]+\s*(?:(?:but|and|however,?|that|so|pero|mais|aber|mas|ma|но|maar|ale|ama|tapi|nhung|que|che|dass|ze"
    r"|لکن|ولکن) "
    r"|但是?|可是)?|\s+(?:but|that|and|so|pero|mais|aber|mas|ma|но|maar|ale|ama|tapi|que|che|ان|但)\s+"
    r"|\s+(?=\S)|(?<=[\u4e00-\u9fff]))"
)
_ECHO = re.compile(r"[^?]{3,200}\? +(?=\S)")
_WRAPPING = " \t\"'*_`()[]{}<>-“”.,;:!?~#«»「」『』"
_NAME_WITH_KIND = re.compile(r"[^()]*\S \([^()]{2,40}\)\W*")
# With or without more words; but behind a comma there may be an answer ("Though I don't know why,
# it is Paris").
_MARK = re.compile(rf"(?:\({UNKNOWN}[^()]*\)|\bThough {UNKNOWN}\b[^.!?(),;:]*[.!?]?)\s*$")
_MARK_LONGEST = 100  # characters, with white space behind it
_WORDS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# Words that stay small within a title, in several languages.
_SMALL_WORDS = frozenset(
    listed("""
    a an the of to in on at for and or but nor with by from as is it vs into up over than
    de la le el los las du des der die das und et y e i da do di del della van von den
    """)
)

_EXTRA: ContextVar[tuple[str, ...]] = ContextVar("patterns of the recipe at work", default=())


def declines(text: str) -> bool:
    """Return whether an answer says that it is none ("I don't know", "No lo sé", "There is no such
    king"), or is empty.

    Within `also_declining`, an answer in which one of its patterns is found declines too.
    """
    if is_marked(text) or _declines(text[:LONGEST]):
        return True
    return any(found(pattern, text) for pattern in _EXTRA.get())


def is_marked(text: str) -> bool:
    """Return whether an answer ends with the mark of a tuned model that does not believe it."""
    return _MARK.search(text[-_MARK_LONGEST:]) is not None


@contextmanager
def also_declining(patterns: Sequence[str]) -> Iterator[None]:
    """Let answers in which one of `patterns` is found decline too: `answer.declines` of the run
    that is worked on.

    It holds for all calls within the block, in this thread: detectors need no parameter for it.
    """
    before = _EXTRA.set((*_EXTRA.get(), *patterns))
    try:
        yield
    finally:
        _EXTRA.reset(before)


@lru_cache(maxsize=2**14)
def _declines(text: str) -> bool:
    if not normalise(text):
        return True
    if _NAME_WITH_KIND.fullmatch(text):
        return False
    plain = folded(text).strip(_WRAPPING)
    openings = [plain, *_without_politeness(plain)]
    if _is_title(text):
        return any(
            _pattern("own").fullmatch(opening.strip(_WRAPPING)) is not None for opening in openings
        )
    if any(
        _pattern("own").match(opening) or _pattern("matter").match(opening) for opening in openings
    ):
        return True
    return _pattern("last").search(openings[-1]) is not None


def _without_politeness(text: str) -> Iterator[str]:
    """Yield the rest of the text behind each polite opening, in turn.

    Such are "Sorry, but", "As an AI language model," and a question that is repeated.
    """
    echo = _ECHO.match(text)
    if echo:
        text = text[echo.end() :]
        yield text
    for _ in range(_POLITE_PARTS):
        polite = _pattern("polite").match(text)
        if polite is None or polite.end() == len(text):
            break
        text = text[polite.end() :].lstrip(_WRAPPING)
        yield text


def _is_title(text: str) -> bool:
    """Return whether a text is written as titles are: every word but small ones has a capital."""
    words = _WORDS.findall(text)
    telling = [word for word in words if word.lower() not in _SMALL_WORDS]
    if len(telling) < 2 or text.isupper() or not all(word[0].isupper() for word in telling):
        return False
    return any(word[0] not in "Ii" for word in telling[1:])


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    """Return the pattern of all sections of a kind in `denials.txt`, compiled at its first use."""
    sections = _SECTION.findall(DENIALS.read_text(encoding="utf-8"))
    parts: dict[str, str] = {}
    for section, _, body in sections:
        if section == "parts":
            parts |= dict(line.split(" = ", 1) for line in _lines(body))
    wanted = [
        _section(kind, _lines(body), parts) for section, _, body in sections if section == kind
    ]
    pattern = "|".join(wanted)
    return re.compile(f"(?:{pattern}){_JOINT}" if kind == "polite" else pattern)


def _lines(body: str) -> list[str]:
    return [line for line in body.splitlines() if line.strip() and not line.startswith("#")]


def _section(kind: str, lines: Sequence[str], parts: dict[str, str]) -> str:
    """Return one pattern for all lines of a section."""
    before, after = "", "" if kind == "polite" else r"(?!\w)"
    patterns: list[str] = []
    for line in lines:
        if line.startswith("before:"):
            before = line.removeprefix("before:").strip()
        elif line.startswith("after:"):
            after = line.removeprefix("after:").strip()
        else:
            patterns.append(line)
    return _folded_pattern(f"{before}(?:{'|'.join(patterns)}){after}", parts)


def _folded_pattern(pattern: str, parts: dict[str, str]) -> str:
    """Return a pattern with its parts filled in, folded as the texts are in which it is sought."""
    while _PART.search(pattern):
        pattern = _PART.sub(lambda match: parts[match[1]], pattern)
    return folded(pattern.replace(r"\W", _NOT_A_WORD)).replace(_NOT_A_WORD, r"\W")
