"""This computer and this process: processor, cores, memory, and the limits of a container."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_CONTROL_GROUP, _CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_STATUS, _CLEAR_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}

# psutil is imported where it is used: this module is imported to list commands, and psutil takes
# as long as the rest of it together.


# --- the processor


def processor() -> str:
    """Return the processor's name."""
    with suppress(OSError):
        names = cpu_info("model name", "Model")
        if names:
            return names[0].partition(":")[2].strip()
    with suppress(OSError, subprocess.SubprocessError):  # macOS
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    return platform.processor() or platform.machine()


def processor_flags() -> set[str] | None:
    """Return the processor's features, in Linux' words; None where the system does not tell."""
    with suppress(OSError):
        lines = cpu_info("flags", "Features")
        if lines:
            return set(lines[0].split())
    return None


def multiplies_bf16() -> bool:
    """Return whether the processor multiplies bfloat16: elsewhere it is emulated, and slow."""
    return bool(_BF16_FLAGS & (processor_flags() or set()))


def cpu_info(*names: str) -> list[str]:
    """Return the lines of Linux' description of the processors that begin with one of these names.

    Raises OSError where there is no such description.
    """
    return [line for line in _CPU_INFO.read_text("utf-8").splitlines() if line.startswith(names)]


def logical_cores() -> int:
    """Return how many processors this process may be scheduled on, hyperthreads among them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int:
    """Return how many cores this process may compute on at a time, hyperthreads left out."""
    import psutil

    return min(psutil.cpu_count(logical=False) or 1, logical_cores())


def core_limit() -> float | None:
    """Return how many processors' time a container allows; None without a limit."""
    limits = []
    for text in _control_group_values("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / max(int(period), 1))
    return min(limits, default=None)


# --- memory, in bytes


def total_memory() -> int:
    """Return the memory of the computer."""
    import psutil

    return int(psutil.virtual_memory().total)


def free_memory() -> int:
    """Return the memory that programs can still have without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def memory_limit() -> int | None:
    """Return the memory that a container allows; None without a limit."""
    limits = (int(text) for text in _control_group_values("memory.max") if text.isdigit())
    return min(limits, default=None)


def peak_memory() -> int | None:
    """Return the most memory that this process had resident at a time, since `forget_peak_memory`
    where that works. None where the system does not tell."""
    with suppress(OSError):
        match = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text("ascii", "replace"), re.M)
        if match:
            return int(match[1]) * 1024
    with suppress(ImportError):  # Windows
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kibibytes
    return None


def forget_peak_memory() -> None:
    """Set the peak to the memory that is resident now. Only Linux can."""
    with suppress(OSError):
        _CLEAR_PEAK.write_text("5")  # 5: reset the peak, see proc(5)


# --- processes


def launched() -> tuple[int, int] | None:
    """Return this process' number and how many there are, if a launcher started several at once.

    torchrun and `accelerate launch` are such launchers.
    """
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not rank.isdigit() or not size.isdigit() or int(size) < 2:
        return None
    return int(rank), int(size)


# --- files


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, links not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total


def _control_group_values(name: str) -> Iterator[str]:
    """Yield a setting of this process' control group and of each above it (Linux, version 2)."""
    group = ""
    with suppress(OSError):
        for line in _CONTROL_GROUP.read_text("utf-8").splitlines():
            if line.startswith("0::"):
                group = line.removeprefix("0::").strip("/")
                break
    folder = _CONTROL_GROUPS / group
    for place in (folder, *folder.parents):
        if place.is_relative_to(_CONTROL_GROUPS):
            with suppress(OSError):
                yield (place / name).read_text("utf-8").strip()
