"""`own_demonstrations`: a run's own answers as demonstrations, chosen for each question
(Self-Prompting).

Li et al. 2022, arXiv 2212.08635, steps 7 and 8: k-means over the pairs, and from each cluster the
pair most similar to the question.
"""

import random
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le
from selfloop_plugins._shared import embedding
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import line

from selfloop import Component, Judging, hookimpl
from selfloop.config.prompts import Prompt
from selfloop.errors import RecipeError
from selfloop.history import Past
from selfloop.text.answers import declines, normalise
from selfloop.text.gist import gist

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "own_demonstrations"
Choose = Literal["random", "cluster", "nearest"]
Only = Literal["beliefs", "all"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer, and in a sentence why."""

    question: str
    answer: str
    explanation: str = ""

    @property
    def text(self) -> str:
        """Return what is embedded: "q a"."""
        return f"{self.question} {self.answer}"


@dataclass(frozen=True)
class Pool:
    """The pairs there are to choose from: their vectors (pairs, width), and the cluster of each (-1: no vector)."""

    pairs: tuple[Pair, ...]
    vectors: "NDArray[np.float32]"
    clusters: tuple[int, ...]


class OwnDemonstrations:
    """Shows each question with `count` pairs of question and answer that a run holds true, the most
    similar one last.

    `run` is the folder of a finished run; without it they are what this run itself found true in
    earlier rounds, and until these are `count` the prompt `answer` is used as it is. `only: all`
    takes whatever was answered; `least` is the lowest confidence. `choose: cluster` splits the
    pairs into `count` clusters and takes from each the one most similar to the question; `nearest`
    the most similar of all; `random` the same for every question, drawn with `seed`: the quickest,
    for all prompts begin alike. A question is never shown with its own answer, nor with that of one
    that asks for the same in nearly the same words; other rewordings are not told apart, so a
    belief may be repeated where a detector rewords its question. `embed` is how texts are compared,
    `model` a sentence model.

    With `explain` the prompt is the published one, "The answer (just one entity) is A because E",
    and the recipe's `answer.stop` must begin with " because" (`stop: [" because", "\\n"]`):
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
        least: Annotated[float, Ge(0), Le(1)] = 0.0,
        seed: int = 0,
        embed: embedding.Embedder = "hidden",
        model: str = embedding.SENTENCE_MODEL,
    ) -> None:
        if choose != "random":
            embedding.check(embed, model)
        self._count, self._choose, self._seed, self._explain = count, choose, seed, explain
        self._only, self._least, self._embed, self._model = only, least, embed, model
        self._given = None if run is None else self._of(run)
        self._known: tuple[object, Pool] | None = None

    def show(self, questions: Sequence[str], judging: Judging) -> list[Prompt]:
        """Return the whole prompt for each question."""
        pairs = (
            _pairs(judging.past, self._only, self._least) if self._given is None else self._given
        )
        if not questions:
            return []
        if self._given is None and len(pairs) < self._count:
            return [judging.prompt("answer", question=question) for question in questions]
        chosen = (
            self._drawn(questions, pairs)
            if self._choose == "random"
            else self._similar(questions, pairs, judging)
        )
        return [
            self._prompt(question, own, judging)
            for question, own in zip(questions, chosen, strict=True)
        ]

    def _of(self, run: Path) -> tuple[Pair, ...]:
        pairs = _pairs(_past(run), self._only, self._least)
        what = "belief" if self._only == "beliefs" else "answer"
        if not pairs:
            raise RecipeError(
                f"demonstrations.run: the run {run} has no {what} with a confidence of at least "
                f"{self._least:g}. Give "
                "another run, or choose otherwise with "
                f"`least`{' or `only: all`' if self._only == 'beliefs' else ''}."
            )
        if self._explain and not any(pair.explanation for pair in pairs):
            raise RecipeError(
                f"demonstrations.explain: no {what} of the run {run} has an explanation. "
                "Questions of the source "
                "self_prompting have one; leave `explain` out, or give a run with such."
            )
        return pairs

    def _drawn(self, questions: Sequence[str], pairs: Sequence[Pair]) -> list[list[Pair]]:
        order = random.Random(self._seed).sample(pairs, len(pairs))
        return [
            [pair for pair in order if not _tells(pair, question)][: self._count]
            for question in questions
        ]

    def _similar(
        self, questions: Sequence[str], pairs: tuple[Pair, ...], judging: Judging
    ) -> list[list[Pair]]:
        """Return the pairs for each question; one without a vector gets the first of each cluster."""
        pool = self._pool(pairs, judging)
        asked = embedding.embed(questions, judging.backend, self._embed, self._model)
        near = likenesses(asked, pool.vectors)
        return [
            self._ranked(question, pool, row) for question, row in zip(questions, near, strict=True)
        ]

    def _ranked(self, question: str, pool: Pool, near: Sequence[float]) -> list[Pair]:
        """Return the pairs for a question, the most similar last: each cluster's best, then the best of the rest."""
        able = [
            i
            for i, pair in enumerate(pool.pairs)
            if pool.clusters[i] >= 0 and not _tells(pair, question)
        ]
        order = sorted(able, key=lambda i: -near[i])
        first: dict[int, int] = {}
        for i in order:
            first.setdefault(pool.clusters[i], i)
        heads = list(first.values()) if self._choose == "cluster" else []
        chosen = [*heads, *(i for i in order if i not in heads)][: self._count]
        return [pool.pairs[i] for i in sorted(chosen, key=lambda i: near[i])]

    def _pool(self, pairs: tuple[Pair, ...], judging: Judging) -> Pool:
        """Return the pairs with vectors and clusters, computed once for the same pairs and the same adapter."""
        key = (pairs, judging.past.adapter)
        if self._known is None or self._known[0] != key:
            vectors = embedding.embed(
                [pair.text for pair in pairs], judging.backend, self._embed, self._model
            )
            count = self._count if self._choose == "cluster" else 1
            self._known = key, Pool(pairs, vectors, clusters(vectors, count, self._seed))
        return self._known[1]

    def _prompt(self, question: str, chosen: Sequence[Pair], judging: Judging) -> Prompt:
        if not chosen:  # the only pair there is answers this question
            return judging.prompt("answer", question=question)
        if self._explain:
            shown = "\n\n".join(map(_explained, chosen))
            return judging.prompt(
                "own_demonstrations_explained", demonstrations=shown, question=question
            )
        shown = "\n".join(
            f"Question: {line(one.question)}\nAnswer: {line(one.answer)}" for one in chosen
        )
        return judging.prompt("own_demonstrations", demonstrations=shown, question=question)


def likenesses(asked: "NDArray[np.float32]", vectors: "NDArray[np.float32]") -> list[list[float]]:
    """Return the cosine of each row of `asked` with each of `vectors`; 0 where the backend gave no vector at all."""
    import numpy as np

    if asked.shape[1] != vectors.shape[1]:
        return [[0.0] * len(vectors)] * len(asked)
    # not a matrix product: its last digits depend on how many rows there are, and may decide
    # between two pairs
    found: list[list[float]] = np.einsum(
        "ij,kj->ik", asked.astype(np.float64), vectors.astype(np.float64)
    ).tolist()
    return found


def clusters(vectors: "NDArray[np.float32]", count: int, seed: int) -> tuple[int, ...]:
    """Return the k-means cluster of each row, `count` at most; -1 for rows of zeros."""
    import numpy as np
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    known = np.flatnonzero(vectors.any(axis=1))
    labels = np.full(len(vectors), -1)
    count = min(count, len(np.unique(vectors[known], axis=0)))
    if count:
        # threads add up in any order, and a resumed run must choose the same
        with threadpool_limits(1):
            found = KMeans(count, n_init=4, random_state=seed % 2**32).fit(
                vectors[known].astype(np.float64)
            )
        labels[known] = found.labels_
    return tuple(labels.tolist())


def _past(run: Path) -> Past:
    from selfloop.storage.store import Store

    with closing(Store(run, write=False)) as store:
        return store.past()


def _pairs(past: Past, only: Only, least: float) -> tuple[Pair, ...]:
    """Return the pairs of a run, in the order asked; an answer that declines shows nothing."""
    if only == "beliefs":
        found: Iterable[Any] = past.beliefs
    else:
        found = {
            o.question.text: o for o in past.outcomes if o.decision not in ("dropped", "failed")
        }.values()
    return tuple(
        Pair(one.question.text, one.answer, one.question.explanation)
        for one in found
        if (one.confidence or 0.0) >= least and not declines(one.answer)
    )


def _tells(pair: Pair, question: str) -> bool:
    """Return whether the pair answers this very question."""
    same = normalise(pair.question) == normalise(question)
    return same or gist(pair.question) == gist(question) != ()


def _explained(pair: Pair) -> str:
    why = f" because {line(pair.explanation)}" if pair.explanation.strip() else ""
    return f"Question: {line(pair.question)}\n\nThe answer (just one entity) is {line(pair.answer)}{why}"


def check(**options: Any) -> None:
    """Raise where the run cannot be read or has nothing to show, or the sentence model is not to be had."""
    OwnDemonstrations(**options)


@hookimpl
def selfloop_demonstrators() -> list[Component]:
    """Offer the demonstrator."""
    doc = "what a run found true, chosen for each question"
    paper, needs = "https://arxiv.org/abs/2212.08635", frozenset({"hidden_states"})
    return [
        Component(
            NAME, OwnDemonstrations, doc=doc, needs=needs, check=check, paper=paper, prompts=PROMPTS
        )
    ]
