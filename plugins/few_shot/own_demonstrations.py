"""`own_demonstrations`: a run's own answers as few-shot examples, chosen for each question.

Self-Prompting, Li et al. 2022, arXiv 2212.08635, steps 7 and 8: k-means over the pairs, and from
each cluster the pair most similar to the question.
"""

import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le
from selfloop_plugins._shared import embedding
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Component, VerifyContext, hookimpl
from selfloop.config.prompts import Prompt
from selfloop.errors import MissingExtraError, RecipeError
from selfloop.history import History
from selfloop.text.answers import declines, normalise
from selfloop.text.gist import gist

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "own_demonstrations"
Choose = Literal["random", "cluster", "nearest"]
Only = Literal["beliefs", "all"]

NO_CLUSTER = -1
KMEANS_STARTS = 4


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer, and in a sentence why."""

    question: str
    answer: str
    explanation: str = ""

    @property
    def text(self) -> str:
        """Return the text to embed: "question answer"."""
        return f"{self.question} {self.answer}"


@dataclass(frozen=True)
class Pool:
    """The pairs to choose from: their vectors (pairs, width), and the cluster of each.

    A pair without a vector has the cluster -1.
    """

    pairs: tuple[Pair, ...]
    vectors: "NDArray[np.float32]"
    clusters: tuple[int, ...]


class OwnDemonstrations:
    """Puts `count` pairs of question and answer before each question, the most similar one last.

    The pairs are the beliefs of the finished run in the folder `run`. Without `run` they are this
    run's own beliefs of earlier rounds; until there are `count`, the prompt `answer` is used as it
    is. `only: all` takes every answer; `min_confidence` is the lowest confidence. `choose: cluster`
    splits the pairs into `count` clusters and takes from each the one most similar to the question;
    `nearest` takes the most similar of all; `random` takes the same for every question, drawn with
    `seed`. `random` is the quickest, because all prompts begin alike. `embed` says how texts are
    compared, `model` names a sentence model.

    A question never stands behind its own answer, nor behind that of a question that asks for the
    same in nearly the same words. Other rewordings are not told apart, so a belief may be repeated
    where a detector rewords its question.

    With `explain` the prompt is the published one, "The answer (just one entity) is A because E".
    Then the recipe's `answer.stop` must begin with " because" (`stop: [" because", "\\n"]`):
    otherwise the explanation counts as part of the answer. A pair without explanation ends after
    its answer. Unlike the paper's, the pairs need not come from passages, and vectors are by
    default the model's own.
    """

    def __init__(
        self,
        *,
        run: Path | None = None,
        count: Annotated[int, Ge(1)] = 5,
        choose: Choose = "cluster",
        only: Only = "beliefs",
        explain: bool = False,
        min_confidence: Annotated[float, Ge(0), Le(1)] = 0.0,
        seed: int = 0,
        embed: embedding.Embedder = "hidden",
        model: str = embedding.SENTENCE_MODEL,
    ) -> None:
        if choose != "random":
            if find_spec("sklearn") is None:
                raise MissingExtraError("scikit-learn", "stats", f"{NAME} with choose: {choose}")
            embedding.check(embed, model)
        self._count, self._choose, self._seed, self._explain = count, choose, seed, explain
        self._only, self._min_confidence = only, min_confidence
        self._embed, self._model = embed, model
        self._pairs_of_run = None if run is None else self._load(run)
        # the last pool, and the pairs and adapter that it was computed for
        self._pool_key: object = None
        self._pool: Pool | None = None

    def build_prompts(self, questions: Sequence[str], context: VerifyContext) -> list[Prompt]:
        """Return the whole prompt for each question."""
        if not questions:
            return []
        pairs = self._pairs_of_run
        if pairs is None:
            pairs = _pairs(context.history, self._only, self._min_confidence)
            # early rounds have few beliefs; the fixed examples of the prompt serve until then
            if len(pairs) < self._count:
                return [context.prompt("answer", question=question) for question in questions]
        if self._choose == "random":
            chosen = self._draw(questions, pairs)
        else:
            chosen = self._most_similar(questions, pairs, context)
        return [
            self._few_shot_prompt(question, examples, context)
            for question, examples in zip(questions, chosen, strict=True)
        ]

    def _load(self, run: Path) -> tuple[Pair, ...]:
        """Return the pairs of a finished run; raise RecipeError where there are none to use."""
        pairs = _pairs(_history(run), self._only, self._min_confidence)
        noun = "belief" if self._only == "beliefs" else "answer"
        if not pairs:
            or_only_all = " or `only: all`" if self._only == "beliefs" else ""
            raise RecipeError(
                f"demonstrations.run: the run {run} has no {noun} with a confidence of at least "
                f"{self._min_confidence:g}. Give another run, or choose otherwise with "
                f"`min_confidence`{or_only_all}."
            )
        if self._explain and not any(pair.explanation for pair in pairs):
            raise RecipeError(
                f"demonstrations.explain: no {noun} of the run {run} has an explanation. "
                "Questions of the source self_prompting have one; leave `explain` out, or give a "
                "run with such."
            )
        return pairs

    def _draw(self, questions: Sequence[str], pairs: Sequence[Pair]) -> list[list[Pair]]:
        """Return the first pairs of one random order for each question, less its own answer."""
        # one order for all questions: prompts with a common beginning are read once
        order = random.Random(self._seed).sample(pairs, len(pairs))
        chosen = []
        for question in questions:
            # the next pair of the order takes the place of one that gives the answer away
            allowed = [pair for pair in order if not _gives_away(pair, question)]
            chosen.append(allowed[: self._count])
        return chosen

    def _most_similar(
        self, questions: Sequence[str], pairs: tuple[Pair, ...], context: VerifyContext
    ) -> list[list[Pair]]:
        """Return the pairs for each question.

        A question without a vector gets the first pair of each cluster.
        """
        pool = self._pool_of(pairs, context)
        vectors = embedding.embed(questions, context.backend, self._embed, self._model)
        similarities = cosines(vectors, pool.vectors)
        return [
            self._ranked(question, pool, row)
            for question, row in zip(questions, similarities, strict=True)
        ]

    def _ranked(self, question: str, pool: Pool, similarities: Sequence[float]) -> list[Pair]:
        """Return the pairs for a question, the most similar last.

        They are the best of each cluster, then the best of the rest.
        """
        allowed = [
            i
            for i, pair in enumerate(pool.pairs)
            if pool.clusters[i] != NO_CLUSTER and not _gives_away(pair, question)
        ]
        # the sort is stable, so pairs that are as similar keep the order in which they were asked
        order = sorted(allowed, key=lambda i: -similarities[i])
        best_of: dict[int, int] = {}
        for i in order:
            # the first pair of a cluster in this order is its most similar one
            best_of.setdefault(pool.clusters[i], i)
        heads = list(best_of.values()) if self._choose == "cluster" else []
        # fills up where a cluster has no allowed pair, or k-means gave fewer clusters than `count`
        rest = [i for i in order if i not in heads]
        chosen = [*heads, *rest][: self._count]
        return [pool.pairs[i] for i in sorted(chosen, key=lambda i: similarities[i])]

    def _pool_of(self, pairs: tuple[Pair, ...], context: VerifyContext) -> Pool:
        """Return the pairs with vectors and clusters.

        They are computed once for the same pairs and the same adapter, which changes the vectors.
        """
        # detectors ask for the prompt of one question at a time; the pool costs a reading a pair
        key = (pairs, context.history.adapter)
        if self._pool is None or self._pool_key != key:
            texts = [pair.text for pair in pairs]
            vectors = embedding.embed(texts, context.backend, self._embed, self._model)
            # `nearest` ranks all pairs alike: one cluster tells only which of them have a vector
            count = self._count if self._choose == "cluster" else 1
            self._pool = Pool(pairs, vectors, clusters(vectors, count, self._seed))
            self._pool_key = key
        return self._pool

    def _few_shot_prompt(
        self, question: str, examples: Sequence[Pair], context: VerifyContext
    ) -> Prompt:
        if not examples:  # the only pair of the run answers this question
            return context.prompt("answer", question=question)
        if self._explain:
            text = "\n\n".join(map(_explained_example, examples))
            name = "own_demonstrations_explained"
        else:
            text = "\n".join(map(_example, examples))
            name = "own_demonstrations"
        return context.prompt(name, demonstrations=text, question=question)


def cosines(queries: "NDArray[np.float32]", vectors: "NDArray[np.float32]") -> list[list[float]]:
    """Return the cosine of each row of `queries` (queries, width) with each of `vectors`.

    The rows have length 1 or 0. All cosines are 0 where the backend gave no vector at all.
    """
    import numpy as np

    if queries.shape[1] != vectors.shape[1]:
        return [[0.0] * len(vectors)] * len(queries)
    # not a matrix product: its last digits depend on how many rows there are, and may decide
    # between two pairs
    similarities: list[list[float]] = np.einsum(
        "ij,kj->ik", queries.astype(np.float64), vectors.astype(np.float64)
    ).tolist()
    return similarities


def clusters(vectors: "NDArray[np.float32]", count: int, seed: int) -> tuple[int, ...]:
    """Return the k-means cluster of each row, `count` clusters at most; -1 for rows of zeros."""
    import numpy as np
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    embedded = np.flatnonzero(vectors.any(axis=1))
    labels = np.full(len(vectors), NO_CLUSTER)
    # k-means warns where there are fewer distinct points than clusters
    count = min(count, len(np.unique(vectors[embedded], axis=0)))
    if count:
        # scikit-learn takes a seed of 32 bits, and a recipe may have a larger or a negative one
        kmeans = KMeans(count, n_init=KMEANS_STARTS, random_state=seed % 2**32)
        # threads add up in any order, and a resumed run must choose the same
        with threadpool_limits(1):
            kmeans.fit(vectors[embedded].astype(np.float64))
        labels[embedded] = kmeans.labels_
    return tuple(labels.tolist())


def _history(run: Path) -> History:
    from selfloop.storage.store import Store

    with closing(Store(run, write=False)) as store:
        return store.history()


def _pairs(history: History, only: Only, min_confidence: float) -> tuple[Pair, ...]:
    """Return the pairs of a run, in the order asked; an answer that declines is no example."""
    if only == "beliefs":
        entries: list[Any] = list(history.beliefs)
    else:
        # a question that was asked again counts once, with its last outcome
        last: dict[str, Any] = {}
        for outcome in history.outcomes:
            if outcome.decision not in ("dropped", "failed"):
                last[outcome.question.text] = outcome
        entries = list(last.values())
    pairs = []
    for entry in entries:
        # an answer that no detector judged has no confidence, and counts as the least sure
        if (entry.confidence or 0.0) >= min_confidence and not declines(entry.answer):
            pairs.append(Pair(entry.question.text, entry.answer, entry.question.explanation))
    return tuple(pairs)


def _gives_away(pair: Pair, question: str) -> bool:
    """Return whether the pair answers this very question."""
    if normalise(pair.question) == normalise(question):
        return True
    # words of the question alone, so that a rewording that keeps them is caught without the model
    words = gist(question)
    return bool(words) and gist(pair.question) == words


def _example(pair: Pair) -> str:
    return f"Question: {one_line(pair.question)}\nAnswer: {one_line(pair.answer)}"


def _explained_example(pair: Pair) -> str:
    reason = f" because {one_line(pair.explanation)}" if pair.explanation.strip() else ""
    answer = f"The answer (just one entity) is {one_line(pair.answer)}{reason}"
    return f"Question: {one_line(pair.question)}\n\n{answer}"


def check(**options: Any) -> None:
    """Raise RecipeError for a run that cannot be read or has no pairs, or MissingExtraError."""
    OwnDemonstrations(**options)


@hookimpl
def selfloop_few_shot() -> list[Component]:
    """Offer the few-shot selector."""
    doc = "the run's beliefs, chosen for each question"
    return [
        Component(
            NAME,
            OwnDemonstrations,
            doc=doc,
            needs=frozenset({"hidden_states"}),
            check=check,
            paper="https://arxiv.org/abs/2212.08635",
            prompts=PROMPTS,
        )
    ]
