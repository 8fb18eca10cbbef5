"""Checks of the folders that selfloop reads and writes: its cache, other programs' models, runs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from selfloop_plugins import models

from selfloop import system
from selfloop.api.run_folders import run_names
from selfloop.text.units import plural, size

from .findings import Finding

MIN_FREE_DISK = 2 * 10**9  # bytes; with less free, a model or a run may not fit
CACHED = {
    "models": "fetched models",
    "working": "working copies",
    "converted": "for transformers",
}


def cache(deep: bool) -> Iterator[Finding]:
    """Check selfloop's own cache: its contents, and whether it can be written."""
    home = models.cache_folder()
    for name, contents in CACHED.items():
        folder = home / name
        if models.is_readable(folder):
            text = (
                f"{size(system.folder_size(folder))} in {folder}: {contents}, made again if deleted"
            )
            yield Finding("cache", text)
    yield _room("cache", home, f"free some space, or set {models.CACHE_VARIABLE} to another folder")


def model_stores(deep: bool) -> Iterator[Finding]:
    """List the folders in which other programs keep models."""
    for store in models.STORES:
        for folder in filter(models.is_readable, store.folders()):
            used = size(system.folder_size(folder))
            yield Finding("models", f"{used} in {folder}: {store.title} (see: selfloop models)")


def runs(deep: bool) -> Iterator[Finding]:
    """Check the folder of the runs: their number, and whether it can be written."""
    folder = Path(os.environ.get("SELFLOOP_RUNS") or "runs")
    count = len(run_names(folder)) if models.is_readable(folder) else 0
    if count:
        used = size(system.folder_size(folder))
        yield Finding("runs", f"{plural(count, 'run')} in {folder.resolve()}, {used}")
    mend = "free some space, or choose another folder with --runs or SELFLOOP_RUNS"
    yield _room("runs", folder, mend)


def _room(topic: str, folder: Path, mend: str) -> Finding:
    """Return whether a folder can be written, and how much room is in it.

    A folder that does not exist yet is judged by the nearest one above it.
    """
    absolute = folder.absolute()  # the parents of a relative path end at "."
    existing = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(topic, f"{folder} cannot be written", "wrong", mend)
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_DISK:
        return Finding(topic, f"{size(free)} free in {folder}", "slow", mend)
    return Finding(topic, f"{size(free)} free in {folder}")
