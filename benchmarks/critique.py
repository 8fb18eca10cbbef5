"""What critique and revision do to answers: how many become right, how many wrong, and what it
costs.

    # a folder of JSONL files; both models, 300 questions a set
    python benchmarks/critique.py DATA

Each set is answered once, by the recipe that `selfloop eval` runs; every mode then criticises and
revises the very same answers, replayed from a copy of that run. The first figures are with the rule
that the loop has: a revision takes the draft's place only if the last detector that can judge both
gives it more. Without it, every revision that says something else is taken. Gold answers are used
for nothing but these tables. The intervals are of the paired difference to the drafts, 95 %, by
bootstrap over questions. Completions and seconds are what a mode takes beyond answering and judging
the drafts.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from generate import MODELS, cpu

from selfloop.api.closed_book import closed_book
from selfloop.evaluation import metrics
from selfloop.evaluation.flips import counts, flip
from selfloop.evaluation.gold import judged
from selfloop.evaluation.metrics import Estimate, interval
from selfloop.records import Attempt
from selfloop.runner import new_folder, resume, stored_recipe
from selfloop.storage.run_folder import RECIPE
from selfloop.storage.store import Store, attempts_of

SETS = ("nq_open", "popqa", "easy_facts")
MODES = ("none", "plain", "independent", "contrast")
DETECTORS = ["agreement", "sequence_probability", "meaning_probability", "combined"]
HEAD = (
    "| mode | criticised | revised | accepted | right → wrong, wrong → right | accuracy | change "
    "| without the rule: right → wrong, wrong → right | accuracy | change | completions | s |\n"
    + "|---" * 12
    + "|"
)


def main() -> None:
    """Print one table for each model and set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument(
        "--count", type=int, default=300, help="the first so many questions of each set"
    )
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--weights", default="bf16")
    parser.add_argument("--threads", type=int, help="how many the model may use; all, if not given")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the runs, to be looked at with `selfloop show`"
    )
    options = parser.parse_args()
    own = [
        f"backend.weights={options.weights}",
        *([f"backend.threads={options.threads}"] if options.threads else []),
    ]
    print(cpu(), flush=True)
    with TemporaryDirectory() as folder:
        for model in options.names:
            for label in options.sets:
                data, runs = options.data / f"{label}.jsonl", options.keep or Path(folder)
                for line in measured(model, data, options.count, own, runs):
                    print(line, flush=True)


def measured(model: str, data: Path, count: int, own: Sequence[str], runs: Path) -> Iterator[str]:
    """Yield the lines of one set's table."""
    source = {"kind": "dataset", "path": str(data.resolve())}
    told = (
        "answer.samples=8",
        "answer.temperature=0.7",
        f"detectors={json.dumps(DETECTORS)}",
        *own,
    )
    answered = closed_book(
        model, source, count, told, runs, name=f"{model}-{data.stem}", quiet=True
    )
    drafts = attempts_of(answered)
    lost = sum(attempt.draft is None for attempt in drafts)
    accuracy = interval(partial(metrics.mean, [draft_right(a) for a in drafts]), len(drafts))
    yield (
        f"\n**{model}**, **{data.stem}**: {len(drafts)} questions, {lost} failed; "
        f"drafts right {shown(accuracy)}\n"
    )
    yield HEAD
    base = 0.0
    for mode in MODES:
        folder = copied(answered, mode, runs)
        start = time.perf_counter()
        resume(folder, quiet=True)
        seconds = time.perf_counter() - start
        base = seconds if mode == "none" else base
        yield row(mode, attempts_of(folder), said(folder) - said(answered), seconds - base)


def copied(run: Path, mode: str, runs: Path) -> Path:
    """Return a new run that is to be played by the same recipe with `mode`, with all that the model
    said before.
    """
    with closing(Store(run, write=False)) as old:
        loaded = stored_recipe(old, (f"critique={mode}",))
        folder = new_folder(runs, f"{run.name}-{mode}")
        old.copy(folder)
    with closing(Store(folder, write=True)) as new:
        new.forget_rounds()
        new.save_file(RECIPE, loaded.source.text())
    return folder


def said(folder: Path) -> int:
    """Return how many completions a run holds."""
    with closing(Store(folder, write=False)) as store:
        return store.count("completions")


def row(mode: str, attempts: Sequence[Attempt], completions: int, seconds: float) -> str:
    """Return a mode's line of the table."""
    before = np.array([draft_right(a) for a in attempts], float)
    after = np.array([right(a, a.answer) for a in attempts], float)
    without = np.array(
        [right(a, a.revision.text) if a.revision and flip(a) else draft_right(a) for a in attempts],
        float,
    )
    cells = [
        sum(a.critique is not None for a in attempts),
        sum(bool(flip(a)) for a in attempts),
        sum(a.chosen == "revision" for a in attempts),
        *change(counts(attempts, accepted=True), before, after),
        *change(counts(attempts), before, without),
        completions,
        f"{seconds:.0f}",
    ]
    return f"| {mode} | {' | '.join(map(str, cells))} |"


def change(flips: Counter[str], before: np.ndarray, after: np.ndarray) -> tuple[str, str, str]:
    """Return both flip counts, the accuracy that comes of them, and its difference to what was
    before.
    """
    found = interval(partial(metrics.mean, after - before), len(before))
    both = f"{flips['right -> wrong']}, {flips['wrong -> right']}"
    return both, f"{after.mean():.3f}", f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def draft_right(attempt: Attempt) -> bool:
    """Return whether the draft is right; one that failed is not."""
    return attempt.draft is not None and right(attempt, attempt.draft.text)


def right(attempt: Attempt, answer: str) -> bool:
    """Return whether an answer is right."""
    return bool(judged(attempt.question, answer))


def shown(found: Estimate) -> str:
    """Return a value with its interval."""
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
