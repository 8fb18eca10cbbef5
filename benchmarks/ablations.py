"""What each part of the tuning step is good for: one run's questions, tuned on in several ways.

    # RUN: finished, at best three rounds
    python benchmarks/ablations.py DATA RUN --limit 150
    # as if it had ended after its first round
    python benchmarks/ablations.py DATA RUN --rounds 1

Every row is a LoRA from the same run and seed, without a gate, measured through llama.cpp on the
first questions of each set, bare and behind five demonstrations: `kept / wrong left`, as in
honesty.py, then the flag's AUROC for what the base would get right, its mean over the sets, and how
the perplexity of the base's own text changed. Gold answers are for this table only. "rounds 1 to N"
is what a run of N rounds would have tuned on; "round N alone" is the last one without replay.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from detectors import questions
from generate import cpu
from honesty import BARE, FORMS, SHOWING, figures, paired, said
from selfloop_plugins import models
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights
from selfloop_plugins.tuners.lora import Lora, tuner

from selfloop import History, TuneContext
from selfloop.config.prompts import Prompts
from selfloop.records import Adapter
from selfloop.storage.store import Store

SETS = ("easy_facts", "popqa", "webquestions")
RECIPE = {
    "rate": 1.5e-4,
    "min_kept": 0.9,
}  # recipes/honest-gemma.yaml, but for the bound of the gate


@dataclass(frozen=True)
class Variant:
    """A row: the tuner's options, and which rounds are tuned on."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    rounds: Callable[[int, int], bool] = lambda number, last: True


VARIANTS = (
    Variant("as in the recipe"),
    Variant("declining 20 %, matched", {"declined": 0.2}),
    Variant("declining 35 %, matched", {"declined": 0.35}),
    Variant("declining 50 %, matched", {"declined": 0.5}),
    Variant("declining 50 %, unmatched", {"declined": 0.5, "match": False}),
    Variant("preference 0.1", {"preference": 0.1}),
    Variant("preference 0.5", {"preference": 0.5}),
    Variant("no KL on neutral text", {"kl": 0.0}),
    Variant("round 1", {}, lambda number, last: number == 1),
    Variant("rounds 1 and 2", {}, lambda number, last: number <= 2),
    Variant("the last round alone: no replay", {}, lambda number, last: number == last),
    Variant("min_kept 0.95", {"min_kept": 0.95}),
)


def main() -> None:
    """Print a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument("--rounds", type=int, help="of the run; the others are left out")
    parser.add_argument("--only", nargs="*", help="rows whose name begins so")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    print(f"{cpu()}\n", flush=True)
    file = str(converted_weights(models.locate(options.model), "bf16").path)
    with closing(Store(options.run, write=False)) as store:
        history = store.history()
    if options.rounds:
        few = tuple(one for one in history.outcomes if one.round <= options.rounds)
        history = replace(history, rounds=options.rounds, outcomes=few)
    tuner.neutral_texts = cache_by_seed(tuner.neutral_texts)
    backend = LlamaCpp(Path(file), threads=options.threads)
    asked = {label: questions(options.data / f"{label}.jsonl")[: options.limit] for label in SETS}
    base = {
        (label, form): said(backend, own, form) for label, own in asked.items() for form in FORMS
    }
    heads = [f"{label}, {'bare' if form == BARE else 'shown'}" for label, form in base]
    print(
        f"| | lessons | {' | '.join(heads)} | flag | perplexity "
        f"|\n|---|---|{'---|' * (len(heads) + 2)}",
        flush=True,
    )
    for variant in VARIANTS:
        if options.only and not variant.name.startswith(tuple(options.only)):
            continue
        with TemporaryDirectory() as folder:
            about = tune(variant, history, file, Path(folder), options)
            adapter = Path(folder) / "adapter.gguf"
            backend.load_adapter(Adapter(str(adapter), models.sha256(adapter), 1))
            cells, flags = [], []
            for (label, form), before in base.items():
                wanted = base[label, SHOWING].right
                row = figures(
                    said(backend, asked[label], form, flag=True),
                    before,
                    wanted,
                    paired(asked[label], wanted),
                )
                cells.append(f"{row[-5]:.2f} / {row[-4]:.2f}")
                flags.append(row[-3])
        rise = about["gate"]["tuned"]["perplexity"] / about["gate"]["base"]["perplexity"] - 1
        print(
            f"| {variant.name} | {about['taught']} | {' | '.join(cells)} | {np.mean(flags):.3f} | "
            f"{rise:+.1%} |",
            flush=True,
        )
    backend.close()


def cache_by_seed(write: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that has the base write its neutral text once for all rows."""
    kept: dict[int, Any] = {}

    def neutral(backend: Any, vocabulary: Any, seed: int) -> Any:
        if seed not in kept:
            kept[seed] = write(backend, vocabulary, seed)
        return kept[seed]

    return neutral


def tune(
    variant: Variant, history: History, file: str, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Train an adapter of one kind into `folder`; return what the tuner says of it."""
    chosen = tuple(one for one in history.outcomes if variant.rounds(one.round, history.rounds))
    made = Lora(threads=options.threads, **{"perplexity": 10.0, **RECIPE, **variant.options})
    # all that the tuner asks of it
    backend: Any = SimpleNamespace(describe=lambda: SimpleNamespace(file=file))
    prompt = partial(Prompts([PROMPTS]).render, chat=False)
    made.tune(
        TuneContext(1, (), replace(history, outcomes=chosen), folder, backend, prompt, options.seed)
    )
    about: dict[str, Any] = json.loads((folder / "gate.json").read_text("utf-8"))
    return about


if __name__ == "__main__":
    main()
