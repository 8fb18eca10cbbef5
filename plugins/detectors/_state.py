"""Files in which a component keeps what it fitted, beside the run: a damaged one stops the run."""

from pathlib import Path

from selfloop.errors import StoreError


def damaged(path: Path, owner: str) -> StoreError:
    """Return the error for a state file that cannot be read: selfloop writes them whole, older versions did not."""
    return StoreError(
        f"{path} is damaged, and without it {owner} would judge otherwise than before. Put back a "
        "copy of it, or "
        f"remove it: then {owner} is fitted anew, on the next answers."
    )
