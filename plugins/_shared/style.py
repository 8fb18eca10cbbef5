"""How far the wording of questions tells known from unknown ones, and a pool whose wording is
evened out.

The AUROC functions need scikit-learn.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from selfloop.errors import MissingExtraError
from selfloop.evaluation.metrics import auroc
from selfloop.text.answers import normalise

from .pairs import Tried, alikeness, form_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDS = 5
_MIN_CHANGE = 1e-9  # smaller changes are rounding


def balanced(
    pairs: Sequence[tuple[Tried, Tried]],
    spare: Sequence[Tried] = (),
    *,
    near: float = 0.5,
    bound: float = 1.5,
    least: float = 0.5,
) -> list[tuple[Tried, Tried]]:
    """Return pairs whose words, alone or two in a row, hardly tell known from unknown.

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
    known: list[Tried] = [of_pair for of_pair, _ in pairs]
    # the unknown questions of the pairs come first, then the spare ones that are no partner
    offered: list[Tried] = [other for _, other in pairs]
    taken = {normalise(tried.question.text) for tried in (*known, *offered)}
    offered += [tried for tried in spare if normalise(tried.question.text) not in taken]
    table = _word_table([tried.question.text for tried in (*known, *offered)])
    known_words, offered_words = table[: len(known)], table[len(known) :]
    similarity = alikeness([form_of(tried) for tried in known], [form_of(o) for o in offered])
    may_replace = similarity.copy() > 2  # all false, of the same shape
    for row in range(len(known)):
        # a pair of one form stays one
        has_one_form = similarity[row, row] == 1.0
        may_replace[row] = similarity[row] >= (1.0 if has_one_form else near)
    partners = _exchanged(known_words, offered_words, may_replace)
    rows = _evened(
        known_words - offered_words[partners],
        known_words + offered_words[partners],
        bound,
        max(1, int(least * len(pairs))),
    )
    return [(known[row], offered[partners[row]]) for row in rows]


def _word_table(texts: Sequence[str]) -> "NDArray[np.float64]":
    """Return which text has which word or pair of words that more than one text has: 1 or 0.

    The shape is (texts, words and pairs of words).
    """
    import numpy as np

    words_of_texts = [_words_and_pairs(text) for text in texts]
    counts = Counter[str]()
    for words in words_of_texts:
        counts.update(words)
    shared = sorted(word for word, count in counts.items() if count > 1)
    column = {word: number for number, word in enumerate(shared)}
    table = np.zeros((len(texts), len(shared)))
    for row, words in zip(table, words_of_texts, strict=True):
        row[[column[word] for word in words if word in column]] = 1
    return table


def _words_and_pairs(text: str) -> set[str]:
    """Return the words of a text, and each two that follow one another."""
    words = re.findall(r"\w+", text.lower())
    return {*words, *map(" ".join, pairwise(words))}


def _exchanged(
    known: "NDArray[np.float64]", offered: "NDArray[np.float64]", may: "NDArray[np.bool_]"
) -> "NDArray[np.int64]":
    """Return which of the offered rows goes with each known one; at first the i-th.

    The best exchange is made first. `known` is (pairs, words), `offered` (candidates, words), and
    `may` (pairs, candidates).
    """
    import numpy as np

    chosen = np.arange(len(known))
    free = np.arange(len(offered)) >= len(known)
    # The aim is the sum over words of weight * (known - chosen)², which an exchange of a row c for
    # a row o changes by 2 * lean · (c - o) + |c - o|², in the weighted product of rows.
    weights = 1 / (known.sum(0) + 1)
    products = (offered * weights) @ offered.T
    sizes = np.diag(products)
    for _ in range(10 * len(known) if free.any() else 0):
        lean = offered @ (weights * (known.sum(0) - offered[chosen].sum(0)))
        change = 2 * (lean[chosen, None] - lean) + sizes[chosen, None] + sizes
        change -= 2 * products[chosen]
        change[~(may & free)] = np.inf
        row, new = np.unravel_index(int(change.argmin()), change.shape)
        if change[row, new] > -_MIN_CHANGE:
            break
        free[chosen[row]], free[new] = True, False
        chosen[row] = new
    return chosen


def _evened(
    differences: "NDArray[np.float64]", sums: "NDArray[np.float64]", bound: float, min_rows: int
) -> list[int]:
    """Return the rows that stay, of the differences and sums of each pair's words."""
    import numpy as np

    rows = np.arange(len(differences))
    while len(rows) > min_rows:
        d, n = differences[rows].sum(0), np.maximum(sums[rows].sum(0), 1)
        if (np.abs(d) / np.sqrt(n)).max(initial=0) <= bound:
            break
        # how much the sum of z² falls without each row, n taken as it is
        gain = (2 * d * differences[rows] - differences[rows] ** 2) @ (1 / n)
        if gain.max() <= _MIN_CHANGE:
            break
        rows = np.delete(rows, int(gain.argmax()))
    return [int(row) for row in rows]


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

    Raises ValueError for fewer than five of either, and MissingExtraError without scikit-learn.
    """
    import numpy as np

    _require_sklearn()
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped]

    texts, labels = _labelled(known, unknown)
    if min(len(known), len(unknown)) < FOLDS:
        raise ValueError(
            f"{len(known)} known and {len(unknown)} unknown questions are too few for five folds"
        )
    # the group of a question is its pair, or itself
    unknown_groups = range(len(unknown)) if paired else range(len(known), len(texts))
    groups = [*range(len(known)), *unknown_groups]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    values = []
    for train, test in folds.split(texts, labels, groups):
        log_odds = _log_odds(
            [texts[i] for i in train], [labels[i] for i in train], [texts[i] for i in test]
        )
        values.append(_auroc(log_odds, [labels[i] for i in test]))
    # a mean over folds: the scores of different classifiers are on different scales
    return float(np.mean(values))


def transfer_auroc(
    train: tuple[Sequence[str], Sequence[str]], test: tuple[Sequence[str], Sequence[str]]
) -> float:
    """Return how well words learnt on one pool (known, unknown) tell known from unknown in another.

    Raises MissingExtraError without scikit-learn.
    """
    texts, labels = _labelled(*train)
    test_texts, test_labels = _labelled(*test)
    return _auroc(_log_odds(texts, labels, test_texts), test_labels)


def transfer_gap(
    train: tuple[Sequence[str], Sequence[str]], test: tuple[Sequence[str], Sequence[str]]
) -> float:
    """Return by how much likelier, on average, words learnt on one pool make a known question of
    another pool known.

    A difference of probabilities, in [-1, 1]. A ranking (`transfer_auroc`) finds the slightest lean
    that two pools share; this says how far whoever learns from the words goes by it. Raises
    MissingExtraError without scikit-learn.
    """
    import numpy as np

    texts, labels = _labelled(*train)
    test_texts, test_labels = _labelled(*test)
    probabilities = 1 / (1 + np.exp(-_log_odds(texts, labels, test_texts)))
    is_known = np.array(test_labels) == 1
    return float(probabilities[is_known].mean() - probabilities[~is_known].mean())


def _labelled(known: Sequence[str], unknown: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return all texts as single lines, and 1 for each known one, 0 for each unknown one."""
    texts = [" ".join(text.split()) for text in (*known, *unknown)]
    return texts, [1] * len(known) + [0] * len(unknown)


def _log_odds(
    texts: Sequence[str], labels: Sequence[int], test_texts: Sequence[str]
) -> "NDArray[np.float64]":
    """Return the log-odds that each of `test_texts` is known, by words learnt on `texts`."""
    _require_sklearn()
    from sklearn.feature_extraction.text import CountVectorizer  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]

    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    model = make_pipeline(words, LogisticRegression(max_iter=1000)).fit(texts, labels)
    log_odds: NDArray[np.float64] = model.decision_function(test_texts)
    return log_odds


def _auroc(log_odds: "NDArray[np.float64]", labels: Sequence[int]) -> float:
    import numpy as np

    return float(auroc(log_odds, labels, np.ones(len(labels))))


def _require_sklearn() -> None:
    """Raise MissingExtraError where scikit-learn is not installed."""
    try:
        import sklearn  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "recommended", "measuring style") from error
