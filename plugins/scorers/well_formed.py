"""`well_formed`: whether a text is one whole question that stands alone. Rules for English, no
model.

A question stands alone if something pins down what it asks about: a name, a number, a quoted title,
a phrase that restricts ("the capital of Egypt"), a superlative ("the largest planet"), or that it
is about a kind ("a spider").
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

from annotated_types import Ge
from selfloop_plugins._shared.patterns import pattern

from selfloop import Asking, Component, Question, Score, hookimpl

LONGEST = 1000  # characters of a question
_LEAD = "in|on|at|for|of|to|from|by|with|during|about|after|before|under|into|through|since|until|against|near|over"
_ASKS = pattern(
    rf"^(?:(?:{_LEAD}|according|if|when|while|as) [^,]+, )?(?:(?:{_LEAD})\s+)?"
    r"(?:what|who|whom|whose|which|when|where|why|how|is|are|was|were|do|does|did|can|could|has|have|had|will|would"
    r"|should|name)(?:['’]s)?\b",
    re.IGNORECASE,
)
_AUX = "am|is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may|might|must"
_WH = "what|who|whom|whose|which|when|where|why|how"
_FUNCTION = pattern(
    rf"{_AUX}|{_WH}|be|been|being|a|an|the|and|or|not|in|on|at|of|to|for|from|by|with|as|into|onto|over|under|between"
    r"|among|during|after|before|than|that|this|these|those|it|its|he|she|they|him|her|his|their|them|there|through"
    r"|about|against|near|since|until|within|without|around|across|along|inside|behind|beyond|per|via|if|because"
    r"|also|ever|first|called|named|known|used|made|born|did|while",
    re.IGNORECASE,
)
# What may follow a noun to say which one is meant.
_RESTRICTS = pattern(
    r"of|in|on|at|to|for|from|by|with|that|which|who|whose|whom|where|when|between|among|during|under|near|over|into"
    r"|through|around|against|behind|inside|within|about|after|before|without|than|as|called|named|known|used|made"
    r"|born|across|along|beyond|since|per",
    re.IGNORECASE,
)
# Words that point at something the question does not say, wherever they stand.
_POINTS = pattern(
    r"\b(this|these|an? certain|those(?! (?:who|that|of|with|in|from|which|born))|that passage"
    r"|the (?:passage|text|article|following|above|below|picture|image|paragraph|excerpt|diagram|dialogue|conversation"
    r"|given|latter|former)(?! (?:of|by)\b| [‘'\"“]| (?-i:[A-Z]))"
    r"|(?:mentioned|described|shown|listed|given|stated) "
    r"(?:above|below)|(?:above|below)(?=\s*\?$)|aforementioned"
    r"|my|your|(?:do|would|can|should|did|if|are|have|could|will|were) you(?! "
    r"(?:call|say|spell|get|find|need|use))"
    r"|(?:for|to|with|about) you|you (?:were|are|listened|think|like|want)"
    r"|me|our(?! (?:solar|galaxy|planet|sun|moon|species|body|bodies))|(?<!do )we(?! "
    r"(?:call|breathe|use))|(?-i:us)"
    r"|(?<!are )(?<!is )(?<!was )(?<!were )there(?=\s*\?$))\b",
    re.IGNORECASE,
)
_PRONOUN = pattern(
    r"\b(?:he|she|they|him|her|his|their|them|(?-i:it|It)|its|theirs|hers|one)\b", re.IGNORECASE
)
_EMPTY_IT = pattern(  # "it" that stands for nothing: how long does it take, what time is it
    r"\bit (?:take|takes|took|cost|costs|rain|rains|snow|mean|means|called|possible|legal|illegal|common|said|to|that"
    r"|for|when|if|in|on|like "
    r"to|safe|dangerous|important|necessary|necessarily|customary|traditional|believed|true)\b"
    r"|\btime is it\b|\bmakes? it\b|\bday is it\b"
)
_ME = pattern(r"\b(?!war )[a-z]+,? I\b(?!['’]s)")  # "do I", not "Elizabeth I"
_THAT = pattern(
    r"\b(?:in|on|at|of|from|during|for|by|to|is|was|are|were|does|did|do) that (?!of\b)[a-z]+",
    re.IGNORECASE,
)
_CHOICE = pattern(
    rf"^(?:{_AUX})\b.*\bor\b(?! (?:more|less|so|not)\b)|[,:] [^,]* or [^,]*\?$"
    r"|\b(?:[A-D]\)|\([a-d]\)|[a-d]\) )|\b(?:true or false|yes or no)\b",
    re.IGNORECASE,
)
_SECOND = rf"\s+(?:(?:in|on|at|by|for) )?(?:{_WH}) (?:{_AUX}|many|much|year)\b"
_TWO = pattern(
    rf"\band (?:why|how|when|where|who|what)\s*\?$|(?:\b(?:and|or|but)|;){_SECOND}"
    rf"|^(?:{_WH}|{_AUX})\b.*,(?!\s+wh(?:ich|o)\b){_SECOND}",
    re.IGNORECASE,
)
_SENTENCES = pattern(
    r"(?!\b(?:Mrs|Prof|Capt|Sgt|vols?|Inc|approx)\.)\b[^\W\d_]{3,}[.!;] +[^\W\d_]|\b\d{1,2}[.)] "
    r"+(?:Wh|In|How)\w*"
)
_GAP = pattern(r"_{2,}|\.{2,}|…|[\[\]{}<>|\\]|\b(?:of|in|by|for|is|does) [XYZ]\b(?!-)|\bX and Y\b")
_TWICE = pattern(r"\b((?!(?-i:[A-Z]))[\w']+) \1\b(?<!\bhad had)(?<!\bthat that)", re.IGNORECASE)
_QUOTED = pattern(r"[\"“][^\"”]{2,}[\"”]|(?<!\w)[‘'][^'’]{2,}[’'](?!\w)")
_SUPERLATIVE = pattern(
    r"\b(?:most|least|best|worst|only|last|(?!forest|west|east|rest|test|guest|interest|contest|harvest|request|priest"
    r"|protest|chest|nest|quest|invest|suggest|conquest|arrest|forrest|everest)[a-z]{2,}est|first|second|third|fourth"
    r"|fifth|sixth|seventh|eighth|ninth|tenth)\b",
    re.IGNORECASE,
)
# Nouns that say nothing until one knows whose, or which.
_OPEN = pattern(
    r"(?:vice|prime|main|current|former|original|real|full|true|new|old|other|same|whole|lead|title|head|team|home)s?"
    r"|presidents?|kings?|queens?|ministers?|governors?|mayors?|emperors?|leaders?|rulers?|captains?|coach(?:es)?|chiefs?"
    r"|players?|winners?|losers?|champions?|authors?|writers?|poets?|artists?|painters?|composers?|singers?|actors?"
    r"|actress(?:es)?|directors?|producers?|founders?|owners?|creators?|inventors?|discoverers?|narrators?|speakers?"
    r"|characters?|protagonists?|antagonists?|heroes|hero|heroine|villain|narrator|hosts?|members?|persons?|man|woman|men"
    r"|women|boys?|girls?|guys?|lady|child|father|mother|sons?|daughters?|brothers?|sisters?|wife|husband|couple"
    r"|scientists?|philosophers?|teachers?|students?|doctors?|patients?|victims?|suspects?|detectives?|killers?"
    r"|books?|novels?|stor(?:y|ies)|poems?|plays?|films?|movies?|songs?|albums?|series|shows?|episodes?|seasons?"
    r"|chapters?|verses?|scenes?|paintings?|sculptures?|statues?|games?|match(?:es)?|teams?|clubs?|leagues?|tournament"
    r"|races?|bands?|groups?|compan(?:y|ies)|organi[sz]ations?|part(?:y|ies)|schools?|universit(?:y|ies)|colleges?|church"
    r"|museum|buildings?|houses?|bridges?|towers?|hotels?|restaurants?|ships?|boats?|planes?|cars?|trains?|rivers?"
    r"|lakes?|mountains?|islands?|cit(?:y|ies)|towns?|villages?|countr(?:y|ies)|states?|count(?:y|ies)|provinces?"
    r"|regions?|districts?|areas?|places?|locations?|streets?|capitals?|kingdoms?|empires?|dynasty|republic|colony"
    r"|nations?|tribes?|wars?|battles?|revolutions?|treat(?:y|ies)|elections?|events?|accidents?|crash|attacks?|disaster"
    r"|festivals?|ceremon(?:y|ies)|conferences?|projects?|products?|books?|names?|titles?|words?|numbers?|years?|dates?"
    r"|populations?|currenc(?:y|ies)|governments?|flags?|anthem|mottos?|answers?|questions?|problems?|reasons?|causes?"
    r"|results?|purposes?|meanings?|themes?|plots?|settings?|points?|topics?|subjects?|objects?|things?|items?|types?|dogs?"
    r"|reports?|stud(?:y|ies)|experiments?|programs?|programmes?|laws?|bills?|acts?|cases?|courts?|awards?|prizes?|theater"
    r"|theatre|librar(?:y|ies)|box|bag|room|store|shop|office|temple|castle|palace|fort|fortress|park|garden|lyrics|performance|concert|tour|mission|expedition",
    re.IGNORECASE,
)
# Roles that a superlative does not pin down either: the first president, of what?
_ROLE = pattern(
    r"(?:vice|prime)|presidents?|kings?|queens?|ministers?|governors?|mayors?|emperors?|captains?|coach|authors?|capitals?"
    r"|members?|episodes?|chapters?|seasons?|albums?|winners?|champions?|book|novel|film|movie|song|game|match|name|title",
    re.IGNORECASE,
)
# Roles in a text at hand: a name elsewhere in the question does not say whose.
_AT_HAND = pattern(
    r"(?:authors?|narrators?|speakers?|writers?|poets?|story|poem|protagonist|antagonist|reader|characters?)(?:['’]s)?",
    re.IGNORECASE,
)
_NOTHING = pattern(
    r"^what (?:is|are|was|were) the (?:most \w+|\w{2,}est|best|worst)\s*\?$", re.IGNORECASE
)
# Which river is the Indus? But: which planet is the Red Planet?
_SAYS_ITSELF = pattern(
    r"which (\w+) (?:is|was|are|were) (?:the )?(?!.*\b\1)(?-i:[A-Z])[\w'’.-]*(?: "
    r"(?-i:[A-Z])[\w'’.-]*)*\?",
    re.IGNORECASE,
)
_HOW_MANY = pattern(
    r"how many (?!continents|planets|oceans|countries|chemical|zodiac|letters)[a-z]+(?: [a-z]+)? "
    r"are there\?",
    re.IGNORECASE,
)
# There is one of them, or it stands for all of them.
_ONE = pattern(
    r"(?:world|earth|sun|moon|sky|universe|bible|year|week|planet|internet|human|solar|olympic)s?(?:['’]s)?",
    re.IGNORECASE,
)
_NAME_OF = pattern(r".*\bname of the ([\w-]+)(?: ([\w-]+))?\s*\?", re.IGNORECASE)
_INVENTS = pattern(r"\b(?:invent|patent|pioneer|domesticat|creat|develop|introduc)", re.IGNORECASE)
_TOKEN = pattern(r"[^\W_]+(?:[-'’.][^\W_]+)*|[,;:()\"“”?]")


class WellFormed:
    """1 for one whole question that stands alone, 0 else, with the reason. Whole: it asks, ends in
    "?", is one line.

    What points outside itself goes ("What is this river called?", "Who won the game?"), and so do
    several questions in one, repeated words and answers to choose from. The rules about words are
    for English and pass other scripts by.
    """

    def __init__(
        self, *, min_words: Annotated[int, Ge(1)] = 3, max_words: Annotated[int, Ge(1)] = 30
    ) -> None:
        self._words = range(min_words, max_words + 1)

    def score(self, questions: Sequence[Question], asking: Asking) -> list[Score]:
        """Return 1 or 0 for each question."""
        faults = [self._fault(question.text.strip()) for question in questions]
        return [Score("well_formed", 0.0 if fault else 1.0, fault) for fault in faults]

    def _fault(self, text: str) -> str:
        words = text.split()
        if "\n" in text or text.count("?") != 1 or not text.endswith("?"):
            return "not one question that ends in '?'"
        if len(words) not in self._words:
            return f"{len(words)} words"
        if len(text) > LONGEST:
            return "too many characters"
        if not text.isprintable() or (not text[0].isalnum() and text[0] not in "\"'“‘("):
            return "odd characters"
        if not _ASKS.match(text):
            return "asks nothing"
        return _broken(text) or _pointing(text) or _unpinned(text)


def _broken(text: str) -> str:
    """Return what is wrong with the question's form, or an empty string."""
    if gap := _GAP.search(text):
        return f"has a gap to fill ({gap[0]!r})"
    if _SENTENCES.search(text) or _TWO.search(text):
        return "more than one question or sentence"
    if _CHOICE.search(_QUOTED.sub("", text)):
        return "offers answers to choose from"
    words = [word.lower() for word in _TOKEN.findall(text)]
    pairs = list(pairwise(words))
    if (twice := _TWICE.search(text)) or any(pairs.count(pair) > 2 for pair in pairs):
        return f"repeats itself ({twice[0]!r})" if twice else "repeats itself"
    return ""


def _pointing(text: str) -> str:
    """Return what the question points at without saying it, or an empty string."""
    bare = _QUOTED.sub("Title", text)
    if found := _POINTS.search(bare) or _ME.search(bare) or _THAT.search(bare):
        return f"points at something unsaid ({found[0]!r})"
    plain = _EMPTY_IT.sub("", bare)
    for found in _PRONOUN.finditer(plain):
        if not _has_antecedent(plain[: found.start()], found[0].lower(), plain[found.end() :]):
            return f"points at something unsaid ({found[0]!r})"
    return ""


def _has_antecedent(before: str, pronoun: str, after: str) -> bool:
    """Return whether what stands before a pronoun may say who or what it is."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)?", before)
    if pronoun == "one" and (after.lstrip()[:1] != "?" or len(words) > 3):
        return True  # a number, or "the largest one"
    if not words or _named(words):
        return bool(words)
    if re.fullmatch(rf"{_AUX}|{_WH}", words[-1], re.IGNORECASE):
        return bool(
            re.search(
                r"\b(?:if|when|after|before|while) (?:an?|two|the) .*,", before, re.IGNORECASE
            )
        )
    if re.match(rf"(?:{_WH})\s+(?:{_AUX})\s+(?:the|a|an)\b", before, re.IGNORECASE) and words[
        -1
    ].lower() in (
        "of",
        "by",
        "for",
    ):
        return False  # the name of his wife
    return any(not _FUNCTION.fullmatch(word) for word in words)


def _named(words: Sequence[str]) -> bool:
    """Return whether one of the words is a number, or one after the first a name."""
    capital = (
        w
        for w in words[1:]
        if w[0].isupper() and not _OPEN.fullmatch(w) and not _FUNCTION.fullmatch(w)
    )
    return any(True for _ in capital) or any(any(c.isdigit() for c in word) for word in words)


def _is_title(words: Sequence[str]) -> bool:
    """Return whether even the small words are written with capitals, so that capitals tell nothing."""
    small = [word for word in words[1:] if _FUNCTION.fullmatch(word)]
    return bool(small) and all(word[0].isupper() for word in small)


def _unpinned(text: str) -> str:
    """Return what in the question is meant to be known and is not said, or an empty string."""
    if _is_title([token for token in _TOKEN.findall(text) if token[0].isalnum()]):
        text = text.lower()
    tokens = _TOKEN.findall(text)
    words = [token for token in tokens if token[0].isalnum()]
    named = _named(words) or bool(_QUOTED.search(text))
    for phrase, follows in _phrases(tokens):
        if _is_at_hand(phrase, follows) or (not named and not follows and _is_open(phrase, text)):
            return f"does not say which ('the {_noun(phrase)}')"
    if not named and (_NOTHING.search(text) or _HOW_MANY.fullmatch(text) or _is_bare(words)):
        return "does not say of what"
    if _SAYS_ITSELF.fullmatch(text):
        return "asks nothing that it does not say"
    return ""


def _noun(phrase: Sequence[str]) -> str:
    """Return a phrase up to the last of its open nouns: what follows is a verb."""
    places = [
        i for i, word in enumerate(phrase) if _OPEN.fullmatch(word) or _AT_HAND.fullmatch(word)
    ]
    return " ".join(phrase[: max(places, default=len(phrase)) + 1])


def _is_at_hand(phrase: Sequence[str], follows: bool) -> bool:
    """Return whether this is the author, or the like, of a text that one would have to see."""
    place = next((i for i, word in enumerate(phrase) if _AT_HAND.fullmatch(word)), None)
    if place is None:
        return False
    return not follows if place == len(phrase) - 1 else not phrase[place + 1][0].isupper()


def _is_bare(words: Sequence[str]) -> bool:
    """Return whether a question names no kind of thing at all: "What is the largest?", "Who is president?"."""
    said = [word for word in words if not _FUNCTION.fullmatch(word)]
    return (
        not said
        or (len(said) == 1 and bool(_ROLE.fullmatch(said[0])))
        or all(map(_SUPERLATIVE.fullmatch, said))
    )


def _phrases(tokens: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield the words after each "the", and whether a name or a phrase that restricts them comes right after."""
    for place, token in enumerate(tokens):
        if token.lower() != "the":
            continue
        end = place + 1
        while (
            end < len(tokens)
            and tokens[end][0].isalnum()
            and not _stops(tokens[end], end == place + 1)
        ):
            end += 1
        phrase, rest = list(tokens[place + 1 : end]), tokens[end:]
        restricted = bool(rest) and bool(_RESTRICTS.fullmatch(rest[0])) and _says(rest[1:])
        if phrase:
            yield phrase, restricted or phrase[-1][0].isupper() or (bool(rest) and rest[0] in '"“')


def _stops(token: str, first: bool) -> bool:
    return bool(_FUNCTION.fullmatch(token)) and not (first and _SUPERLATIVE.fullmatch(token))


def _says(rest: Sequence[str]) -> bool:
    """Return whether a word with a meaning of its own follows."""
    return any(t[0].isalnum() and not _FUNCTION.fullmatch(t) for t in rest)


def _is_open(phrase: Sequence[str], text: str) -> bool:
    """Return whether "the" and these words tell nothing by themselves."""
    superlative = any(_SUPERLATIVE.fullmatch(word) for word in phrase)
    if superlative:
        return any(_ROLE.fullmatch(word) for word in phrase)
    if _INVENTS.search(text) or any(_ONE.fullmatch(word) for word in phrase):
        return False
    if any(_OPEN.fullmatch(word) for word in phrase):
        return True
    named = _NAME_OF.fullmatch(text)
    if named and phrase[-1] in named.groups():
        return True
    whole = re.fullmatch(
        rf"(?:{_WH})(?:['’]s)? (?:{_AUX}) the ([\w-]+)(?: (?:today|now|here|like|called|born))?\?",
        text,
        re.IGNORECASE,
    )
    return bool(whole) and text.lower().startswith(("who", "whom", "where", "when"))


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    return [
        Component(
            "well_formed", WellFormed, doc="1 for one whole question that stands alone, else 0"
        )
    ]
