"""Where a command's output may be written: over an earlier output of the same command, and over
little else.

An earlier output is known by a mark in the file, where its format has room for one (HTML, SVG, PNG,
a calibration, the card of a folder). Of formats that others read (JSONL, Parquet, GGUF) the
content's sha256 is noted in the cache: a file that was edited since is no earlier output. `--force`
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

HEAD = 1 << 16  # bytes of a file that are looked at
MARK = "selfloop {command}"  # stands within the first bytes of what a command writes
MODELS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npz", ".pkl")
RECIPES = (".yaml", ".yml")
_KEY = re.compile(r"[\"']?([\w-]+)[\"']?\s*:")

force_option = click.option(
    "--force", is_flag=True, help="Replace a file that this command did not write."
)


def refuse_taken(
    out: Path, output: str, *, force: bool, ours: Callable[[Path], bool], option: str = "--out"
) -> None:
    """Raise UsageError where the file `out` is there and may not be replaced.

    `output` names what the command writes, in messages. `ours` tells whether a file is an earlier
    one.
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
    if kept := _never_replaced(target):
        raise click.UsageError(
            f"{name} is {kept}, which is never replaced. Name another file with {option}."
        )
    if not force:
        raise click.UsageError(
            f"{name} is there already, and is no earlier {output}. Name another file with "
            f"{option}, or replace it "
            "with --force."
        )


def refuse_taken_folder(
    out: Path, output: str, *, force: bool, ours: Callable[[Path], bool]
) -> None:
    """Raise UsageError where something is in the way of a folder.

    `--force` replaces what is `ours`, and no other.
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
    """Return what a file is, if no option replaces it; else None."""
    # imports much, and this module is imported to list commands
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
    if head.startswith(b"GGUF") or path.suffix.lower() in MODELS:
        return "a model that this command did not write"
    is_text = b"\0" not in head
    if path.suffix.lower() in RECIPES or (is_text and _is_recipe(head.decode("utf-8", "replace"))):
        return "a recipe"
    return None


def _is_recipe(text: str) -> bool:
    """Return whether a text has the keys of a recipe at its top level, as YAML or as JSON."""
    with suppress(ValueError):
        data = json.loads(text)
        return isinstance(data, dict) and "backend" in data
    lines = [
        line
        for line in text.splitlines()
        if line.strip() and not line.startswith(("#", "---", "%"))
    ]
    keys = [match[1] for match in map(_KEY.match, lines) if match]
    # a page or a card may quote a recipe further down
    begins_with_key = bool(lines and _KEY.match(lines[0]))
    return begins_with_key and "backend" in keys


def has_mark(path: Path, command: str) -> bool:
    """Return whether a file says near its beginning that a command of selfloop wrote it."""
    with path.open("rb") as file:
        return MARK.format(command=command).encode() in file.read(HEAD)


def has_card(folder: Path) -> bool:
    """Return whether a folder has a card whose front matter says that selfloop made what is in it."""
    with (folder / cards.NAME).open(encoding="utf-8", errors="replace") as file:
        front = file.read(HEAD).split("\n---\n")[0]
    return front.startswith("---\n") and "\n- selfloop\n" in f"{front}\n"


def note_written(path: Path, command: str) -> None:
    """Note in the cache what a command wrote, for formats that have no room for a mark."""
    with suppress(OSError, StoreError):  # then a later call asks for --force
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
    """Raise StoreError for what the disk does meanwhile, with what to do."""
    try:
        yield
    except DiskFullError as error:
        advice = f"Free some space, or choose another place with {option}."
        raise DiskFullError(error.fact, error.path, advice) from error
    except OSError as error:
        raise StoreError(
            f"cannot write {out}: {error.strerror or error}. Choose another place with {option}"
        ) from error
