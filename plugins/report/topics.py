"""The topics of a run's questions: as their source named them, or else by the words they share."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from typing import Any

from selfloop import Attempt, Question
from selfloop.text.answers import content
from selfloop.text.display import printable

from ._packages import is_installed

OTHER = "other"  # the topic of questions that cannot be grouped
MIN_QUESTIONS = 3  # without a topic: fewer are not grouped
MAX_TOPICS = 20
# from so many questions on, a word counts only if two of them have it
MANY_QUESTIONS = 50
MAX_DIMENSIONS = 50  # to which TF-IDF vectors are reduced before they are grouped
NAME_WORDS = 2  # words of a group that make its name
NAME_WIDTH = 40  # terminal cells

_log = logging.getLogger("selfloop.report")


@dataclass
class Topic:
    """A group of questions: its name, and how many have which decision."""

    name: str
    counts: Counter[str] = field(default_factory=Counter[str])

    @property
    def questions(self) -> int:
        """Return how many questions there are."""
        return self.counts.total()


def topics_of(attempts: Sequence[tuple[int, Attempt]]) -> list[Topic]:
    """Return the topics of attempts (round, attempt), the largest first."""
    names = topic_names([attempt.question for _, attempt in attempts])
    topics: dict[str, Topic] = {}
    for (_, attempt), name in zip(attempts, names, strict=True):
        topics.setdefault(name, Topic(name)).counts[str(attempt.decision)] += 1
    return sorted(topics.values(), key=lambda topic: -topic.questions)


def topic_names(questions: Sequence[Question]) -> list[str]:
    """Return the name of each question's topic; questions without one are grouped by words."""
    names = [question.topic for question in questions]
    unnamed = [i for i, name in enumerate(names) if not name.strip()]
    groups = _group_names([questions[i].text for i in unnamed])
    for i, name in zip(unnamed, groups, strict=True):
        names[i] = name
    return [printable(name, NAME_WIDTH) for name in names]


def _group_names(texts: Sequence[str]) -> list[str]:
    """Return a name for each text's group: k-means over TF-IDF vectors, named by its words."""
    without_groups = [OTHER] * len(texts)
    if len(texts) < MIN_QUESTIONS or not any(map(content, texts)):
        return without_groups
    if not is_installed("sklearn"):
        _say_ungrouped()
        return without_groups
    from sklearn.cluster import MiniBatchKMeans  # type: ignore[import-untyped]
    from sklearn.decomposition import TruncatedSVD  # type: ignore[import-untyped]
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    vectorizer = TfidfVectorizer(
        analyzer=content, min_df=2 if len(texts) > MANY_QUESTIONS else 1, sublinear_tf=True
    )
    try:
        weights = vectorizer.fit_transform(texts)  # sparse, (texts, words)
    except ValueError:  # no word is in two texts
        return without_groups
    dimensions = weights.shape[1] - 1  # of the SVD, which must have fewer than there are words
    # a rule of thumb: k = sqrt(n / 2)
    count = max(1, min(MAX_TOPICS, int(sqrt(len(texts) / 2)), dimensions))
    if count == 1:
        return without_groups
    reduction = TruncatedSVD(min(MAX_DIMENSIONS, dimensions), random_state=0)
    kmeans = MiniBatchKMeans(count, random_state=0, n_init=3)
    labels = kmeans.fit_predict(reduction.fit_transform(weights))
    words = vectorizer.get_feature_names_out()
    names = [_group_name(weights[labels == label], words) for label in range(count)]
    return [names[label] for label in labels]


def _group_name(weights: Any, words: Sequence[str]) -> str:
    """Return the words with the largest summed TF-IDF in a group; `weights` are (texts, words)."""
    totals = weights.sum(0).A1 if weights.shape[0] else [0]  # k-means may leave a group empty
    heaviest = sorted(range(len(totals)), key=lambda i: -totals[i])
    return ", ".join(words[i] for i in heaviest[:NAME_WORDS])


@cache  # a run writes many reports, and says this once
def _say_ungrouped() -> None:
    _log.warning("topics of questions are not grouped: pip install 'selfloop[stats]'")
