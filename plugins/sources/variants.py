"""`variants`: earlier questions again, of something else, from the answer's side, or in other
words.

From a question that the model knows and one of the same words that it does not, a tuner learns
nothing about wording: see `pairs`. Rewordings and reversals also show where the model contradicts
itself (the "reversal curse", Berglund et al. 2023, arXiv 2309.12288).
"""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Annotated, Literal, TypeVar, get_args

from annotated_types import Ge, Gt, MinLen
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import AskContext, Component, Outcome, Question, Sampling, hookimpl
from selfloop.config.prompts import Prompt
from selfloop.text.answers import normalise
from selfloop.text.english.forms import masked_form

from ._rewording import (
    entity_of,
    entity_place,
    note_if_new,
    reversed_questions,
    reworded_questions,
)
from ._writing import earlier_outcomes, shown_text, texts_if_any

Kind = Literal["swapped", "reversed", "reworded"]
Item = TypeVar("Item")
KINDS: tuple[Kind, ...] = get_args(Kind)
SHARES: Mapping[Kind, float] = {"swapped": 0.7, "reversed": 0.15, "reworded": 0.15}
OVERSAMPLE = 1.3  # some repeat an earlier question, or fail a scorer
_LISTS_PER_NAME = 2  # drawn from the model
_MAX_NAME_WORDS = 5
_SWAPS_PER_TURN = 3  # a question that was swapped so often waits one turn longer
# The knowledge that an outcome shows: the model knows, or it does not.
_KNOWLEDGE = {"belief": 1, "declined": -1}
_PARTNER_DECISION = {"belief": "declined", "declined": "belief"}
_ARTICLE = re.compile("^(the|an?) ", re.IGNORECASE)
_LAST_INDEFINITE = re.compile(r"\b(a)n?( [\"“]?)$")


class Variants:
    """Takes up questions that were answered in earlier rounds; asks nothing in round 1.

    `swapped` replaces the subject of a question with `per_question` others of the same kind: those
    of other questions of its topic or form, and those that the model lists after it. Known
    questions (beliefs) without an unknown partner (declined) of the same form come first, and the
    other way round, each in turn; one that was taken up often has to wait. `reversed` lets the
    model ask a belief from the answer's side, `reworded` in other words; a question that does not
    name the answer, or may ask for something else, is left out. `shares` of the kinds count
    relatively."""

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

    def ask(self, context: AskContext) -> list[Question]:
        """Return variants of each kind, by its share."""
        earlier = EarlierQuestions(context)
        if not earlier.in_turn:
            return []
        total = sum(self._shares.values())  # shares count relatively
        counts = {}
        for kind, share in self._shares.items():
            # rounded up by the remainder: the quotient of two floats may be rounded to a whole
            whole, remainder = divmod(context.n * OVERSAMPLE * share, total)
            counts[kind] = int(whole) + (remainder > 0)
        to_reverse = earlier.least_tried("reversed", earlier.beliefs)
        to_reword = earlier.least_tried("reworded", earlier.in_turn)
        to_reverse = to_reverse[: counts.get("reversed", 0)]
        to_reword = to_reword[: counts.get("reworded", 0)]
        return [
            *self._swapped(context, earlier, counts.get("swapped", 0)),
            *reversed_questions(context, to_reverse, earlier.taken, "variants"),
            *reworded_questions(context, to_reword, earlier.taken, "variants"),
        ]

    def _swapped(
        self, context: AskContext, earlier: "EarlierQuestions", count: int
    ) -> list[Question]:
        """Return about `count` questions, those of a seed together."""
        seeds = [seed for seed in earlier.in_turn if earlier.entities[seed.question.text]]
        seeds = seeds[: math.ceil(count / self._per_question)]
        entities = [earlier.entities[seed.question.text] for seed in seeds]
        questions: list[Question] = []
        for seed, names in zip(seeds, self._listed_names(context, entities), strict=True):
            questions += self._swaps_of(seed, names, earlier)
        return questions

    def _swaps_of(
        self, seed: Outcome, listed: Sequence[str], earlier: "EarlierQuestions"
    ) -> Iterator[Question]:
        """Yield the seed's question about other things: asked about before, and listed, in turn."""
        count = 0
        for name in _in_turn(earlier.same_kind(seed), listed):
            question = swap(seed.question, name)
            if question and note_if_new(question.text, earlier.taken):
                yield question
                count += 1
            if count == self._per_question:
                return

    def _listed_names(self, context: AskContext, entities: Sequence[str]) -> list[list[str]]:
        """Return the names that the model lists after each entity, without those of the prompt."""
        prompts = [
            context.prompt("variants_similar", entity=one_line(entity)) for entity in entities
        ]
        written = texts_if_any(context, prompts, self._listing, _LISTS_PER_NAME)
        return [
            _names_in_lists(texts, prompt) for texts, prompt in zip(written, prompts, strict=True)
        ]


class EarlierQuestions:
    """The questions that were answered in earlier rounds, those in most need of a partner first.

    `beliefs` are those that the model knew, `in_turn` all, known and unknown ones by turns.
    `entities` has the entity of each question, or an empty string; `taken` the normalised texts of
    all that was written.
    """

    def __init__(self, context: AskContext) -> None:
        rng = random.Random(f"{context.seed} seeds")
        answered = [
            outcome
            for outcome in earlier_outcomes(context)
            if outcome.decision in ("belief", "declined", "undecided")
        ]
        # times that each question was taken up, by the kind of variant
        self._tries = Counter(
            (o.question.variant, o.question.variant_of) for o in context.history.outcomes
        )
        self.taken = {normalise(o.question.text) for o in context.history.outcomes}
        self.entities = {o.question.text: entity_of(o.question) for o in answered}
        # Kinds of thing, by form and by topic: the names of each kind, with how much more often
        # the model knew an answer about it than not.
        self._names_by_kind: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._kinds_of_name: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._decisions_by_form: dict[str, set[str]] = defaultdict(set)
        for outcome in answered:
            self._decisions_by_form[_form_of(outcome)].add(outcome.decision)
            self._note_kinds(outcome)
        originals = [o for o in answered if o.question.variant in ("", "swapped")]
        shuffled = rng.sample(originals, len(originals))
        ordered = sorted(shuffled, key=self._turns_to_wait)
        self.beliefs = [o for o in ordered if o.decision == "belief"]
        unknown = [o for o in ordered if o.decision == "declined"]
        undecided = [o for o in ordered if o.decision == "undecided"]
        self.in_turn = [*_in_turn(self.beliefs, unknown), *undecided]

    def _turns_to_wait(self, outcome: Outcome) -> int:
        """Return how long a question waits: for each few swaps, and where its form has a partner.

        A partner is a question of the same form that the model does not know while it knows this
        one, or the other way round.
        """
        swaps = self._tries["swapped", outcome.question.text]
        decisions = self._decisions_by_form[_form_of(outcome)]
        has_partner = _PARTNER_DECISION.get(outcome.decision) in decisions
        return swaps // _SWAPS_PER_TURN + has_partner

    def _note_kinds(self, outcome: Outcome) -> None:
        """Note of which kinds a question's entity is, and whether the model knew the answer.

        The form makes a kind, and so does the topic where it led to the entity.
        """
        question, name = outcome.question, self.entities[outcome.question.text]
        if not name:
            return
        kinds = {("form", _form_of(outcome))}
        if question.topic and name.lower() == question.via.lower():
            kinds.add(("topic", question.topic))
        self._kinds_of_name[name] |= kinds
        for kind in kinds:
            self._names_by_kind[kind][name] += _KNOWLEDGE.get(outcome.decision, 0)

    def least_tried(self, variant: Kind, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return the outcomes in another order: those that have the fewest such variants first."""
        return sorted(outcomes, key=lambda outcome: self._tries[variant, outcome.question.text])

    def same_kind(self, seed: Outcome) -> list[str]:
        """Return other names of the seed's kinds; for a belief those the model knew least of first.

        The topic counts, and every form that the seed's entity occurs in: that is how "Oslo" is
        found for "Where is Paris?" if both were asked for their mayor.
        """
        sign = _KNOWLEDGE.get(seed.decision, 0)
        ranks = Counter[str]()
        for kind in sorted(self._kinds_of_name[self.entities[seed.question.text]]):
            for name, knowledge in self._names_by_kind[kind].items():
                ranks[name] += sign * knowledge
        return sorted(ranks, key=ranks.__getitem__)


def _form_of(outcome: Outcome) -> str:
    return masked_form(outcome.question.text, outcome.question.via)


def _in_turn(firsts: Sequence[Item], seconds: Sequence[Item]) -> Iterator[Item]:
    """Yield from both lists by turns, then the rest of the longer one."""
    for first, second in zip_longest(firsts, seconds):
        if first is not None:
            yield first
        if second is not None:
            yield second


def swap(question: Question, other: str) -> Question | None:
    """Return the question with `other` in place of its entity; None where it makes no other one."""
    text = question.text
    start, end = entity_place(question)
    # compared as normalised texts, replaced as it stands
    entity, words = text[start:end], normalise(other)
    if not entity or not words:
        return None
    if f" {words} " in f" {normalise(text)} " or normalise(entity) in words:
        return None  # named already
    if _shape(entity) != _shape(other):
        return None  # of another kind
    if not entity.startswith("The "):
        other = re.sub("^The ", "the ", other)
    new = _with_article(text[:start], other) + other + text[end:]
    return Question(new, "variants", question.topic, via=other, variant_of=text, variant="swapped")


def _shape(name: str) -> tuple[bool, bool]:
    """Return whether a name has a capital first, its article aside, and whether it has a digit."""
    bare = _ARTICLE.sub("", name)
    return bare[:1].isupper(), any(char.isdigit() for char in bare)


def _with_article(before: str, word: str) -> str:
    """Return the text before a word, its last "a" or "an" as the word needs it."""
    article = "an" if word[0].lower() in "aeiou" else "a"
    return _LAST_INDEFINITE.sub(lambda match: article + match[2], before)


def _names_in_lists(texts: Sequence[str], prompt: Prompt) -> list[str]:
    """Return the names in lists that the model wrote, each once, without those of the prompt.

    The last name of a list may be cut off, so it is left out.
    """
    prompt_words = f" {normalise(shown_text(prompt))} "
    names: dict[str, None] = {}
    for text in texts:
        for part in text.split("|")[:-1]:
            name = part.strip(" .\"'*-")
            if _is_listed_name(name) and f" {normalise(name)} " not in prompt_words:
                names[name] = None
    return list(names)


def _is_listed_name(text: str) -> bool:
    return (
        bool(text)
        and len(text.split()) <= _MAX_NAME_WORDS
        and text[0].isalnum()
        and text[-1] not in "(:"
    )


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "earlier questions of other things, from the answer's side, and in other words"
    return [
        Component(
            "variants", Variants, doc=doc, paper="https://arxiv.org/abs/2309.12288", prompts=PROMPTS
        )
    ]
