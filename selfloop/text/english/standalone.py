"""Whether a question is one whole question that stands alone.

A question stands alone if something pins down its subject: a name, a number, a quoted title,
a phrase that restricts ("the capital of Egypt"), a superlative ("the largest planet"), or that it
is about a kind ("a spider").

`form_fault`, `pointing_fault` and `unpinned_fault` each return the fault that they see, in words
that follow "this question", or an empty string.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from selfloop.text.english.words import (
    AUXILIARY_VERB,
    EST_WORDS,
    FUNCTION_WORDS,
    LEADING_PREPOSITIONS,
    OPEN_NOUNS,
    OPEN_ROLES,
    ORDINALS,
    QUESTION_WORD,
    RESTRICTING_WORDS,
    ROLES_IN_A_TEXT,
    UNIQUE_THINGS,
)
from selfloop.text.patterns import any_of, pattern

# --- words

_TOKEN = pattern(r"[^\W_]+(?:[-'’.][^\W_]+)*|[,;:()\"“”?]")  # "O'Neill", "U.S", "," and quotes
_WORD = pattern(r"[^\W_]+(?:['’][^\W_]+)?")
_FUNCTION_WORD = pattern(any_of(FUNCTION_WORDS), re.IGNORECASE)
_RESTRICTING_WORD = pattern(any_of(RESTRICTING_WORDS), re.IGNORECASE)
_OPEN_NOUN = pattern(any_of(OPEN_NOUNS), re.IGNORECASE)
_OPEN_ROLE = pattern(any_of(OPEN_ROLES), re.IGNORECASE)
_ROLE_IN_A_TEXT = pattern(rf"(?:{any_of(ROLES_IN_A_TEXT)})(?:['’]s)?", re.IGNORECASE)
_UNIQUE_THING = pattern(rf"(?:{any_of(UNIQUE_THINGS)})s?(?:['’]s)?", re.IGNORECASE)
# "largest", "most", "third"; not "forest"
_SUPERLATIVE = pattern(
    rf"\b(?:most|least|best|worst|only|last|(?!{any_of(EST_WORDS)})[a-z]{{2,}}est"
    rf"|{any_of(ORDINALS)})\b",
    re.IGNORECASE,
)
# "War and Peace" in quotes of either kind; an apostrophe within a word is none
_QUOTED_TITLE = pattern(r"[\"“][^\"”]{2,}[\"”]|(?<!\w)[‘'][^'’]{2,}[’'](?!\w)")

# --- whether it asks

# "Which river ...?", "In 1990, who ...?", "Name the longest river of Africa?"
_BEGINS_AS_QUESTION = pattern(
    rf"^(?:(?:{any_of(LEADING_PREPOSITIONS)}|according|if|when|while|as) [^,]+, )?"
    rf"(?:(?:{any_of(LEADING_PREPOSITIONS)})\s+)?"
    rf"(?:{QUESTION_WORD}|is|are|was|were|do|does|did|can|could|has|have|had|will|would"
    r"|should|name)(?:['’]s)?\b",
    re.IGNORECASE,
)

# --- its form

# "the capital of ___", "[country]", "the mayor of X"
_GAP = pattern(r"_{2,}|\.{2,}|…|[\[\]{}<>|\\]|\b(?:of|in|by|for|is|does) [XYZ]\b(?!-)|\bX and Y\b")
# "Paris is a city. What is its country", "2. Who"; not "Mrs. Dalloway"
_SEVERAL_SENTENCES = pattern(
    r"(?!\b(?:Mrs|Prof|Capt|Sgt|vols?|Inc|approx)\.)\b[^\W\d_]{3,}[.!;] +[^\W\d_]"
    r"|\b\d{1,2}[.)] +(?:Wh|In|How)\w*"
)
_SECOND_CLAUSE = (
    rf"\s+(?:(?:in|on|at|by|for) )?(?:{QUESTION_WORD}) (?:{AUXILIARY_VERB}|many|much|year)\b"
)
# "... and why?", "who wrote Hamlet and when was it written?"
_SEVERAL_QUESTIONS = pattern(
    rf"\band (?:why|how|when|where|who|what)\s*\?$|(?:\b(?:and|or|but)|;){_SECOND_CLAUSE}"
    rf"|^(?:{QUESTION_WORD}|{AUXILIARY_VERB})\b.*,(?!\s+wh(?:ich|o)\b){_SECOND_CLAUSE}",
    re.IGNORECASE,
)
# "Is Paris in France or in Spain?", "the Nile or the Amazon?", "A) ... B) ...", "true or false"
_OFFERS_ANSWERS = pattern(
    rf"^(?:{AUXILIARY_VERB})\b.*\bor\b(?! (?:more|less|so|not)\b)|[,:] [^,]* or [^,]*\?$"
    r"|\b(?:[A-D]\)|\([a-d]\)|[a-d]\) )|\b(?:true or false|yes or no)\b",
    re.IGNORECASE,
)
# "the the"; not "had had", "that that", nor a name such as "New York New York"
_WORD_TWICE = pattern(
    r"\b((?!(?-i:[A-Z]))[\w']+) \1\b(?<!\bhad had)(?<!\bthat that)", re.IGNORECASE
)
_MAX_SAME_PAIRS = 2  # times that two words may follow one another in a question

# --- its pointers

# Words that point at something unsaid, wherever they stand: "this river", "the passage",
# "your favourite", "described above". Each exception is behind "(?!" or "(?<!".
_POINTING = pattern(
    r"\b(this|these|an? certain|those(?! (?:who|that|of|with|in|from|which|born))|that passage"
    r"|the (?:passage|text|article|following|above|below|picture|image|paragraph|excerpt|diagram"
    r"|dialogue|conversation|given|latter|former)(?! (?:of|by)\b| [‘'\"“]| (?-i:[A-Z]))"
    r"|(?:mentioned|described|shown|listed|given|stated) (?:above|below)"
    r"|(?:above|below)(?=\s*\?$)|aforementioned"
    r"|my|your|(?:do|would|can|should|did|if|are|have|could|will|were) you"
    r"(?! (?:call|say|spell|get|find|need|use))"
    r"|(?:for|to|with|about) you|you (?:were|are|listened|think|like|want)"
    r"|me|our(?! (?:solar|galaxy|planet|sun|moon|species|body|bodies))"
    r"|(?<!do )we(?! (?:call|breathe|use))|(?-i:us)"
    r"|(?<!are )(?<!is )(?<!was )(?<!were )there(?=\s*\?$))\b",
    re.IGNORECASE,
)
_FIRST_PERSON = pattern(r"\b(?!war )[a-z]+,? I\b(?!['’]s)")  # "do I", not "Elizabeth I"
# "in that year", "is that man"
_POINTING_THAT = pattern(
    r"\b(?:in|on|at|of|from|during|for|by|to|is|was|are|were|does|did|do) that (?!of\b)[a-z]+",
    re.IGNORECASE,
)
# "where was HE born", "ITS capital"; capital "IT" may be an abbreviation
_PRONOUN = pattern(
    r"\b(?:he|she|they|him|her|his|their|them|(?-i:it|It)|its|theirs|hers|one)\b", re.IGNORECASE
)
# "it" that stands for nothing: "how long does it take", "what time is it"
_EMPTY_IT = pattern(
    r"\bit (?:take|takes|took|cost|costs|rain|rains|snow|mean|means|called|possible|legal|illegal"
    r"|common|said|to|that|for|when|if|in|on|like to|safe|dangerous|important|necessary"
    r"|necessarily|customary|traditional|believed|true)\b"
    r"|\btime is it\b|\bmakes? it\b|\bday is it\b"
)
_AUXILIARY_OR_QUESTION_WORD = pattern(rf"{AUXILIARY_VERB}|{QUESTION_WORD}", re.IGNORECASE)
# "when two gases ..., what do THEY form"
_CLAUSE_BEFORE = pattern(r"\b(?:if|when|after|before|while) (?:an?|two|the) .*,", re.IGNORECASE)
_ASKS_FOR_NOUN = pattern(
    rf"(?:{QUESTION_WORD})\s+(?:{AUXILIARY_VERB})\s+(?:the|a|an)\b", re.IGNORECASE
)

# --- its open references

# "what is the largest?", "who are the best?"
_BARE_SUPERLATIVE = pattern(
    r"^what (?:is|are|was|were) the (?:most \w+|\w{2,}est|best|worst)\s*\?$", re.IGNORECASE
)
# "how many rivers are there?"; of planets and the like there is one count
_HOW_MANY_ARE_THERE = pattern(
    r"how many (?!continents|planets|oceans|countries|chemical|zodiac|letters)"
    r"[a-z]+(?: [a-z]+)? are there\?",
    re.IGNORECASE,
)
# "Which river is the Indus?"; not "Which planet is the Red Planet?"
_SAYS_ITS_ANSWER = pattern(
    r"which (\w+) (?:is|was|are|were) (?:the )?(?!.*\b\1)(?-i:[A-Z])[\w'’.-]*"
    r"(?: (?-i:[A-Z])[\w'’.-]*)*\?",
    re.IGNORECASE,
)
# "What is the name of the floating fountain?"
_NAME_OF = pattern(r".*\bname of the ([\w-]+)(?: ([\w-]+))?\s*\?", re.IGNORECASE)
# who invented "the telephone": all of them
_INVENTS = pattern(r"\b(?:invent|patent|pioneer|domesticat|creat|develop|introduc)", re.IGNORECASE)
# "Who is the boss?", "Where was the winner born?"
_ASKS_WHO_THE = pattern(
    rf"(?:{QUESTION_WORD})(?:['’]s)? (?:{AUXILIARY_VERB}) the ([\w-]+)"
    r"(?: (?:today|now|here|like|called|born))?\?",
    re.IGNORECASE,
)


def begins_as_question(text: str) -> bool:
    """Return whether a text begins as questions do."""
    return _BEGINS_AS_QUESTION.match(text) is not None


def form_fault(text: str) -> str:
    """Return a fault of the question's form: a gap, several questions, choices, repetition."""
    if gap := _GAP.search(text):
        return f"has a gap to fill ({gap[0]!r})"
    if _SEVERAL_SENTENCES.search(text) or _SEVERAL_QUESTIONS.search(text):
        return "more than one question or sentence"
    if _OFFERS_ANSWERS.search(_QUOTED_TITLE.sub("", text)):
        return "offers answers to choose from"
    if twice := _WORD_TWICE.search(text):
        return f"repeats itself ({twice[0]!r})"
    pairs = list(pairwise(word.lower() for word in _TOKEN.findall(text)))
    if any(pairs.count(pair) > _MAX_SAME_PAIRS for pair in pairs):
        return "repeats itself"
    return ""


def pointing_fault(text: str) -> str:
    """Return a fault that names the words which point at something the question does not say."""
    bare = _QUOTED_TITLE.sub("Title", text)
    pointer = _POINTING.search(bare) or _FIRST_PERSON.search(bare) or _POINTING_THAT.search(bare)
    if pointer:
        return f"points at something unsaid ({pointer[0]!r})"
    plain = _EMPTY_IT.sub("", bare)
    for pronoun in _PRONOUN.finditer(plain):
        before, after = plain[: pronoun.start()], plain[pronoun.end() :]
        if not _has_antecedent(before, pronoun[0].lower(), after):
            return f"points at something unsaid ({pronoun[0]!r})"
    return ""


def unpinned_fault(text: str) -> str:
    """Return a fault that names a reference which the question leaves open."""
    if _is_in_title_case([token for token in _TOKEN.findall(text) if token[0].isalnum()]):
        text = text.lower()
    tokens = _TOKEN.findall(text)
    words = [token for token in tokens if token[0].isalnum()]
    is_named = _has_name(words) or _QUOTED_TITLE.search(text) is not None
    for phrase, is_restricted in _definite_phrases(tokens):
        is_open = not is_named and not is_restricted and _is_open(phrase, text)
        if is_open or _is_role_in_a_text(phrase, is_restricted):
            return f"does not say which ('the {_noun_of(phrase)}')"
    if not is_named:
        says_nothing = _BARE_SUPERLATIVE.search(text) or _HOW_MANY_ARE_THERE.fullmatch(text)
        if says_nothing or _names_no_kind(words):
            return "does not say of what"
    if _SAYS_ITS_ANSWER.fullmatch(text):
        return "asks nothing that it does not say"
    return ""


def _has_antecedent(before: str, pronoun: str, after: str) -> bool:
    """Return whether the text before a pronoun may name its antecedent."""
    words = _WORD.findall(before)
    if pronoun == "one" and (after.lstrip()[:1] != "?" or len(words) > 3):
        return True  # a number, or "the largest one"
    if not words:
        return False
    if _has_name(words):
        return True
    if _AUXILIARY_OR_QUESTION_WORD.fullmatch(words[-1]):
        return _CLAUSE_BEFORE.search(before) is not None
    if _ASKS_FOR_NOUN.match(before) and words[-1].lower() in ("of", "by", "for"):
        return False  # "What is the name of HIS wife?"
    return any(not _FUNCTION_WORD.fullmatch(word) for word in words)


def _has_name(words: Sequence[str]) -> bool:
    """Return whether one of the words is a number, or one after the first is a name."""
    for word in words[1:]:
        # "President" has a capital, and is no name by itself
        is_common = _OPEN_NOUN.fullmatch(word) or _FUNCTION_WORD.fullmatch(word)
        if word[0].isupper() and not is_common:
            return True
    return any(char.isdigit() for char in "".join(words))


def _is_in_title_case(words: Sequence[str]) -> bool:
    """Return whether even small words have capitals, so that capitals tell nothing.

    "Who Is The Author Of The Book?"
    """
    small = [word for word in words[1:] if _FUNCTION_WORD.fullmatch(word)]
    return bool(small) and all(word[0].isupper() for word in small)


def _definite_phrases(tokens: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield the words after each "the", and whether something right after them says which is meant.

    That is a name, a quoted title, or a restricting word with a meaningful word somewhere after it.
    """
    for place, token in enumerate(tokens):
        if token.lower() != "the":
            continue
        start = end = place + 1
        while end < len(tokens) and _continues_phrase(tokens[end], is_first=end == start):
            end += 1
        phrase, rest = list(tokens[start:end]), tokens[end:]
        if not phrase:
            continue
        is_restricted = (
            bool(rest)
            and _RESTRICTING_WORD.fullmatch(rest[0]) is not None
            and _has_meaningful_word(rest[1:])
        )
        is_name = phrase[-1][0].isupper()
        is_title = bool(rest) and rest[0] in '"“'
        yield phrase, is_restricted or is_name or is_title


def _continues_phrase(token: str, *, is_first: bool) -> bool:
    """Return whether a token belongs to the noun phrase: a word, and no function word.

    "The first" and "the most" begin one all the same.
    """
    if not token[0].isalnum():
        return False
    if not _FUNCTION_WORD.fullmatch(token):
        return True
    return is_first and _SUPERLATIVE.fullmatch(token) is not None


def _has_meaningful_word(tokens: Sequence[str]) -> bool:
    return any(token[0].isalnum() and not _FUNCTION_WORD.fullmatch(token) for token in tokens)


def _is_role_in_a_text(phrase: Sequence[str], is_restricted: bool) -> bool:
    """Return whether this is the author, or the like, of a text that one would have to see."""
    for place, word in enumerate(phrase):
        if not _ROLE_IN_A_TEXT.fullmatch(word):
            continue
        if place == len(phrase) - 1:
            return not is_restricted
        return not phrase[place + 1][0].isupper()  # "the author Jane Austen" is named
    return False


def _is_open(phrase: Sequence[str], text: str) -> bool:
    """Return whether "the" and these words do not say which is meant."""
    if any(_SUPERLATIVE.fullmatch(word) for word in phrase):
        return any(_OPEN_ROLE.fullmatch(word) for word in phrase)
    if _INVENTS.search(text) or any(_UNIQUE_THING.fullmatch(word) for word in phrase):
        return False
    if any(_OPEN_NOUN.fullmatch(word) for word in phrase):
        return True
    name_of = _NAME_OF.fullmatch(text)
    if name_of and phrase[-1] in name_of.groups():
        return True
    asks_for_person_place_or_time = text.lower().startswith(("who", "whom", "where", "when"))
    return asks_for_person_place_or_time and _ASKS_WHO_THE.fullmatch(text) is not None


def _noun_of(phrase: Sequence[str]) -> str:
    """Return a phrase up to the last of its open nouns: a verb may follow it."""
    end = len(phrase)
    for place, word in enumerate(phrase):
        if _OPEN_NOUN.fullmatch(word) or _ROLE_IN_A_TEXT.fullmatch(word):
            end = place + 1
    return " ".join(phrase[:end])


def _names_no_kind(words: Sequence[str]) -> bool:
    """Return whether a question names no kind of thing: "Who is president?"."""
    telling = [word for word in words if not _FUNCTION_WORD.fullmatch(word)]
    if len(telling) == 1 and _OPEN_ROLE.fullmatch(telling[0]):
        return True
    return all(_SUPERLATIVE.fullmatch(word) for word in telling)
