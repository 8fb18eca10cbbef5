"""Rows of data, one mapping each: read from a file or from the Hugging Face hub, and written as Parquet."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from selfloop import atomic
from selfloop.errors import MissingExtra, RecipeError, StoreError

Row = Mapping[str, Any]


def read(path: Path) -> list[Row]:
    """Return the rows of a file, of the form that its suffix says.

    Raises RecipeError for what cannot be read, MissingExtra for Parquet without pyarrow.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RecipeError(f"{path}: rows are read from files of these kinds: {', '.join(READERS)}.")
    try:
        rows = reader(path)
    except (OSError, ValueError, csv.Error) as error:  # what is not UTF-8, JSON or Parquet is a ValueError too
        raise RecipeError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}. Give another file."
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise RecipeError(f"{path}: each row must be a mapping of columns to values: mend it, or give another.")
    if not rows:
        raise RecipeError(f"{path}: there is no row in it. Give a file that has some.")
    return rows


def fetch(repository: str, config: str | None, split: str) -> list[Row]:
    """Return the rows of a data set of the hub; the library `datasets` keeps what it fetched.

    Raises MissingExtra without that library, RecipeError if it cannot get the data.
    """
    datasets = _package("datasets", "datasets", f"the data set {repository}")
    try:
        return list(datasets.load_dataset(repository, config, split=split))
    except Exception as error:  # whatever the library, or what it stands on, raises
        raise RecipeError(
            f"cannot get {repository}, split {split}, from the Hugging Face hub: {str(error).rstrip('.')}. Without a "
            "network, bring its cache (HF_HOME) from a machine that has one, or save its rows there and give the file."
        ) from error


def save(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as Parquet, whole or not at all. Raises MissingExtra without pyarrow, StoreError for the disk."""
    _package("pyarrow", "parquet", path.name)
    from pyarrow import parquet, table  # type: ignore[import-untyped]

    try:
        with atomic.replacing(path) as part:
            parquet.write_table(table(dict(columns)), part)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}. Choose another place.") from error


def _jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return rows


def _json(path: Path) -> list[Row]:
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8-sig"))
    return rows


def _csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))


def _parquet(path: Path) -> list[Row]:
    _package("pyarrow", "parquet", str(path))
    from pyarrow import parquet

    rows: list[Row] = parquet.read_table(path).to_pylist()
    return rows


READERS: Mapping[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _package(name: str, extra: str, wanted_by: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(name, extra, wanted_by) from error
