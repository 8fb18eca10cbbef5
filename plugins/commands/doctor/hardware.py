"""Checks of the processor, its cores and the memory."""

import os
from collections.abc import Iterator

from selfloop import system
from selfloop.text.units import size

from .features import features
from .findings import Finding

MIN_FREE_MEMORY = 10**9  # bytes; with less free, hardly any model fits
FAST = {"avx2", "asimd"}  # features without one of which llama.cpp is slow


def processor(deep: bool) -> Iterator[Finding]:
    """Check that the processor has the features that make llama.cpp fast."""
    names = features()
    if names is None:
        text = "this system does not list its features"
    else:
        text = ", ".join(names) or "none of the features that make llama.cpp fast"
    is_slow = names is not None and FAST.isdisjoint(names)
    yield Finding(
        "processor",
        f"{system.processor()}: {text}",
        "slow" if is_slow else "ok",
        "llama.cpp runs without AVX2, but slowly: use the smallest model" if is_slow else "",
    )


def cores(deep: bool) -> Iterator[Finding]:
    """Check that the number of threads fits the cores that may be used."""
    count, limit = system.logical_cores(), system.core_limit()
    is_limited = limit is not None and limit < count
    allowed = f", of which this container allows {limit:g}" if is_limited else ""
    yield Finding("cores", f"{count} for this process{allowed}, {os.cpu_count()} in all")
    if is_limited and limit is not None:
        threads = max(1, int(limit))
        text = f"more of them than {limit:g} only get in each other's way"
        yield Finding("threads", text, "slow", f"set backend.threads: {threads}")
    # PyTorch and OpenBLAS start this many threads, whatever the recipe says.
    variable = os.environ.get("OMP_NUM_THREADS", "")
    if variable.isdigit() and int(variable) != count:
        effect = "leaves cores idle" if int(variable) < count else "is more than there are cores"
        yield Finding(
            "threads",
            f"OMP_NUM_THREADS={variable} {effect}; PyTorch heeds it, in tuning too",
            "slow",
            f"unset OMP_NUM_THREADS, or set it to {count}",
        )


def memory(deep: bool) -> Iterator[Finding]:
    """Check that there is memory for a model."""
    total, free, limit = system.total_memory(), system.free_memory(), system.memory_limit()
    allowed = ""
    if limit is not None and limit < total:
        allowed = f", this container allows {size(limit)}"
    text = f"{size(free)} free of {size(total)}{allowed}"
    if min(free, limit or free) < MIN_FREE_MEMORY:
        mend = "close other programs, or use a small model (smollm2-135m-instruct needs half a "
        yield Finding("memory", text, "slow", mend + "gigabyte)")
    else:
        yield Finding("memory", text)
