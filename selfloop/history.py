"""What a run knows of the rounds before: what became of each question, and what it holds true after
all of them.

A belief does not outlast what contradicts it. Two answers that cannot both be right lower each
other: given that at most one of two independent statements of probability p and q is true, the
first is with p(1 − q)/(1 − pq).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from selfloop.records import Adapter, Attempt, Belief, Outcome, Question, Round
from selfloop.text.answers import content, declines, normalise

# decisions that say nothing of an answer: what was held before is held after
UNSAID = ("dropped", "failed")
CERTAIN = 0.99  # no verdict counts as surer: that eight samples of eight agree is no proof

# What a question may open with that says nothing of what it asks for.
_OPENINGS = re.compile(
    r"(?:(?:please|so|well|okay|ok|hey|hi|hello|now|question|quiz|q)\b[\s,:.!-]+"
    r"|(?:can|could|would|will|do|does) (?:you|anyone|anybody|someone) (?:please |kindly )?"
    r"(?:tell|say|give|name|know|remind|state)\b(?: (?:me|us))?[\s,:]+"
    r"|(?:tell|give|remind) "
    r"(?:me|us)\b[\s,:]+|(?:name|identify|specify)\s+|(?:state|say|list)\s+(?=the\b)"
    r"|i(?:'d| would) like to know[\s,:]+|i (?:want|need|wish) to know[\s,:]+|i wonder[\s,:]+|may "
    r"i ask[\s,:]+"
    r"|let me (?:know|ask)(?: you)?[\s,:]+)+"
)
_CLOSINGS = re.compile(r"[\s,]*\b(?:please|thanks|thank you)?[\s?!.]*$")
_CONTRACTED = re.compile(r"\b(what|which|who|whom|where|when|why|how|that|there)'(?:s|re)\b")
_INITIALS = re.compile(r"\b(?:[^\W\d_]\.){2,}")
_WORDS = re.compile(
    r"[^\W\d_]+(?:'[^\W\d_]+)*'?[+#]*"  # Utah, O'Neill, C++
    r"|-?\d+(?:[.,:/]\d+)*\w*"  # 5, -5, 1.5, 10:30, 5th
    r"|[-+*/×÷=<>^%&@$€£√]"
)
_DASHES = str.maketrans({**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("‘’ʼ`´", "'")})
_ASKING = frozenset(
    (
        "who",
        "whom",
        "whose",
        "when",
        "where",
        "why",
        "how",
        "in",
        "on",
        "at",
        "of",
        "for",
        "to",
        "from",
    )
)
_ARTICLES = frozenset(("a", "an", "the"))
_PRESENT = frozenset(("what", "which", "is", "are", "do", "does"))
_PAST = frozenset(("was", "were", "did"))


@dataclass(frozen=True, slots=True)
class Past:
    """What a run knows of what went before: what it must not ask again, and what it builds on."""

    rounds: int = 0
    outcomes: tuple[Outcome, ...] = ()
    adapter: Adapter | None = None

    @property
    def questions(self) -> tuple[str, ...]:
        """Return the texts of all questions that were asked, each once, in order."""
        return tuple(
            dict.fromkeys(o.question.text for o in self.outcomes if o.decision != "dropped")
        )

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return the texts of the questions that were written and not asked, in order."""
        return tuple(o.question.text for o in self.outcomes if o.decision == "dropped")

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """Return what is held true: the questions whose last answer is a belief, in the order
        asked.

        Of questions that ask for the same in other words, the surest stands for all.
        """
        last = {o.question.text: o for o in self.outcomes if o.decision not in UNSAID}
        held = surest(o for o in last.values() if o.decision == "belief")
        return tuple(
            Belief(o.question, o.answer, o.confidence or 0.0, o.round, o.adapter) for o in held
        )

    @classmethod
    def of(cls, rounds: Iterable[Round]) -> "Past":
        """Return the past as the round after all of these sees it."""
        return reduce(cls.after, rounds, cls())

    def after(self, ended: Round) -> "Past":
        """Return the past as the round after `ended` sees it."""
        return replace(
            self.and_asked(ended.attempts),
            rounds=ended.number,
            adapter=ended.adapter or self.adapter,
        )

    def and_asked(self, attempts: Iterable[Attempt]) -> "Past":
        """Return the past with this round's attempts in it too."""
        found = [outcome for attempt in attempts for outcome in _outcomes(attempt, self.rounds + 1)]
        return replace(self, outcomes=(*self.outcomes, *found))


def _outcomes(attempt: Attempt, number: int) -> Iterable[Outcome]:
    adapter = attempt.draft.adapter if attempt.draft else None
    decision = attempt.decision or "undecided"
    became = Outcome(
        attempt.question,
        decision,
        attempt.answer,
        attempt.confidence,
        number,
        adapter,
        attempt.reason,
    )
    yield _tenable(became)
    if attempt.lowers:
        yield _tenable(attempt.lowers)


def _tenable(outcome: Outcome) -> Outcome:
    """Return an outcome as it may stand: a run of an earlier version may have held for true what is no answer."""
    if outcome.decision != "belief":
        return outcome
    # its patterns take a while to compile, which --help must not pay
    from selfloop.text.nonanswers import non_answer

    if why := non_answer(outcome.question.text, outcome.answer):
        return replace(outcome, decision="undecided", reason=f"no answer: {why}")
    return outcome


def surest(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the outcomes, of those whose questions have the same gist the surest alone, in the order given."""
    kept: dict[object, Outcome] = {}
    for outcome in outcomes:
        key = gist(outcome.question.text) or outcome.question.text
        held = kept.get(key)
        if held is None or (outcome.confidence or 0.0) > (held.confidence or 0.0):
            kept[key] = outcome
    return list(kept.values())


def gist(question: str) -> tuple[str, ...]:
    """Return the words that say what a question asks for, in order. Two of the same gist ask for
    the same.

    "When" and "where", "by" and "from" are among them, and the order counts: who beat Ada is not
    whom Ada beat. Signs and numbers count as they are written: 5 + 3 is not 5 - 3. The tense
    counts, present or past; the verb's place does not. "Name", "tell me", "what's" and the like say
    nothing.
    """
    text = (
        unicodedata.normalize("NFKC", question)
        .casefold()
        .translate(_DASHES)
        .strip(" \t\r\n\"“”«»'")
    )
    text = _CLOSINGS.sub("", _OPENINGS.sub("", text, count=1) if _OPENINGS.match(text) else text)
    text = _INITIALS.sub(
        lambda initials: initials[0].replace(".", ""), _CONTRACTED.sub(r"\1 is", text)
    )
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", " ", text))
    words = [word.strip("'") for word in _WORDS.findall(text)]
    said = [word for word in words if word not in _PRESENT | _PAST | _ARTICLES]
    said = said[2:] if said[:2] == ["name", "of"] else said
    return (
        (*_of_form(said), "(past)")
        if said and not _PAST.isdisjoint(words)
        else tuple(_of_form(said))
    )


def _of_form(words: list[str]) -> list[str]:
    """Return "Utah's capital" as "capital of Utah"; words with no such genitive at their beginning stay as they are."""
    owners = [place for place, word in enumerate(words) if word.endswith("'s")]
    if len(owners) != 1 or "of" in words or words[0] in _ASKING or owners[0] == len(words) - 1:
        return words
    (place,) = owners
    return [*words[place + 1 :], "of", *words[:place], words[place].removesuffix("'s")]


def origin(
    question: Question, known: Mapping[str, Question], through: Sequence[str] = ("reworded",)
) -> str:
    """Return the text of the question that this one is a variant of in the end, over any number of the `known`."""
    passed = {question.text}
    while question.variant in through:
        if question.variant_of in passed:
            return min(passed)  # each rewords the other: it is the same for both
        passed.add(question.variant_of)
        question = known.get(question.variant_of) or Question(question.variant_of, "")
    return question.text


def agree(answer: str, other: str) -> bool:
    """Return whether two answers may be the same: one has all the words of the other ("Athens", "Athens, Greece")."""
    one, two = _words(answer), _words(other)
    return one <= two or two <= one


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") or word for word in normalise(text).split()}  # a cat, cats


def contradicts(question: Question, answer: str, belief: Belief) -> bool:
    """Return whether `answer` cannot be right beside `belief`.

    A question that asks for the same in other words must get the same answer; one that asks from
    the answer's side must get something that the belief's question names, and it does not itself;
    an answer that only says its words over tells nothing. Two questions of the same gist ask for
    the same.
    """
    linked = question.variant if question.variant_of == belief.question.text else ""
    if linked == "reversed":
        given, held = _words(question.text), _words(belief.answer)
        named, told = (
            _words(" ".join(content(belief.question.text))) - given - held,
            _words(answer) - given,
        )
        return bool(named and told and held & given) and not declines(answer) and not named & told
    same = linked == "reworded" or gist(question.text) == gist(belief.question.text) != ()
    return same and not declines(answer) and not agree(answer, belief.answer)


def contradictions(beliefs: Sequence[Belief], attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts, each answer as unsure as the one it contradicts makes it, and that one
    too.

    That is an earlier belief, or an answer of these attempts; of several the surest. A belief whose
    own question is among them is not there any more. Whether an answer is held in spite of it is
    for who decides to say.
    """
    anew = {attempt.question.text for attempt in attempts if attempt.decision not in UNSAID}
    questions = [
        *(attempt.question for attempt in attempts),
        *(belief.question for belief in beliefs),
    ]
    said = _Said({question.text: question for question in questions})
    for belief in (one for one in beliefs if one.question.text not in anew):
        said.add(belief)
    done, places = list(attempts), dict[str, int]()
    for i, attempt in enumerate(attempts):
        if attempt.confidence is None or not attempt.live:
            continue
        mine = Belief(attempt.question, attempt.answer, attempt.confidence, 0)
        if other := said.against(mine):
            mine, low = _lowered(mine, other), _lowered(other, mine)
            said.held[low.question.text] = low
            why, lost = f"contradicted by {mine.question.text!r}: {mine.answer}", None
            if (place := places.get(low.question.text)) is not None:
                done[place] = replace(done[place], confidence=low.confidence, reason=why)
            else:
                lost = Outcome(
                    low.question,
                    "undecided",
                    low.answer,
                    low.confidence,
                    low.round,
                    low.adapter,
                    why,
                )
            why = f"contradicts {low.question.text!r}: {low.answer}"
            done[i] = replace(attempt, confidence=mine.confidence, reason=why, lowers=lost)
        said.add(mine)
        places[mine.question.text] = i
    return done


class _Said:
    """Answers by the texts of their questions, and those texts by what they ask for."""

    def __init__(self, known: Mapping[str, Question]) -> None:
        self.known, self.held = known, dict[str, Belief]()
        self.about = defaultdict[object, list[str]](list)

    def add(self, belief: Belief) -> None:
        self.held[belief.question.text] = belief
        for key in (origin(belief.question, self.known), gist(belief.question.text)):
            self.about[key].append(belief.question.text)

    def against(self, mine: Belief) -> Belief | None:
        """Return the surest answer to another question that this one contradicts."""
        question = replace(mine.question, variant="reworded")
        back = mine.question.variant == "reversed"
        same = self.about[origin(question if back else mine.question, self.known)]
        asked = [
            (text, replace(mine.question if back else question, variant_of=text)) for text in same
        ]
        asked += [(text, mine.question) for text in self.about[gist(question.text)]]
        found = [
            self.held[t]
            for t, q in asked
            if t != q.text and contradicts(q, mine.answer, self.held[t])
        ]
        return max(found, key=lambda belief: belief.confidence, default=None)


def _lowered(one: Belief, other: Belief) -> Belief:
    p, q = min(one.confidence, CERTAIN), min(other.confidence, CERTAIN)
    return replace(one, confidence=p * (1 - q) / (1 - p * q))
