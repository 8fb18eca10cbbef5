"""`topics`: topic -> entities that the model lists -> questions about each (after Li et al.

2022, arXiv 2212.08635).
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line as line

from selfloop import Asking, Component, Question, Sampling, hookimpl
from selfloop.config.prompts import Prompt
from selfloop.errors import RecipeError
from selfloop.text.answers import content, normalise

from ._writing import again, draw, first_question, prompt_text, topic_lines

TOPICS = (
    "rivers", "countries", "capital cities", "mountains", "animals", "plants", "chemical elements", "planets and moons",
    "scientists", "inventions", "writers", "novels", "painters", "composers", "musical instruments", "films",
    "sports", "foods", "languages", "wars", "kings and queens", "presidents", "religions", "buildings",
    "lakes and seas", "cities", "trees", "fruits", "insects", "fish", "singers", "actors", "companies", "board games",
    "vehicles", "tools", "weapons", "clothes", "units of measurement", "mathematicians", "gods and goddesses",
    "empires", "universities", "famous paintings", "plays", "drinks", "dances", "metals",
)  # fmt: skip

# Lists of other categories than TOPICS: a small model likes to say its examples over again.
LISTS = (
    ("gemstones", "diamond | ruby | emerald | sapphire | opal | amethyst | topaz"),
    ("philosophers", "Plato | Aristotle | Immanuel Kant | David Hume | Confucius | Socrates"),
    ("islands", "Madagascar | Iceland | Sicily | Borneo | Cuba | Tasmania | Crete"),
    ("birds", "eagle | owl | robin | ostrich | penguin | swallow | crow"),
    ("operas", "Carmen | Tosca | The Magic Flute | Aida | The Barber of Seville"),
    ("explorers", "Marco Polo | James Cook | Roald Amundsen | Ferdinand Magellan | Ibn Battuta"),
    ("deserts", "Sahara | Gobi | Kalahari | Atacama | Mojave"),
    ("diseases", "malaria | measles | tuberculosis | cholera | diabetes | influenza"),
    ("car makers", "Toyota | Ford | Volvo | Ferrari | Honda | Renault"),
    (
        "battles",
        "Battle of Hastings | Battle of Waterloo | Battle of Gettysburg | Battle of Stalingrad",
    ),
    ("organs of the body", "heart | liver | kidney | lung | brain | stomach"),
)

# Questions of many forms, each with its answer: shown without one, the model asks about whatever it
# likes.
SHOWN = (
    ("Mount Everest", "mountains", "How high is Mount Everest?", "8,849 metres"),
    ("Marie Curie", "scientists", "In which country was Marie Curie born?", "Poland"),
    ("ruby", "gemstones", "What colour is a ruby?", "red"),
    ("Amazon", "rivers", "Into which ocean does the Amazon flow?", "the Atlantic"),
    ("Hamlet", "plays", "Who wrote Hamlet?", "William Shakespeare"),
    ("Eiffel Tower", "buildings", "In which city does the Eiffel Tower stand?", "Paris"),
    ("telephone", "inventions", "Who invented the telephone?", "Alexander Graham Bell"),
    ("Titanic", "ships", "In which year did the Titanic sink?", "1912"),
    ("spider", "animals", "How many legs does a spider have?", "eight"),
    ("Japan", "countries", "What is the currency of Japan?", "the yen"),
    ("Canberra", "capital cities", "Of which country is Canberra the capital?", "Australia"),
    ("iron", "chemical elements", "What is the chemical symbol of iron?", "Fe"),
    ("Saturn", "planets", "What is the largest moon of Saturn?", "Titan"),
    ("French Revolution", "events", "When did the French Revolution begin?", "1789"),
    ("violin", "musical instruments", "How many strings does a violin have?", "four"),
    ("sushi", "foods", "From which country does sushi come?", "Japan"),
    ("Islam", "religions", "What is the holy book of Islam?", "the Quran"),
    ("Napoleon", "rulers", "On which island did Napoleon die?", "Saint Helena"),
    ("penguin", "birds", "On which continent do most penguins live?", "Antarctica"),
    ("Don Quixote", "novels", "In which language was Don Quixote written?", "Spanish"),
    ("Frédéric Chopin", "composers", "Which instrument did Frédéric Chopin play?", "the piano"),
    ("Alexander the Great", "rulers", "Which philosopher taught Alexander the Great?", "Aristotle"),
    ("silk", "fabrics", "Which insect makes silk?", "the silkworm"),
    (
        "Cold War",
        "wars",
        "Which two countries opposed each other in the Cold War?",
        "the USA and the Soviet Union",
    ),
)
_SETS = 4  # sets of examples a call: prompts that begin the same cost the model little


class Topics:
    """Takes the topics asked about least, lets the model list entities, and asks `per_entity`
    questions about each.

    `topics_file` has one topic a line, in any script, and stands in place of `topics`. No entity
    comes twice in a run. Where the topics run dry the model is asked for more topics too, unless
    `more` is off.
    """

    def __init__(
        self,
        *,
        topics: tuple[str, ...] = TOPICS,
        topics_file: Path | None = None,
        per_topic: Annotated[int, Ge(1)] = 8,
        per_entity: Annotated[int, Ge(1)] = 2,
        temperature: Annotated[float, Gt(0)] = 0.6,
        oversample: Annotated[float, Ge(1)] = 2.2,
        more: bool = True,
    ) -> None:
        read = f"the topics file {topics_file}"
        self._topics = (
            _given(topic_lines(topics_file), read) if topics_file else _given(topics, "topics")
        )
        self._per_topic, self._per_entity, self._oversample, self._more = (
            per_topic,
            per_entity,
            oversample,
            more,
        )
        self._listing = Sampling(0.8, top_p=0.95, max_tokens=48, stop=("\n",))
        self._asking = Sampling(temperature, top_p=0.95, max_tokens=32, stop=("\n",))

    def ask(self, asking: Asking) -> list[Question]:
        """Return the questions that name what they were to be about."""
        pairs = self._entities(
            asking, max(1, round(asking.n * self._oversample / self._per_entity))
        )
        rng = random.Random(asking.seed)
        shown = [rng.sample(SHOWN, 8) for _ in range(_SETS)]
        wanted = [pair for _ in range(self._per_entity) for pair in pairs]
        prompts = [_prompt(asking, rng.choice(shown), topic, entity) for topic, entity in wanted]
        found: dict[str, Question] = {}
        for (topic, entity), got in zip(wanted, draw(asking, prompts, self._asking), strict=True):
            for text in map(first_question, got):
                if names(text, entity, topic):
                    found.setdefault(text, Question(text, "topics", topic, via=entity))
        return list(found.values())

    def _entities(self, asking: Asking, count: int) -> list[tuple[str, str]]:
        """Return up to `count` new (topic, entity) pairs, the topics in turn; ask for new topics where they run dry."""
        had = [o.question for o in asking.past.outcomes if o.question.source == "topics"]
        known = {topic: dict[str, None]() for topic in (*self._topics, *(q.topic for q in had))}
        for question in had:
            known[question.topic][question.via] = None
        uses, rng = Counter(question.topic for question in had), random.Random(asking.seed)
        waiting = sorted(known, key=lambda topic: (uses[topic], rng.random()))
        found: dict[str, list[str]] = {}
        seen = {question.via.lower() for question in had}
        invented = not self._more
        while (missing := count - sum(map(len, found.values()))) > 0:
            if not waiting and not invented:
                invented, waiting = True, self._new_topics(asking, list(known))
            if not waiting:
                break
            size = -(-missing // self._per_topic)
            now, waiting = waiting[:size], waiting[size:]
            found |= self._listed(
                asking, {topic: list(known.get(topic, ())) for topic in now}, seen
            )
        ordered = [
            (topic, own[i]) for i in range(count) for topic, own in found.items() if i < len(own)
        ]
        return ordered[:count]

    def _listed(
        self, asking: Asking, topics: dict[str, list[str]], seen: set[str]
    ) -> dict[str, list[str]]:
        """Return the new entities of each topic, after a few that were asked about already; `seen` grows by them."""
        told = again(asking, *topics)
        rng = random.Random(told.seed)
        examples = _lists(rng.sample(LISTS, 5))
        starts = [
            "".join(f" {line(e)} |" for e in rng.sample(own, min(3, len(own))))
            for own in topics.values()
        ]
        prompts = [
            asking.prompt("topics_entities", examples=examples, topic=line(topic), start=start)
            for topic, start in zip(topics, starts, strict=True)
        ]
        found = dict[str, list[str]]()
        for (topic, own), prompt, texts in zip(
            topics.items(), prompts, draw(told, prompts, self._listing, 4), strict=True
        ):
            shown = prompt_text(prompt)  # a small model likes to say its examples over again
            new = [
                name
                for name in _agreed(texts)
                if name.lower() not in shown and name.lower() not in seen
            ]
            found[topic] = _apart(new, own)[: 3 * self._per_topic]
            seen |= {name.lower() for name in found[topic]}
        return found

    def _new_topics(self, asking: Asking, known: Sequence[str]) -> list[str]:
        """Return topics that the model lists after some of the known ones."""
        told = again(asking, "more")
        rng = random.Random(told.seed)
        shown = [rng.sample(known, min(8, len(known))) for _ in range(4)]
        prompts = [
            asking.prompt("topics_more", known=" | ".join(map(line, topics))) for topics in shown
        ]
        texts = [text for got in draw(told, prompts, self._listing, n=4) for text in got]
        had = {topic.lower() for topic in known}
        listed = dict.fromkeys(name.lower() for text in texts for name in entities(text))
        return [topic for topic in listed if topic not in had]


def _given(topics: Sequence[str], where: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(name for topic in topics if (name := line(topic))))
    if not found:
        raise RecipeError(
            f"ask.sources: {where} has no topics. Name one at least, or leave the option out."
        )
    return found


def _prompt(
    asking: Asking, shown: Sequence[tuple[str, str, str, str]], topic: str, entity: str
) -> Prompt:
    others = [one for one in shown if one[0].lower() != entity.lower()]
    examples = "\n\n".join(f"Topic: {e} ({t})\nQuestion: {q}\nAnswer: {a}" for e, t, q, a in others)
    return asking.prompt(
        "topics_question", examples=examples, topic=line(topic), entity=line(entity)
    )


def _lists(shown: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"Category: {category}\nExamples: {examples}" for category, examples in shown)


def entities(text: str) -> list[str]:
    """Return the names in a list that the model wrote: one to five words each; the last may be cut off, so it goes."""
    *whole, _ = [part.strip(" .\"'*-0123456789)") for part in re.split(r"[|,;•、،]", text)]
    return [
        part
        for part in whole
        if part and len(part.split()) <= 5 and part[0].isalnum() and "(" not in part
    ]


def _agreed(texts: Sequence[str]) -> list[str]:
    """Return the names in several lists, those in the most lists first: what is made up is in one."""
    named = [dict.fromkeys(entities(text)) for text in texts]
    times = Counter(name.lower() for own in named for name in own)
    once = {name.lower(): name for own in reversed(named) for name in own}
    order = dict.fromkeys(name.lower() for own in named for name in own)
    return [once[key] for key in sorted(order, key=lambda key: -times[key])]


def _apart(new: Sequence[str], own: Sequence[str]) -> list[str]:
    """Return the names of which none has all the words of another, nor of one in `own`: "Nile", "Nile River"."""
    taken = [set(normalise(name).split()) for name in own]
    found = []
    for name in new:
        words = set(normalise(name).split())
        if not any(words <= other or other <= words for other in taken if other):
            found.append(name)
            taken.append(words)
    return found


def names(question: str, entity: str, topic: str = "") -> bool:
    """Return whether a question says what it is about: half the words of the entity's name, in
    singular or plural.

    Words of the topic tell nothing: "Which tree is the tallest?" does not say "oak tree".
    """
    kinds = tuple(_stem(word)[:5] for word in content(topic))
    words = content(entity) or normalise(entity).split()
    words = [word for word in words if not (kinds and word.startswith(kinds))] or words
    text = f" {normalise(question)}"
    said = sum(
        f" {stem}" in text or (not stem.isascii() and stem in text) for stem in map(_stem, words)
    )
    return bool(words) and 2 * said >= len(words)


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def check(**options: Any) -> None:
    """Raise where there is no topic, or the file cannot be read."""
    Topics(**options)


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "topics -> entities the model lists -> questions about each"
    paper = "https://arxiv.org/abs/2212.08635"
    return [Component("topics", Topics, doc=doc, paper=paper, prompts=PROMPTS, check=check)]
