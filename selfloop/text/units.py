"""Counts and sizes as people read them."""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 run", "2 runs", "1,000 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
