"""Kill -9 a run at moments spread over it, resume each, and compare with a run that was left alone.

    python benchmarks/kill_resume.py recipes/quickstart.yaml --kills 20 --set ask.questions=8 --set
        answer.samples=3

Each kill is a run of its own: started, killed when so many completions are stored, resumed to its
end. Then all its records must equal those of the undisturbed run, and no completion may have been
made twice.
"""

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

RECORDS = {
    "completions": "SELECT key, sample, step, text, data FROM completions ORDER BY key, sample",
    "attempts": "SELECT round, position, data FROM attempts ORDER BY round, position",
    "verdicts": "SELECT * FROM verdicts ORDER BY rowid",
    "failures": "SELECT round, step, component, type, message FROM failures ORDER BY rowid",
}
SELFLOOP = Path(sys.executable).with_name("selfloop")


def main() -> None:
    """Print a line for each kill, and how many ended as the undisturbed run did."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = start(options, Path(folder) / "whole")
        whole.wait()
        wanted = records(run_of(Path(folder) / "whole"))
        total = len(wanted["completions"])
        print(f"undisturbed: {total} completions, {len(wanted['attempts'])} attempts", flush=True)
        good = sum(
            one(options, Path(folder) / str(k), k * total // options.kills, wanted)
            for k in range(options.kills)
        )
    print(f"{good} of {options.kills} killed runs ended with the same records")
    sys.exit(good != options.kills)


def one(
    options: argparse.Namespace,
    runs: Path,
    moment: int,
    wanted: dict[str, list[tuple[object, ...]]],
) -> bool:
    """Kill one run when `moment` completions are stored, resume it, and compare."""
    process = start(options, runs)
    while process.poll() is None and stored(runs) < max(1, moment):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = stored(runs)
    subprocess.run(
        [SELFLOOP, "resume", run_of(runs), "--json"], check=True, stdout=subprocess.DEVNULL
    )
    found = records(run_of(runs))
    different = [name for name in RECORDS if found[name] != wanted[name]]
    second = query(run_of(runs), "SELECT count(*) FROM completions WHERE session = 2")[0][0]
    once = before + int(str(second)) == len(wanted["completions"])
    verdict = f"{different or 'same'}, {'once' if once else 'TWICE'}"
    print(f"killed at {before}, then {second} more: {verdict}", flush=True)
    return not different and once


def start(options: argparse.Namespace, runs: Path) -> "subprocess.Popen[bytes]":
    """Start a run in a process group of its own."""
    sets = [word for override in options.overrides for word in ("--set", override)]
    command = [SELFLOOP, "run", options.recipe, "--runs", runs, "--json", *sets]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def run_of(runs: Path) -> Path:
    """Return the one run in a folder."""
    return next(runs.iterdir())


def query(run: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask a run's database."""
    with closing(sqlite3.connect(run / "run.sqlite", timeout=10)) as db:
        return db.execute(sql).fetchall()


def stored(runs: Path) -> int:
    """Return how many completions are stored, 0 before there is a database."""
    try:
        return int(str(query(run_of(runs), "SELECT count(*) FROM completions")[0][0]))
    except (OSError, StopIteration, sqlite3.Error):
        return 0


def records(run: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all that must be the same."""
    return {name: query(run, sql) for name, sql in RECORDS.items()}


if __name__ == "__main__":
    main()
