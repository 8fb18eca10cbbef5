"""What a command writes for others to take: whole or not at all, and never over what it did not write itself."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from selfloop.errors import StoreError

from . import models


def refuse_taken(out: Path, what: str, *, force: bool, ours: Callable[[Path], bool]) -> None:
    """Raise where something is in the way. `--force` replaces what is `ours`, not any folder that was named."""
    if not out.exists():
        return
    if not force:
        raise click.UsageError(f"{out} is there already; name another with --out, or replace it with --force")
    if not ours(out):
        raise click.UsageError(f"{out} is no earlier {what}, which --force replaces; name another with --out")


def whole(out: Path, make: Callable[[Path], Any]) -> None:
    """Let `make` write a file or folder beside `out`, and put it there once it is done, in place of what was there."""
    place = out.resolve()
    part, old = (place.with_name(f"{place.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        make(part)
        for path in filter(Path.is_file, (part, *part.rglob("*"))):
            models.settle(path)
        if place.is_dir():
            place.replace(old)
        part.replace(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}. Choose another place with --out") from error
    finally:
        with suppress(OSError):  # what could not be made is not there to be removed
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
