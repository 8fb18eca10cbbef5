"""`topics`: topic -> entities that the model lists -> questions about each (after Li et al. 2022,
arXiv 2212.08635).
"""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import AskContext, Component, Question, Sampling, hookimpl
from selfloop.config.prompts import Prompt
from selfloop.text.answers import normalise
from selfloop.text.english.mentions import mentions

from ._topics import no_topics, topics_from
from ._writing import first_question, generate_texts, reseeded, shown_text

TOPICS = (
    "rivers", "countries", "capital cities", "mountains", "animals", "plants", "chemical elements",
    "planets and moons", "scientists", "inventions", "writers", "novels", "painters", "composers",
    "musical instruments", "films", "sports", "foods", "languages", "wars", "kings and queens",
    "presidents", "religions", "buildings", "lakes and seas", "cities", "trees", "fruits",
    "insects", "fish", "singers", "actors", "companies", "board games", "vehicles", "tools",
    "weapons", "clothes", "units of measurement", "mathematicians", "gods and goddesses", "empires",
    "universities", "famous paintings", "plays", "drinks", "dances", "metals",
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

# Entity, topic, question and answer, of many forms: shown without an answer, the model asks about
# whatever it likes.
EXAMPLES = (
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
EXAMPLE_SETS = 4  # sets of examples a call: prompts that begin the same cost the model little
EXAMPLES_PER_SET = 8
LISTS_SHOWN = 5
LISTS_PER_TOPIC = 4  # drawn from the model: a name in several of them is no invention
TOPIC_LISTS = 4  # prompts for more topics
TOPICS_PER_LIST = 8  # topics shown in each
_MAX_NAME_WORDS = 5
_MAX_START = 3  # entities asked about before that a list begins with
_MAX_LISTED = 3  # times `per_topic`: the names of a topic that are kept

Pair = tuple[str, str]  # topic and entity


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
        self._topics = _distinct_topics(*topics_from(topics_file, topics))
        self._per_topic, self._per_entity = per_topic, per_entity
        self._oversample, self._more = oversample, more
        self._listing = Sampling(0.8, top_p=0.95, max_tokens=48, stop=("\n",))
        self._asking = Sampling(temperature, top_p=0.95, max_tokens=32, stop=("\n",))

    def ask(self, context: AskContext) -> list[Question]:
        """Return the questions that name their entity."""
        count = max(1, round(context.n * self._oversample / self._per_entity))
        pairs = self._new_entities(context, count)
        rng = random.Random(context.seed)
        example_sets = [rng.sample(EXAMPLES, EXAMPLES_PER_SET) for _ in range(EXAMPLE_SETS)]
        # the second question about an entity comes after the first of all: a round may stop there
        wanted = pairs * self._per_entity
        prompts = [
            _question_prompt(context, rng.choice(example_sets), topic, entity)
            for topic, entity in wanted
        ]
        questions: dict[str, Question] = {}
        written = generate_texts(context, prompts, self._asking)
        for (topic, entity), texts in zip(wanted, written, strict=True):
            for text in map(first_question, texts):
                if mentions(text, entity, topic):
                    questions.setdefault(text, Question(text, "topics", topic, via=entity))
        return list(questions.values())

    def _new_entities(self, context: AskContext, count: int) -> list[Pair]:
        """Return up to `count` new pairs, the topics in turn.

        Those asked about least come first. Where the topics run dry the model is asked for new
        ones, once.
        """
        asked = [o.question for o in context.history.outcomes if o.question.source == "topics"]
        # a dictionary of names without values keeps their order
        names_asked: dict[str, dict[str, None]] = {topic: {} for topic in self._topics}
        for question in asked:
            names_asked.setdefault(question.topic, {})[question.via] = None
        uses, rng = Counter(question.topic for question in asked), random.Random(context.seed)
        waiting = sorted(names_asked, key=lambda topic: (uses[topic], rng.random()))
        seen = {question.via.lower() for question in asked}
        names_by_topic: dict[str, list[str]] = {}
        may_invent = self._more  # more topics, once
        while True:
            missing = count - sum(map(len, names_by_topic.values()))
            if missing <= 0:
                break
            if not waiting and may_invent:
                may_invent, waiting = False, self._new_topics(context, list(names_asked))
            if not waiting:
                break
            size = math.ceil(missing / self._per_topic)
            batch, waiting = waiting[:size], waiting[size:]
            # a new topic has no entities yet
            earlier = {topic: list(names_asked.get(topic, ())) for topic in batch}
            names_by_topic |= self._listed(context, earlier, seen)
        return _in_turn(names_by_topic)[:count]

    def _listed(
        self, context: AskContext, earlier: Mapping[str, Sequence[str]], seen: set[str]
    ) -> dict[str, list[str]]:
        """Return the new entities of each topic, after a few that were asked about already.

        `earlier` has the topics with their entities. `seen` grows by the new ones.
        """
        reseeded_asking = reseeded(context, *earlier)
        rng = random.Random(reseeded_asking.seed)
        examples = _shown_lists(rng.sample(LISTS, LISTS_SHOWN))
        prompts = []
        for topic, names in earlier.items():
            # a list that is begun goes on; a small model begins a new one with its examples
            begun = rng.sample(names, min(_MAX_START, len(names)))
            start = "".join(f" {one_line(name)} |" for name in begun)
            prompts.append(
                context.prompt(
                    "topics_entities", examples=examples, topic=one_line(topic), start=start
                )
            )
        written = generate_texts(reseeded_asking, prompts, self._listing, LISTS_PER_TOPIC)
        names_by_topic: dict[str, list[str]] = {}
        for (topic, names), prompt, texts in zip(earlier.items(), prompts, written, strict=True):
            prompt_words = shown_text(prompt)  # a small model often repeats its examples
            new = [
                name
                for name in _most_listed_first(texts)
                if name.lower() not in prompt_words and name.lower() not in seen
            ]
            names_by_topic[topic] = _distinct(new, names)[: _MAX_LISTED * self._per_topic]
            seen |= {name.lower() for name in names_by_topic[topic]}
        return names_by_topic

    def _new_topics(self, context: AskContext, topics: Sequence[str]) -> list[str]:
        """Return topics that the model lists after some of these."""
        reseeded_asking = reseeded(context, "more")
        rng = random.Random(reseeded_asking.seed)
        prompts = []
        for _ in range(TOPIC_LISTS):
            sample = rng.sample(topics, min(TOPICS_PER_LIST, len(topics)))
            prompts.append(context.prompt("topics_more", known=" | ".join(map(one_line, sample))))
        known = {topic.lower() for topic in topics}
        new: dict[str, None] = {}
        for texts in generate_texts(reseeded_asking, prompts, self._listing, n=LISTS_PER_TOPIC):
            for text in texts:
                new |= dict.fromkeys(name.lower() for name in listed_names(text))
        return [topic for topic in new if topic not in known]


def _distinct_topics(lines: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the topics in these lines; raise RecipeError where there is none."""
    topics = tuple(topic for topic in dict.fromkeys(map(one_line, lines)) if topic)
    if not topics:
        raise no_topics(where)
    return topics


def _in_turn(names_by_topic: Mapping[str, Sequence[str]]) -> list[Pair]:
    """Return the first name of each topic, then the second of each, and so on."""
    pairs = []
    for place in range(max(map(len, names_by_topic.values()), default=0)):
        for topic, names in names_by_topic.items():
            if place < len(names):
                pairs.append((topic, names[place]))
    return pairs


def _question_prompt(
    context: AskContext, examples: Sequence[tuple[str, str, str, str]], topic: str, entity: str
) -> Prompt:
    """Return the prompt for a question about an entity, without an example about the same."""
    others = [
        f"Topic: {name} ({kind})\nQuestion: {question}\nAnswer: {answer}"
        for name, kind, question, answer in examples
        if name.lower() != entity.lower()
    ]
    return context.prompt(
        "topics_question",
        examples="\n\n".join(others),
        topic=one_line(topic),
        entity=one_line(entity),
    )


def _shown_lists(lists: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"Category: {category}\nExamples: {examples}" for category, examples in lists)


def listed_names(text: str) -> list[str]:
    """Return the names in a list that the model wrote: one to five words each.

    The last may be cut off, so it is left out.
    """
    *parts, _ = re.split(r"[|,;•、،]", text)
    names = [part.strip(" .\"'*-0123456789)") for part in parts]
    return list(filter(_is_short_name, names))


def _is_short_name(text: str) -> bool:
    return (
        bool(text)
        and len(text.split()) <= _MAX_NAME_WORDS
        and text[0].isalnum()
        and "(" not in text
    )


def _most_listed_first(texts: Sequence[str]) -> list[str]:
    """Return the names in several lists, those in the most lists first: an invention is in one.

    Case does not count; the spelling of the first list is kept.
    """
    counts = Counter[str]()
    spellings: dict[str, str] = {}
    for names in map(_distinct_names, texts):
        counts.update(name.lower() for name in names)
        in_this_list = {name.lower(): name for name in names}
        for key, name in in_this_list.items():
            spellings.setdefault(key, name)
    return [spellings[key] for key in sorted(spellings, key=lambda key: -counts[key])]


def _distinct_names(text: str) -> list[str]:
    return list(dict.fromkeys(listed_names(text)))


def _distinct(new: Sequence[str], earlier: Sequence[str]) -> list[str]:
    """Return the new names of which none has all the words of another: "Nile", "Nile River".

    `earlier` names count as others too.
    """
    taken = [set(normalise(name).split()) for name in earlier]
    names = []
    for name in new:
        words = set(normalise(name).split())
        if not _contains_or_is_contained(words, taken):
            names.append(name)
            taken.append(words)
    return names


def _contains_or_is_contained(words: set[str], others: Sequence[set[str]]) -> bool:
    return any(words <= other or other <= words for other in others if other)


def check(**options: Any) -> None:
    """Raise where there is no topic, or the file cannot be read."""
    Topics(**options)


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "topics -> entities the model lists -> questions about each"
    paper = "https://arxiv.org/abs/2212.08635"
    return [Component("topics", Topics, doc=doc, paper=paper, prompts=PROMPTS, check=check)]
