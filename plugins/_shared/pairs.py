"""Questions that a model knows and does not know, in pairs of the same form, so that style tells
nothing.

What a tuner learns from must not be told by the wording: if "Who wrote ...?" is mostly known and
"In which year ...?" mostly not, a model learns to decline years. Abstaining that is learnt from
such a pool fails elsewhere.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from selfloop import Attempt, Outcome
from selfloop.text.answers import normalise

from .patterns import pattern
from .queries import line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Tried = TypeVar("Tried", Outcome, Attempt)

# What a question may begin with that is no name, though it has a capital.
_OPENERS = pattern(
    r"what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|has|have|had|will|would|should"
    r"|name|in|on|at|for|of|to|from|by|with|during|about|after|before|under|the|a|an|if|as|it|this|that|these|those"
    r"|among|since|until|according|between|i",
    re.IGNORECASE,
)
_JOINS = pattern(r"of|the|de|la|le|van|von|der|den|da|di|du|del|el|al")
_QUOTED = pattern(r"[\"“]([^\"“”]{2,80})[\"”]")
_WORD = pattern(r"[^\W_](?:[\w'’.&-]*\w)?(?:\.(?=\s[A-Z]))?")
_POSSESSIVE = pattern(r"(?:['’]s)?$")
_NUMBER = pattern(r"\d[\d.,]*")


def entity(text: str, via: str = "") -> tuple[int, int] | None:
    """Return where in a question its entity stands: `via`, or a quoted title, or the longest
    capitalised span.

    A word that begins the sentence is no name, unless another one follows: "Mount Everest is in
    which country?"
    """
    if via and (found := re.search(rf"(?<!\w){re.escape(via)}(?!\w)", text, re.IGNORECASE)):
        return _with_article(text, found.span())
    if quoted := _QUOTED.search(text):
        return quoted.span(1)
    spans = _capitalised(text)
    longest = max(spans, key=lambda span: span[1] - span[0], default=None)
    return _with_article(text, longest) if longest else None


def _with_article(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """Return a name's span with the "the" before it: it is "the Nile", but no "the Egypt"."""
    start = span[0]
    return (
        (start - 4, span[1])
        if text[start : start + 1].isupper() and text[:start].endswith(" the ")
        else span
    )


def _capitalised(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    words = list(_WORD.finditer(text))
    i = 0
    while i < len(words):
        if not _named(words, i):
            i += 1
            continue
        last, j = i, i + 1
        while (
            j < len(words) and j - last <= 3 and text[words[j - 1].end() : words[j].start()] == " "
        ):
            if _capital(words[j][0]) or (words[j][0].isdigit() and j == last + 1):
                last = j
            elif not _JOINS.fullmatch(words[j][0]):
                break
            j += 1
        if i or last > i:
            possessive = len(_POSSESSIVE.search(words[last][0])[0])  # type: ignore[index]
            spans.append((words[i].start(), words[last].end() - possessive))
        i = last + 1
    return spans


def _capital(word: str) -> bool:
    return word[0].isupper() and word != "I"


def _named(words: Sequence[re.Match[str]], i: int) -> bool:
    return _capital(words[i][0]) and not (i == 0 and _OPENERS.fullmatch(words[i][0]))


def form(text: str, via: str = "") -> str:
    """Return what a question asks, of whatever it asks it: lower case, its entity "_" and its numbers "#"."""
    span = entity(text, via)
    masked = f"{text[: span[0]]} \x00 {text[span[1] :]}" if span else text
    masked = _NUMBER.sub(" \x01 ", masked.lower())
    words = re.findall(r"[\w'’-]+|\x00|\x01", masked)
    return " ".join({"\x00": "_", "\x01": "#"}.get(word, word) for word in words)


def believed(tried: Outcome | Attempt) -> bool:
    """Return whether the model knows the answer, as far as the run can tell."""
    return tried.decision == "belief"


def unknown(tried: Outcome | Attempt) -> bool:
    """Return whether the model does not know the answer, as far as the run can tell."""
    return tried.decision == "declined"


def matched(
    tried: Sequence[Tried],
    *,
    known: Callable[[Tried], bool] = believed,
    unknown: Callable[[Tried], bool] = unknown,
    bound: float = 0.5,
) -> list[tuple[Tried, Tried]]:
    """Return pairs of a known and an unknown question, each question in one pair: as many of the
    one as of the other.

    First those of the same form, then, nearest first, those whose forms have at least `bound` of
    their words in common and in the same order (twice the longest common subsequence of words, over
    the words of both). Of those of the same form, the ones of like length go together. What finds
    no partner is left out. A question that was tried several times counts as it was tried last; one
    in the words of another (but for case and marks) counts once.
    """
    last = {normalise(one.question.text): one for one in tried}
    forms = {key: form(one.question.text, one.question.via) for key, one in last.items()}
    sides: list[dict[str, list[Tried]]] = [defaultdict(list), defaultdict(list)]
    for key, one in last.items():
        for side, holds in zip(sides, (known, unknown), strict=True):
            if holds(one):
                side[forms[key]].append(one)
    pairs: list[tuple[Tried, Tried]] = []
    for shared in [key for key in sides[0] if key in sides[1]]:
        pairs += _taken(sides, shared, shared)
    for first, second in _near([*sides[0]], [*sides[1]], bound):
        pairs += _taken(sides, first, second)
    return pairs


def _taken(
    sides: Sequence[dict[str, list[Tried]]], known: str, unknown: str
) -> list[tuple[Tried, Tried]]:
    """Take as many pairs as two forms have, and leave the rest for others."""
    own = [
        sorted(side.get(key, []), key=_length)
        for side, key in zip(sides, (known, unknown), strict=True)
    ]
    count = min(map(len, own))
    for side, key, found in zip(sides, (known, unknown), own, strict=True):
        if found:
            side[key] = found[count:]
    return list(zip(own[0][:count], own[1][:count], strict=True))


def _length(tried: Outcome | Attempt) -> tuple[int, str]:
    return len(tried.question.text), tried.question.id


def _near(ones: Sequence[str], others: Sequence[str], bound: float) -> list[tuple[str, str]]:
    """Return the pairs of forms that are alike, the most alike first; deterministic."""
    table = _alike(ones, others)
    places = [(int(i), int(j)) for i, j in zip(*(table >= bound).nonzero(), strict=True)]
    found = sorted((-float(table[i, j]), ones[i], others[j]) for i, j in places)
    return [(one, other) for _, one, other in found if one != other]


def _alike(ones: Sequence[str], others: Sequence[str]) -> "NDArray[np.float32]":
    """Return how much of their words, in order, each two forms have in common, in [0, 1]."""
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    if not ones or not others:
        return np.zeros((len(ones), len(others)), np.float32)
    split = [[text.split() for text in texts] for texts in (ones, others)]
    scorer: Any = Indel.normalized_similarity
    found: NDArray[np.float32] = process.cdist(*split, scorer=scorer, processor=None)
    return found


def balanced(
    pairs: Sequence[tuple[Tried, Tried]],
    spare: Sequence[Tried] = (),
    *,
    near: float = 0.5,
    bound: float = 1.5,
    least: float = 0.5,
) -> list[tuple[Tried, Tried]]:
    """Return the pairs without what makes a word, or two in a row, tell known from unknown.

    First an unknown question goes for one of `spare` where that makes the words of both sides more
    even; of the same form where the pair has one form, else of a form that has `near` of its words
    in common with the known one's. Then pairs go. A word that n questions have, and d more of the
    known than of the unknown, has z = d/√n, which chance alone keeps near 1: the pair whose loss
    lowers the sum of z² the most goes first, until no z is above `bound`, no loss lowers it, or
    only the share `least` is left. It looks at words and labels of this pool alone; so the pool's
    own AUROC afterwards is a result of the choice, and says nothing about other questions (see
    `style_auroc`).
    """
    if len(pairs) < 2:
        return list(pairs)
    known: list[Tried] = [one for one, _ in pairs]
    taken = {normalise(one.question.text) for pair in pairs for one in pair}
    others: list[Tried] = [other for _, other in pairs]
    others += [one for one in spare if normalise(one.question.text) not in taken]
    table = _table([one.question.text for one in [*known, *others]])
    have, offered = table[: len(known)], table[len(known) :]
    like = _alike(
        *[[form(one.question.text, one.question.via) for one in side] for side in (known, others)]
    )
    own = like[range(len(known)), range(len(known))]
    chosen = _exchanged(have, offered, like >= [[1.0 if same == 1.0 else near] for same in own])
    rows = _evened(
        have - offered[chosen], have + offered[chosen], bound, max(1, int(least * len(pairs)))
    )
    return [(known[row], others[chosen[row]]) for row in rows]


def _table(texts: Sequence[str]) -> "NDArray[np.float64]":
    """Return which text has which of the words, and pairs of words, that more than one of the texts have."""
    import numpy as np

    found = _words(texts)
    counts = Counter(word for own in found for word in own)
    place = {
        word: i
        for i, word in enumerate(sorted(word for word, count in counts.items() if count > 1))
    }
    table = np.zeros((len(texts), len(place)))
    for row, own in zip(table, found, strict=True):
        row[[place[word] for word in own if word in place]] = 1
    return table


def _exchanged(
    known: "NDArray[np.float64]", offered: "NDArray[np.float64]", may: "NDArray[np.bool_]"
) -> "NDArray[np.int64]":
    """Return which of the offered rows goes with each known one; at first the i-th.

    The best exchange is made first.
    """
    import numpy as np

    chosen = np.arange(len(known))
    free = np.arange(len(offered)) >= len(known)
    weights = 1 / (known.sum(0) + 1)
    cross = (offered * weights) @ offered.T
    size = np.diag(cross)
    for _ in range(10 * len(known) if free.any() else 0):
        lean = offered @ (weights * (known.sum(0) - offered[chosen].sum(0)))
        change = 2 * (lean[chosen, None] - lean) + size[chosen, None] + size - 2 * cross[chosen]
        change[~(may & free)] = np.inf
        row, new = np.unravel_index(int(change.argmin()), change.shape)
        if change[row, new] > -1e-9:
            break
        free[chosen[row]], free[new] = True, False
        chosen[row] = new
    return chosen


def _evened(
    more: "NDArray[np.float64]", both: "NDArray[np.float64]", bound: float, least: int
) -> list[int]:
    """Return the rows that stay."""
    import numpy as np

    rows = np.arange(len(more))
    while len(rows) > least:
        d, n = more[rows].sum(0), np.maximum(both[rows].sum(0), 1)
        if (np.abs(d) / np.sqrt(n)).max(initial=0) <= bound:
            break
        gain = (2 * d * more[rows] - more[rows] ** 2) @ (1 / n)
        if gain.max() <= 1e-9:
            break
        rows = np.delete(rows, int(gain.argmax()))
    return [int(row) for row in rows]


def _words(texts: Sequence[str]) -> list[set[str]]:
    """Return the words of each text, and those that follow one another."""
    found = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        found.append({*words, *map(" ".join, pairwise(words))})
    return found


def style_auroc(
    known: Sequence[str], unknown: Sequence[str], seed: int = 0, *, paired: bool = True
) -> float:
    """Return how well words tell known from unknown: the AUROC of logistic regression on words and
    pairs of words.

    Cross-validated in five folds. With `paired`, the i-th known and the i-th unknown question are a
    pair and stay in one fold: else the classifier would see a question's partner, of the same words
    and the other label, and learn that these words mean the other label; the AUROC would come out
    too low, and flatter the pool. A pool whose words were evened out (`balanced`) still flatters
    itself, for where the words of four folds lean one way, those of the fifth lean the other:
    compare with `transfer_auroc` between two pools that were evened out apart.

    Raises ValueError for fewer than five of either.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped]

    texts, labels = _labelled(known, unknown)
    if min(len(known), len(unknown)) < 5:
        raise ValueError(
            f"{len(known)} known and {len(unknown)} unknown questions are too few for five folds"
        )
    groups = [
        *range(len(known)),
        *(range(len(unknown)) if paired else range(len(known), len(texts))),
    ]
    told = np.zeros(len(texts))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    values = []
    for train, test in folds.split(texts, labels, groups):
        told[test] = _told(
            [texts[i] for i in train], [labels[i] for i in train], [texts[i] for i in test]
        )
        values.append(_auroc(told[test], [labels[i] for i in test]))
    # a mean over folds: the scores of different classifiers are on different scales
    return float(np.mean(values))


def transfer_auroc(
    train: tuple[Sequence[str], Sequence[str]], test: tuple[Sequence[str], Sequence[str]]
) -> float:
    """Return how well words learnt on one pool (known, unknown) tell known from unknown in another."""
    texts, labels = _labelled(*train)
    others, truth = _labelled(*test)
    return _auroc(_told(texts, labels, others), truth)


def transfer_gap(
    train: tuple[Sequence[str], Sequence[str]], test: tuple[Sequence[str], Sequence[str]]
) -> float:
    """Return by how much likelier, on average, words learnt on one pool make a known question of
    another pool known.

    A difference of probabilities, in [-1, 1]. A ranking (`transfer_auroc`) finds the slightest lean
    that two pools share; this says how far whoever learns from the words goes by it.
    """
    import numpy as np

    texts, labels = _labelled(*train)
    others, truth = _labelled(*test)
    likely, are_known = 1 / (1 + np.exp(-_told(texts, labels, others))), np.array(truth) == 1
    return float(likely[are_known].mean() - likely[~are_known].mean())


def halves(
    pairs: Sequence[tuple[Tried, Tried]], seed: int = 0
) -> tuple[list[tuple[Tried, Tried]], ...]:
    """Return the pairs in two parts of the same size, at random."""
    shuffled = random.Random(seed).sample(list(pairs), len(pairs))
    return shuffled[::2], shuffled[1::2]


def texts(pairs: Sequence[tuple[Tried, Tried]]) -> tuple[list[str], list[str]]:
    """Return the texts of the known and of the unknown questions, in order."""
    return [one.question.text for one, _ in pairs], [other.question.text for _, other in pairs]


def _labelled(known: Sequence[str], unknown: Sequence[str]) -> tuple[list[str], list[int]]:
    return [*map(line, (*known, *unknown))], [1] * len(known) + [0] * len(unknown)


def _told(
    texts: Sequence[str], labels: Sequence[int], others: Sequence[str]
) -> "NDArray[np.float64]":
    from sklearn.feature_extraction.text import CountVectorizer  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]

    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    model = make_pipeline(words, LogisticRegression(max_iter=1000)).fit(texts, labels)
    found: NDArray[np.float64] = model.decision_function(others)
    return found


def _auroc(told: "NDArray[np.float64]", labels: Sequence[int]) -> float:
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

    return float(roc_auc_score(labels, told))
