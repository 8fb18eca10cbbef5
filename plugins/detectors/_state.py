"""Files in which a component keeps its fit, beside the run: a damaged one stops the run."""

from pathlib import Path

from selfloop.errors import StoreError


def damaged(path: Path, owner: str) -> StoreError:
    """Return the error for a state file that cannot be read.

    selfloop writes such files whole; older versions did not.
    """
    return StoreError(
        f"{path} is damaged, and without it {owner} would judge otherwise than before. Put back a "
        f"copy of it, or remove it: then {owner} is fitted anew, on the next answers."
    )
