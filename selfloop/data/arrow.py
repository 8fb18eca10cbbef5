"""Parquet, Arrow files, and the folders that the library `datasets` saves.

pyarrow is imported where one is read.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from selfloop.data.raw import Raw, Row
from selfloop.errors import MissingExtraError, RecipeError

# files of a folder that `datasets` saved: of one data set, of one with splits
STATE, SPLITS = "state.json", "dataset_dict.json"
# pyarrow raises these for damaged files, beside its own exceptions
_FAULTS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    NotImplementedError,
    MemoryError,
    OverflowError,
    RecursionError,
)


def parquet(path: Path, data: bytes | None = None) -> Raw:
    """Return the rows of a Parquet file, of its bytes where they are given."""
    pyarrow = _pyarrow(path)
    reader = import_module("pyarrow.parquet")
    with _refusing(path, pyarrow):
        table = reader.read_table(path if data is None else pyarrow.BufferReader(data))
        return _rows_of_table(table, "Parquet")


def file(path: Path, data: bytes) -> Raw:
    """Return the rows of an Arrow file or stream."""
    pyarrow = _pyarrow(path)
    with _refusing(path, pyarrow):
        return _rows_of_table(_read_table(pyarrow, pyarrow.BufferReader(data)), "Arrow")


def is_saved(folder: Path) -> bool:
    """Return whether the library `datasets` saved a data set, or one with splits, in a folder."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def folder(path: Path, split: str) -> Raw:
    """Return the rows of a data set that `datasets` saved (`save_to_disk`); `split` chooses where
    there are several.

    Raises RecipeError for a damaged file, and where none of several splits is named.
    """
    pyarrow = _pyarrow(path)
    if (path / SPLITS).is_file():
        path = _split_folder(path, split)
    state = _mapping(path / STATE)
    if state.get("_indices_data_files"):
        raise RecipeError(
            f"cannot read {path}: its rows are chosen by an index. Save it anew: flatten_indices()"
        )
    files = [
        part.get("filename") for part in state.get("_data_files") or [] if isinstance(part, dict)
    ]
    # a path in the file could lead out of the folder: only names are taken
    names = [name for name in files if isinstance(name, str) and Path(name).name == name]
    if not names or len(names) < len(files):
        raise RecipeError(
            f"cannot read {path / STATE}: it names no file of this folder. Save the data set anew."
        )
    parts = [_part(path / name, pyarrow) for name in names]
    with _refusing(path, pyarrow):
        return _rows_of_table(pyarrow.concat_tables(parts), "a folder of `datasets`")


def _part(path: Path, pyarrow: Any) -> Any:
    with _refusing(path, pyarrow):
        return _read_table(pyarrow, pyarrow.BufferReader(path.read_bytes()))


def _read_table(pyarrow: Any, source: Any) -> Any:
    """Return the table of a stream, as `datasets` writes it, or of a file."""
    ipc = import_module("pyarrow.ipc")
    beginning = bytes(source.read(6))  # a file begins with "ARROW1", a stream with a length
    source.seek(0)
    opened = ipc.open_file(source) if beginning == b"ARROW1" else ipc.open_stream(source)
    return opened.read_all()


def _split_folder(path: Path, split: str) -> Path:
    splits = [str(name) for name in _mapping(path / SPLITS).get("splits") or []]
    if not split and len(splits) == 1:
        split = splits[0]
    if not split:
        raise RecipeError(
            f"{path} holds the splits {', '.join(splits)}. Give the folder of one: "
            f"{path / splits[0]}"
            if splits
            else f"cannot read {path}: it holds no split. Give another folder."
        )
    if split not in splits:
        raise RecipeError(f"{path} has no split {split!r}. It holds: {', '.join(splits)}.")
    return path / Path(split).name


def _mapping(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        raise RecipeError(f"cannot read {path}: {why}. Save the data set anew.") from error
    return value if isinstance(value, dict) else {}


def _rows_of_table(table: Any, form: str) -> Raw:
    table.validate(full=True)  # offsets that point outside of a damaged file would end the process
    names = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two columns are called {name!r:.60}")
    rows = [Row(number, cells) for number, cells in enumerate(table.to_pylist(), 1)]
    return Raw(form, "row", rows)


def _pyarrow(path: Path) -> Any:
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", str(path)) from error


@contextmanager
def _refusing(path: Path, pyarrow: Any) -> Iterator[None]:
    """Turn whatever pyarrow raises for a file into the one error of this package."""
    try:
        yield
    except (*_FAULTS, pyarrow.ArrowException) as error:
        why = str(error).splitlines()[0][:200].rstrip(".") if str(error) else type(error).__name__
        raise RecipeError(f"cannot read {path}: {why}. Give another file.") from error
