"""Questions that a model knows and does not know, in pairs of the same form.

A tuner must not be able to tell them apart by their wording. If "Who wrote ...?" is mostly known
and "In which year ...?" mostly not, a model learns to decline years, and abstaining learnt from
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
from .prompt_text import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Tried = TypeVar("Tried", Outcome, Attempt)
Span = tuple[int, int]

# words that may begin a question with a capital and are no name
_OPENERS = pattern(
    r"what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|has|have"
    r"|had|will|would|should|name|in|on|at|for|of|to|from|by|with|during|about|after|before|under"
    r"|the|a|an|if|as|it|this|that|these|those|among|since|until|according|between|i",
    re.IGNORECASE,
)
# small words within a name: "Leonardo da Vinci", "the Lord of the Rings"
_NAME_LINKS = pattern(r"of|the|de|la|le|van|von|der|den|da|di|du|del|el|al")
_QUOTED = pattern(r"[\"“]([^\"“”]{2,80})[\"”]")
_WORD = pattern(r"[^\W_](?:[\w'’.&-]*\w)?(?:\.(?=\s[A-Z]))?")
_POSSESSIVE = pattern(r"(?:['’]s)?$")
_NUMBER = pattern(r"\d[\d.,]*")

MAX_LINKS = 2  # small words in a row within a name
# characters that no question has, for an entity and a number
_ENTITY_MARK, _NUMBER_MARK = "\x00", "\x01"
_MASKS = {_ENTITY_MARK: "_", _NUMBER_MARK: "#"}

MIN_GAIN = 1e-9  # less is rounding
MAX_EXCHANGES_PER_PAIR = 10
FOLDS = 5


def entity(text: str, via: str = "") -> Span | None:
    """Return where in a question its entity stands; None if it has none.

    That is `via`, or a quoted title, or the longest capitalised span. A word that begins the
    sentence is no name, unless another one follows: "Mount Everest is in which country?"
    """
    if via:
        match = re.search(rf"(?<!\w){re.escape(via)}(?!\w)", text, re.IGNORECASE)
        if match:
            return _with_article(text, match.span())
    quoted = _QUOTED.search(text)
    if quoted:
        return quoted.span(1)
    spans = _capitalised_spans(text)
    longest = max(spans, key=lambda span: span[1] - span[0], default=None)
    return _with_article(text, longest) if longest else None


def _with_article(text: str, span: Span) -> Span:
    """Return a name's span with the "the" before it: it is "the Nile", but no "the Egypt"."""
    start, end = span
    is_capitalised = text[start : start + 1].isupper()
    if is_capitalised and text[:start].endswith(" the "):
        return start - len("the "), end
    return span


def _capitalised_spans(text: str) -> list[Span]:
    """Return the spans of names: words with a capital, small words between, numbers after."""
    spans: list[Span] = []
    words = list(_WORD.finditer(text))
    first = 0
    while first < len(words):
        if not _begins_name(words, first):
            first += 1
            continue
        last = _last_of_name(text, words, first)
        # one word at the start of the sentence may have its capital from there
        if first or last > first:
            possessive = _POSSESSIVE.search(words[last][0])
            ending = len(possessive[0]) if possessive else 0
            spans.append((words[first].start(), words[last].end() - ending))
        first = last + 1
    return spans


def _last_of_name(text: str, words: Sequence[re.Match[str]], first: int) -> int:
    """Return the position of the last word of the name that begins with word `first`."""
    last = first
    for i in range(first + 1, len(words)):
        between = text[words[i - 1].end() : words[i].start()]
        # a name goes on after a space, over at most so many small words
        if between != " " or i - last > MAX_LINKS + 1:
            break
        word = words[i][0]
        is_number_after_name = word[0].isdigit() and i == last + 1
        if _has_capital(word) or is_number_after_name:
            last = i
        elif not _NAME_LINKS.fullmatch(word):
            break
    return last


def _has_capital(word: str) -> bool:
    return word[0].isupper() and word != "I"


def _begins_name(words: Sequence[re.Match[str]], i: int) -> bool:
    is_opener = i == 0 and _OPENERS.fullmatch(words[i][0])
    return _has_capital(words[i][0]) and not is_opener


def form(text: str, via: str = "") -> str:
    """Return a question's form: lower case, its entity as "_" and its numbers as "#"."""
    span = entity(text, via)
    masked = text
    if span:
        start, end = span
        masked = f"{text[:start]} {_ENTITY_MARK} {text[end:]}"
    masked = _NUMBER.sub(f" {_NUMBER_MARK} ", masked.lower())
    words = re.findall(rf"[\w'’-]+|{_ENTITY_MARK}|{_NUMBER_MARK}", masked)
    return " ".join(_MASKS.get(word, word) for word in words)


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
    """Return pairs of a known and an unknown question: as many of the one as of the other.

    First come pairs of the same form. Then, nearest first, those whose forms have at least `bound`
    of their words in common and in the same order (twice the longest common subsequence of words,
    over the words of both). Of questions of one form, those of like length go together. A question
    is in at most one pair; one without a partner is left out. A question that was tried several
    times counts as it was tried last; one in the words of another (but for case and marks) counts
    once.
    """
    last_tries = {normalise(attempt.question.text): attempt for attempt in tried}
    known_by_form: dict[str, list[Tried]] = defaultdict(list)
    unknown_by_form: dict[str, list[Tried]] = defaultdict(list)
    for attempt in last_tries.values():
        question_form = form(attempt.question.text, attempt.question.via)
        if known(attempt):
            known_by_form[question_form].append(attempt)
        if unknown(attempt):
            unknown_by_form[question_form].append(attempt)
    pairs: list[tuple[Tried, Tried]] = []
    for shared in [name for name in known_by_form if name in unknown_by_form]:
        pairs += _take_pairs(known_by_form, shared, unknown_by_form, shared)
    for first, second in _near_forms([*known_by_form], [*unknown_by_form], bound):
        pairs += _take_pairs(known_by_form, first, unknown_by_form, second)
    return pairs


def _take_pairs(
    known_by_form: dict[str, list[Tried]],
    known_form: str,
    unknown_by_form: dict[str, list[Tried]],
    unknown_form: str,
) -> list[tuple[Tried, Tried]]:
    """Take as many pairs as two forms have, the shortest first, and leave the rest for others."""
    known = sorted(known_by_form.get(known_form, []), key=_length_key)
    unknown = sorted(unknown_by_form.get(unknown_form, []), key=_length_key)
    count = min(len(known), len(unknown))
    if known:
        known_by_form[known_form] = known[count:]
    if unknown:
        unknown_by_form[unknown_form] = unknown[count:]
    return list(zip(known[:count], unknown[:count], strict=True))


def _length_key(tried: Outcome | Attempt) -> tuple[int, str]:
    return len(tried.question.text), tried.question.id


def _near_forms(
    known: Sequence[str], unknown: Sequence[str], bound: float
) -> list[tuple[str, str]]:
    """Return the pairs of different forms that are alike, the most alike first; deterministic."""
    similarities = _form_similarities(known, unknown)
    near = []
    for i, j in zip(*(similarities >= bound).nonzero(), strict=True):
        if known[i] != unknown[j]:
            near.append((-float(similarities[i, j]), known[i], unknown[j]))
    return [(first, second) for _, first, second in sorted(near)]


def _form_similarities(known: Sequence[str], unknown: Sequence[str]) -> "NDArray[np.float32]":
    """Return how much of their words, in order, two forms share: (known, unknown), in [0, 1]."""
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    if not known or not unknown:
        return np.zeros((len(known), len(unknown)), np.float32)
    known_words = [text.split() for text in known]
    unknown_words = [text.split() for text in unknown]
    scorer: Any = Indel.normalized_similarity
    similarities: NDArray[np.float32] = process.cdist(
        known_words, unknown_words, scorer=scorer, processor=None
    )
    return similarities


def balanced(
    pairs: Sequence[tuple[Tried, Tried]],
    spare: Sequence[Tried] = (),
    *,
    near: float = 0.5,
    bound: float = 1.5,
    least: float = 0.5,
) -> list[tuple[Tried, Tried]]:
    """Return the pairs evened out, so that words tell less of known and unknown.

    First unknown questions are exchanged for some of `spare` where that makes the words of both
    sides more even. The new one has the same form where the pair has one form, else a form that has
    `near` of its words in common with the known one's.

    Then pairs go. A word, or two in a row, that n questions have, and d more of the known than of
    the unknown, has z = d/√n, which chance alone keeps near 1. The pair whose loss lowers the sum
    of z² the most goes first, until no z is above `bound`, no loss lowers the sum, or only the
    share `least` is left.

    It looks at words and labels of this pool alone. So the pool's own AUROC afterwards is a result
    of the choice, and says nothing about other questions (see `style_auroc`).
    """
    if len(pairs) < 2:
        return list(pairs)
    known: list[Tried] = [first for first, _ in pairs]
    candidates: list[Tried] = [second for _, second in pairs]
    candidates += _unused(pairs, spare)
    table = _word_table([attempt.question.text for attempt in (*known, *candidates)])
    known_words, candidate_words = table[: len(known)], table[len(known) :]
    similarities = _form_similarities(_forms_of(known), _forms_of(candidates))
    # the i-th candidate is the partner so far of the i-th known question
    partner_similarities = similarities.diagonal()
    min_similarities = [[1.0 if value == 1.0 else near] for value in partner_similarities]
    chosen = _exchange(known_words, candidate_words, similarities >= min_similarities)
    chosen_words = candidate_words[chosen]
    rows = _even_out(
        known_words - chosen_words,
        known_words + chosen_words,
        bound,
        max(1, int(least * len(pairs))),
    )
    return [(known[row], candidates[chosen[row]]) for row in rows]


def _unused(pairs: Sequence[tuple[Tried, Tried]], spare: Sequence[Tried]) -> list[Tried]:
    """Return the spare questions that are in no pair."""
    used = set()
    for pair in pairs:
        used |= {normalise(attempt.question.text) for attempt in pair}
    return [attempt for attempt in spare if normalise(attempt.question.text) not in used]


def _forms_of(tried: Sequence[Tried]) -> list[str]:
    return [form(attempt.question.text, attempt.question.via) for attempt in tried]


def _word_table(texts: Sequence[str]) -> "Floats":
    """Return which text has which words, and pairs of words, (texts, words), as 0 and 1.

    Only words that more than one text has are there.
    """
    import numpy as np

    words_of_texts = [_words_and_pairs(text) for text in texts]
    counts: Counter[str] = Counter()
    for words in words_of_texts:
        counts.update(words)
    common = sorted(word for word, count in counts.items() if count > 1)
    columns = {word: column for column, word in enumerate(common)}
    table = np.zeros((len(texts), len(columns)))
    for row, words in zip(table, words_of_texts, strict=True):
        row[[columns[word] for word in words if word in columns]] = 1
    return table


def _words_and_pairs(text: str) -> set[str]:
    """Return the words of a text, and each two that follow one another."""
    words = re.findall(r"\w+", text.lower())
    return {*words, *map(" ".join, pairwise(words))}


def _exchange(
    known: "Floats", candidates: "Floats", allowed: "NDArray[np.bool_]"
) -> "NDArray[np.int64]":
    """Return the candidate row that goes with each known row; at first the i-th with the i-th.

    The rows are those of `_word_table`; `allowed` is (known, candidates). The best exchange is made
    first, until none is better than no exchange: one that lowers Σ weight · d², d being how many
    more known than chosen rows have a word, and rare words weighing more.
    """
    import numpy as np

    chosen = np.arange(len(known))
    is_free = np.arange(len(candidates)) >= len(known)
    weights = 1 / (known.sum(0) + 1)
    products = (candidates * weights) @ candidates.T  # weighted, (candidates, candidates)
    norms = np.diag(products)
    for _ in range(MAX_EXCHANGES_PER_PAIR * len(known) if is_free.any() else 0):
        surplus = known.sum(0) - candidates[chosen].sum(0)  # d of each word
        lean = candidates @ (weights * surplus)
        # of putting candidate j in the place of chosen[i]: the square of d + old − new, less d²
        change = 2 * (lean[chosen, None] - lean)
        change = change + norms[chosen, None] + norms - 2 * products[chosen]
        change[~(allowed & is_free)] = np.inf
        row, new = np.unravel_index(int(change.argmin()), change.shape)
        if change[row, new] > -MIN_GAIN:
            break
        is_free[chosen[row]], is_free[new] = True, False
        chosen[row] = new
    return chosen


def _even_out(differences: "Floats", counts: "Floats", bound: float, min_rows: int) -> list[int]:
    """Return the rows that stay.

    `differences` and `counts` are (pairs, words): the known question's word less, and plus, the
    unknown one's.
    """
    import numpy as np

    rows = np.arange(len(differences))
    while len(rows) > min_rows:
        d = differences[rows].sum(0)
        n = np.maximum(counts[rows].sum(0), 1)
        if (np.abs(d) / np.sqrt(n)).max(initial=0) <= bound:
            break
        # without row r the sum of d²/n falls by Σ (2 d r − r²) / n
        gains = (2 * d * differences[rows] - differences[rows] ** 2) @ (1 / n)
        if gains.max() <= MIN_GAIN:
            break
        rows = np.delete(rows, int(gains.argmax()))
    return [int(row) for row in rows]


def style_auroc(
    known: Sequence[str], unknown: Sequence[str], seed: int = 0, *, paired: bool = True
) -> float:
    """Return how well words tell known from unknown.

    That is the AUROC of a logistic regression on words and pairs of words, cross-validated in five
    folds. With `paired`, the i-th known and the i-th unknown question are a pair and stay in one
    fold. Otherwise the classifier would see a question's partner, of the same words and the other
    label, and learn that these words mean the other label. Then the AUROC comes out too low, and
    flatters the pool.

    A pool whose words were evened out (`balanced`) still flatters itself: where the words of four
    folds lean one way, those of the fifth lean the other. Compare with `transfer_auroc` between two
    pools that were evened out apart.

    Raises ValueError for fewer than five of either.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped]

    if min(len(known), len(unknown)) < FOLDS:
        raise ValueError(
            f"{len(known)} known and {len(unknown)} unknown questions are too few for five folds"
        )
    texts, labels = _labelled(known, unknown)
    first_partner = 0 if paired else len(known)
    groups = [*range(len(known)), *range(first_partner, first_partner + len(unknown))]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    aurocs = []
    for train, test in folds.split(texts, labels, groups):
        train_texts, train_labels = [texts[i] for i in train], [labels[i] for i in train]
        scores = _style_scores(train_texts, train_labels, [texts[i] for i in test])
        aurocs.append(_auroc(scores, [labels[i] for i in test]))
    # a mean over folds: the scores of different classifiers are on different scales
    return float(np.mean(aurocs))


def transfer_auroc(
    train: tuple[Sequence[str], Sequence[str]], test: tuple[Sequence[str], Sequence[str]]
) -> float:
    """Return how well words of one pool (known, unknown) tell known from unknown in another."""
    train_texts, train_labels = _labelled(*train)
    test_texts, test_labels = _labelled(*test)
    return _auroc(_style_scores(train_texts, train_labels, test_texts), test_labels)


def transfer_gap(
    train: tuple[Sequence[str], Sequence[str]], test: tuple[Sequence[str], Sequence[str]]
) -> float:
    """Return how much likelier words of one pool make known questions of another than unknown ones.

    A difference of mean probabilities of being known, in [-1, 1]. A ranking (`transfer_auroc`)
    finds the slightest lean that two pools share. This says how far a model that learns from the
    words follows it.
    """
    import numpy as np

    train_texts, train_labels = _labelled(*train)
    test_texts, test_labels = _labelled(*test)
    scores = _style_scores(train_texts, train_labels, test_texts)
    probabilities = 1 / (1 + np.exp(-scores))
    is_known = np.array(test_labels) == 1
    return float(probabilities[is_known].mean() - probabilities[~is_known].mean())


def halves(
    pairs: Sequence[tuple[Tried, Tried]], seed: int = 0
) -> tuple[list[tuple[Tried, Tried]], ...]:
    """Return the pairs in two parts of the same size, at random."""
    shuffled = random.Random(seed).sample(list(pairs), len(pairs))
    return shuffled[::2], shuffled[1::2]


def texts(pairs: Sequence[tuple[Tried, Tried]]) -> tuple[list[str], list[str]]:
    """Return the texts of the known and of the unknown questions, in order."""
    known = [first.question.text for first, _ in pairs]
    unknown = [second.question.text for _, second in pairs]
    return known, unknown


def _labelled(known: Sequence[str], unknown: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the texts of both sides as lines, and a label for each: 1 is known."""
    lines = [one_line(text) for text in (*known, *unknown)]
    return lines, [1] * len(known) + [0] * len(unknown)


def _style_scores(texts: Sequence[str], labels: Sequence[int], others: Sequence[str]) -> "Floats":
    """Return the log-odds of known that a classifier of words, fitted on `texts`, gives others."""
    from sklearn.feature_extraction.text import CountVectorizer  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]

    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    model = make_pipeline(words, LogisticRegression(max_iter=1000)).fit(texts, labels)
    scores: Floats = model.decision_function(others)
    return scores


def _auroc(scores: "Floats", labels: Sequence[int]) -> float:
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

    return float(roc_auc_score(labels, scores))
