"""What a model's own demonstrations bring: closed-book exact match, after Self-Prompting (Li et al.
2022).

    # both models; makes the pools first
    python benchmarks/self_prompting.py DATA
    python benchmarks/self_prompting.py DATA --pool gemma-3-270m=RUN --limit 50

The pool of a model is what the source `self_prompting` made in a run (arXiv 2212.08635, steps 1 to
6): all of it, whatever detectors say of it, as in the paper. All prompts are of one form but for
the last; only what is shown differs. Random pairs are drawn three times. Answers are greedy, at
most 16 tokens. Gold answers are used for nothing but this table. Intervals are 95 %, by bootstrap
over the questions; the last column is the difference to five fixed demonstrations on the same
questions. Seconds are those of choosing and answering, for all sets.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from detectors import questions, shown
from generate import DEMONSTRATIONS, MODELS, cpu
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights
from selfloop_plugins.few_shot.own_demonstrations import OwnDemonstrations

from selfloop import Completion, Question, VerifyContext
from selfloop.config.prompts import Prompt, is_open
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import judged
from selfloop.evaluation.metrics import interval
from selfloop.protocols import Backend
from selfloop.records import Message, Request, Sampling
from selfloop.runner import run
from selfloop.storage.store import attempts_of
from selfloop.testing import verify_context

SETS = ("webquestions", "nq_open", "popqa")
FIXED, SEEDS, TOKENS = "five fixed demonstrations", 3, 16
Show = Callable[[Sequence[str], VerifyContext], Sequence[Prompt]]


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument(
        "--pool", action="append", default=[], metavar="MODEL=RUN", help="a run to take pairs from"
    )
    parser.add_argument(
        "--size", type=int, default=300, help="questions of a pool that is made here"
    )
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument(
        "--rows",
        default="",
        metavar="TEXT",
        help="only rows that contain TEXT, beside the five fixed",
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=Path, help="keep the pools that are made in this folder")
    options = parser.parse_args()
    given = {name: Path(path) for name, _, path in (one.partition("=") for one in options.pool)}
    asked = {label: questions(options.data / f"{label}.jsonl")[: options.limit] for label in SETS}
    print(cpu(), flush=True)
    with TemporaryDirectory() as scratch:
        for name in options.names:
            pool = given.get(name) or made(
                name, options.size, options.threads, options.runs or Path(scratch)
            )
            backend = LlamaCpp(
                converted_weights(models.locate(name), "bf16").path, threads=options.threads
            )
            for line in table(name, backend, asked, pool, options.rows):
                print(line, flush=True)
            backend.close()


def made(name: str, size: int, threads: int | None, runs: Path) -> Path:
    """Let the model write a pool of pairs, with the published settings; return the run."""
    backend = {"kind": "llama_cpp", "model": name, "weights": "bf16"} | (
        {"threads": threads} if threads else {}
    )
    recipe: dict[str, Any] = {
        "name": f"pool-{name}",
        "rounds": 1,
        "backend": backend,
        "ask": {"questions": size, "sources": ["self_prompting"], "scorers": []},
        "answer": {"samples": 1},
        "detectors": ["agreement"],
        "observers": [],
    }
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "pool.yaml"
        path.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
        start = time.perf_counter()
        folder = run(path, runs=runs, quiet=True)
    count = len(attempts_of(folder))
    print(
        f"\n{name}: {count} pairs in {time.perf_counter() - start:.0f} s, in {folder}\n", flush=True
    )
    return folder


def contenders(pool: Path) -> dict[str, tuple[list[Show], bool]]:
    """Return by name what makes the prompts, drawn once or more, and whether they explain."""

    def own(count: int, choose: Any, explain: bool = False, seed: int = 0) -> Show:
        return OwnDemonstrations(
            run=pool, only="all", count=count, choose=choose, explain=explain, seed=seed
        ).build_prompts

    found: dict[str, tuple[list[Show], bool]] = {
        "direct, no demonstrations": ([partial(plain, ())], False),
        FIXED: ([partial(plain, DEMONSTRATIONS)], False),
    }
    for count in (5, 10):
        found[f"{count} own, at random"] = (
            [own(count, "random", seed=seed) for seed in range(SEEDS)],
            False,
        )
    for count in (5, 10):
        found[f"{count} own, one a cluster"] = ([own(count, "cluster")], False)
    if any(attempt.question.explanation for attempt in attempts_of(pool)):
        found["10 own, one a cluster, explained"] = ([own(10, "cluster", explain=True)], True)
    return found


def plain(
    pairs: Sequence[tuple[str, str]], questions: Sequence[str], context: VerifyContext
) -> list[Prompt]:
    """Return each question behind the same pairs, in the form of own demonstrations."""
    text = "\n".join(f"Question: {q}\nAnswer: {a}" for q, a in pairs)
    prompts = [
        context.prompt("own_demonstrations", demonstrations=text, question=question)
        for question in questions
    ]
    return prompts if pairs else list(map(_without_gap, prompts))


def _without_gap(prompt: Prompt) -> Prompt:
    if isinstance(prompt, str):
        return prompt.lstrip("\n")
    return (*prompt[:-1], Message(prompt[-1].role, prompt[-1].content.lstrip("\n")))


def table(
    name: str, backend: LlamaCpp, asked: dict[str, list[Question]], pool: Path, only: str
) -> Iterator[str]:
    """Yield the lines of one model's table, one contender a line."""
    counts = ", ".join(f"{len(own)} of {label}" for label, own in asked.items())
    yield f"\n**{name}** ({backend.describe().file}): {counts}; {len(attempts_of(pool))} pairs\n"
    yield f"| shown | {' | '.join(asked)} | all | all, against five fixed | s |"
    yield f"|---|{'---|' * (len(asked) + 3)}"
    told, fixed = verify_context(cast(Backend, backend), PROMPTS), np.zeros(0)
    chosen = {
        label: row for label, row in contenders(pool).items() if only in label or label == FIXED
    }
    for label, (shows, explained) in chosen.items():
        start = time.perf_counter()
        by_set = [
            np.mean([rights(own, show, told, explained) for show in shows], axis=0)
            for own in asked.values()
        ]
        seconds = (time.perf_counter() - start) / len(shows)
        right = np.concatenate(by_set)
        fixed = right if label == FIXED else fixed
        against = mean(right - fixed) if len(fixed) and label != FIXED else ""
        means = " | ".join(map(mean, by_set))
        yield f"| {label} | {means} | {mean(right)} | {against} | {seconds:.0f} |"


def rights(
    asked: Sequence[Question], show: Show, told: VerifyContext, explained: bool
) -> NDArray[np.float64]:
    """Return 1 for each question that is answered right."""
    prompts = show([question.text for question in asked], told)
    stop = (" because", "\n") if explained else ("\n",)
    how = Sampling(max_tokens=TOKENS, stop=stop)
    requests = [Request(prompt, how, open_turn=is_open(prompt)) for prompt in prompts]
    answers = [""] * len(asked)
    for index, found in told.backend.generate(requests):
        assert isinstance(found, Completion), found
        answers[index] = found.text.strip()
    return np.array(
        [float(bool(judged(q, answer))) for q, answer in zip(asked, answers, strict=True)]
    )


def mean(values: NDArray[np.float64]) -> str:
    """Return the mean with its interval."""
    return shown(interval(partial(metrics.mean, values), len(values)))


if __name__ == "__main__":
    main()
