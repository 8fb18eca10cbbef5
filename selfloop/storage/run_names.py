"""The names of runs: folders that any system can hold, and that need no quotes in a shell."""

import re
from unicodedata import normalize

MAX_CHARACTERS = 80
FALLBACK = "run"  # where nothing of a file's name is left
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ALLOWED = (
    "letters a to z, digits, '.', '_' and '-', of which the first is a letter or a digit and the "
    "last no '.'"
)
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"com{number}" for number in range(10)),
    *(f"lpt{number}" for number in range(10)),
}


def mistake(name: str) -> str:
    """Return why a run cannot have this name, or an empty string."""
    if not NAME.fullmatch(name) or name.endswith("."):
        return f"becomes a folder: use {ALLOWED}"
    if name.partition(".")[0].lower() in DEVICES:
        return "is a device on Windows: choose another"
    return ""


def fitting(stem: str) -> str:
    """Return the name of the run of a recipe's file: the file's own as far as it goes."""
    latin = "".join(char for char in normalize("NFKD", stem) if char.isascii())
    name = (
        re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._-]", "-", latin))
        .lstrip("._-")[:MAX_CHARACTERS]
        .rstrip(".-")
    )
    if stem and NAME.fullmatch(stem) and len(stem) <= MAX_CHARACTERS and not stem.endswith("."):
        name = stem
    name = name or FALLBACK
    return f"{FALLBACK}-{name}" if mistake(name) else name
