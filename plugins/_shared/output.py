"""Where a command may write its output: over its own earlier output, and over little else.

A mark in the file shows an earlier output, where the format has room for one (HTML, SVG, PNG, a
calibration, the card of a folder). For formats that others read (JSONL, Parquet, GGUF) the cache
keeps the content's sha256: a file that was edited since is not an earlier output. `--force`
replaces other files, but never a recipe, a database, a file of a run, or a model that this command
did not write.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import click
from selfloop_plugins import models

from selfloop.errors import DiskFullError, StoreError
from selfloop.storage import atomic
from selfloop.text.display import printable

from . import cards

HEAD = 1 << 16  # bytes at the start of a file in which marks and keys are looked for
MARK = "selfloop {command}"  # stands within the first bytes of a command's output
MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npz", ".pkl")
RECIPE_SUFFIXES = (".yaml", ".yml")
_KEY = re.compile(r"[\"']?([\w-]+)[\"']?\s*:")

force_option = click.option(
    "--force", is_flag=True, help="Replace a file that this command did not write."
)


def refuse_taken(
    out: Path, output: str, *, force: bool, ours: Callable[[Path], bool], option: str = "--out"
) -> None:
    """Raise UsageError where the file `out` exists and may not be replaced.

    `output` is the noun for the command's output in messages. `ours` tells whether a file is an
    earlier one.
    """
    name = printable(str(out))
    target = Path(os.path.realpath(out))
    if out.is_symlink() and not target.exists():
        raise click.UsageError(
            f"{name} is a link that leads nowhere. Name another file with {option}."
        )
    if not target.exists():
        return
    if not target.is_file():
        kind = "a folder" if target.is_dir() else "a device or a pipe"
        raise click.UsageError(
            f"{name} is {kind}, and the {output} is a file. Name another with {option}."
        )
    if _is_earlier(target, ours):
        return
    protected = _never_replaced(target)
    if protected:
        raise click.UsageError(
            f"{name} is {protected}, which is never replaced. Name another file with {option}."
        )
    if not force:
        raise click.UsageError(
            f"{name} is there already, and is no earlier {output}. Name another file with "
            f"{option}, or replace it with --force."
        )


def refuse_taken_folder(
    out: Path, output: str, *, force: bool, ours: Callable[[Path], bool]
) -> None:
    """Raise UsageError where something is in the way of a folder.

    `--force` replaces a folder that is `ours`, and no other.
    """
    if not out.exists() and not out.is_symlink():
        return
    name = printable(str(out))
    if not force:
        raise click.UsageError(
            f"{name} is there already; name another with --out, or replace it with --force"
        )
    from selfloop.storage.run_folder import RunFolder

    if not _is_earlier(out, ours) or RunFolder(out).database.exists():
        raise click.UsageError(
            f"{name} is no earlier {output}, which --force replaces; name another with --out"
        )


def _is_earlier(path: Path, ours: Callable[[Path], bool]) -> bool:
    with suppress(OSError):
        return ours(path)
    return False


def _never_replaced(path: Path) -> str | None:
    """Return the noun for a file that no option replaces; else None."""
    # the store imports much, and this module is imported to list commands
    from selfloop.storage.run_folder import DATABASE, RunFolder

    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return "a file that cannot be read"
    if head.startswith(b"SQLite format 3\0") or path.name.startswith(DATABASE):
        return "a database"
    if any(RunFolder(folder).database.exists() for folder in path.parents):
        return "a file of a run"
    if head.startswith(b"GGUF") or path.suffix.lower() in MODEL_SUFFIXES:
        return "a model that this command did not write"
    is_text = b"\0" not in head
    if path.suffix.lower() in RECIPE_SUFFIXES or (
        is_text and _is_recipe(head.decode("utf-8", "replace"))
    ):
        return "a recipe"
    return None


def _is_recipe(text: str) -> bool:
    """Return whether a text has the keys of a recipe at its top level, as YAML or as JSON."""
    with suppress(ValueError):
        data = json.loads(text)
        return isinstance(data, dict) and "backend" in data
    # less comments, and the marks of documents and directives of YAML
    lines = [line for line in text.splitlines() if not line.startswith(("#", "---", "%"))]
    lines = [line for line in lines if line.strip()]
    matches = [_KEY.match(line) for line in lines]
    # a page or a card may quote a recipe further down
    begins_with_key = bool(matches and matches[0])
    return begins_with_key and "backend" in {match[1] for match in matches if match}


def has_mark(path: Path, command: str) -> bool:
    """Return whether a command of selfloop left its mark near the beginning of a file."""
    with path.open("rb") as file:
        return MARK.format(command=command).encode() in file.read(HEAD)


def has_card(folder: Path) -> bool:
    """Return whether a folder has a card whose front matter names selfloop as its maker."""
    with (folder / cards.NAME).open(encoding="utf-8", errors="replace") as file:
        front = file.read(HEAD).split("\n---\n")[0]
    return front.startswith("---\n") and "\n- selfloop\n" in f"{front}\n"


def note_written(path: Path, command: str) -> None:
    """Note in the cache that a command wrote a file, for formats without room for a mark."""
    # without the note, a later call asks for --force
    with suppress(OSError, StoreError):
        text = json.dumps(
            {"path": str(path.resolve()), "command": command, "sha256": models.sha256(path)}
        )
        atomic.write_text(_note(path), text, parents=True)


def is_noted(path: Path, command: str) -> bool:
    """Return whether a file is as this command wrote it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(_note(path).read_text(encoding="utf-8"))
        return bool(note["command"] == command and note["sha256"] == models.sha256(path))
    return False


def _note(path: Path) -> Path:
    name = blake2b(os.fsencode(path.resolve()), digest_size=16).hexdigest()
    return models.cache_folder() / "outputs" / f"{name}.json"


@contextmanager
def writing(out: Path, option: str = "--out") -> Iterator[None]:
    """Turn errors of the disk within the block into StoreError, with advice.

    Raises DiskFullError on a full disk.
    """
    try:
        yield
    except DiskFullError as error:
        advice = f"Free some space, or choose another place with {option}."
        raise DiskFullError(error.fact, error.path, advice) from error
    except OSError as error:
        raise StoreError(
            f"cannot write {out}: {error.strerror or error}. Choose another place with {option}"
        ) from error
