"""A run is killed, or its disk is full, at each thing that it does to a file: resumed, it ends with
the same records.

faults.md, "State". The points are those of tests/state/driver.py; `benchmarks/whole_state.py` tries
all of them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("torch", reason="pip install 'selfloop[hf]'")
pytest.importorskip("scipy", reason="pip install 'selfloop[stats]'")
DRIVER = Path(__file__).parent / "state" / "driver.py"
DISK = (
    "mount -t tmpfs -o size=8m selfloop-test {folder} && exec {python} {driver} full {folder} few"
)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.mark.skipif(
    not hasattr(os, "fork") or not sys.platform.startswith("linux"),
    reason="it needs forks and /proc",
)
def test_a_run_that_is_killed_at_any_write_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # a disk in memory is quicker, and the system outlives the process
    with tempfile.TemporaryDirectory(
        dir=memory if os.access(memory, os.W_OK) else tmp_path
    ) as folder:
        done = subprocess.run(
            [sys.executable, DRIVER, "kill", folder, "few"], capture_output=True, text=True
        )
    outcome = told(done)
    assert len(outcome["tried"]) > 35
    written = {point.split()[1] for point in outcome["tried"]}
    assert {
        "calibration(part)",
        "question_probe(part)",
        "tracked(part)",
        "last(part)",
        "report(part)",
    } <= written
    assert outcome["wrong"] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it needs a disk in memory")
def test_a_full_disk_stops_a_run_which_then_goes_on(tmp_path: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("it needs unshare, to mount a small disk of its own")
    script = DISK.format(folder=tmp_path, python=sys.executable, driver=DRIVER)
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*alone, f"mount -t tmpfs none {tmp_path}"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a disk in a namespace of their own")
    outcome = told(subprocess.run([*alone, script], capture_output=True, text=True))
    assert len(outcome["tried"]) > 15
    assert outcome["wrong"] == []
