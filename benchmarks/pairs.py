"""Does style tell what a model knows from what it does not? Matched pairs out of a run's own
questions.

    # makes a run: gemma-3-270m, three rounds of 300 questions
    python benchmarks/pairs.py
    python benchmarks/pairs.py runs/NAME ...   # reads finished ones; several count as one pool

AUROC of a bag-of-words classifier (`plugins/_shared/pairs.py`); .5 is chance, and nothing here has
gold answers. "cross-validated": five folds, the two of a pair in one. It flatters a pool that was
evened out: what is even as a whole leans in any part against the rest. "half to half" does not: the
pairs are split, each half is evened out by itself, one is learnt from and the other measured; a
mean over ten splits, from pools of half the size, whose pairs were found in the whole. "on the
rest": what was learnt from the whole pool, measured on the questions of the run that are not in it,
as known or unknown as they come. "gap": there, by how much likelier it holds a known question known
than an unknown one, on average.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
from selfloop_plugins._shared.pairs import believed, halves, matched, question_texts, unknown
from selfloop_plugins._shared.style import balanced, style_auroc, transfer_auroc, transfer_gap

from selfloop import Attempt
from selfloop.runner import run
from selfloop.storage.store import attempts_of

RECIPE = """
name: pairs
rounds: 3
backend: {kind: llama_cpp, model: gemma-3-270m, weights: bf16}
ask:
  questions: 300
  sources: [topics, blank_slate, {kind: variants, weight: 2}]
"""
SEEDS = range(10)
Pairs = list[tuple[Attempt, Attempt]]


def main() -> None:
    """Print the table, and some pairs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--shown", type=int, default=20, help="how many pairs to print")
    options = parser.parse_args()
    attempts = [
        a
        for folder in options.folders or [made()]
        for a in attempts_of(folder)
        if a.decision != "dropped"
    ]
    sides = [[a for a in attempts if side(a)] for side in (believed, unknown)]
    pairs = matched(attempts)
    even = balanced(pairs, sides[1])
    print(
        f"\n{len(attempts)} questions asked: {len(sides[0])} known, {len(sides[1])} unknown; "
        f"{len(pairs)} pairs\n"
    )
    print(
        "| pool | pairs | AUROC, cross-validated | half to half | on the rest | gap "
        "|\n|---|---|---|---|---|---|"
    )
    for size in dict.fromkeys((len(pairs), len(even))):
        pools = [drawn(sides, size, seed) for seed in SEEDS]
        print(row("unmatched, at random", pools, sides, evened=False, paired=False))
    print(row("matched", [pairs], sides, evened=False))
    print(row("matched and evened out", [even], sides, evened=True))
    print("\n| known | the model says | unknown |\n|---|---|---|")
    for one, other in random.Random(0).sample(even, min(options.shown, len(even))):
        print(f"| {one.question.text} | {one.answer} | {other.question.text} |".replace("\n", " "))


def made() -> Path:
    """Return the folder of a finished run."""
    folder = Path(tempfile.mkdtemp())
    (folder / "pairs.yaml").write_text(RECIPE, encoding="utf-8")
    return run(folder / "pairs.yaml", runs=folder)


def drawn(sides: list[list[Attempt]], size: int, seed: int) -> Pairs:
    """Return `size` known and as many unknown questions, at random and in no order."""
    rng = random.Random(seed)
    size = min(size, *map(len, sides))
    return list(zip(*(rng.sample(side, size) for side in sides), strict=True))


def row(
    name: str, pools: list[Pairs], sides: list[list[Attempt]], *, evened: bool, paired: bool = True
) -> str:
    """Return a row of the table: a mean over the pools and over seeds."""
    folds = [
        style_auroc(*question_texts(pool), seed=seed, paired=paired)
        for pool in pools
        for seed in SEEDS
    ]
    split = []
    for pool in pools:
        for seed in SEEDS if len(pools) == 1 else SEEDS[:1]:
            one, other = halves(pool, seed)
            if evened:
                taken = {tried.question.text for pair in pool for tried in pair}
                spare = [tried for tried in sides[1] if tried.question.text not in taken]
                one, other = balanced(one, spare[::2]), balanced(other, spare[1::2])
            split += [
                transfer_auroc(question_texts(one), question_texts(other)),
                transfer_auroc(question_texts(other), question_texts(one)),
            ]
    rest = [
        of(question_texts(pool), left(pool, sides))
        for of in (transfer_auroc, transfer_gap)
        for pool in pools
    ]
    means = [np.mean(values) for values in (folds, split, rest[: len(pools)], rest[len(pools) :])]
    return f"| {name} | {len(pools[0])} | {' | '.join(f'{mean:.2f}' for mean in means)} |"


def left(pool: Pairs, sides: list[list[Attempt]]) -> tuple[list[str], list[str]]:
    """Return the known and the unknown questions that are not in a pool."""
    taken = {one.question.text for pair in pool for one in pair}
    known, others = (
        [a.question.text for a in side if a.question.text not in taken] for side in sides
    )
    return known, others


if __name__ == "__main__":
    main()
