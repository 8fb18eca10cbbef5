"""`variants`: earlier questions again, of something else, from the answer's side, or in other
words.

From a question that the model knows and one of the same words that it does not, a tuner learns
nothing about wording: see `pairs`. Rewordings and reversals also show where the model contradicts
itself (the "reversal curse", Berglund et al. 2023, arXiv 2309.12288).
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, MinLen
from selfloop_plugins._shared.pairs import entity, form
from selfloop_plugins._shared.patterns import pattern
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line as line

from selfloop import Asking, Component, Outcome, Question, Sampling, hookimpl
from selfloop.config.prompts import Prompt
from selfloop.errors import RequestError
from selfloop.text.answers import content, declines, normalise

from ._writing import again, draw, earlier, first_question, prompt_text

Kind = Literal["swapped", "reversed", "reworded"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SHARES: Mapping[Kind, float] = {"swapped": 0.7, "reversed": 0.15, "reworded": 0.15}
OVERSAMPLE = 1.3  # some repeat an earlier question, or fail a scorer
TRIES = 8  # texts drawn for a rewording or a reversal: a small model says most questions over again

# A question word, and the nouns that ask for the same; "Who wrote it?" and "When was it written?"
# are two questions.
_ASKS_FOR = {
    "person": (
        r"who|whom|whose",
        r"person|man|woman|author|writer|painter|artist|composer|inventor|director|founder",
    ),
    "time": (r"when", r"year|date|day|month|century|decade|time"),
    "place": (
        r"where",
        r"place|country|city|continent|location|state|region|town|birthplace|area|part",
    ),
    "count": (r"how (?:many|much)", r"number|amount"),
    "measure": (
        r"how (?:long|far|high|old|tall|big|large|deep|fast)",
        r"length|distance|height|age|size|depth|speed",
    ),
    "reason": (r"why", r"reason|cause|purpose"),
}
# too many questions have such an answer
_DULL = pattern(r"yes|no|true|false|none|\d{1,2}|zero|one|two|three")
_ASKS = pattern(
    r"((in|on|at|of|to|from|by|for|with) )?(what|which|who|whom|whose|when|where|why|how)\b",
    re.IGNORECASE,
)
_TURNING, _REWORDING = (Sampling(t, top_p=0.95, max_tokens=40, stop=("\n",)) for t in (0.6, 0.9))
_KNOWN = {"belief": 1, "declined": -1}
_PARTNER = {"belief": "declined", "declined": "belief"}


class Variants:
    """Takes up questions that were answered in earlier rounds; asks nothing in round 1.

    `swapped` puts other things of the same kind in place of what a question is about,
    `per_question` of them: those of other questions of its topic or form, and what the model lists
    after it. Known questions (beliefs) without an unknown partner (declined) of the same form come
    first, and the other way round, each in turn; one that was taken up often has to wait.
    `reversed` lets the model ask a belief from the answer's side, `reworded` in other words; what
    does not name the answer, or may ask for something else, is left out. `shares` of the kinds
    count relatively.
    """

    def __init__(
        self,
        *,
        kinds: Annotated[tuple[Kind, ...], MinLen(1)] = KINDS,
        per_question: Annotated[int, Ge(1)] = 3,
        shares: Mapping[Kind, Annotated[float, Gt(0)]] = SHARES,
        temperature: Annotated[float, Gt(0)] = 0.8,
    ) -> None:
        self._shares = {kind: {**SHARES, **shares}[kind] for kind in dict.fromkeys(kinds)}
        self._per_question = per_question
        self._listing = Sampling(temperature, top_p=0.95, max_tokens=40, stop=("\n",))

    def ask(self, asking: Asking) -> list[Question]:
        """Return variants of each kind, by its share."""
        past = Seen(asking)
        if not past.in_turn:
            return []
        total = sum(self._shares.values())
        count = {
            kind: -int(-asking.n * OVERSAMPLE * share // total)
            for kind, share in self._shares.items()
        }
        beliefs = past.least_tried("reversed", past.known)[: count.get("reversed", 0)]
        others = past.least_tried("reworded", past.in_turn)[: count.get("reworded", 0)]
        return [
            *self._swapped(asking, past, count.get("swapped", 0)),
            *turned(asking, beliefs, past.taken, "variants"),
            *reworded(asking, others, past.taken, "variants"),
        ]

    def _swapped(self, asking: Asking, past: "Seen", count: int) -> list[Question]:
        """Return about `count` questions, those of a seed together."""
        able = [seed for seed in past.in_turn if past.names[seed.question.text]]
        seeds = able[: -(-count // self._per_question)]
        listed = self._listed(asking, [past.names[seed.question.text] for seed in seeds])
        return [
            q
            for seed, names in zip(seeds, listed, strict=True)
            for q in self._others(seed, names, past)
        ]

    def _others(self, seed: Outcome, listed: Sequence[str], past: "Seen") -> Iterator[Question]:
        """Yield the seed's question of other things, in turn of those of earlier questions and of those listed."""
        found = 0
        for other in chain.from_iterable(zip_longest(past.same_kind(seed), listed, fillvalue="")):
            question = swap(seed.question, other)
            if question and past.take(question.text):
                yield question
                found += 1
            if found == self._per_question:
                return

    def _listed(self, asking: Asking, names: Sequence[str]) -> list[list[str]]:
        """Return what the model lists after each name, without what the prompt lists."""
        prompts = [asking.prompt("variants_similar", entity=line(name)) for name in names]
        return [
            _listed(texts, shown)
            for texts, shown in zip(tried(asking, prompts, self._listing, 2), prompts, strict=True)
        ]


class Seen:
    """What was asked in earlier rounds: what the model knew and what not, those in most need of a
    partner first.

    `names` has the entity of each question, or an empty string; `taken` the normalised texts of all
    that was written.
    """

    def __init__(self, asking: Asking) -> None:
        rng = random.Random(f"{asking.seed} seeds")
        answered = [o for o in earlier(asking) if o.decision in ("belief", "declined", "undecided")]
        self._tried = Counter(
            (o.question.variant, o.question.variant_of) for o in asking.past.outcomes
        )
        self.taken = {normalise(o.question.text) for o in asking.past.outcomes}
        self.names = {o.question.text: named(o.question) for o in answered}
        self._kin: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        self._kin_of: dict[str, set[tuple[str, str]]] = defaultdict(set)
        met: dict[str, set[str]] = defaultdict(set)
        for o in answered:
            met[self._form(o)].add(o.decision)
            self._note(o)
        need = {
            o.question.text: (
                self._tried["swapped", o.question.text] // 3
                + (_PARTNER.get(o.decision) in met[self._form(o)])
            )
            for o in answered
        }
        fresh = [o for o in answered if o.question.variant in ("", "swapped")]
        fresh = sorted(rng.sample(fresh, len(fresh)), key=lambda o: need[o.question.text])
        self.known = [o for o in fresh if o.decision == "belief"]
        unknown = [o for o in fresh if o.decision == "declined"]
        both = [o for o in chain.from_iterable(zip_longest(self.known, unknown)) if o]
        self.in_turn = both + [o for o in fresh if o.decision == "undecided"]

    def _form(self, outcome: Outcome) -> str:
        return form(outcome.question.text, outcome.question.via)

    def _note(self, outcome: Outcome) -> None:
        """Note what was asked about, and whether the model knew: by form, and by topic where the topic led to it."""
        question, name = outcome.question, self.names[outcome.question.text]
        if not name:
            return
        kin = {("form", self._form(outcome))}
        if question.topic and name.lower() == question.via.lower():
            kin.add(("topic", question.topic))
        self._kin_of[name] |= kin
        for key in kin:
            self._kin[key][name] = self._kin[key].get(name, 0) + _KNOWN.get(outcome.decision, 0)

    def least_tried(self, variant: Kind, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return the outcomes in another order: those that have the fewest such variants first."""
        return sorted(outcomes, key=lambda o: self._tried[variant, o.question.text])

    def same_kind(self, seed: Outcome) -> list[str]:
        """Return what else the same was asked about, whatever it was; for a belief what the model
        knew least of first.

        Of what the seed itself is about, the topic and every form that it occurs in count: that is
        how "Oslo" is found for "Where is Paris?" if both were asked for their mayor.
        """
        sign = _KNOWN.get(seed.decision, 0)
        found: Counter[str] = Counter()
        for key in sorted(self._kin_of[self.names[seed.question.text]]):
            for name, known in self._kin[key].items():
                found[name] += sign * known
        return sorted(found, key=lambda name: found[name])

    def take(self, text: str) -> bool:
        """Return whether a question was not written before, and note that it is now."""
        return unseen(text, self.taken)


def named(question: Question) -> str:
    """Return what a question is about, or an empty string."""
    return question.text[slice(*_span(question))]


def _span(question: Question) -> tuple[int, int]:
    """Return where that stands.

    A frame, which is the `via` of the blank slate, is nothing that it is about.
    """
    return entity(question.text, "" if question.source == "blank_slate" else question.via) or (0, 0)


def swap(question: Question, other: str) -> Question | None:
    """Return the question with `other` in place of what it is about; None where that makes no other question."""
    text, (start, end) = question.text, _span(question)
    name, words = text[start:end], normalise(other)
    if not name or not words or f" {words} " in f" {normalise(text)} " or normalise(name) in words:
        return None
    if _looks(name) != _looks(other):
        return None  # of another kind
    if not name.startswith("The "):
        other = re.sub("^The ", "the ", other)
    new = _article(text[:start], other) + other + text[end:]
    return Question(new, "variants", question.topic, via=other, variant_of=text, variant="swapped")


def _looks(name: str) -> tuple[bool, bool]:
    """Return whether a name has a capital first, its article aside, and whether it has a digit."""
    bare = re.sub("^(the|an?) ", "", name, flags=re.IGNORECASE)
    return bare[:1].isupper(), any(map(str.isdigit, name))


def _article(before: str, word: str) -> str:
    """Return the text before a word, its last "a" or "an" as the word needs it."""
    right = "an" if word[0].lower() in "aeiou" else "a"
    return re.sub(r"\b(a)n?( [\"“]?)$", lambda found: right + found[2], before)


def _listed(texts: Sequence[str], prompt: Prompt) -> list[str]:
    """Return the names in lists, each once; the last may be cut off, and a small model says its examples over again."""
    told = normalise(prompt_text(prompt))
    parts = [part.strip(" .\"'*-") for text in texts for part in text.split("|")[:-1]]
    good = [
        part
        for part in parts
        if part and len(part.split()) <= 5 and part[0].isalnum() and part[-1] not in "(:"
    ]
    return [part for part in dict.fromkeys(good) if f" {normalise(part)} " not in f" {told} "]


def turned(
    asking: Asking, outcomes: Sequence[Outcome], taken: set[str], source: str
) -> list[Question]:
    """Return questions that name the answer and ask for what the question names; those that cannot be turned, not."""
    able = [
        o for o in outcomes if not declines(o.answer) and not _DULL.fullmatch(normalise(o.answer))
    ]
    prompts = [
        asking.prompt("variants_reversed", question=line(o.question.text), answer=line(o.answer))
        for o in able
    ]
    written = tried(again(asking, "turned"), prompts, _TURNING, TRIES)
    return [
        Question(
            text,
            source,
            o.question.topic,
            via=line(o.answer),
            variant_of=o.question.text,
            variant="reversed",
        )
        for o, texts in zip(able, written, strict=True)
        if (text := _chosen((f"Which{text}" for text in texts), taken, partial(turns, o)))
    ]


def turns(outcome: Outcome, text: str) -> bool:
    """Return whether a question names the answer to another, and asks for what the other is about."""
    words, name = f" {normalise(text)} ", normalise(named(outcome.question))
    if f" {normalise(outcome.answer)} " not in words or (name and f" {name} " in words):
        return False
    kind, kind_too = sought(outcome.question.text), sought(text)
    stems = [word[:4] for word in content(text)]
    about = {word[:4] for word in content(outcome.question.text)} - kind
    # "Which string has four strings?" gives itself away
    return (
        len({*stems}) == len(stems)
        and not kind & kind_too
        and bool(about & {*stems})
        and not about <= {*stems}
    )


def sought(text: str) -> set[str]:
    """Return how the nouns begin that a question names after "which" or "what": "Which river ..." seeks a "rive"."""
    return {
        word[:4]
        for word in re.findall(
            r"\b(?:which|what) (?!is\b|are\b|was\b|were\b|do|did\b)(\w+)", text.lower()
        )
    }


def reworded(
    asking: Asking, outcomes: Sequence[Outcome], taken: set[str], source: str
) -> list[Question]:
    """Return each question in other words; those for which the model has none, not."""
    prompts = [asking.prompt("paraphrase", question=line(o.question.text)) for o in outcomes]
    written = tried(again(asking, "reworded"), prompts, _REWORDING, TRIES)
    return [
        Question(
            text,
            source,
            o.question.topic,
            via=named(o.question),
            variant_of=o.question.text,
            variant="reworded",
        )
        for o, texts in zip(outcomes, written, strict=True)
        if (text := _chosen(_unlike(o.question.text, texts), taken, partial(rewords, o)))
    ]


def _unlike(text: str, others: Iterable[str]) -> list[str]:
    """Return the texts, the one least like `text` first: a copy with one word changed tests nothing."""
    from rapidfuzz import fuzz

    return sorted(others, key=lambda other: fuzz.ratio(text, line(first_question(other))))


def rewords(outcome: Outcome, text: str) -> bool:
    """Return whether a text asks for the same as a question, as far as words can tell; strict, for
    a small model errs.

    It keeps all names and numbers and more than two thirds of the words that say what it is about,
    and adds none but nouns that stand for a question word ("who", "author"); it seeks the same, and
    it does not name the answer.
    """
    old, words = outcome.question.text, f" {normalise(text)} "
    answer = normalise(outcome.answer)
    if answer and f" {answer} " in words and f" {answer} " not in f" {normalise(old)} ":
        return False
    if not names(old) <= _all(text) or not names(text) <= _all(old):
        return False
    ours, theirs = ({word[:4] for word in content(one)} for one in (old, text))
    (asks, may), (asks_too, may_too) = _asked_for(old), _asked_for(text)
    stand_ins = {noun[:4] for kind in asks for noun in _ASKS_FOR[kind][1].split("|")}
    if 3 * len(ours & theirs) <= 2 * len(ours) or not theirs | sought(text) <= ours | stand_ins:
        return False
    return asks <= may_too and asks_too <= may


def names(text: str) -> set[str]:
    """Return the capitalised words of a question but the first, and its numbers."""
    words = re.findall(r"\w+", text)
    return {
        word.lower()
        for i, word in enumerate(words)
        if word[0].isdigit() or (i and word[0].isupper())
    }


def _all(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _asked_for(text: str) -> tuple[set[str], set[str]]:
    """Return the kinds of thing that a question asks for by its question word, and those that it may ask for."""
    found = [
        {
            kind
            for kind, patterns in _ASKS_FOR.items()
            if re.search(rf"\b({'|'.join(patterns[:upto])})s?\b", text, re.I)
        }
        for upto in (1, 2)
    ]
    return found[0], found[1]


def _chosen(texts: Iterable[str], taken: set[str], good: Callable[[str], bool]) -> str:
    """Return the first question that is good and new, or an empty string, and note it as taken."""
    for text in map(line, map(first_question, texts)):
        if text.endswith("?") and _ASKS.match(text) and good(text) and unseen(text, taken):
            return text
    return ""


def unseen(text: str, taken: set[str]) -> bool:
    """Return whether a question was not written before, and note that it is now."""
    words = normalise(text)
    new = words not in taken
    taken.add(words)
    return new


def tried(asking: Asking, prompts: Sequence[Prompt], sampling: Sampling, n: int) -> list[list[str]]:
    """Return `n` texts for each prompt, and none where the backend refuses: the other kinds go on."""
    try:
        return draw(asking, prompts, sampling, n=n)
    except RequestError:
        return [[] for _ in prompts]


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "earlier questions of other things, from the answer's side, and in other words"
    return [
        Component(
            "variants", Variants, doc=doc, paper="https://arxiv.org/abs/2309.12288", prompts=PROMPTS
        )
    ]
