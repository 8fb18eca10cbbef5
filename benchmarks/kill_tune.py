"""Kill -9 a run while it trains, writes its adapter and swaps it in; resume each, and compare with
one left alone.

    python benchmarks/kill_tune.py --kills 10        # of each kind

Two rounds on SmolLM2, a tune after each, from a file of questions. The process kills itself, at
moments spread over the training, over the writing (safetensors, GGUF, moving) and over the swap
(from the first probe of the new adapter until its round is stored); the moments are shares of what
each took in the undisturbed run. Then `selfloop resume` plays the run to its end. All of its
records and the bytes of both adapters must equal the undisturbed run's; no completion may have been
made twice; and what lay in the adapter's place when it was killed is the whole adapter, or nothing.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kill_resume import RECORDS, query, records, run_of

KINDS = ("train", "write", "swap")
RECIPE = """
name: tuned
rounds: 2
backend: {kind: llama_cpp, model: smollm2-135m-instruct, threads: 1}
ask:
  questions: 32
  sources: [{kind: file, path: questions.txt}]
answer: {samples: 2, max_tokens: 8}
detectors: [sequence_probability]
tuner: {kind: lora, rate: 1e-3, batch: 32, epochs: 2, min_kept: 0.9, perplexity: 10, threads: 1}
"""
PLACES = """
France Italy Japan Spain Germany Egypt Greece Russia China England Portugal Austria Ireland Norway
Sweden Poland Nepal Iraq Chile Hungary Velmora Tarsinia Quellor Brastova Ondrevia Sulmark Pelgrane
Zantoria Mirovel Hastrand Corvenia Drelmar Fenwaria Gulmont Isdrava Jorvelle Kastrivia Lormund
Nestoria Orvanna Peru Cuba Kenya Turkey Denmark
""".split()  # noqa: SIM905
ASKED = (
    "What is the capital of {}?",
    "What language is spoken in {}?",
    "On which continent is {}?",
    "Who rules {}?",
)
FILES = ("adapter.gguf", "adapter_model.safetensors")
RECORDS["adapters"] = "SELECT number, adapter FROM rounds ORDER BY number"


def main() -> None:
    """Print a line for each kill, and how many ended as the undisturbed run did."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tuned.yaml").write_text(RECIPE)
        (folder / "questions.txt").write_text(
            "".join(f"{q.format(p)}\n" for q in ASKED for p in PLACES)
        )
        begun = time.time()
        play(folder, "whole", "none", 0.0)
        whole = run_of(folder / "whole")
        took = json.loads((folder / "took.json").read_text())
        print(
            f"undisturbed: {time.time() - begun:.0f} s, seconds a round of each kind: {took}",
            flush=True,
        )
        good = sum(
            one(folder, kind, 1 + i % 2, (i + 0.5) / options.kills * took[kind][i % 2], whole)
            for i in range(options.kills)
            for kind in KINDS
        )
    print(
        f"{good} of {len(KINDS) * options.kills} killed runs ended with the same records and "
        "adapters"
    )
    sys.exit(good != len(KINDS) * options.kills)


def one(folder: Path, kind: str, turn: int, after: float, whole: Path) -> bool:
    """Kill one run in a round's tune, resume it, and compare."""
    runs = folder / "killed"
    shutil.rmtree(runs, ignore_errors=True)
    ended = play(folder, "killed", f"{kind}:{turn}", after)
    run = run_of(runs)
    left = differing(run, whole, there=True)
    before = int(str(query(run, "SELECT count(*) FROM completions")[0][0]))
    play(folder, "killed", "none", 0.0)
    found, wanted = records(run), records(whole)
    different = [name for name in RECORDS if found[name] != wanted[name]] + differing(run, whole)
    second = int(str(query(run, "SELECT count(*) FROM completions WHERE session = 2")[0][0]))
    once = before + second == len(wanted["completions"])
    killed = "killed" if ended == -signal.SIGKILL else f"NOT KILLED ({ended})"
    half = f", HALF WRITTEN {left}" if left else ""
    verdict = f"{different or 'same'}, {'once' if once else 'TWICE'}{half}"
    print(
        f"{kind}, round {turn}, {killed} after {after:.2f} s, {before} completions stored: "
        f"{verdict}",
        flush=True,
    )
    return ended == -signal.SIGKILL and not different and once and not left


def differing(run: Path, whole: Path, *, there: bool = False) -> list[str]:
    """Return the adapters' files that are not those of the undisturbed run; with `there`, of those
    that are there.
    """
    files = [f"adapters/round-{number:03d}/{file}" for number in (1, 2) for file in FILES]
    return [
        file
        for file in files
        if not (there and not (run / file).exists()) and _bytes(run / file) != _bytes(whole / file)
    ]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def play(folder: Path, runs: str, point: str, after: float) -> int:
    """Play a run in a process of its own, to its end or its death; return how it ended."""
    command = [sys.executable, __file__, "--child", str(folder), runs, point, str(after)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, -signal.SIGKILL):
        sys.exit(done.stderr)
    return done.returncode


def child(name: str, runs: str, point: str, after: str) -> None:
    """Run the recipe, or go on with it, and die at the point; note how long each kind took."""
    from selfloop_plugins.tuners.lora import gate, tuner

    from selfloop.cli import main as selfloop
    from selfloop.config.assembly import Pipeline
    from selfloop.storage.store import Store

    folder, begun = Path(name), dict[str, float]()
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    kind, _, turn = point.partition(":")

    def entered(what: str) -> None:
        begun[what] = time.monotonic()
        if what == kind and len(took[what]) + 1 == int(turn):
            threading.Timer(float(after), os.kill, (os.getpid(), signal.SIGKILL)).start()

    def left(what: str) -> None:
        took[what].append(time.monotonic() - begun[what])

    def timed(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **options: Any) -> Any:
            entered(what)
            found = call(*args, **options)
            left(what)
            return found

        return inner

    # neutral text is most of a small tune, and is not what is killed
    tuner.NEUTRAL_TEXTS, tuner.NEUTRAL_TOKENS = 24, 16
    # so few lessons may teach nothing
    gate.Gate.refusal = ""  # type: ignore[assignment,method-assign]
    load, save = Pipeline.load_adapter, Store.save_round

    def swapped(self: Any, adapter: Any) -> Any:
        entered("swap")
        return load(self, adapter)

    def stored(self: Any, ended: Any) -> None:
        save(self, ended)
        left("swap")

    # the names that the tuner calls, not those of the modules that it has them from
    vars(tuner)["train"] = timed("train", vars(tuner)["train"])
    tuner._write_adapter = timed("write", tuner._write_adapter)
    Pipeline.load_adapter, Store.save_round = swapped, stored  # type: ignore[method-assign]
    there = folder / runs / "tuned"
    words = (
        ["resume", there]
        if there.exists()
        else ["run", folder / "tuned.yaml", "--runs", folder / runs]
    )
    try:
        selfloop([*map(str, words), "--json"])
    finally:
        (folder / "took.json").write_text(
            json.dumps({k: [round(t, 3) for t in v] for k, v in took.items()})
        )


if __name__ == "__main__":
    main()
