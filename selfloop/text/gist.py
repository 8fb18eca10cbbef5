"""The gist of a question: the words that tell two questions apart, in order.

Two questions of the same gist ask for the same: "What is the capital of Utah?", "Name Utah's
capital".
"""

import re
import unicodedata

# Openings of a question that say nothing of its subject.
_OPENINGS = re.compile(
    r"(?:(?:please|so|well|okay|ok|hey|hi|hello|now|question|quiz|q)\b[\s,:.!-]+"
    r"|(?:can|could|would|will|do|does) (?:you|anyone|anybody|someone) (?:please |kindly )?"
    r"(?:tell|say|give|name|know|remind|state)\b(?: (?:me|us))?[\s,:]+"
    r"|(?:tell|give|remind) (?:me|us)\b[\s,:]+"
    r"|(?:name|identify|specify)\s+"
    r"|(?:state|say|list)\s+(?=the\b)"
    r"|i(?:'d| would) like to know[\s,:]+"
    r"|i (?:want|need|wish) to know[\s,:]+"
    r"|i wonder[\s,:]+"
    r"|may i ask[\s,:]+"
    r"|let me (?:know|ask)(?: you)?[\s,:]+)+"
)
_CLOSINGS = re.compile(r"[\s,]*\b(?:please|thanks|thank you)?[\s?!.]*$")
_CONTRACTED = re.compile(r"\b(what|which|who|whom|where|when|why|how|that|there)'(?:s|re)\b")
_INITIALS = re.compile(r"\b(?:[^\W\d_]\.){2,}")  # U.S., J.R.R.
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")  # the comma of 1,000
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")  # that of well-known, not that of -5
_WORDS = re.compile(
    r"[^\W\d_]+(?:'[^\W\d_]+)*'?[+#]*"  # Utah, O'Neill, C++
    r"|-?\d+(?:[.,:/]\d+)*\w*"  # 5, -5, 1.5, 10:30, 5th
    r"|[-+*/×÷=<>^%&@$€£√]"
)
_DASHES = str.maketrans({**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("‘’ʼ`´", "'")})
_QUOTES = " \t\r\n\"“”«»'"
_QUESTION_WORDS = frozenset((
    "who", "whom", "whose", "when", "where", "why", "how",
    "in", "on", "at", "of", "for", "to", "from",
))  # fmt: skip
_ARTICLES = frozenset(("a", "an", "the"))
_PRESENT = frozenset(("what", "which", "is", "are", "do", "does"))
_PAST = frozenset(("was", "were", "did"))
_SILENT = _PRESENT | _PAST | _ARTICLES  # words that do not tell two questions apart
_PAST_MARK = "(past)"  # ends the gist of a question in the past tense


def gist(question: str) -> tuple[str, ...]:
    """Return the content words of a question, in order; none if it has none.

    "When" and "where", "by" and "from" are among them, and the order counts: who beat Ada is not
    whom Ada beat. Signs and numbers count as they are written: 5 + 3 is not 5 - 3. The tense
    counts, present or past; the verb's place does not. "Name", "tell me", "what's" and the like say
    nothing.
    """
    # 1. One form of letters, dashes and apostrophes, without quotes around it.
    text = unicodedata.normalize("NFKC", question).casefold().translate(_DASHES).strip(_QUOTES)
    # 2. Without "Tell me" before it and "please?" after it.
    text = _OPENINGS.sub("", text, count=1) if _OPENINGS.match(text) else text
    text = _CLOSINGS.sub("", text)
    # 3. One spelling: "what's" as "what is", "U.S." as "us", "1,000" as "1000".
    text = _CONTRACTED.sub(r"\1 is", text)
    text = _INITIALS.sub(lambda initials: initials[0].replace(".", ""), text)
    text = _HYPHEN.sub(" ", text)
    text = _THOUSANDS.sub("", text)
    # 4. The words that tell questions apart.
    words = [word.strip("'") for word in _WORDS.findall(text)]
    telling = [word for word in words if word not in _SILENT]
    if telling[:2] == ["name", "of"]:  # "the name of the capital" is the capital
        telling = telling[2:]
    if not telling:
        return ()
    # 5. One order of genitives, and the tense.
    ordered = _genitive_as_of(telling)
    return tuple(ordered) if _PAST.isdisjoint(words) else (*ordered, _PAST_MARK)


def _genitive_as_of(words: list[str]) -> list[str]:
    """Return "utah's capital" as "capital of utah"; words without one such genitive stay as is."""
    # Two genitives, an "of", or a question word before it: the order may matter, so it stays.
    owners = [index for index, word in enumerate(words) if word.endswith("'s")]
    if len(owners) != 1 or "of" in words or words[0] in _QUESTION_WORDS:
        return words
    (owner,) = owners
    if owner == len(words) - 1:
        return words
    return [*words[owner + 1 :], "of", *words[:owner], words[owner].removesuffix("'s")]
