"""Model text made safe to show: no character of it can move a cursor, hide text or turn a line
around.

Characters that a terminal could act on become U+FFFD, so that a person sees that something odd was
there. The result is still data: print it as plain text or as `rich.text.Text`, never as rich
markup.
"""

from unicodedata import category, east_asian_width

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"
# Indic scripts, Persian and emoji need them
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"


def printable(text: str, width: int | None = None) -> str:
    """Return `text` on one line, its white space collapsed, cut with "…" to `width` cells."""
    if width is None:
        return _clean(" ".join(text.split()))
    # Cut before cleaning, so that a million characters (or marks that take no cell) cost no more
    # than a few.
    text, window = text.strip(), 8 * max(width, 0) + 64
    return _cut(_clean(" ".join(text[:window].split())), width, more=len(text) > window)


def printable_block(text: str) -> str:
    """Return `text` with its lines kept; tabs become spaces, other line breaks newlines."""
    return "\n".join(_clean(line.expandtabs(4)) for line in text.splitlines())


def cells(text: str) -> int:
    """Return how many terminal cells `text` takes, by East Asian width."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _clean(line: str) -> str:
    """Replace the characters that are neither visible nor a space.

    Those are controls, formats, surrogates, private and unassigned characters.
    """
    if line.isprintable():
        return line
    return "".join(map(_visible, line))


def _visible(char: str) -> str:
    if char.isprintable() or char in _JOINERS:
        return char
    return " " if category(char) == "Zs" else REPLACEMENT


def _cell(char: str) -> int:
    if char in _JOINERS or category(char) in {"Mn", "Me"}:
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def _cut(line: str, width: int, *, more: bool) -> str:
    """Cut a clean line to `width` cells; `more` says that text was already left off after it."""
    if not more and cells(line) <= width:
        return line
    room, kept = width - 1, 0
    for char in line:
        room -= _cell(char)
        if room < 0:
            break
        kept += 1
    return (line[:kept].rstrip(" " + _JOINERS) + ELLIPSIS) if width > 0 else ""


def encodable(text: str) -> str:
    """Return `text` as UTF-8 can hold it: lone surrogates become '?'."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
