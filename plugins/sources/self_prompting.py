"""`self_prompting`: the model writes passages, and questions that they answer (Self-Prompting, Li
et al. 2022).

arXiv 2212.08635, steps 1 to 6: topics -> entities -> passages -> the entities in them, which become
answers -> questions -> double check -> explanations. Topics, quotas and settings are the published
ones.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen
from selfloop_plugins._shared import entities
from selfloop_plugins._shared.patterns import pattern
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line as line

from selfloop import Asking, Completion, Component, Question, Request, Sampling, hookimpl
from selfloop.config.prompts import Prompt, is_open
from selfloop.errors import RecipeError, RequestError
from selfloop.text.answers import content, normalise

from ._writing import again, first_question, prompt_text, topic_lines
from .topics import names

NAME = "self_prompting"
# The paper's topics and quotas, 1,300 in all (its Table 9).
TOPICS = (
    "politicians: 100", "athletes: 40", "sports teams: 40", "sports events: 40", "countries: 40", "cities: 60",
    "historical figures: 50", "historical events: 50", "wars: 40", "religions: 20", "singers: 50", "songs: 50",
    "actors and actresses: 50", "movies and TV series: 50", "writers: 30", "books: 30", "painters: 30",
    "paintings: 30", "composers: 30", "classical music: 30", "tourist attractions: 100", "scientists: 40",
    "scientific terms: 40", "video games: 40", "animals: 40", "plants: 40", "foods: 40", "enterprises: 50",
    "international organizations: 50",
)  # fmt: skip
_ONE = {
    "actors and actresses": "actor or actress",
    "movies and TV series": "movie or TV series",
    "movies": "movie",
}

# What a passage is written after: one of the same kind where a word of the topic tells, else the
# first.
EXEMPLARS = (
    ("", "island", "Sicily", "Sicily is the largest island in the Mediterranean Sea and one of the twenty regions of "
     "Italy. Its capital is Palermo. Mount Etna, an active volcano more than 3,300 metres high, "
     "rises near "
     "Catania. Sicily was ruled by Greeks, Romans, Arabs and Normans. It became part of the "
     "Kingdom of Italy in "
     "1861."),
    (r"politic|athlet|figure|singer|actor|writer|painter\b|composer|scientist|king|queen|president|philosoph|explorer"
     r"|player|author|poet|artist|people|person|inventor|leader", "physicist", "Marie Curie",
     "Marie Curie (7 November 1867 – 4 July 1934) was a Polish and French physicist and chemist. "
     "Curie was born in "
     "Warsaw and moved to Paris in 1891 to study at the Sorbonne. In 1903 Curie shared the Nobel "
     "Prize in Physics with "
     "Pierre Curie and Henri Becquerel. In 1911 Curie won the Nobel Prize in Chemistry for the "
     "discovery of radium and "
     "polonium."),
    (r"song|movie|film|series|book|novel|painting|music|game|album|opera|play\b|poem", "play", "Hamlet",
     "Hamlet is a tragedy by the English playwright William Shakespeare, written around 1600. The "
     "play is set in "
     "Denmark, at the castle of Elsinore. Prince Hamlet wants to avenge his father, who was "
     "murdered by Claudius, the "
     "new king. Ophelia, the daughter of Polonius, drowns in the fourth act. With about 30,000 "
     "words, Hamlet is the "
     "longest play that Shakespeare wrote."),
    (r"event|war\b|battle|revolution|disaster|treat", "battle", "Battle of Hastings",
     "The Battle of Hastings was fought on 14 October 1066 between the army of William, Duke of "
     "Normandy, and the "
     "English army of King Harold Godwinson. It took place near the present town of Battle in "
     "East Sussex. Harold was "
     "killed in the battle. William was crowned king in Westminster Abbey on Christmas Day 1066. "
     "The Bayeux Tapestry "
     "shows the battle in pictures."),
    (r"team|religion|enterprise|organi[sz]ation|compan|university|club|brand", "company", "Nokia",
     "Nokia is a company from Finland that makes equipment for telephone networks. It was founded "
     "in 1865 by Fredrik "
     "Idestam as a paper mill in Tampere. The headquarters of Nokia are in Espoo. From 1998 to "
     "2012 Nokia was the "
     "largest maker of mobile phones in the world. In 2014 it sold its telephone business to Microsoft."),
    (r"term|animal|plant|food|bird|fish|insect|tree|fruit|disease|element|drink", "bird", "emperor penguin",
     "The emperor penguin is the tallest and heaviest of all penguins. It lives only in "
     "Antarctica and feeds on fish, "
     "krill and squid. Emperor penguins can dive more than 500 metres deep. The female lays one "
     "egg in winter, and the "
     "male keeps it warm for about 65 days. The species was described in 1844 by the English "
     "zoologist George "
     "Robert Gray."),
)  # fmt: skip

_PRONOUNS = pattern(r"\b(he|him|his|she|her|hers|they|them|their|it|its)\b", re.IGNORECASE)
_QUOTA = pattern(r"^(.*\S)\s*(?:\t|:)\s*(\d+)$")
# calls of the listing step: topics that give nothing new leave their share to the others
_LISTINGS = 4


@dataclass(frozen=True, slots=True)
class Found:
    """A question on its way through the steps: what it is about, the passage, and the answer."""

    topic: str
    entity: str
    passage: tuple[str, ...]
    answer: str
    question: str = ""
    sentence: str = ""

    @property
    def text(self) -> str:
        """Return the passage."""
        return " ".join(self.passage)


class SelfPrompting:
    """Asks what the passages answer that the model writes itself. The published settings are the
    defaults.

    `asking.n` scales the quotas of `topics` ("cities: 60"; 1 where none is given), `yields` being
    the questions that an entity is expected to give; over a run each topic comes to its share, and
    no entity that gave a question comes again. `topics_file` has one topic a line, in any script,
    and stands in place of `topics`. With `judge: passage` the passage's answer goes along and is
    what detectors judge; with `own` the model answers without the passage. `mismatch` says what
    becomes of a question to which the passage gives another answer.

    Unlike the paper: lists are cut at `list_top_p`, for the tail of a small model's distribution is
    no list; they are drawn with a repetition penalty (CTRL), since there is no presence penalty (2
    there), and no longer than what is wanted needs. Of a passage, sentences that say little new go,
    and all of it where it does not name its entity. Pronouns cannot be banned while a question is
    written, so questions with one are dropped, and those that say their own answer. Where several
    sentences hold the answer, the one with the most of the question's words explains it.
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
        read = f"the topics file {topics_file}"
        self._quotas = (
            _quotas(topic_lines(topics_file), read) if topics_file else _quotas(topics, "topics")
        )
        self._spans = entities.recogniser(ner, f"{NAME} (ner: spacy)")
        self._yields, self._per_passage, self._longest = yields, per_passage, answer_words
        self._replace, self._given = mismatch == "replace", judge == "passage"
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

    def ask(self, asking: Asking) -> list[Question]:
        """Return the questions that came through all steps."""
        return self.pipeline(asking)[0]

    def pipeline(self, asking: Asking) -> tuple[list[Question], dict[str, int]]:
        """Return the questions, and how many of what each step left, in the order of the steps."""
        pairs = self._entities(again(asking, "list"), max(1, round(asking.n / self._yields)))
        passages = self._passages(again(asking, "passage"), pairs)
        answers = self._answers(again(asking, "entities"), passages)
        written = self._questions(again(asking, "question"), answers)
        fit = _fit(written, asking)
        checked = self._checked(again(asking, "check"), fit)
        told = self._explained(again(asking, "explain"), checked)
        steps: dict[str, Sequence[object]] = {
            "entities": pairs,
            "passages": passages,
            "answers": answers,
            "questions": written,
            "fit": fit,
        }
        counts = {
            step: len(left)
            for step, left in {**steps, "checked": checked, "explained": told}.items()
        }
        return [self._asked(found) for found in told], counts

    def _asked(self, found: Found) -> Question:
        answer = found.answer if self._given else ""
        return Question(
            found.question,
            NAME,
            found.topic,
            via=found.entity,
            answer=answer,
            explanation=found.sentence,
        )

    def _entities(self, asking: Asking, count: int) -> list[tuple[str, str]]:
        """Step 1.

        Return up to `count` new pairs of topic and entity, each topic's share of them by its quota.
        """
        had = {
            (o.question.topic, o.question.via)
            for o in asking.past.outcomes
            if o.question.source == NAME
        }
        uses, seen = Counter(topic for topic, _ in had), {normalise(entity) for _, entity in had}
        found: dict[str, list[str]] = {}
        open_quotas = dict(self._quotas)
        for number in range(_LISTINGS):
            missing = count - sum(map(len, found.values()))
            if missing <= 0 or not open_quotas:
                break
            wanted = shares(open_quotas, uses, missing)
            listed = self._listed(again(asking, number), wanted, seen)
            for topic, own in listed.items():
                found.setdefault(topic, []).extend(own)
                uses[topic] += len(own)
                if not own:
                    del open_quotas[topic]
        return [(topic, name) for topic, own in found.items() for name in own]

    def _listed(
        self, asking: Asking, wanted: Mapping[str, int], seen: set[str]
    ) -> dict[str, list[str]]:
        """Return the new entities that the model lists, no more than wanted of each topic; `seen` grows by them."""
        prompts = [asking.prompt("self_prompting_list", topic=line(topic)) for topic in wanted]
        # In steps of 64 tokens: what is asked for should not hang on one entity more or less.
        room = [min(1024, 64 * -(-(32 + 12 * count) // 64)) for count in wanted.values()]
        how = [replace(self._listing, max_tokens=tokens) for tokens in room]
        found: dict[str, list[str]] = {}
        for (topic, count), prompt, got in zip(
            wanted.items(), prompts, _written(asking, prompts, how), strict=True
        ):
            # the topic too: a small model says its prompt over again
            shown, found[topic] = prompt_text(prompt), []
            for name in _names(got) if got else []:
                key = normalise(name) or name
                if len(found[topic]) < count and key not in seen and name.lower() not in shown:
                    seen.add(key)
                    found[topic].append(name)
        return found

    def _passages(self, asking: Asking, pairs: Sequence[tuple[str, str]]) -> list[Found]:
        """Step 2.

        Return a passage about each entity, where the model wrote a whole sentence that names it.
        """
        prompts = [_passage_prompt(asking, topic, entity) for topic, entity in pairs]
        written = _written(asking, prompts, [self._passage] * len(prompts))
        found = [
            Found(
                topic,
                entity,
                tuple(_new(entities.sentences(got.text if got else ""), prompt_text(prompt))),
                "",
            )
            for (topic, entity), prompt, got in zip(pairs, prompts, written, strict=True)
        ]
        return [one for one in found if names(one.text, one.entity)]

    def _answers(self, asking: Asking, passages: Sequence[Found]) -> list[Found]:
        """Step 3.

        Return the entities of each passage, those by rules or spaCy and the model's own list,
        shuffled.
        """
        prompts = [
            asking.prompt("self_prompting_entities", passage=line(found.text)) for found in passages
        ]
        written = _spared(asking, prompts, self._greedy)
        rng, answers = random.Random(asking.seed), list[Found]()
        for found, got in zip(passages, written, strict=True):
            own = re.split(r"[|\n]", got.text) if got else []
            fit = entities.answers(
                found.text, [*self._spans(found.text), *own, found.entity], self._longest
            )
            rng.shuffle(fit)
            fit.sort(key=str.islower)  # as published: names and numbers first
            answers += [replace(found, answer=answer) for answer in fit[: self._per_passage]]
        return answers

    def _questions(self, asking: Asking, answers: Sequence[Found]) -> list[Found]:
        """Step 4. Return a question for each answer, where the model wrote one."""
        prompts = [
            asking.prompt(
                "self_prompting_question", passage=line(found.text), entity=line(found.answer)
            )
            for found in answers
        ]
        written = _written(asking, prompts, [self._question] * len(prompts))
        texts = [first_question(got.text) if got else "" for got in written]
        asked = zip(answers, texts, strict=True)
        return [
            replace(found, question=text) for found, text in asked if text and text[-1] in "?？؟"
        ]

    def _checked(self, asking: Asking, asked: Sequence[Found]) -> list[Found]:
        """Step 5.

        Return the questions to which the passage gives the same answer, or a short new one; each
        once.
        """
        prompts = [
            asking.prompt(
                "self_prompting_check", passage=line(found.text), question=line(found.question)
            )
            for found in asked
        ]
        different = list(dict.fromkeys(prompts))
        written = dict(
            zip(
                different, _written(asking, different, [self._greedy] * len(different)), strict=True
            )
        )
        checked: dict[str, Found] = {}
        for found, got in zip(asked, map(written.__getitem__, prompts), strict=True):
            answer = line(got.text).strip(" .\"'") if got else ""
            text = normalise(found.question)
            if normalise(answer) and normalise(answer) == normalise(found.answer):
                checked.setdefault(text, found)
            elif self._replace and entities.answers(found.text, [answer], self._longest):
                checked.setdefault(text, replace(found, answer=answer))
        return list(checked.values())

    def _explained(self, asking: Asking, checked: Sequence[Found]) -> list[Found]:
        """Step 6.

        Return the questions, each with the sentence that holds its answer, rewritten to stand
        alone.
        """
        plain = [replace(found, sentence=_sentence(found)) for found in checked]
        prompts = [
            asking.prompt(
                "self_prompting_explain", passage=line(found.text), sentence=line(found.sentence)
            )
            for found in plain
        ]
        different = list(dict.fromkeys(prompts))
        rewritten = dict(zip(different, _spared(asking, different, self._greedy), strict=True))
        return [
            _rewritten(found, rewritten[prompt])
            for found, prompt in zip(plain, prompts, strict=True)
        ]


def shares(quotas: Mapping[str, int], uses: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many of `count` each topic gets, so that with its `uses` it comes nearest to its
    quota's share.

    With no uses that is rounding by largest remainder. Topics that get none are left out.
    """
    total, whole = sum(quotas.values()), count + sum(uses.get(topic, 0) for topic in quotas)
    lacks = {topic: quota * whole / total - uses.get(topic, 0) for topic, quota in quotas.items()}
    given = Counter[str]()
    for _ in range(count):
        topic = max(lacks, key=lacks.__getitem__)
        lacks[topic] -= 1
        given[topic] += 1
    return {topic: given[topic] for topic in quotas if given[topic]}


def _fit(asked: Sequence[Found], asking: Asking) -> list[Found]:
    """Return the questions that were not asked before, have no pronoun, and do not say their answer."""
    had = {normalise(text) for text in (*asking.past.questions, *asking.past.dropped)}
    return [
        found
        for found in asked
        if normalise(found.question) not in had
        and f" {normalise(found.answer)} " not in f" {normalise(found.question)} "
        and not _PRONOUNS.search(found.question)
    ]


def _sentence(found: Found) -> str:
    """Return the sentence that holds the answer, of several the one that has the most of the question's words."""
    answer, words = normalise(found.answer), set(content(found.question))
    holding = [sentence for sentence in found.passage if answer in normalise(sentence)] or list(
        found.passage
    )
    return max(holding, key=lambda sentence: len(words & set(normalise(sentence).split())))


def _rewritten(found: Found, got: Completion | None) -> Found:
    """Return `found` with its sentence as the model rewrote it, if that still is one and holds the answer."""
    whole = entities.sentences(got.text) if got else []
    holding = [sentence for sentence in whole if normalise(found.answer) in normalise(sentence)]
    return replace(found, sentence=holding[0]) if holding else found


def _new(sentences: Sequence[str], prompt: str) -> list[str]:
    """Return the sentences that are not in the prompt, and say more than one before: small models repeat themselves."""
    told, new = list[set[str]](), list[str]()
    for sentence in sentences:
        words = set(normalise(sentence).split())
        if sentence.lower() not in prompt and all(
            4 * len(words & before) <= 3 * len(words) for before in told
        ):
            told.append(words)
            new.append(sentence)
    return new


def _passage_prompt(asking: Asking, topic: str, entity: str) -> Prompt:
    fitting = [one for one in EXEMPLARS[1:] if re.search(one[0], topic, re.IGNORECASE)]
    _, kind, name, passage = next(
        (one for one in fitting if one[2].lower() != entity.lower()), EXEMPLARS[0]
    )
    shown = {"shown_topic": kind, "shown": name, "shown_passage": passage}
    return asking.prompt(
        "self_prompting_passage", topic=line(one_of(topic)), entity=line(entity), **shown
    )


def one_of(topic: str) -> str:
    """Return the singular of a topic in English, as far as its ending tells; others stay as they are."""
    if topic in _ONE or re.search(r"(?<!\w)(species|series|us|ss|is)$", topic):
        return _ONE.get(topic, topic)
    return (
        re.sub(r"(?<=\w\w)ies$", "y", topic)
        if topic.endswith("ies")
        else re.sub(r"(?<=\w\w[^su])s$", "", topic)
    )


def _names(listed: Completion) -> list[str]:
    """Return the names in a list that the model wrote; the last one goes where it was cut off."""
    parts = re.split(r"[|｜\n]", listed.text)
    if len(parts) == 1:
        parts = re.split(r"[,;،、]", listed.text)
    if listed.finish == "length":
        parts.pop()
    # without list marks, quotes, and what is in brackets
    bare = r"^(\d+[.)]|[*•-])?[\s\"'*]*|[\s.\"'*]*(\(.*)?$"
    listed_names = [re.sub(bare, "", part) for part in map(line, parts)]
    return [
        name
        for name in listed_names
        if name[:1].isalnum() and len(name.split()) <= 6 and "," not in name
    ]


def _written(
    asking: Asking, prompts: Sequence[Prompt], how: Sequence[Sampling]
) -> list[Completion | None]:
    """Return what the model wrote to each prompt, in one call; None where it refused.

    If it refused all, raise.
    """
    rng = random.Random(asking.seed)
    requests = [
        Request(prompt, sampling, seed=rng.getrandbits(32), open_turn=is_open(prompt))
        for prompt, sampling in zip(prompts, how, strict=True)
    ]
    found: list[Completion | None] = [None] * len(requests)
    refused: list[RequestError] = []
    for index, result in asking.backend.generate(requests):
        if isinstance(result, RequestError):
            refused.append(result)
        else:
            found[index] = result
    if refused and not any(found):
        raise refused[0]
    return found


def _spared(asking: Asking, prompts: Sequence[Prompt], how: Sampling) -> list[Completion | None]:
    """Return what `_written` does, for a step that the others can do without: None for all where all are refused."""
    try:
        return _written(asking, prompts, [how] * len(prompts))
    except RequestError:
        return [None] * len(prompts)


def _quotas(lines: Sequence[str], where: str) -> dict[str, int]:
    """Return each topic with its quota, read from "topic: quota" or "topic<TAB>quota"; raise where there is none."""
    found: dict[str, int] = {}
    for text in lines:
        given = _QUOTA.match(text.strip())
        topic, quota = (line(given[1]), int(given[2])) if given else (line(text), 1)
        if quota < 1:
            raise RecipeError(
                f"ask.sources: {where}: the quota of {topic!r} is {quota}. Give 1 at least, or "
                "leave it out."
            )
        if topic:
            found.setdefault(topic, quota)
    if not found:
        raise RecipeError(
            f"ask.sources: {where} has no topics. Name one at least, or leave the option out."
        )
    return found


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "topics -> entities -> passages the model writes -> questions that they answer, checked against them"
    paper = "https://arxiv.org/abs/2212.08635"
    return [Component(NAME, SelfPrompting, doc=doc, paper=paper, prompts=PROMPTS, check=check)]


def check(**options: object) -> None:
    """Raise where there is no topic, the topics file cannot be read, or spaCy is wanted and not there."""
    SelfPrompting(**options)  # type: ignore[arg-type]
