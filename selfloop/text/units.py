"""Numbers as people read them: times, sizes, counts of parameters, and counts of things."""

from math import isfinite

_ES = ("ch", "sh", "s", "x")  # nouns that end so have "es" in the plural
# an upper bound, the size of the unit, and its name; beyond the last bound: GB. The bounds are
# where rounding would give the next unit.
_SIZES = ((999.5, 1.0, "B"), (999.5e3, 1e3, "kB"), (999.5e6, 1e6, "MB"))
_MIN_BILLIONS = 999.5e6  # parameters; fewer are shown in millions


def duration(seconds: float) -> str:
    """Return a time: 12 ms, 4.2 s, 3 min 02 s, 2 h 05 min, 3 d 04 h.

    It is rounded, half to even, to the smaller unit that is shown. Less than nothing counts as
    nothing.
    """
    if not isfinite(seconds):
        return "?"
    seconds = max(seconds, 0.0)
    # each test is on the rounded value, so that 59.96 s is not shown as 60.0 s
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24:02} h"


def size(count: float) -> str:
    """Return a number of bytes in decimal units: 512 B, 9.5 kB, 98 MB, 4.1 GB."""
    for bound, unit, name in _SIZES:
        if count < bound:
            digits = 1 if unit > 1 and count / unit < 9.95 else 0
            return f"{count / unit:,.{digits}f} {name}"
    return f"{count / 1e9:,.1f} GB"


def parameters(count: int) -> str:
    """Return a number of parameters: 1,234, 135M, 1.2B; an empty string for an unknown one, 0."""
    if count >= _MIN_BILLIONS:
        return f"{count / 1e9:.1f}B"
    if count >= 1e6:
        return f"{count / 1e6:.0f}M"
    return f"{count:,}" if count else ""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 round, 2,000 rounds, 3 batches."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith(_ES) else 's'}"
