"""`novelty`: how far a question is from everything the run ever asked.

Two questions are alike by their content words, in any order, or by the cosine between their
embeddings. By words the nearest of 100,000 is found by an inverted index
(`selfloop_plugins._shared.nearest`).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from selfloop_plugins._shared.nearest import NearestQuestions

from selfloop import AskContext, Component, Outcome, Question, Score, hookimpl
from selfloop.protocols import Backend
from selfloop.text.answers import normalise
from selfloop.text.english.likeness import SIGNED, Sketch, sketch
from selfloop.text.gist import gist

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

By = Literal["words", "embeddings"]
_MIN_NORM = 1e-9  # shorter vectors are those of texts that cannot be embedded


class NearestVectors:
    """As `NearestQuestions`, by the cosine between embeddings."""

    def __init__(self, backend: Backend) -> None:
        self.sketches: list[Sketch] = []
        self._backend = backend
        self._vectors: dict[str, NDArray[np.float32]] = {}  # of each text ever seen
        self._rows: NDArray[np.float32] | None = None  # (sketches, width), of length 1

    def add(self, sketches: Sequence[Sketch]) -> None:
        """Add questions; those not seen before are embedded in one call."""
        import numpy as np

        if not sketches:
            return
        self.embed(sketch.text for sketch in sketches)
        rows = np.stack([self._vectors[sketch.text] for sketch in sketches])
        self._rows = rows if self._rows is None else np.concatenate([self._rows, rows])
        self.sketches += sketches

    def embed(self, texts: Iterable[str]) -> None:
        """Embed the texts that were not embedded yet, in one call."""
        import numpy as np
        from selfloop_plugins._shared.embedding import embed

        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing:
            rows = np.asarray(embed(missing, self._backend), np.float32)
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _MIN_NORM)
            self._vectors |= zip(missing, rows, strict=True)

    def cut(self, length: int) -> None:
        """Forget the places of all but the first `length` questions; their vectors are kept."""
        if length < len(self.sketches):
            self.sketches = self.sketches[:length]
            self._rows = None if self._rows is None else self._rows[:length]

    def nearest(self, sketch: Sketch) -> tuple[float, str]:
        """Return cosine (0 at least) and text of the nearest question that is not related."""
        import numpy as np

        self.embed([sketch.text])
        if self._rows is None or not len(self._rows):
            return 0.0, ""
        cosines = self._rows @ self._vectors[sketch.text]
        if sketch.variant_of:
            cosines[[sketch.related(other) for other in self.sketches]] = -1
        best = int(np.argmax(cosines))
        if cosines[best] <= 0:
            return 0.0, ""
        # rounding may bring the cosine of a text with itself above 1
        return min(float(cosines[best]), 1.0), self.sketches[best].text


class Novelty:
    """1 minus the likeness to the nearest earlier question; 0 is a repeat, also of one that was
    dropped.

    Alike are questions with the same words that carry meaning, in any order; two that differ in a
    name, a number or the kind of answer (when, where, how many) are not. With `by: embeddings`
    likeness is the cosine between vectors (`embedding.py`). A variant is compared neither with the
    question it was made from nor with that one's other variants. Questions of the same batch count
    as earlier ones for those after them; one that `balance` had no room for may come again.
    """

    def __init__(self, *, by: By = "words") -> None:
        self._by = by
        # The index and the keys as of the last call. A new process builds them again.
        self._index: NearestQuestions | NearestVectors | None = None
        self._keys: dict[str, tuple[str, str]] = {}

    def score(self, questions: Sequence[Question], context: AskContext) -> list[Score]:
        """Return the novelty of each question in [0, 1]."""
        asked = _asked(context)
        index = self._synced_index(list(asked.values()), context.backend)
        if isinstance(index, NearestVectors):
            index.embed(question.text for question in questions)
        dropped = {
            self._key(o.question.text)[0] for o in context.history.outcomes if _is_for_good(o)
        }
        text_by_key: dict[str, str] = {}
        for text in asked:
            for key in self._key(text):
                text_by_key.setdefault(key, text)
        scores = []
        for question in questions:
            ordered_key, bag_key = self._key(question.text)
            likeness, nearest = 1.0, text_by_key.get(ordered_key, "")
            # a variant may have the same words in another order: that is its purpose
            if not nearest and not question.variant:
                nearest = text_by_key.get(bag_key, "")
            if not nearest and ordered_key not in dropped:
                new = sketch(question)
                likeness, nearest = index.nearest(new)
                index.add([new])
            for key in (ordered_key, bag_key):
                text_by_key.setdefault(key, question.text)
            reason = self._reason(nearest, likeness, ordered_key in dropped)
            # "+ 0.0" makes 0.0 of -0.0
            scores.append(Score("novelty", round(1 - likeness, 4) + 0.0, reason))
        return scores

    def _synced_index(
        self, asked: Sequence[Question], backend: Backend
    ) -> NearestQuestions | NearestVectors:
        """Return an index of exactly these questions.

        The index of the last call is kept as far as it is the same, and cut behind that.
        """
        if self._index is None:
            self._index = (
                NearestVectors(backend) if self._by == "embeddings" else NearestQuestions()
            )
        index = self._index
        same = 0
        for earlier, question in zip(index.sketches, asked, strict=False):
            if earlier.text != question.text:
                break
            same += 1
        index.cut(same)
        index.add([sketch(question) for question in asked[same:]])
        return index

    def _key(self, text: str) -> tuple[str, str]:
        """Return the words of a text in order, and those of its gist in no order; kept.

        Case, articles and punctuation do not count. Where there are numbers and signs these and
        their order do: 5 - 3 is not 3 - 5, nor 5 + 3.
        """
        if text not in self._keys:
            plain = normalise(text) or text
            words = gist(text) or tuple(plain.split())
            has_sign = any(SIGNED.search(word) for word in words)
            if has_sign or any(char.isdigit() for char in text):
                self._keys[text] = " ".join(words), " ".join(words)
            else:
                self._keys[text] = plain, " ".join(sorted(words))
        return self._keys[text]

    def _reason(self, nearest: str, likeness: float, dropped: bool) -> str:
        if not nearest:
            return "dropped before" if dropped else ""
        by = f" (cosine {likeness:.2f})" if self._by == "embeddings" else ""
        return f"like {nearest!r}{by}"


def _asked(context: AskContext) -> dict[str, Question]:
    """Return the questions that were asked, by text, in the order of the last time of each."""
    asked: dict[str, Question] = {}
    for outcome in reversed(context.history.outcomes):
        if outcome.decision != "dropped":
            asked[outcome.question.text] = outcome.question
    return dict(reversed(asked.items()))


def _is_for_good(outcome: Outcome) -> bool:
    """Return whether a question was dropped, and not merely for want of room."""
    return outcome.decision == "dropped" and not outcome.reason.startswith("balance")


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    doc = "distance to the nearest question ever asked (0 is a repeat)"
    # the paper: searching by an inverted index and bounds on the similarity
    paper = "https://doi.org/10.1145/1242572.1242591"
    return [Component("novelty", Novelty, doc=doc, paper=paper)]
