"""How fast selfloop's llama.cpp engine is, against whom, where its time goes, and how its cost
grows.

    # once: llama.cpp's own benchmark, from the sdist's sources
    python benchmarks/build_batched_bench.py
    # for its contender; left out, with a note, if missing
    pip install transformers accelerate gguf torch==2.13.0
    python benchmarks/generate.py contenders              # 64 prompts of 16 tokens, 24 tokens each
    # one prompt of 120 tokens, 64 answers of 24 tokens
    python benchmarks/generate.py shared
    # 500 questions behind five demonstrations, 1 + 8 answers
    python benchmarks/generate.py workload
    # the workload with 100 to 2,000 questions, 4 to 128 sequences
    python benchmarks/generate.py growth

All contenders of a table run in turn (each in a process of its own), in alternating order; figures
are medians of the rounds, with the least and the most. Tokens are those of prompts and answers.
Machines drift: compare within a table. Measure alone: nothing else may run.
"""

import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from build_batched_bench import default_folder, program
from selfloop_plugins import models
from selfloop_plugins._decoding.chat import Piece
from selfloop_plugins._decoding.sampling import Sampler
from selfloop_plugins.backends.llama_cpp import build, context
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.cache import Cache
from selfloop_plugins.backends.llama_cpp.model import lib
from selfloop_plugins.backends.llama_cpp.weights import converted_weights

from selfloop import system
from selfloop.records import Completion, Request, Sampling

PROMPT, ANSWER, SEQUENCES = 16, 24, 64
LONG = 120  # tokens of a prompt with demonstrations
# prompts for contenders that run one at a time: their speed does not depend on how many there are
ALONE = 16
HIGH_LEVEL = Path(__file__).with_name("high_level.py")
MODELS = ("smollm2-135m-instruct", "gemma-3-270m")

Run = Callable[[], float]


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    """Print what the tables were measured on."""
    threads = system.physical_cores()
    print(
        f"{cpu()}; {threads} threads; llama-cpp-python {lib.__version__}; Python "
        f"{platform.python_version()}",
        flush=True,
    )


def cpu() -> str:
    """Return the processor's name, and what it can do for us."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = [
        flag
        for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        if flag in facts.get("flags", "").split()
    ]
    ids = [facts[key] for key in ("cpu family", "model") if key in facts]
    name = facts.get("model name", platform.machine())
    return f"{name} (family and model {'/'.join(ids)}; {' '.join(flags)})"


@main.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=5, show_default=True)
def contenders(names: tuple[str, ...], rounds: int) -> None:
    """Compare with the high-level class, with C++ and with transformers."""
    for name, files in headed(names):
        shipped, texts = files["shipped"], prompts(name)
        runs = {
            "llama_cpp.Llama in a loop, shipped": apart(
                HIGH_LEVEL, shipped, ANSWER, system.physical_cores(), *texts[:ALONE]
            )
        }
        runs |= batched(files, texts, PROMPT)
        runs |= transformers(shipped, texts)
        report(measure(runs, rounds))


@main.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=5, show_default=True)
def shared(names: tuple[str, ...], rounds: int) -> None:
    """Compare with C++ where all sequences share their prompt: the work that selfloop does most."""
    for name, files in headed(names):
        report(measure(batched(files, prompts(name, LONG, 1) * SEQUENCES, LONG, "-pps"), rounds))


def headed(names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield each model and its files, under a heading."""
    for name in names or MODELS:
        shipped = models.locate(name)
        copy = converted_weights(shipped, "auto")
        print(
            f"\n**{name}**, shipped file {shipped.name}; the working copy is {copy.about}\n",
            flush=True,
        )
        yield name, {"shipped": shipped, "working copy": copy.path}


def batched(files: dict[str, Path], texts: list[str], length: int, *flags: str) -> dict[str, Run]:
    """Return runs of selfloop and of C++ on each file; `flags` are for the latter."""
    runs: dict[str, Run] = {}
    for label, path in files.items():
        runs[f"selfloop, {label}"] = apart(__file__, "once", path, *texts)
        runs |= batched_bench(label, path, length, *flags)
    return runs


def prompts(name: str, length: int = PROMPT, count: int = SEQUENCES) -> list[str]:
    """Return texts of exactly so many tokens that share no more than the first few."""
    backend = build(model=name)
    found: list[str] = []
    for number in range(1000, 10**6, 7):
        text = f"{number} is the number of"
        while (counted := tokens(backend, text)) < length:
            text += " most"
        if counted == length:
            found.append(text)
        if len(found) == count:
            break
    backend.close()
    return found


def tokens(backend: LlamaCpp, text: str) -> int:
    """Return a prompt's length."""
    return len(backend._model.tokens([Piece(text, False)]))


def apart(*command: object) -> Run:
    """Return a run in a process of its own: idle threads slow their neighbours, and so may our
    settings of OpenMP.
    """
    bare = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}

    def run() -> float:
        line = [sys.executable, *map(str, command)]
        return float(
            subprocess.run(
                line, capture_output=True, text=True, check=True, env=bare
            ).stdout.split()[-2]
        )

    return run


@main.command(hidden=True)
@click.argument("path", type=Path)
@click.argument("texts", nargs=-1)
def once(path: Path, texts: tuple[str, ...]) -> None:
    """Print the tokens/s of selfloop, of prompts and answers and of answers alone, warmed up."""
    backend = LlamaCpp(path)
    requests = [Request(text, Sampling(max_tokens=ANSWER)) for text in texts]
    list(
        backend.generate(
            [replace(request, sampling=Sampling(max_tokens=2)) for request in requests]
        )
    )
    seconds, drawn, _ = answer(backend, requests)
    print((drawn + sum(tokens(backend, text) for text in set(texts))) / seconds, drawn / seconds)


def batched_bench(label: str, path: Path, prompt: int, *flags: str) -> dict[str, Run]:
    """Return runs of llama.cpp's benchmark: as it comes, and with one cache for all sequences, as
    sharing needs it.
    """
    file = program(default_folder())
    if not file.exists():
        print("llama-batched-bench is left out: python benchmarks/build_batched_bench.py builds it")
        return {}
    cells = SEQUENCES * 256  # llama.cpp gives each at least so many
    command = [
        file,
        "-m",
        path,
        "-c",
        cells,
        "-npp",
        prompt,
        "-ntg",
        ANSWER,
        "-npl",
        SEQUENCES,
        *flags,
    ]
    command += ["-t", system.physical_cores()]

    def run(*more: object) -> float:
        done = subprocess.run(
            list(map(str, [*command, *more])), capture_output=True, text=True, check=True
        )
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"|{prompt:6}"))
        return float(row.split("|")[-2])

    shared = ("-kvu", "-fa", "on", "-ctv", "bf16")
    return {
        f"llama-batched-bench, {label}": run,
        f"llama-batched-bench {' '.join(shared)}, {label}": lambda: run(*shared),
    }


def transformers(path: Path, texts: list[str]) -> dict[str, Run]:
    """Return a run of transformers' generate on the same weights, in the type that its kernels have
    here.
    """
    if not all(map(importlib.util.find_spec, ("transformers", "accelerate", "gguf"))):
        print("transformers is left out: pip install transformers accelerate gguf torch==2.13.0")
        return {}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind = torch.bfloat16 if "bf16" in cpu() else torch.float32
    torch.set_num_threads(system.physical_cores())
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer, model = (
        AutoTokenizer.from_pretrained(**where),
        AutoModelForCausalLM.from_pretrained(**where, dtype=kind),
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "left"
    batch = tokenizer(texts, return_tensors="pt", padding=True)

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(**batch, max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False)
        return (int(batch["attention_mask"].sum()) + ANSWER * len(texts)) / (
            time.perf_counter() - start
        )

    return {f"transformers generate, {str(kind).removeprefix('torch.')}": run}


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return each contender's speeds; one run of each before that counts is to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-1, rounds):
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            speed = runs[name]()
            if turn >= 0:
                speeds[name].append(speed)
    return speeds


def report(speeds: dict[str, list[float]]) -> None:
    """Print the speeds, and how many times each is selfloop's on the same kind of file."""
    middle = {name: statistics.median(found) for name, found in speeds.items()}
    print(
        "| | tokens/s, median | least | most | selfloop, shipped, is | selfloop, working copy, is |"
    )
    print("|---|---|---|---|---|---|")
    for name, found in speeds.items():
        ratios = [
            f"{middle[f'selfloop, {label}'] / middle[name]:.2f}x"
            for label in ("shipped", "working copy")
        ]
        print(
            f"| {name} | {middle[name]:.0f} | {min(found):.0f} | {max(found):.0f} | "
            f"{' | '.join(ratios)} |",
            flush=True,
        )


DEMONSTRATIONS = (
    ("What is the largest planet of the solar system?", "Jupiter"),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci"),
    ("In which country is the city of Kyoto?", "Japan"),
    ("What is the chemical symbol for gold?", "Au"),
    ("How many legs does a spider have, and how many does an ant have?", "8 and 6"),
)
SHOWN = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in DEMONSTRATIONS)
FORMS = (
    "What is the capital of {}?", "Which language is spoken in {}?",
    "Who was the first king of {}?",
    "What is the highest mountain in {}?", "What is the longest river of {}?",
    "Which animal is the symbol of {}?",
    "What is the currency of {}?", "Which sea is closest to {}?",
    "What is the national dish of {}?",
    "Who is the best known writer from {}?",
)  # fmt: skip
PLACES = (
    "France", "Egypt", "Japan", "Brazil", "Kenya", "Norway", "Peru", "India", "Canada", "Greece",
    "Mexico", "Poland",
    "Vietnam", "Morocco", "Chile", "Turkey", "Ireland", "Nepal", "Cuba", "Iceland", "Spain",
    "Ghana", "Fiji", "Laos",
    "Malta", "Oman", "Qatar", "Samoa", "Sudan", "Syria", "Togo", "Yemen", "Iran", "Iraq", "Italy",
    "Libya", "Mali",
    "Niger", "Palau", "Gabon",
)  # fmt: skip


def questions(count: int) -> list[str]:
    """Return distinct questions; past 400 the places get companions."""
    pairs = [
        place if second is None else f"{place} and {second}"
        for second in (None, *PLACES)
        for place in PLACES
    ]
    return [form.format(place) for place in pairs for form in FORMS][:count]


def workload_of(count: int) -> list[Request]:
    """Return the requests of selfloop's commonest work: a greedy and eight sampled answers to each
    question.
    """
    greedy, drawn = (
        Sampling(max_tokens=16, stop=("\n",)),
        Sampling(0.7, max_tokens=16, stop=("\n",)),
    )
    texts = [f"{SHOWN}Question: {question}\nAnswer:" for question in questions(count)]
    return [
        r
        for i, text in enumerate(texts)
        for r in (Request(text, greedy), Request(text, drawn, n=8, seed=i))
    ]


class Clock:
    """Seconds spent in the engine's parts, by replacing their methods with timed ones."""

    PARTS = ((Cache, "_run", "llama_decode"), (Cache, "_read", "reading logits"),
             (Sampler, "draw", "drawing tokens"),
             (Cache, "save", "compaction"), (Cache, "restore", "compaction"))  # fmt: skip

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((name for *_, name in self.PARTS), 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what is done meanwhile."""
        originals = [(owner, method, getattr(owner, method)) for owner, method, _ in self.PARTS]
        for (owner, method, original), (*_, name) in zip(originals, self.PARTS, strict=True):
            setattr(owner, method, self._timed(original, name))
        try:
            yield
        finally:
            for owner, method, original in originals:
                setattr(owner, method, original)

    def _timed(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **options)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed


def answer(backend: LlamaCpp, requests: list[Request]) -> tuple[float, int, Clock]:
    """Return seconds, answered tokens and clock of a workload on an engine that has forgotten all
    prompts.
    """
    if backend._scheduler:
        backend._scheduler.clear()
    clock = Clock()
    with clock.running():
        start = time.perf_counter()
        drawn = sum(
            len(c.tokens) for _, c in backend.generate(requests) if isinstance(c, Completion)
        )
        return time.perf_counter() - start, drawn, clock


@main.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=5, show_default=True)
@click.option("--count", default=500, show_default=True, help="Questions.")
@click.option("--weights", default="auto", show_default=True)
def workload(names: tuple[str, ...], rounds: int, count: int, weights: str) -> None:
    """Measure prefix sharing on the real workload, where the time goes, and memory."""
    requests = workload_of(count)
    few = workload_of(max(1, count // 50))
    for name in names or MODELS:
        path = converted_weights(models.locate(name), weights).path  # type: ignore[arg-type]
        print(f"\n**{name}**, {path.name}: {count} questions, 9 answers each\n", flush=True)
        sharing, apart = LlamaCpp(path), LlamaCpp(path)
        length = tokens(sharing, str(requests[0].prompt))
        answer(sharing, requests)
        answer(apart, few)
        assert apart._scheduler
        apart._scheduler.sharing = False
        times: dict[str, list[float]] = {
            "sharing": [],
            "sharing off (a fiftieth of the questions, times fifty)": [],
        }
        shared, off = times
        for _ in range(rounds):
            seconds, drawn, clock = answer(sharing, requests)
            times[shared].append(seconds)
            times[off].append(answer(apart, few)[0] * len(requests) / len(few))
        print("| prefixes | seconds, median | least | most | questions/s |\n|---|---|---|---|---|")
        for label, found in times.items():
            middle = statistics.median(found)
            print(
                f"| {label} | {middle:.1f} | {min(found):.1f} | {max(found):.1f} | "
                f"{count / middle:.1f} |"
            )
        ratio = statistics.median(times[off]) / statistics.median(times[shared])
        print(
            f"\nSharing is **{ratio:.1f}** times faster; prompts of about {length} tokens, "
            f"{drawn} tokens answered.\n"
        )
        where(clock, seconds)
        sharing.close()
        apart.close()
        print(peak(name, weights, count), flush=True)


def where(clock: Clock, seconds: float) -> None:
    """Print where the time of a run went."""
    print("| where the time goes | share |\n|---|---|")
    for name, spent in clock.seconds.items():
        print(f"| {name} | {spent / seconds:.1%} |")
    print(
        f"| scheduling and the rest of Python | {1 - sum(clock.seconds.values()) / seconds:.1%} "
        "|\n",
        flush=True,
    )


def peak(name: str, weights: str, count: int) -> str:
    """Return the most memory that the workload took in a process of its own, and what of it is
    explained.
    """
    command = [sys.executable, __file__, "memory", name, weights, str(count)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[
        -1
    ]


@main.command(hidden=True)
@click.argument("name")
@click.argument("weights")
@click.argument("count", type=int)
def memory(name: str, weights: str, count: int) -> None:
    """Print the peak of this process."""
    path = converted_weights(models.locate(name), weights).path  # type: ignore[arg-type]
    backend = LlamaCpp(path)
    answer(backend, workload_of(count))
    assert backend._cache
    cells = backend._cache.cells * context.bytes_a_cell(backend._model) / 2**20
    file = path.stat().st_size / 2**20
    # Not getrusage: what it says of a new process begins with its parent's peak.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    most = int(status["VmHWM"].split()[0]) / 2**10
    rest = most - file - cells
    print(
        f"Memory: at most {most:.0f} MiB resident = file {file:.0f} + KV cache {cells:.0f} + "
        f"{rest:.0f} for the rest."
    )


@main.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=3, show_default=True)
@click.option("--weights", default="auto", show_default=True)
def growth(names: tuple[str, ...], rounds: int, weights: str) -> None:
    """Measure how cost grows with questions, and speed with sequences."""
    for name in names or MODELS:
        path = converted_weights(models.locate(name), weights).path  # type: ignore[arg-type]
        print(
            f"\n**{name}**, {path.name}\n\n| questions | sequences | seconds, median | least | "
            "most | ms a question |"
        )
        print("|---|---|---|---|---|---|", flush=True)
        sizes = [(count, 64) for count in (100, 500, 2000)] + [
            (100, number) for number in (4, 16, 128)
        ]
        backends = {number: LlamaCpp(path, sequences=number) for number in (4, 16, 64, 128)}
        found: dict[tuple[int, int], list[float]] = {size: [] for size in sizes}
        for backend in backends.values():
            answer(backend, workload_of(100))
        for _ in range(rounds):
            for count, number in sizes:
                found[count, number].append(answer(backends[number], workload_of(count))[0])
        for (count, number), times in found.items():
            middle = statistics.median(times)
            row = (
                f"{middle:.1f} | {min(times):.1f} | {max(times):.1f} | {1000 * middle / count:.0f}"
            )
            print(f"| {count} | {number} | {row} |", flush=True)
        for backend in backends.values():
            backend.close()


if __name__ == "__main__":
    main()
