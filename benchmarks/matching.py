"""Is the rule for the same answer what a careful person would say, and does the one for declining
know who declines?

    python benchmarks/matching.py                # a few seconds, no model

Two tables of data/answer_pairs.tsv (by kind: how often a rule takes different answers for the same,
and the same for different) and of data/declining.tsv, whose second half was left alone while the
rule was written. Then what is got wrong, in full, and how long the rule takes.
"""

import argparse
import re
import string
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfloop.text.answers import declines, normalise, squad_normalise
from selfloop.text.answers.same import CACHED, _normalised

DATA = Path(__file__).parent / "data"
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\n")

# The rule before this one, kept here for comparison alone.
_OLD_ARTICLES = re.compile(r"\b(a|an|the)\b")
_OLD_PUNCTUATION = str.maketrans("", "", string.punctuation)
_OLD_DECLINES = re.compile(
    r"^\W*(i\s+(do\s*n.?t|do\s+not|can\s*not|can.?t)\s+(know|answer|say|tell)|i.?m\s+not\s+sure|i\s+am\s+not\s+sure"
    r"|idk\b|unknown\W*$|no\s+idea\b|not\s+sure\b|(i.?m\s+|i\s+am\s+)?(sorry|unable)\b)",
    re.IGNORECASE,
)


def old_normalise(text: str) -> str:
    """Return what the rule before this one compared."""
    return " ".join(_OLD_ARTICLES.sub(" ", text.lower().translate(_OLD_PUNCTUATION)).split())


def old_declines(text: str) -> bool:
    """Return what the rule before this one said."""
    return not old_normalise(text) or _OLD_DECLINES.search(text) is not None


RULES: dict[str, Callable[[str], str]] = {
    "before": old_normalise,
    "SQuAD": squad_normalise,
    "house": normalise,
}
DECLINING: dict[str, Callable[[str], bool]] = {"before": old_declines, "house": declines}


@dataclass(frozen=True)
class Pair:
    """Two answers of a kind, and whether a careful person counts them as one."""

    kind: str
    same: bool
    one: str
    other: str


@dataclass(frozen=True)
class Sentence:
    """A text that declines or answers, in a language; `half` is "first" or "second"."""

    half: str
    language: str
    declines: bool
    text: str


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    pairs = [
        Pair(kind, same == "same", one, other)
        for kind, same, one, other in _rows("answer_pairs.tsv")
    ]
    sentences = [
        Sentence(half, lang, what == "declines", text)
        for half, lang, what, text in _rows("declining.tsv")
    ]
    for line in (*matching(pairs), "", *declining(sentences), "", *speed(pairs)):
        print(line)


def matching(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield the table of pairs, and the pairs that the house rule gets wrong."""
    same = sum(pair.same for pair in pairs)
    yield f"**The same answer**: {len(pairs)} pairs, {same} of them the same. Taken wrongly"
    yield "for the same / wrongly for different, and the share of errors:"
    yield ""
    yield f"| kind | same | different | {' | '.join(RULES)} |"
    yield f"|---|---|---|{'---|' * len(RULES)}"
    by_kind = defaultdict[str, list[Pair]](list)
    for pair in pairs:
        by_kind[pair.kind].append(pair)
    for kind, some in (*by_kind.items(), ("all", list(pairs))):
        cells = [_errors(rule, some) for rule in RULES.values()]
        same = sum(pair.same for pair in some)
        yield f"| {kind} | {same} | {len(some) - same} | {' | '.join(cells)} |"
    yield ""
    yield "The house rule gets wrong:"
    yield ""
    for pair in pairs:
        if agree(normalise, pair) != pair.same:
            truth = "the same" if pair.same else "different"
            yield f"* {pair.kind}, {truth}: {pair.one!r}, {pair.other!r}"


def agree(rule: Callable[[str], str], pair: Pair) -> bool:
    """Return whether a rule makes one text of both answers, and not an empty one."""
    return rule(pair.one) == rule(pair.other) != ""


def _errors(rule: Callable[[str], str], pairs: Iterable[Pair]) -> str:
    judged = [(pair.same, agree(rule, pair)) for pair in pairs]
    false_same = sum(said and not same for same, said in judged)
    false_different = sum(same and not said for same, said in judged)
    return f"{false_same} / {false_different} ({(false_same + false_different) / len(judged):.1%})"


def declining(sentences: Sequence[Sentence]) -> Iterator[str]:
    """Yield the table of sentences, and those that the house rule gets wrong."""
    count = sum(sentence.declines for sentence in sentences)
    languages = len({sentence.language for sentence in sentences})
    size = f"{len(sentences)} sentences in {languages} languages"
    yield f"**Declining**: {size}, {count} of them decline."
    yield ""
    headings = " | ".join(f"{rule}: precision, recall" for rule in DECLINING)
    yield f"| half | decline | answer | {headings} |"
    yield f"|---|---|---|{'---|' * len(DECLINING)}"
    for half in ("first", "second", "both"):
        some = [sentence for sentence in sentences if half in (sentence.half, "both")]
        cells = [_precision_and_recall(rule, some) for rule in DECLINING.values()]
        count = sum(sentence.declines for sentence in some)
        yield f"| {half} | {count} | {len(some) - count} | {' | '.join(cells)} |"
    yield ""
    yield "The house rule gets wrong:"
    yield ""
    for sentence in sentences:
        if declines(sentence.text) != sentence.declines:
            truth = "declines" if sentence.declines else "answers"
            yield f"* {sentence.half} half, {sentence.language}, {truth}: {sentence.text!r}"


def _precision_and_recall(rule: Callable[[str], bool], sentences: Iterable[Sentence]) -> str:
    judged = [(sentence.declines, rule(sentence.text)) for sentence in sentences]
    hits = sum(truth and said for truth, said in judged)
    said_so, true_ones = sum(said for _, said in judged), sum(truth for truth, _ in judged)
    return f"{hits / max(1, said_so):.3f}, {hits / true_ones:.3f}"


def speed(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield how long the rules take for a text: at first sight, and when it was seen before."""
    plain = [
        "Paris",
        "William Shakespeare",
        "The Nile",
        "What is the capital of France?",
        "It is Cairo.",
    ]
    mixed = [text for pair in pairs for text in (pair.one, pair.other) if len(text) <= CACHED]
    yield "**Time**, microseconds a text:"
    yield ""
    yield "| texts | before | house, at first | house, seen before |"
    yield "|---|---|---|---|"
    for label, texts in (("words alone", plain), ("those of the pairs", mixed)):
        times = [_microseconds(rule, texts) for rule in (old_normalise, _normalised, normalise)]
        yield f"| {label} | {' | '.join(f'{one:.1f}' for one in times)} |"


def _microseconds(rule: Callable[[str], str], texts: Sequence[str]) -> float:
    """Return the least time that a text took on average, of five passes."""
    rounds = max(1, 2000 // len(texts))
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(rounds):
            for text in texts:
                rule(text)
        best = min(best, time.perf_counter() - begun)
    return best / rounds / len(texts) * 1e6


def _rows(name: str) -> Iterator[list[str]]:
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield [_ESCAPED.sub(_unescaped, cell) for cell in line.split("\t")]


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else "\n"


if __name__ == "__main__":
    main()
