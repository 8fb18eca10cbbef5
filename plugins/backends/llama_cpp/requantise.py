"""Convert a model file: `requantise_file`, or as a program

    python -m selfloop_plugins.backends.llama_cpp.requantise SOURCE TARGET FTYPE THREADS

It is a process of its own, because llama.cpp aborts on some broken files, cannot be interrupted,
and takes memory meanwhile.
"""

import subprocess
import sys
from pathlib import Path

from selfloop import progress


def requantise_file(
    source: Path, target: Path, ftype: int, threads: int, expected: float = 0
) -> str:
    """Run this program, which writes about `expected` bytes.

    Return its error, or an empty string.
    """
    command = [sys.executable, "-m", __name__, source, target, ftype, threads]
    with progress.task(
        f"writing {source.name} anew", expected, progress.BYTES, progress.size_of(target)
    ):
        process = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    if process.returncode == 0:
        return ""
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"status {process.returncode}"


def main(source: str, target: str, ftype: str, threads: str) -> None:
    """Write `target`. An error is the last line of standard error, and the exit code is 1."""
    from .model import lib, log

    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = int(ftype), int(threads), True
    status = log().call(lib.llama_model_quantize, source.encode(), target.encode(), params)
    if status:
        sys.exit(log().reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
