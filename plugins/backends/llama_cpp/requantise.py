"""python -m selfloop_plugins.backends.llama_cpp.requantise SOURCE TARGET FTYPE THREADS: convert a
model file.

A process of its own: llama.cpp aborts on some broken files, cannot be interrupted, and takes memory
meanwhile.
"""

import subprocess
import sys
from pathlib import Path

from selfloop import progress


def rewritten(source: Path, target: Path, ftype: int, threads: int, expected: float = 0) -> str:
    """Run this program, which writes about `expected` bytes; return what went wrong, or an empty string."""
    command = [sys.executable, "-m", __name__, source, target, ftype, threads]
    with progress.task(
        f"writing {source.name} anew", expected, progress.BYTES, progress.size_of(target)
    ):
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    said = [line for line in done.stderr.splitlines() if line.strip()] or [
        f"status {done.returncode}"
    ]
    return said[-1] if done.returncode else ""


def main(source: str, target: str, ftype: str, threads: str) -> None:
    """Write `target`; what went wrong is the last line of standard error, and the exit code is 1."""
    from .model import lib, log

    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = int(ftype), int(threads), True
    with log().listening() as said:
        status = lib.llama_model_quantize(source.encode(), target.encode(), params)
    if status:
        sys.exit(said.reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
