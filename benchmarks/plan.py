"""What `selfloop plan` foretells beside what the run then takes: seconds, and the most memory that
is resident.

    python benchmarks/plan.py                                # the three recipes below, each in turn
    python benchmarks/plan.py recipes/quickstart.yaml        # one of them

Each is planned and then run, in processes of their own, in a folder that goes away. Printed are
both, and the run's share of the forecast: within 0.7 to 1.3 of the time and 0.85 to 1.15 of the
memory is what is aimed at. Other programs at work meanwhile spoil the times.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMOLLM2 = ("--set", "backend.model=smollm2-135m-instruct")
RECIPES: dict[str, tuple[str, ...]] = {
    "recipes/quickstart.yaml": (),
    "recipes/blank-slate.yaml": SMOLLM2,
    "recipes/knowledge.yaml": SMOLLM2,
}


def main() -> None:
    """Plan and run the recipes, and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    print(
        "| recipe | plan took s | forecast s | run s | run / forecast | forecast MB | run MB | "
        "run / forecast |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for recipe in parser.parse_args().recipes:
        print(row(recipe, RECIPES.get(recipe, ())), flush=True)


def row(recipe: str, more: tuple[str, ...]) -> str:
    """Return what was foretold and what came."""
    with tempfile.TemporaryDirectory() as folder:
        said, planning, _ = done("plan", recipe, *more, "--runs", folder, "--json")
        plan: dict[str, Any] = json.loads(said)
        _, seconds, memory = done("run", recipe, *more, "--runs", folder, "--json")
    told, foretold = plan["seconds"], plan["memory"]
    times = f"{planning:.0f} | {told:.0f} | {seconds:.0f} | {seconds / told:.2f}"
    megabytes = f"{foretold / 1e6:.0f} | {memory / 1e6:.0f}"
    return f"| {Path(recipe).stem} | {times} | {megabytes} | {memory / foretold:.2f} |"


def done(*args: str) -> tuple[str, float, int]:
    """Run `selfloop ARGS`; return what it printed, its seconds, and the most bytes it had resident
    (Linux).
    """
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "selfloop.cli", *args], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"selfloop {' '.join(args)} ended with {process.returncode}")
    return said, time.perf_counter() - start, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
