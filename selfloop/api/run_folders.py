"""A run's folder by its name.

The shell completes names with it each time somebody presses Tab, so it imports next to nothing.
"""

from pathlib import Path

from selfloop.errors import StoreError, did_you_mean
from selfloop.storage.run_folder import runs_in

MAX_NAMES = 8  # runs that a message names


def run_folder(name: str, runs: Path) -> Path:
    """Return the folder of the run `name`: a path, or a folder of `runs`.

    Raises StoreError where it is neither.
    """
    # A path goes before a name: `runs/x` means the same wherever --runs is.
    for folder in (Path(name), runs / name):
        if folder.is_dir():
            return folder
    existing = run_names(runs)
    advice = "Give the folder of a run, as `selfloop run` printed it, or the folder of all runs "
    advice += "with --runs."
    if existing:
        more = f" and {len(existing) - MAX_NAMES} more" if len(existing) > MAX_NAMES else ""
        advice = f"Runs in {runs}: {', '.join(existing[:MAX_NAMES])}{more}."
    raise StoreError(f"no run in {runs / name}.{did_you_mean(name, existing)} {advice}")


def run_names(runs: Path) -> list[str]:
    """Return the names of the runs in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(folder.name for folder in runs_in(runs))
    except OSError:
        return []
