"""The header of a GGUF file, which stands before its weights.

The package `gguf` reads headers too. This reader is written by hand because that package comes only
with an extra, takes seconds for a large vocabulary, and trusts the file. `selfloop models` reads
every file on a disk: quickly, without extras, and also files that nobody has checked. Lists (the
tokens of a vocabulary) are passed over, and a length is compared with the rest of the file before
that many bytes are read.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. In order: a magic number, the
version, the number of tensors, the number of values; each value's key, type and content; each
tensor's name, shape, type and offset; then, aligned, the weights.
"""

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfloop.errors import ModelError

Value = str | int | float | bool

# GGUF's numbers of its types, with struct's letters
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, LIST = 8, 9
MAX_DIMENSIONS = 4  # of a tensor
MAX_TEXT_BYTES = 1 << 24  # a chat template has some thousand
MAX_LIST_TEXTS = 1 << 24  # the largest vocabularies have a million
DEFAULT_ALIGNMENT = 32  # bytes; the weights begin at a multiple of it
# The fewest bytes of an entry. A value: the length of its key, its type and one byte. A tensor: the
# length of its name, its number of dimensions, type and offset. A text: its length.
MIN_VALUE_BYTES, MIN_TENSOR_BYTES, MIN_TEXT_BYTES = 13, 24, 8
# llama.cpp's names of the files of a model that was split
SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Header:
    """The values of a header that are not lists, and the number of weights."""

    values: Mapping[str, Value]
    parameters: int

    def string(self, key: str) -> str:
        """Return a value, or an empty string if there is none."""
        return str(self.values.get(key, ""))

    @property
    def architecture(self) -> str:
        """Return llama.cpp's name of this kind of model."""
        return self.string("general.architecture")

    @property
    def chat(self) -> bool:
        """Return whether there is a chat template."""
        return bool(self.string("tokenizer.chat_template"))

    @property
    def files(self) -> int:
        """Return the number of the model's files: llama.cpp splits large ones."""
        count = self.values.get("split.count", 1)
        return count if isinstance(count, int) and count > 1 else 1

    @property
    def language_model(self) -> bool:
        """Return whether this is a model by itself.

        Adapters, and the parts of a model that see or hear, are GGUF files too.
        """
        return self.string("general.type") in ("", "model") and self.architecture not in (
            "",
            "clip",
        )


def files_of(path: Path) -> list[Path]:
    """Return the files of the model that a path belongs to, the first one first.

    Only the name is read. The model of most paths is the one file.
    """
    name = SPLIT_NAME.fullmatch(path.name)
    if not name or int(name[3]) < 2:
        return [path]
    stem, count, suffix = name[1], name[3], name[4]
    return [
        path.with_name(f"{stem}-{number:05}-of-{count}{suffix}")
        for number in range(1, int(count) + 1)
    ]


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises ModelError for a file that is cut off or damaged.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ModelError(f"{path} cannot be read: {error}") from error
    except _DamagedError as error:
        raise ModelError(f"{path} is damaged: {error}; fetch it again") from error


class _DamagedError(Exception):
    """The file does not follow the format."""


class _Reader:
    """Goes through the file once, front to back."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._position, self._size = data, 0, len(data)

    def header(self) -> Header:
        magic, version, tensors, count = (
            self._read_number(letter) for letter in ("I", "I", "Q", "Q")
        )
        if magic != int.from_bytes(b"GGUF", "little") or version not in (2, 3):
            raise _DamagedError("it does not begin as a GGUF of version 2 or 3")
        self._refuse_many(count, MIN_VALUE_BYTES, "values")
        values: dict[str, Value] = {}
        for _ in range(count):
            key = self._read_text()
            value = self._read_value(self._read_number("I"))
            values.pop(key, None)  # of a key that comes twice the last value counts
            if value is not None:  # not a list
                values[key] = value
        self._refuse_many(tensors, MIN_TENSOR_BYTES, "tensors")
        parameters, last_offset = 0, -1
        for _ in range(tensors):
            size, offset = self._tensor()
            parameters += size
            last_offset = max(last_offset, offset)
        if tensors:
            self._refuse_cut(values.get("general.alignment", DEFAULT_ALIGNMENT), last_offset)
        return Header(values, parameters)

    def _read_number(self, letter: str) -> int:
        """Read a number of the type that struct calls `letter`."""
        start = self._skip(struct.calcsize(letter))
        number: int = struct.unpack_from(f"<{letter}", self._data, start)[0]
        return number

    def _skip(self, size: int) -> int:
        """Go on by `size` bytes; return where they began."""
        start, self._position = self._position, self._position + size
        if self._position > self._size:
            raise _DamagedError(f"it ends after {self._size:,} bytes, in the middle of its header")
        return start

    def _read_text(self) -> str:
        size = self._read_number("Q")
        start = self._skip(size)
        if size > MAX_TEXT_BYTES:
            raise _DamagedError(f"a text in its header has {size:,} bytes")
        return self._data[start : start + size].decode("utf-8", "replace")

    def _read_value(self, kind: int) -> Value | None:
        """Return one value; None for a list."""
        if kind == LIST:
            self._pass_over(self._read_number("I"), self._read_number("Q"))
            return None
        if kind == TEXT:
            return self._read_text()
        if kind not in SCALARS:
            raise _DamagedError(f"a value has type {kind}, which there is not")
        return self._read_number(SCALARS[kind])

    def _pass_over(self, kind: int, count: int) -> None:
        """Go past a list of `count` items of a type."""
        if kind in SCALARS:
            self._skip(count * struct.calcsize(SCALARS[kind]))
            return
        if kind != TEXT:
            raise _DamagedError(f"a list is of type {kind}, which there is not")
        self._refuse_many(count, MIN_TEXT_BYTES, "texts in a list")
        if count > MAX_LIST_TEXTS:
            raise _DamagedError(f"a list in its header has {count:,} texts")
        for _ in range(count):
            self._skip(self._read_number("Q"))

    def _refuse_many(self, count: int, min_bytes: int, name: str) -> None:
        """Raise if the rest of the file is too short for `count` entries of `min_bytes` or more."""
        if count * min_bytes > self._size - self._position:
            raise _DamagedError(f"it says that it has {count:,} {name}, for which it is too short")

    def _tensor(self) -> tuple[int, int]:
        """Return a tensor's number of weights, and where they begin, from the first weight on."""
        self._read_text()
        dimensions = self._read_number("I")
        if dimensions > MAX_DIMENSIONS:
            raise _DamagedError(f"a tensor has {dimensions:,} dimensions")
        size = math.prod(self._read_number("Q") for _ in range(dimensions))
        self._skip(4)  # its type
        return size, self._read_number("Q")

    def _refuse_cut(self, alignment: Value, last_offset: int) -> None:
        """Raise if the file ends before its last tensor begins."""
        step = alignment if isinstance(alignment, int) and alignment > 0 else DEFAULT_ALIGNMENT
        # the weights begin at the next multiple of the alignment, in integers: files are large
        padding = -self._position % step
        if self._position + padding + last_offset >= self._size:
            raise _DamagedError(f"it ends after {self._size:,} bytes, before its last weights")
