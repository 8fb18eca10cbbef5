"""The cost and the worth of samples: one answer alone, `samples: auto`, and eight each.

    python benchmarks/auto_samples.py DATA MODEL [MODEL ...] --limit 250

Each set is measured by `selfloop eval` with its default detectors. AUROC and ECE are those of the
confidence that decides. `sampled` is the share of questions that got samples. Tokens are all that
the model wrote for the answers; `of eight` is their share of the tokens with eight samples for each
question.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from detectors import shown
from generate import cpu

import selfloop
from selfloop.storage.store import attempts_of

SETS = ("easy_facts", "popqa", "webquestions", "nq_open", "curatedtrec")
SETTINGS: tuple[int | str, ...] = (0, "auto", 8)


class Measured(NamedTuple):
    """The figures of one setting."""

    auroc: Any
    ece: Any
    sampled: float
    tokens: int
    seconds: float


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument("--weights", default="bf16")
    options = parser.parse_args()
    print(cpu())
    for model in options.models:
        print(f"\n**{model}**\n")
        print("| set | samples | AUROC | ECE | sampled | tokens | of eight | seconds |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for name in options.sets:
            for line in rows(model, options.data / f"{name}.jsonl", options.limit, options.weights):
                print(line, flush=True)


def rows(model: str, file: Path, limit: int | None, weights: str) -> Iterator[str]:
    """Yield the lines of one set."""
    found = {}
    for samples in SETTINGS:
        with TemporaryDirectory() as folder:
            found[samples] = measured(model, file, limit, samples, weights, Path(folder))
    most = found[8].tokens
    for samples, one in found.items():
        yield (
            f"| {file.stem} | {samples} | {shown(one.auroc)} | {shown(one.ece)} "
            f"| {one.sampled:.2f} | {one.tokens} | {one.tokens / most:.2f} | {one.seconds:.0f} |"
        )


def measured(
    model: str, file: Path, limit: int | None, samples: int | str, weights: str, runs: Path
) -> Measured:
    """Return the figures of one setting on one set."""
    start = time.perf_counter()
    evaluation = selfloop.evaluate(
        model,
        file,
        {"answer.samples": samples, "backend.weights": weights, "observers": []},
        limit=limit,
        runs=runs,
        quiet=True,
    )
    seconds = time.perf_counter() - start
    assert isinstance(evaluation, selfloop.Evaluation)
    attempts = [one for one in attempts_of(evaluation.run.folder) if one.draft]
    completions = [c for one in attempts for c in (one.draft, *one.samples) if c]
    found = evaluation.report.confidence.metrics
    return Measured(
        found["auroc"],
        found["ece"],
        sum(bool(one.samples) for one in attempts) / len(attempts),
        sum(len(completion.tokens) for completion in completions),
        seconds,
    )


if __name__ == "__main__":
    main()
