"""`novelty`: how far a question is from everything the run ever asked.

Two questions are alike by the words that say what they are about, in any order. MinHash (Broder
1997) in a locality-sensitive index finds the few earlier ones that may be near, so that 100,000 of
them cost no more than 100.
"""

import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from selfloop_plugins._shared.patterns import pattern

from selfloop import Asking, Component, Outcome, Question, Score, hookimpl
from selfloop.protocols import Backend
from selfloop.text.answers import content, normalise
from selfloop.text.gist import gist

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

APART = 0.6  # the most that two questions are alike that name different things
TYPO = 90  # of 100: words so alike by letters are one word, spelt twice
# 28 bands of 4 hashes: a pair with 2/3 of its shingles in common (likeness 0.8) is missed in one of
# 500 cases.
BANDS, ROWS = 28, 4

_WORD = pattern(r"[^\W_]+(?:['’.][^\W_]+)*")
# scripts that put no spaces between words
_WIDE = pattern(r"[\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
_FILLING = pattern(
    "then|today|now|currently|actually|exactly|located|situated|found|famous|known|usually|officially"
)
_SAME = {
    "biggest": "largest", "greatest": "largest", "author": "write", "wrote": "write", "written": "write",
    "writer": "write", "movie": "film", "nation": "country", "began": "begin", "begun": "begin", "start": "begin",
    "established": "found", "died": "die", "death": "die", "colour": "color",
}  # fmt: skip
# Words that tell two things of a kind apart, as numbers do.
_ORDINAL = pattern(
    r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|next|previous|two|three|four|five|six|seven"
    r"|eight|nine|ten|not|male|female|(north|south|east|west)(ern)?"
)
_SIGNED = pattern(r"[+#*/×÷=<>^%&@$€£√]|-\d|^-$|\d[.,:/]\d")  # C++, -5, 1.5, the plus of 5 + 3
_POSSESSIVE = pattern(r"['’]s\b")
_ENDINGS = pattern(r"(?:ations?|ions?|ings?|ers?|ors?|ed|es|s|e|y)$")
_KINDS = (
    ("when", pattern(r"\bwhen\b|\b(?:what|which) (?:year|date)\b")),
    ("where", pattern(r"\bwhere\b")),
    ("why", pattern(r"\bwhy\b")),
    ("how many", pattern(r"\bhow (?:many|much)\b|\bwhat number of\b")),
    ("how", pattern(r"\bhow\b(?! (?:many|much))")),
)
By = Literal["words", "embeddings"]


@dataclass(frozen=True, slots=True)
class Sketch:
    """What of a question is compared with others."""

    text: str
    words: frozenset[str]
    marked: frozenset[str]  # those of the words that are names or numbers
    long: frozenset[str]  # those that may be misspelt
    kind: str = ""
    variant_of: str = ""

    def related(self, other: "Sketch") -> bool:
        """Return whether one was made from the other, or both from a third: they are meant to be alike."""
        return bool(self.variant_of) and self.variant_of in (other.text, other.variant_of)


def sketch(question: Question) -> Sketch:
    """Return what of a question is compared."""
    text = question.text
    plain = _plain(text).replace("capital city", "capital")
    kind = ""
    for name, rule in _KINDS:
        if asks := rule.search(plain):
            kind, plain = name, plain[: asks.start()] + plain[asks.end() :]
            break
    words = [_same(word) for word in content(plain) if not _FILLING.fullmatch(word)] or normalise(
        plain
    ).split()
    signed = frozenset(word for word in gist(text) if _SIGNED.search(word))
    found = frozenset(part for word in words for part in _parts(word)) | signed
    first, *others = _WORD.findall(text) or [""]
    named = {_plain(word) for word in others if word[0].isupper()} | {
        w for w in (first, *others) if w[-1:].isdigit()
    }
    marked = {_same(word) for name in named for word in content(name)}
    marked |= {word for word in found if _counts(word)} | signed
    long = frozenset(filter(_long, found))
    return Sketch(
        text, found, found & marked, long, kind, question.variant_of if question.variant else ""
    )


def likeness(one: Sketch, other: Sketch) -> float:
    """Return the share of words in common (Dice), in [0, 1]; at most `APART` where they ask for
    different things.

    They do if a name or a number of one is not the other's, or one asks when and the other where. A
    name that only one of them has ("Paris", "Paris, France") is a word like any other.
    """
    if not (one.words and other.words):
        return float(one.words == other.words)
    left, right = one.words - other.words, other.words - one.words
    typos = (
        _typos(left, right)
        if left and right and not (one.long.isdisjoint(left) or other.long.isdisjoint(right))
        else 0
    )
    value = 2 * (len(one.words) - len(left) + typos) / (len(one.words) + len(other.words))
    if value <= APART:
        return value
    named = typos < min(len(left), len(right)) and not (
        one.marked.isdisjoint(left) and other.marked.isdisjoint(right)
    )
    apart = named or one.kind != other.kind or any(map(_counts, left)) or any(map(_counts, right))
    return APART if apart else value


def _typos(left: Iterable[str], right: Iterable[str]) -> int:
    """Return how many of the words are one word in two spellings; numbers never are."""
    from rapidfuzz import fuzz  # a sixtieth of a second, which --help must not pay

    waiting, count = {word for word in right if _long(word)}, 0
    for word in sorted(left) if waiting else ():
        near = {
            o
            for o in waiting
            if abs(len(o) - len(word)) < 3 and fuzz.ratio(word, o) >= TYPO and _long(word)
        }
        waiting -= {min(near)} if near else set()
        count += bool(near)
    return count


def _long(word: str) -> bool:
    return len(word) > 5 and word.isalpha()


def _plain(text: str) -> str:
    """Return a text in lower case without accents and possessives: "São", "sao"; "Peru's", "peru"."""
    if not text.isascii():
        text = "".join(
            c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)
        )
        text = unicodedata.normalize("NFC", text)
    return _POSSESSIVE.sub("", text.lower())


def _counts(word: str) -> bool:
    """Return whether a word tells two things of a kind apart: a number, or one of `_ORDINAL`."""
    return _ORDINAL.fullmatch(word) is not None or any(char.isdigit() for char in word)


def _same(word: str) -> str:
    """Return a word as it is compared: without its ending, one of several that mean the same."""
    word = _SAME.get(word, word)
    if _ORDINAL.fullmatch(word) or not word.isalpha():
        return word
    word = word[:-3] + "y" if word.endswith("ies") else word
    stem = _ENDINGS.sub("", word)
    return (
        _SAME.get(stem, stem)
        if len(stem) >= 4
        else word.removesuffix("s")
        if len(word) > 3
        else word
    )


def _parts(word: str) -> list[str]:
    if len(word) > 2 and _WIDE.search(word):
        return [word[i : i + 2] for i in range(len(word) - 1)]
    return [word]


def _shingles(words: frozenset[str]) -> set[bytes]:
    """Return the words, and the beginnings and ends of long ones: a misspelt word still has one of them."""
    ends = (part for word in words if len(word) > 5 for part in (f"{word[:4]}-", f"-{word[-4:]}"))
    return {part.encode("utf-8", "replace") for part in (*words, *ends)}


class Near:
    """Questions by what they are about: finds the nearest of very many, and forgets what came last."""

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

        self.sketches: list[Sketch] = []
        self._index: Any = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._none: Any = MinHash(num_perm=BANDS * ROWS, hashfunc=zlib.crc32)

    def add(self, new: Sequence[Sketch]) -> None:
        """Take more questions."""
        for one in new:
            self._index.insert(len(self.sketches), self._hash(one), check_duplication=False)
            self.sketches.append(one)

    def cut(self, length: int) -> None:
        """Forget all but the first `length` questions."""
        while len(self.sketches) > length:
            self.sketches.pop()
            self._index.remove(len(self.sketches))

    def nearest(self, wanted: Sketch) -> tuple[float, str]:
        """Return likeness and text of the nearest question that is no relative of this one; (0, "") without one."""
        best = (0.0, "")
        for key in sorted(self._index.query(self._hash(wanted))):
            other = self.sketches[key]
            if not wanted.related(other) and (value := likeness(wanted, other)) > best[0]:
                best = (value, other.text)
        return best

    def _hash(self, one: Sketch) -> Any:
        found = self._none.copy()  # its permutations are costly to draw
        found.update_batch(_shingles(one.words))
        return found


class Vectors:
    """As `Near`, by the cosine between embeddings."""

    def __init__(self, backend: Backend) -> None:
        self.sketches: list[Sketch] = []
        self._backend = backend
        self._known: dict[str, NDArray[np.float32]] = {}
        self._rows: NDArray[np.float32] | None = None

    def add(self, new: Sequence[Sketch]) -> None:
        """Take more questions; those not seen before are embedded in one call."""
        import numpy as np

        self.learn([one.text for one in new])
        rows = [self._known[one.text] for one in new]
        if rows:
            have = [] if self._rows is None else [self._rows]
            self._rows = np.concatenate([*have, np.stack(rows)])
        self.sketches += new

    def learn(self, texts: Iterable[str]) -> None:
        """Embed the texts that were not embedded yet."""
        import numpy as np
        from selfloop_plugins._shared.embedding import embed

        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            rows = np.asarray(embed(missing, self._backend), np.float32)
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
            self._known |= zip(missing, rows, strict=True)

    def cut(self, length: int) -> None:
        """Forget the places of all but the first `length` questions."""
        if length < len(self.sketches):
            self.sketches = self.sketches[:length]
            self._rows = None if self._rows is None else self._rows[:length]

    def nearest(self, wanted: Sketch) -> tuple[float, str]:
        """Return cosine (0 at least) and text of the nearest question that is no relative of this one."""
        import numpy as np

        self.learn([wanted.text])
        if self._rows is None or not len(self._rows):
            return 0.0, ""
        cosines = self._rows @ self._known[wanted.text]
        if wanted.variant_of:
            cosines[[wanted.related(other) for other in self.sketches]] = -1
        best = int(np.argmax(cosines))
        return float(min(max(cosines[best], 0.0), 1.0)), self.sketches[best].text if cosines[
            best
        ] > 0 else ""


class Novelty:
    """1 minus the likeness to the nearest earlier question; 0 is a repeat, also of one that was
    dropped.

    Alike are questions with the same words that carry meaning, in any order; two that differ in a
    name, a number or what they ask for (when, where, how many) are not. With `by: embeddings`
    likeness is the cosine between vectors (`embedding.py`). A variant is compared neither with the
    question it was made from nor with that one's other variants. Questions of the same batch count
    as earlier ones for those after them; one that `balance` had no room for may come again.
    """

    def __init__(self, *, by: By = "words") -> None:
        self._by = by
        # the questions as of the last call; a new process builds it again
        self._near: Near | Vectors | None = None
        self._keys: dict[str, tuple[str, str]] = {}

    def score(self, questions: Sequence[Question], asking: Asking) -> list[Score]:
        """Return the novelty of each question in [0, 1]."""
        asked = {
            o.question.text: o.question
            for o in reversed(asking.past.outcomes)
            if o.decision != "dropped"
        }
        near = self._synced(list(reversed(asked.values())), asking.backend)
        if isinstance(near, Vectors):
            near.learn(question.text for question in questions)
        dropped = {self._key(o.question.text)[0] for o in asking.past.outcomes if _for_good(o)}
        exact = {key: text for text in asked for key in self._key(text)}
        scores = []
        for question in questions:
            same, anyhow = self._key(question.text)
            value, text = (
                1.0,
                exact.get(same) or ("" if question.variant else exact.get(anyhow, "")),
            )
            one = sketch(question)
            if not text and same not in dropped:
                value, text = near.nearest(one)
                near.add([one])
            exact |= {key: exact.get(key, question.text) for key in (same, anyhow)}
            scores.append(
                Score(
                    "novelty", round(1 - value, 4) + 0.0, self._reason(text, value, same in dropped)
                )
            )
        return scores

    def _synced(self, asked: Sequence[Question], backend: Backend) -> Near | Vectors:
        """Return the index of exactly these questions: what the last call left, as far as it is the same."""
        near = self._near or (Vectors(backend) if self._by == "embeddings" else Near())
        pairs = zip(near.sketches, asked, strict=False)
        same = next(
            (i for i, (had, one) in enumerate(pairs) if had.text != one.text),
            min(len(near.sketches), len(asked)),
        )
        near.cut(same)
        near.add([sketch(question) for question in asked[same:]])
        self._near = near
        return near

    def _key(self, text: str) -> tuple[str, str]:
        """Return a text without case, articles and punctuation, and the words of its gist in no
        order; kept.

        Where there are numbers and signs these and the order count: 5 - 3 is not 3 - 5, nor 5 + 3.
        """
        if text not in self._keys:
            plain = normalise(text) or text
            words = gist(text) or tuple(plain.split())
            if any(map(_SIGNED.search, words)) or any(char.isdigit() for char in text):
                self._keys[text] = " ".join(words), " ".join(words)
            else:
                self._keys[text] = plain, " ".join(sorted(words))
        return self._keys[text]

    def _reason(self, nearest: str, value: float, dropped: bool) -> str:
        if dropped and not nearest:
            return "dropped before"
        by = f" (cosine {value:.2f})" if self._by == "embeddings" else ""
        return f"like {nearest!r}{by}" if nearest else ""


def _for_good(outcome: Outcome) -> bool:
    return outcome.decision == "dropped" and not outcome.reason.startswith("balance")


@hookimpl
def selfloop_scorers() -> list[Component]:
    """Offer the scorer."""
    doc = "distance to the nearest question ever asked (0 is a repeat)"
    return [
        Component("novelty", Novelty, doc=doc, paper="https://doi.org/10.1109/SEQUEN.1997.666900")
    ]
