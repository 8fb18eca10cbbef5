"""The nearest of very many questions, by the words that they share.

An inverted index holds, for each word, the questions that have it. Counting over the words of a
new question gives the words that it shares with every other, and so a bound on their likeness. The
questions are then compared in full, those with the highest bound first, until no bound left is
above the likeness found. So the answer is exact, and among 20,000 questions it takes less than a
millisecond (`benchmarks/nearest.py`).
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from selfloop.text.english.likeness import Sketch, is_long, is_typo, likeness

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# letters: a long word that is misspelt in one place keeps its first three or its last three
_AFFIX = 3
_NO_WORDS = ("",)  # where questions without any word are held


class NearestQuestions:
    """Questions by the words that they are about. Finds the nearest, and forgets the latest."""

    def __init__(self) -> None:
        self.sketches: list[Sketch] = []
        self._word_counts = array("i")  # words of each question
        # For each word the indexes of the questions that have it, ascending.
        self._postings: defaultdict[str, array[int]] = defaultdict(lambda: array("i"))
        # For each beginning and each end the long words that have it: other spellings of a word
        # are sought among them.
        self._words_by_affix: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def add(self, sketches: Sequence[Sketch]) -> None:
        """Add questions."""
        for sketch in sketches:
            index = len(self.sketches)
            self.sketches.append(sketch)
            self._word_counts.append(len(sketch.words))
            for word in sketch.words or _NO_WORDS:
                self._postings[word].append(index)
                if word in sketch.long:
                    for affix in _affixes(word):
                        self._words_by_affix[affix][word] = None

    def cut(self, length: int) -> None:
        """Forget all but the first `length` questions."""
        while len(self.sketches) > length:
            # the index of the last question is the last of each of its postings
            for word in self.sketches.pop().words or _NO_WORDS:
                self._postings[word].pop()
            self._word_counts.pop()

    def nearest(self, sketch: Sketch) -> tuple[float, str]:
        """Return likeness and text of the nearest question that is not related to this one.

        Of several equally near the earliest counts. Returns (0.0, "") where no question shares a
        word.
        """
        if not self.sketches:
            return 0.0, ""
        best_value, best_index = 0.0, -1
        for bound, index in self._candidates(sketch):
            if bound < best_value:
                break
            if bound == best_value and index > best_index:
                continue  # it may be as near, but the other is earlier
            other = self.sketches[index]
            if sketch.related(other):
                continue
            value = likeness(sketch, other)
            is_earlier = value == best_value > 0 and index < best_index
            if value > best_value or is_earlier:
                best_value, best_index = value, index
        return best_value, self.sketches[best_index].text if best_index >= 0 else ""

    def _candidates(self, sketch: Sketch) -> Iterator[tuple[float, int]]:
        """Yield a bound on its likeness and the index of each question that shares a word.

        The highest bounds come first, equal ones in the order of their indexes.
        """
        import numpy as np

        counts = self._shared_word_counts(sketch)
        left = np.flatnonzero(counts)
        # Dice: twice the words in common, over the words of both
        sizes = np.frombuffer(self._word_counts, np.intc)[left] + len(sketch.words)
        bounds = 2 * counts[left] / np.maximum(sizes, 1)
        if not sketch.words:
            bounds += 1  # two questions without a word are alike: `likeness` is 1
        # One level of bounds at a time: mostly the search ends after the first of many levels.
        while len(left):
            level = bounds.max()
            is_top = bounds == level
            for index in left[is_top].tolist():
                yield float(level), index
            left, bounds = left[~is_top], bounds[~is_top]

    def _shared_word_counts(self, sketch: Sketch) -> "NDArray[np.intc]":
        """Return for each question how many of its words are in the sketch, in any spelling."""
        import numpy as np

        counts = np.zeros(len(self.sketches), np.intc)
        for word in sketch.words or _NO_WORDS:
            for spelling in (word, *self._other_spellings(word)):
                # no question has a word twice, so the indexes are distinct and `+=` counts each
                if spelling in self._postings:
                    counts[np.frombuffer(self._postings[spelling], np.intc)] += 1
        return counts

    def _other_spellings(self, word: str) -> list[str]:
        """Return the words of the index that are this word, spelt otherwise."""
        if not is_long(word):
            return []
        near: dict[str, None] = {}
        for affix in _affixes(word):
            near |= self._words_by_affix.get(affix, {})
        return [other for other in near if other != word and is_typo(word, other)]


def _affixes(word: str) -> tuple[str, str]:
    """Return the beginning and the end of a word, marked as such."""
    return f"{word[:_AFFIX]}-", f"-{word[-_AFFIX:]}"
