"""Kill a run, and fill its disk, at each thing that it does to a file; resume each, and compare
with one left alone.

    python benchmarks/whole_state.py

Prints how many points were tried, and each whose resumed run did not end with the same records. The
disk is a tmpfs of 8 MB in a namespace of its own, so Linux and `unshare` are needed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

DRIVER = Path(__file__).parent.parent / "tests" / "state" / "driver.py"


def main() -> None:
    """Print both counts; exit with 1 if a run ended otherwise."""
    failures = 0
    for mode, what in (("kill", "killed"), ("full", "with a full disk")):
        with tempfile.TemporaryDirectory() as folder:
            script = f"{sys.executable} {DRIVER} {mode} {folder}"
            if mode == "full":
                script = f"mount -t tmpfs -o size=8m selfloop {folder} && {script}"
            command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout)
        print(*found["wrong"], sep="\n")
        print(
            f"{what} at {len(found['tried'])} points: {len(found['wrong'])} resumed runs ended "
            "otherwise",
            flush=True,
        )
        failures += len(found["wrong"])
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
