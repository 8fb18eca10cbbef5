"""`self_prompting`: the model writes passages, and questions that they answer (Self-Prompting, Li
et al. 2022).

arXiv 2212.08635, steps 1 to 6: topics -> entities -> passages -> the entities in them, which become
answers -> questions -> double check -> explanations. Topics, quotas and settings are the published
ones.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import AskContext, Completion, Component, Question, Sampling, hookimpl
from selfloop.config.prompts import Prompt
from selfloop.errors import RecipeError, RequestError
from selfloop.text.answers import content, normalise
from selfloop.text.english.entities import possible_answers
from selfloop.text.english.mentions import mentions
from selfloop.text.english.sentences import whole_sentences
from selfloop.text.patterns import pattern

from ._passages import EXEMPLARS, Exemplar
from ._recogniser import recogniser
from ._topics import no_topics, topics_from
from ._writing import first_question, generate, reseeded, shown_text

NAME = "self_prompting"
TOPICS = (
    "politicians: 100", "athletes: 40", "sports teams: 40", "sports events: 40", "countries: 40",
    "cities: 60", "historical figures: 50", "historical events: 50", "wars: 40", "religions: 20",
    "singers: 50", "songs: 50", "actors and actresses: 50", "movies and TV series: 50",
    "writers: 30", "books: 30", "painters: 30", "paintings: 30", "composers: 30",
    "classical music: 30", "tourist attractions: 100", "scientists: 40", "scientific terms: 40",
    "video games: 40", "animals: 40", "plants: 40", "foods: 40", "enterprises: 50",
    "international organizations: 50",
)  # fmt: skip
_SINGULARS = {
    "actors and actresses": "actor or actress",
    "movies and TV series": "movie or TV series",
    "movies": "movie",
}
_PRONOUN = pattern(r"\b(he|him|his|she|her|hers|they|them|their|it|its)\b", re.IGNORECASE)
_QUOTA = pattern(r"^(.*\S)\s*(?:\t|:)\s*(\d+)$")  # "cities: 60"
_NO_PLURAL = pattern(r"(?<!\w)(species|series|us|ss|is)$")
# around a name in a list: a list mark and quotes before it, quotes and a bracket after it
_AROUND_NAME = pattern(r"^(\d+[.)]|[*•-])?[\s\"'*]*|[\s.\"'*]*(\(.*)?$")
# calls of the listing step: topics that give nothing new leave their share to the others
MAX_LISTINGS = 4
MAX_NAME_WORDS = 6
# Room for a list: tokens of its beginning, and of each name; in steps of 64 tokens, so that a
# prompt does not hang on one entity more or less.
_LIST_TOKENS, _NAME_TOKENS, _TOKEN_STEP, _MAX_LIST_TOKENS = 32, 12, 64, 1024
_MAX_REPEATED = 3 / 4  # of a sentence's words that one before it may have
_QUESTION_MARKS = "?？؟"


@dataclass(frozen=True, slots=True)
class Draft:
    """A question on its way through the steps: its entity, the passage, and the answer."""

    topic: str
    entity: str
    passage: tuple[str, ...]
    answer: str = ""
    question: str = ""
    sentence: str = ""

    @property
    def text(self) -> str:
        """Return the passage."""
        return " ".join(self.passage)


class SelfPrompting:
    """Asks questions that the model's own passages answer. The published settings are the defaults.

    `context.n` scales the quotas of `topics` ("cities: 60"; 1 where none is given), `yields` being
    the questions that an entity is expected to give; over a run each topic comes to its share, and
    no entity that gave a question comes again. `topics_file` has one topic a line, in any script,
    and stands in place of `topics`. With `judge: passage` the detectors judge the answer from the
    passage; with `own` the model answers without the passage. `mismatch` decides on a question to
    which the passage gives another answer.

    Unlike the paper: lists are cut at `list_top_p`, for the tail of a small model's distribution is
    no list; they are drawn with a repetition penalty (CTRL), since there is no presence penalty (2
    there), and no longer than the missing names need. Sentences of a passage that say little new
    are left out, and so is a passage that does not name its entity. Pronouns cannot be banned while
    a question is written, so questions with one are dropped, and those that say their own answer.
    Where several sentences hold the answer, the one with the most of the question's words explains
    it.
    """

    def __init__(
        self,
        *,
        topics: Annotated[tuple[str, ...], MinLen(1)] = TOPICS,
        topics_file: Path | None = None,
        yields: Annotated[float, Gt(0)] = 0.5,
        per_passage: Annotated[int, Ge(1)] = 10,
        ner: Literal["spans", "spacy"] = "spans",
        mismatch: Literal["drop", "replace"] = "drop",
        judge: Literal["passage", "own"] = "passage",
        answer_words: Annotated[int, Ge(1)] = 6,
        list_temperature: Annotated[float, Ge(0)] = 1.0,
        list_top_p: Annotated[float, Gt(0), Le(1)] = 0.9,
        list_penalty: Annotated[float, Ge(1)] = 1.0,
        passage_temperature: Annotated[float, Ge(0)] = 0.4,
        passage_tokens: Annotated[int, Ge(1)] = 256,
        question_temperature: Annotated[float, Ge(0)] = 0.2,
    ) -> None:
        self._quotas = _quotas(*topics_from(topics_file, topics))
        self._find_entities = recogniser(ner, f"{NAME} (ner: spacy)")
        self._yields, self._per_passage = yields, per_passage
        self._max_answer_words = answer_words
        self._replaces_answer, self._hands_on_answer = mismatch == "replace", judge == "passage"
        self._listing = Sampling(
            list_temperature, top_p=list_top_p, repetition_penalty=list_penalty, stop=("\n",)
        )
        self._passage = Sampling(
            passage_temperature,
            max_tokens=passage_tokens,
            stop=("\n\n", "This is a passage from Wikipedia about "),
        )
        self._question = Sampling(question_temperature, max_tokens=50, stop=("\n",))
        self._greedy = Sampling(max_tokens=50, stop=("\n",))

    def ask(self, context: AskContext) -> list[Question]:
        """Return the questions that came through all steps."""
        return self.pipeline(context)[0]

    def pipeline(self, context: AskContext) -> tuple[list[Question], dict[str, int]]:
        """Return the questions, and the number that each step left, in the order of the steps."""
        count = max(1, round(context.n / self._yields))
        # each step has a seed of its own: another count in one changes no draw of another
        pairs = self._entities(reseeded(context, "list"), count)
        passages = self._passages(reseeded(context, "passage"), pairs)
        answers = self._answers(reseeded(context, "entities"), passages)
        written = self._questions(reseeded(context, "question"), answers)
        asked = _asked_texts(context)
        fit = [draft for draft in written if _is_fit(draft, asked)]
        checked = self._checked(reseeded(context, "check"), fit)
        explained = self._explained(reseeded(context, "explain"), checked)
        counts = {
            "entities": len(pairs),
            "passages": len(passages),
            "answers": len(answers),
            "questions": len(written),
            "fit": len(fit),
            "checked": len(checked),
            "explained": len(explained),
        }
        return list(map(self._finished, explained)), counts

    def _finished(self, draft: Draft) -> Question:
        return Question(
            draft.question,
            NAME,
            draft.topic,
            via=draft.entity,
            answer=draft.answer if self._hands_on_answer else "",
            explanation=draft.sentence,
        )

    def _entities(self, context: AskContext, count: int) -> list[tuple[str, str]]:
        """Step 1.

        Return up to `count` new pairs of topic and entity, each topic's share of them by its quota.
        """
        asked = {
            (o.question.topic, o.question.via)
            for o in context.history.outcomes
            if o.question.source == NAME
        }
        uses = Counter(topic for topic, _ in asked)
        seen = {normalise(entity) for _, entity in asked}
        # topic by topic, in the order in which each first got a name
        names_by_topic: dict[str, list[str]] = {}
        open_quotas = dict(self._quotas)
        for number in range(MAX_LISTINGS):
            missing = count - sum(map(len, names_by_topic.values()))
            if missing <= 0 or not open_quotas:
                break
            wanted = shares(open_quotas, uses, missing)
            listed = self._listed(reseeded(context, number), wanted, seen)
            for topic, names in listed.items():
                names_by_topic.setdefault(topic, []).extend(names)
                uses[topic] += len(names)
                if not names:  # its share goes to the others in the next listing
                    del open_quotas[topic]
        pairs = []
        for topic, names in names_by_topic.items():
            pairs += [(topic, name) for name in names]
        return pairs

    def _listed(
        self, context: AskContext, wanted: Mapping[str, int], seen: set[str]
    ) -> dict[str, list[str]]:
        """Return the new entities that the model lists, no more than wanted of each topic.

        `seen` grows by them.
        """
        prompts = [context.prompt("self_prompting_list", topic=one_line(topic)) for topic in wanted]
        samplings = [
            replace(self._listing, max_tokens=_list_tokens(count)) for count in wanted.values()
        ]
        written = _generate_one(context, prompts, samplings)
        names_by_topic: dict[str, list[str]] = {}
        for topic, prompt, completion in zip(wanted, prompts, written, strict=True):
            # the topic too: a small model often repeats its prompt
            prompt_words = shown_text(prompt)
            new = names_by_topic[topic] = []
            for name in _listed_names(completion) if completion else []:
                key = normalise(name) or name
                if len(new) == wanted[topic]:
                    break
                if key not in seen and name.lower() not in prompt_words:
                    seen.add(key)
                    new.append(name)
        return names_by_topic

    def _passages(self, context: AskContext, pairs: Sequence[tuple[str, str]]) -> list[Draft]:
        """Step 2.

        Return a passage about each entity, where the model wrote a whole sentence that names it.
        """
        prompts = [_passage_prompt(context, topic, entity) for topic, entity in pairs]
        written = _generate_one(context, prompts, [self._passage] * len(prompts))
        drafts = []
        for (topic, entity), prompt, completion in zip(pairs, prompts, written, strict=True):
            sentences = whole_sentences(completion.text if completion else "")
            draft = Draft(topic, entity, tuple(_telling(sentences, shown_text(prompt))))
            if mentions(draft.text, entity):
                drafts.append(draft)
        return drafts

    def _answers(self, context: AskContext, passages: Sequence[Draft]) -> list[Draft]:
        """Step 3.

        Return the entities of each passage, those by rules or spaCy and the model's own list,
        shuffled.
        """
        prompts = [
            context.prompt("self_prompting_entities", passage=one_line(draft.text))
            for draft in passages
        ]
        written = _generate_one_if_any(context, prompts, self._greedy)
        rng, drafts = random.Random(context.seed), list[Draft]()
        for draft, completion in zip(passages, written, strict=True):
            listed = re.split(r"[|\n]", completion.text) if completion else []
            entities = [*self._find_entities(draft.text), *listed, draft.entity]
            answers = possible_answers(draft.text, entities, self._max_answer_words)
            rng.shuffle(answers)
            answers.sort(key=str.islower)  # as published: names and numbers first
            drafts += [replace(draft, answer=answer) for answer in answers[: self._per_passage]]
        return drafts

    def _questions(self, context: AskContext, answers: Sequence[Draft]) -> list[Draft]:
        """Step 4. Return a question for each answer, where the model wrote one."""
        prompts = []
        for draft in answers:
            passage, answer = one_line(draft.text), one_line(draft.answer)
            prompts.append(
                context.prompt("self_prompting_question", passage=passage, entity=answer)
            )
        written = _generate_one(context, prompts, [self._question] * len(prompts))
        drafts = []
        for draft, completion in zip(answers, written, strict=True):
            text = first_question(completion.text) if completion else ""
            if text and text[-1] in _QUESTION_MARKS:
                drafts.append(replace(draft, question=text))
        return drafts

    def _checked(self, context: AskContext, drafts: Sequence[Draft]) -> list[Draft]:
        """Step 5.

        Return the questions to which the passage gives the same answer, or a short new one; each
        once.
        """
        prompts = []
        for draft in drafts:
            passage, question = one_line(draft.text), one_line(draft.question)
            prompts.append(
                context.prompt("self_prompting_check", passage=passage, question=question)
            )
        # the same question about the same passage is checked once
        distinct = list(dict.fromkeys(prompts))
        written = _generate_one(context, distinct, [self._greedy] * len(distinct))
        completions = dict(zip(distinct, written, strict=True))
        checked: dict[str, Draft] = {}
        for draft, prompt in zip(drafts, prompts, strict=True):
            completion = completions[prompt]
            answer = one_line(completion.text).strip(" .\"'") if completion else ""
            words, question = normalise(answer), normalise(draft.question)
            if words and words == normalise(draft.answer):
                checked.setdefault(question, draft)
            elif self._replaces_answer and possible_answers(
                draft.text, [answer], self._max_answer_words
            ):
                checked.setdefault(question, replace(draft, answer=answer))
        return list(checked.values())

    def _explained(self, context: AskContext, checked: Sequence[Draft]) -> list[Draft]:
        """Step 6.

        Return the questions, each with the sentence that holds its answer, rewritten to stand
        alone.
        """
        drafts = [replace(draft, sentence=_explaining_sentence(draft)) for draft in checked]
        prompts = []
        for draft in drafts:
            passage, sentence = one_line(draft.text), one_line(draft.sentence)
            prompts.append(
                context.prompt("self_prompting_explain", passage=passage, sentence=sentence)
            )
        distinct = list(dict.fromkeys(prompts))
        written = _generate_one_if_any(context, distinct, self._greedy)
        completions = dict(zip(distinct, written, strict=True))
        return [
            _with_rewritten_sentence(draft, completions[prompt])
            for draft, prompt in zip(drafts, prompts, strict=True)
        ]


def shares(quotas: Mapping[str, int], uses: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many of `count` each topic gets, so that with its `uses` it comes nearest to its
    quota's share.

    With no uses that is rounding by largest remainder. Topics that get none are left out.
    """
    total, whole = sum(quotas.values()), count + sum(uses.get(topic, 0) for topic in quotas)
    lacks = {topic: quota * whole / total - uses.get(topic, 0) for topic, quota in quotas.items()}
    counts = Counter[str]()
    for _ in range(count):  # the topic that lacks most gets the next one
        topic = max(lacks, key=lacks.__getitem__)
        lacks[topic] -= 1
        counts[topic] += 1
    return {topic: counts[topic] for topic in quotas if counts[topic]}


def _list_tokens(count: int) -> int:
    """Return the most tokens that a list of `count` names may take."""
    needed = _LIST_TOKENS + _NAME_TOKENS * count
    return min(_MAX_LIST_TOKENS, _TOKEN_STEP * math.ceil(needed / _TOKEN_STEP))


def _asked_texts(context: AskContext) -> set[str]:
    """Return the normalised texts of all questions of the run."""
    return {normalise(text) for text in (*context.history.questions, *context.history.dropped)}


def _is_fit(draft: Draft, asked: set[str]) -> bool:
    """Return whether a question is new, has no pronoun, and does not say its answer."""
    question = normalise(draft.question)
    says_answer = f" {normalise(draft.answer)} " in f" {question} "
    return question not in asked and not says_answer and not _PRONOUN.search(draft.question)


def _explaining_sentence(draft: Draft) -> str:
    """Return the sentence that holds the answer; of several, the one nearest to the question.

    That is the one with the most of the question's words.
    """
    answer, words = normalise(draft.answer), set(content(draft.question))
    holding = [sentence for sentence in draft.passage if answer in normalise(sentence)]
    return max(
        holding or draft.passage,
        key=lambda sentence: len(words & set(normalise(sentence).split())),
    )


def _with_rewritten_sentence(draft: Draft, completion: Completion | None) -> Draft:
    """Return a draft with its sentence as the model rewrote it.

    The old one stays where the new one is not whole or does not hold the answer.
    """
    for sentence in whole_sentences(completion.text) if completion else []:
        if normalise(draft.answer) in normalise(sentence):
            return replace(draft, sentence=sentence)
    return draft


def _telling(sentences: Sequence[str], prompt: str) -> list[str]:
    """Return the sentences that are not in the prompt, and do not repeat one before.

    Small models repeat themselves.
    """
    earlier: list[set[str]] = []
    telling = []
    for sentence in sentences:
        words = set(normalise(sentence).split())
        repeated = max((len(words & before) for before in earlier), default=0)
        if sentence.lower() not in prompt and repeated <= _MAX_REPEATED * len(words):
            earlier.append(words)
            telling.append(sentence)
    return telling


def _passage_prompt(context: AskContext, topic: str, entity: str) -> Prompt:
    """Return the prompt for a passage, after one about a thing of the same kind."""
    exemplar = _exemplar_for(topic, entity)
    return context.prompt(
        "self_prompting_passage",
        topic=one_line(singular(topic)),
        entity=one_line(entity),
        shown_topic=exemplar.topic,
        shown=exemplar.entity,
        shown_passage=exemplar.passage,
    )


def _exemplar_for(topic: str, entity: str) -> Exemplar:
    """Return the exemplar that a word of the topic tells, about something else; or the first."""
    general, *others = EXEMPLARS
    for exemplar in others:
        is_other = exemplar.entity.lower() != entity.lower()
        if is_other and re.search(exemplar.topics, topic, re.IGNORECASE):
            return exemplar
    return general


def singular(topic: str) -> str:
    """Return the singular of a topic in English, as far as its ending tells; others stay."""
    if topic in _SINGULARS:
        return _SINGULARS[topic]
    if _NO_PLURAL.search(topic):
        return topic
    if topic.endswith("ies"):
        return re.sub(r"(?<=\w\w)ies$", "y", topic)
    return re.sub(r"(?<=\w\w[^su])s$", "", topic)


def _listed_names(completion: Completion) -> list[str]:
    """Return the names in a list that the model wrote; a last one that was cut off is left out."""
    parts = re.split(r"[|｜\n]", completion.text)
    if len(parts) == 1:
        parts = re.split(r"[,;،、]", completion.text)
    if completion.finish == "length":
        parts.pop()
    names = [_AROUND_NAME.sub("", one_line(part)) for part in parts]
    return list(filter(_may_be_name, names))


def _may_be_name(text: str) -> bool:
    return text[:1].isalnum() and len(text.split()) <= MAX_NAME_WORDS and "," not in text


def _generate_one(
    context: AskContext, prompts: Sequence[Prompt], samplings: Sequence[Sampling]
) -> list[Completion | None]:
    """Return the model's completion of each prompt, in one call; None where it refused.

    Raises RequestError where it refused all.
    """
    written = generate(context, prompts, samplings)
    return [samples[-1] if samples else None for samples in written]


def _generate_one_if_any(
    context: AskContext, prompts: Sequence[Prompt], sampling: Sampling
) -> list[Completion | None]:
    """Do as `_generate_one`, but return None for all where all are refused.

    For a step that the others can do without.
    """
    try:
        return _generate_one(context, prompts, [sampling] * len(prompts))
    except RequestError:
        return [None] * len(prompts)


def _quotas(lines: Sequence[str], where: str) -> dict[str, int]:
    """Return each topic with its quota, read from "topic: quota" or "topic<TAB>quota".

    Raises RecipeError where there is no topic, or a quota of 0.
    """
    quotas: dict[str, int] = {}
    for text in lines:
        topic, quota = one_line(text), 1
        if match := _QUOTA.match(text.strip()):
            topic, quota = one_line(match[1]), int(match[2])
        if quota < 1:
            raise RecipeError(
                f"ask.sources: {where}: the quota of {topic!r} is {quota}. Give 1 at least, or "
                "leave it out."
            )
        if topic:
            quotas.setdefault(topic, quota)
    if not quotas:
        raise no_topics(where)
    return quotas


def check(**options: object) -> None:
    """Raise where the topics cannot be read, or spaCy is wanted and not installed."""
    SelfPrompting(**options)  # type: ignore[arg-type]


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = (
        "topics -> entities -> passages the model writes -> questions that they answer, checked "
        "against them"
    )
    paper = "https://arxiv.org/abs/2212.08635"
    return [Component(NAME, SelfPrompting, doc=doc, paper=paper, prompts=PROMPTS, check=check)]
