"""Reads the ledgers of runs, for `selfloop beliefs`."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from selfloop.cli.options import run_folder
from selfloop.evaluation.belief_history import RunLedger, entries_of
from selfloop.text.display import encodable


def ledgers_of(names: Sequence[str], runs: Path) -> "tuple[list[RunLedger], Exception | None]":
    """Return the ledgers of the named runs, or of all in `runs`.

    A run that cannot be read does not hide the others: the second value is the StoreError to raise
    when they are shown. Raises StoreError for a run that was named, and where none can be read.
    """
    from selfloop.errors import StoreError

    folders = list(dict.fromkeys(run_folder(name, runs) for name in names)) or _all_in(runs)
    # Two runs of the same name in different folders are told apart by their paths.
    are_unique = len({folder.name for folder in folders}) == len(folders)
    ledgers, errors = list[RunLedger](), list[StoreError]()
    for folder in folders:
        try:
            ledgers.append(_ledger(folder, folder.name if are_unique else str(folder)))
        except StoreError as error:
            if names:
                raise
            errors.append(error)
    if not errors:
        return ledgers, None
    if not ledgers:
        raise errors[0]
    reasons = "\n".join(map(str, errors))
    return ledgers, StoreError(f"{len(errors)} of {len(folders)} runs left out:\n{reasons}")


def _all_in(runs: Path) -> list[Path]:
    from selfloop.errors import StoreError
    from selfloop.storage.run_folder import RunFolder

    folders = list[Path]()
    try:
        if runs.is_dir():
            folders = sorted(path for path in runs.iterdir() if RunFolder(path).is_run)
    except OSError as error:
        raise StoreError(
            f"cannot read {runs}: {error.strerror}. Give another folder with --runs."
        ) from error
    if not folders:
        raise StoreError(
            f"no run in {runs}. Make one with `selfloop run RECIPE`, or give another folder with "
            "--runs."
        )
    return folders


def _ledger(folder: Path, name: str) -> RunLedger:
    from selfloop.errors import StoreError
    from selfloop.storage.store import Store

    with closing(Store(folder, write=False)) as store:
        try:
            model = store.meta().get("model", {}).get("name", "")
            entries = entries_of(store.rounds())
        except ValueError as error:  # a record is not JSON, or not one of its kind
            raise StoreError(
                f"{store.files.database} is damaged: {str(error).splitlines()[0]}. Restore the "
                "file, or name other runs."
            ) from error
    return RunLedger(encodable(name), encodable(str(model)), tuple(entries))


def contains(text: str, *among: str) -> bool:
    """Return whether one of several texts contains a text, in any case."""
    folded = text.casefold()
    return any(folded in candidate.casefold() for candidate in among)
