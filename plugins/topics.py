"""`topics`: topic -> entities that the model lists -> questions about each (after Li et al. 2022, arXiv 2212.08635)."""

import random
import re
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, MinLen

from selfloop import Asking, Component, Question, Sampling, hookimpl
from selfloop.prompts import Prompt

from .writing import draw, first_question

TOPICS = (
    "rivers", "countries", "capital cities", "mountains", "animals", "plants", "chemical elements", "planets and moons",
    "scientists", "inventions", "writers", "novels", "painters", "composers", "musical instruments", "films",
    "sports", "foods", "languages", "wars", "kings and queens", "presidents", "religions", "buildings",
)  # fmt: skip


class Topics:
    """Each turn takes topics in a shuffled order, lets the model list entities, and asks about each new one."""

    def __init__(
        self,
        *,
        topics: Annotated[tuple[str, ...], MinLen(1)] = TOPICS,
        per_topic: Annotated[int, Ge(1)] = 5,
        temperature: Annotated[float, Gt(0)] = 0.8,
        oversample: Annotated[float, Ge(1)] = 1.4,
    ) -> None:
        self._topics, self._per_topic, self._oversample = topics, per_topic, oversample
        self._listing = Sampling(1.0, top_p=0.95, max_tokens=48, stop=("\n",))
        self._asking = Sampling(temperature, top_p=0.95, max_tokens=32, stop=("\n",))

    def ask(self, asking: Asking) -> list[Question]:
        """Return one question for each entity."""
        pairs = self._entities(asking, max(1, round(asking.n * self._oversample)))
        prompts = [asking.prompt("topics_question", topic=topic, entity=entity) for topic, entity in pairs]
        written = draw(asking, prompts, self._asking)
        texts = [first_question(text) for (text,) in written]
        return [Question(text, "topics", topic) for text, (topic, _) in zip(texts, pairs, strict=True) if text]

    def _entities(self, asking: Asking, count: int) -> list[tuple[str, str]]:
        """Return up to `count` (topic, entity) pairs, the topics taken in turn."""
        rng = random.Random(asking.seed)
        wanted = min(len(self._topics), -(-count // self._per_topic))
        topics = rng.sample(self._topics, wanted)
        prompts = [asking.prompt("topics_entities", topic=topic) for topic in topics]
        found: dict[str, list[str]] = {}
        for topic, prompt, texts in zip(topics, prompts, draw(asking, prompts, self._listing, n=2), strict=True):
            shown = _text(prompt)  # a small model likes to say its examples over again
            listed = dict.fromkeys(name for text in texts for name in entities(text))
            found[topic] = [name for name in listed if name.lower() not in shown]
        ordered = [(topic, own[i]) for i in range(2 * count) for topic, own in found.items() if i < len(own)]
        return ordered[:count]


def _text(prompt: Prompt) -> str:
    return (prompt if isinstance(prompt, str) else " ".join(message.content for message in prompt)).lower()


def entities(text: str) -> list[str]:
    """Return the names in a list that the model wrote: one to five words each; the last may be cut off, so it goes."""
    *whole, _ = [part.strip(" .\"'*-0123456789)") for part in re.split(r"[|,;•]", text)]
    return [part for part in whole if part and len(part.split()) <= 5 and part[0].isalnum()]


@hookimpl
def selfloop_question_sources() -> list[Component]:
    """Offer the source."""
    doc = "topics -> entities the model lists -> a question about each"
    folder = Path(__file__).parent / "prompts"
    return [Component("topics", Topics, doc=doc, paper="https://arxiv.org/abs/2212.08635", prompts=folder)]
