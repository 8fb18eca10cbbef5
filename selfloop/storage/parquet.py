"""Columns of data written as Parquet, whole or not at all. How rows are read: `selfloop.data`."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from selfloop.errors import MissingExtraError, StoreError
from selfloop.storage import atomic


def save(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as Parquet, whole or not at all.

    Raises MissingExtraError without pyarrow, StoreError for the disk.
    """
    _package("pyarrow", "parquet", path.name)
    from pyarrow import parquet, table  # type: ignore[import-untyped]

    try:
        with atomic.replacing(path) as part:
            parquet.write_table(table(dict(columns)), part)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}. Choose another place.") from error


def _package(name: str, extra: str, wanted_by: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, extra, wanted_by) from error
