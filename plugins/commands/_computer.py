"""What this computer is, as far as the system tells: processor, cores, memory, and what a container allows of them."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# what llama.cpp computes faster with, as Linux names it -> as llama.cpp does
FEATURES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
_INFO, _GROUP, _GROUPS = Path("/proc/cpuinfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def processor() -> str:
    """Return the processor's name."""
    with suppress(OSError):
        names = [
            line
            for line in _INFO.read_text("utf-8").splitlines()
            if line.startswith(("model name", "Model"))
        ]
        if names:
            return names[0].partition(":")[2].strip()
    with suppress(OSError, subprocess.SubprocessError):  # macOS
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    return platform.processor() or platform.machine()


def features() -> list[str] | None:
    """Return which of `FEATURES` the processor has; None where the system does not say."""
    with suppress(OSError):
        lines = [
            line
            for line in _INFO.read_text("utf-8").splitlines()
            if line.startswith(("flags", "Features"))
        ]
        if lines:
            words = set(lines[0].split())
            return [name for name in FEATURES if name in words]
    return None


def cores() -> int:
    """Return how many processors this process may be scheduled on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_limit() -> float | None:
    """Return how many processors' time a container allows; None without a limit."""
    found = []
    for text in _limits("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            found.append(int(quota) / max(int(period), 1))
    return min(found, default=None)


def memory_limit() -> int | None:
    """Return how many bytes of memory a container allows; None without a limit."""
    return min((int(text) for text in _limits("memory.max") if text.isdigit()), default=None)


def _limits(name: str) -> Iterator[str]:
    """Yield what this process' control group, and each above it, says under a name (Linux, version 2)."""
    way = ""
    with suppress(OSError):
        lines = _GROUP.read_text("utf-8").splitlines()
        way = next((line[3:] for line in lines if line.startswith("0::")), "").strip("/")
    folder = _GROUPS / way
    for place in (folder, *folder.parents):
        if place.is_relative_to(_GROUPS):
            with suppress(OSError):
                yield (place / name).read_text("utf-8").strip()


def memory() -> tuple[int, int]:
    """Return the bytes of memory there are, and that are free.

    Raises OSError where the system does not tell.
    """
    with suppress(ImportError):
        import psutil

        found = psutil.virtual_memory()
        return int(found.total), int(found.available)
    if not hasattr(os, "sysconf"):
        raise OSError("this system tells it only with the package psutil: pip install psutil")
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")


def weight(folder: Path) -> int:
    """Return the bytes of all files below a folder, links not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total
