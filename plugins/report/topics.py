"""What a run asked about, in groups: the topic that a source gave a question, or else what its words share."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

from selfloop import Attempt, Question
from selfloop.text.answers import content
from selfloop.text.display import printable

# questions without a topic for which groups are sought, and how many groups at most
FEW, MOST = 3, 20


@dataclass
class Topic:
    """A group of questions: its name, and how many have which decision."""

    name: str
    counts: Counter[str] = field(default_factory=Counter[str])

    @property
    def questions(self) -> int:
        """Return how many questions there are."""
        return self.counts.total()


def topics(asked: Sequence[tuple[int, Attempt]]) -> list[Topic]:
    """Return the topics, the largest first."""
    names = named([attempt.question for _, attempt in asked])
    found: dict[str, Topic] = {}
    for (_, attempt), name in zip(asked, names, strict=True):
        found.setdefault(name, Topic(name)).counts[str(attempt.decision)] += 1
    return sorted(found.values(), key=lambda one: -one.questions)


def named(questions: Sequence[Question]) -> list[str]:
    """Return the name of each question's topic."""
    bare = [k for k, one in enumerate(questions) if not one.topic.strip()]
    grouped = dict(zip(bare, _grouped([questions[k].text for k in bare]), strict=True))
    return [printable(grouped.get(k, one.topic), 40) for k, one in enumerate(questions)]


def _grouped(texts: Sequence[str]) -> list[str]:
    """Return for each text the words that say most about its group: k-means over TF-IDF."""
    if len(texts) < FEW or not any(map(content, texts)):
        return ["other"] * len(texts)
    from sklearn.cluster import MiniBatchKMeans  # type: ignore[import-untyped]
    from sklearn.decomposition import TruncatedSVD  # type: ignore[import-untyped]
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    vectors = TfidfVectorizer(
        analyzer=content, min_df=2 if len(texts) > 50 else 1, sublinear_tf=True
    )
    try:
        weights = vectors.fit_transform(texts)
    except ValueError:  # no word comes twice
        return ["other"] * len(texts)
    count = max(1, min(MOST, int(sqrt(len(texts) / 2)), weights.shape[1] - 1))
    if count == 1:
        return ["other"] * len(texts)
    reduced = TruncatedSVD(min(50, weights.shape[1] - 1), random_state=0).fit_transform(weights)
    group = MiniBatchKMeans(count, random_state=0, n_init=3).fit_predict(reduced)
    words = vectors.get_feature_names_out()
    names = []
    for k in range(count):
        strength = weights[group == k].sum(0).A1 if (group == k).any() else [0]
        names.append(
            ", ".join(
                words[i] for i in sorted(range(len(strength)), key=lambda i: -strength[i])[:2]
            )
        )
    return [names[k] for k in group]
