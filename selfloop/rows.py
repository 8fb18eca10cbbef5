"""Columns of data written as Parquet, whole or not at all. How rows are read: `selfloop.data`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from selfloop.errors import MissingExtra, StoreError


def save(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as Parquet, whole or not at all. Raises MissingExtra without pyarrow, StoreError for the disk."""
    _package("pyarrow", "parquet", path.name)
    from pyarrow import parquet, table  # type: ignore[import-untyped]

    try:
        with replacing(path) as part:
            parquet.write_table(table(dict(columns)), part)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}. Choose another place.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a file beside `path`: what is written there takes its place if all goes well, or goes away."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # what could not be made is not there to be removed
            part.unlink(missing_ok=True)


def _package(name: str, extra: str, wanted_by: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(name, extra, wanted_by) from error
