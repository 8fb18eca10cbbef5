"""How much faster many sequences at once are: selfloop with 1 and with 32, and llama-cpp-python's own class.

    python benchmarks/batching.py                       # both known models, 5 rounds, ten minutes on two slow cores
    python benchmarks/batching.py --prompts 32 my.gguf

Each round runs the contenders in turn, in alternating order, on 64 prompts of about 16 tokens, at most 24 tokens
each; those that run one at a time get the first quarter of them, since their speed does not depend on how many
there are. Tokens are those read and written. Only ratios travel between machines, and only if nothing else runs.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfloop_plugins import models
from selfloop_plugins.llama_cpp import build
from selfloop_plugins.llama_cpp.backend import LlamaCpp

from selfloop.records import Completion, Request, Sampling

LENGTH = 24
THINGS = ("rivers", "cities", "birds", "metals", "poems", "engines", "planets", "games")
ALONE, BATCH, CLASS = "selfloop, 1 sequence", "selfloop, 32 sequences", "llama_cpp.Llama in a loop"

Contender = Callable[[], float]


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(models.KNOWN))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=64)
    options = parser.parse_args()
    print(f"{cpu()}; {options.prompts} prompts, up to {LENGTH} tokens each, median of {options.rounds} rounds\n")
    texts = prompts(options.prompts)
    for model in options.models:
        print(table(model, compare(contenders(model, texts), options.rounds)), flush=True)


def cpu() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.processor() or platform.machine()


def prompts(n: int) -> list[str]:
    """Return texts of about 16 tokens that begin differently, so that nothing is shared."""
    return [f"Number {i}: my favourite {THINGS[i % 8]} of {1900 + i} are, in this order," for i in range(n)]


def contenders(model: str, texts: list[str]) -> dict[str, Contender]:
    """Return, by name, functions that do the whole work once and return tokens per second."""
    few = texts[: max(1, len(texts) // 4)]
    alone, batch = build(model=model, sequences=1), build(model=model, sequences=32)
    return {ALONE: lambda: ours(alone, few), BATCH: lambda: ours(batch, texts), CLASS: high_level(model, few)}


def ours(backend: LlamaCpp, texts: list[str]) -> float:
    """Run all prompts through selfloop's backend."""
    requests = [Request(text, Sampling(max_tokens=LENGTH)) for text in texts]
    start = time.perf_counter()
    tokens = sum(len(c.tokens) for _, c in backend.generate(requests) if isinstance(c, Completion))
    seconds = time.perf_counter() - start
    return (tokens + sum(len(backend._model.tokens(text)) for text in texts)) / seconds


def high_level(model: str, texts: list[str]) -> Contender:
    """Return a run of all prompts, one after the other, through the high-level class."""
    import llama_cpp

    llama = llama_cpp.Llama(str(models.locate(model)), n_ctx=512, verbose=False)

    def run() -> float:
        start = time.perf_counter()
        answers: list[Any] = [llama(text, max_tokens=LENGTH, temperature=0) for text in texts]
        tokens: int = sum(answer["usage"]["total_tokens"] for answer in answers)
        return tokens / (time.perf_counter() - start)

    return run


def compare(runs: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Return each contender's speeds; one run of each before that counts is to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-1, rounds):
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            speed = runs[name]()
            if turn >= 0:
                speeds[name].append(speed)
    return speeds


def table(model: str, speeds: dict[str, list[float]]) -> str:
    """Return a Markdown table of the speeds and how the batch compares."""
    batch = statistics.median(speeds[BATCH])
    lines = [f"**{model}**\n", "| | tokens/s, median | min | max | 32 sequences are |", "|---|---|---|---|---|"]
    for name, found in speeds.items():
        middle = statistics.median(found)
        lines.append(f"| {name} | {middle:.0f} | {min(found):.0f} | {max(found):.0f} | {batch / middle:.2f}x |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
