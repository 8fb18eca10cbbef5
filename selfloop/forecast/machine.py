"""What this process takes of the machine, and what is left of it: where the system does not tell, None."""

import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak() -> int | None:
    """Return the most bytes of memory that this process had resident at a time, since `forget_peak` where it works."""
    with suppress(OSError, StopIteration, ValueError):
        line = next(
            line
            for line in _STATUS.read_text("ascii", "replace").splitlines()
            if line.startswith("VmHWM:")
        )
        return int(line.split()[1]) * 1024
    with suppress(ImportError):  # Windows
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return None


def forget_peak() -> None:
    """Let the peak be what is resident now. Only Linux can."""
    with suppress(OSError):
        _FORGET.write_text("5")


def free_memory() -> int | None:
    """Return the bytes of memory that programs can still have."""
    with suppress(ImportError):
        import psutil

        return int(psutil.virtual_memory().available)
    return None
