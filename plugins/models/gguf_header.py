"""What a GGUF file says of itself before its weights: read in a moment, and from files that nobody
has checked.

The package `gguf` reads them too, but only an extra has it, and it takes seconds for a large
vocabulary. Lists (a vocabulary's tokens) are passed over; every length is held against what is left
of the file before it is believed.
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
DIMENSIONS = 4  # of a tensor, at most
LONGEST = 1 << 24  # bytes of a text; a chat template has some thousand
MOST = 1 << 24  # texts of a list; the largest vocabularies have a million
OF_SEVERAL = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Header:
    """The values that are no lists, and the number of weights."""

    values: Mapping[str, Value]
    parameters: int

    def text(self, key: str) -> str:
        """Return a value, or an empty string where there is none."""
        return str(self.values.get(key, ""))

    @property
    def architecture(self) -> str:
        """Return what llama.cpp calls this kind of model."""
        return self.text("general.architecture")

    @property
    def chat(self) -> bool:
        """Return whether there is a chat template."""
        return bool(self.text("tokenizer.chat_template"))

    @property
    def files(self) -> int:
        """Return of how many files the model is: llama.cpp splits large ones."""
        count = self.values.get("split.count", 1)
        return count if isinstance(count, int) and count > 1 else 1

    @property
    def language_model(self) -> bool:
        """Return whether this is a model by itself: neither an adapter nor the part of one that sees or hears."""
        return self.text("general.type") in ("", "model") and self.architecture not in ("", "clip")


def parts(path: Path) -> list[Path]:
    """Return the files of the model that a name belongs to, the first one first: of most it is the file alone."""
    named = OF_SEVERAL.fullmatch(path.name)
    if not named or int(named[3]) < 2:
        return [path]
    stem, count, suffix = named[1], named[3], named[4]
    return [
        path.with_name(f"{stem}-{number:05}-of-{count}{suffix}")
        for number in range(1, int(count) + 1)
    ]


def header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises ModelError for one that is cut off, or is not what it should be.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ModelError(f"{path} cannot be read: {error}") from error
    except _Wrong as error:
        raise ModelError(f"{path} is damaged: {error}; fetch it again") from error


class _Wrong(Exception):
    """The file is not what a GGUF should be."""


class _Reader:
    """Goes through the file once, front to back."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at, self._size = data, 0, len(data)

    def header(self) -> Header:
        magic, version, tensors, count = (self._number(letter) for letter in ("I", "I", "Q", "Q"))
        if magic != int.from_bytes(b"GGUF", "little") or version not in (2, 3):
            raise _Wrong("it does not begin as a GGUF of version 2 or 3")
        self._refuse_many(count, 13, "values")
        found = {self._text(): self._value(self._number("I")) for _ in range(count)}
        values = {key: value for key, value in found.items() if value is not None}
        self._refuse_many(tensors, 24, "tensors")
        shapes = [self._tensor() for _ in range(tensors)]
        self._refuse_cut(values.get("general.alignment", 32), [offset for _, offset in shapes])
        return Header(values, sum(size for size, _ in shapes))

    def _number(self, letter: str) -> int:
        start = self._skip(struct.calcsize(letter))
        number: int = struct.unpack_from(f"<{letter}", self._data, start)[0]
        return number

    def _skip(self, size: int) -> int:
        """Go on by `size` bytes; return where they began."""
        start, self._at = self._at, self._at + size
        if self._at > self._size:
            raise _Wrong(f"it ends after {self._size:,} bytes, in the middle of its header")
        return start

    def _text(self) -> str:
        size = self._number("Q")
        start = self._skip(size)
        if size > LONGEST:
            raise _Wrong(f"a text in its header has {size:,} bytes")
        return self._data[start : start + size].decode("utf-8", "replace")

    def _value(self, kind: int) -> Value | None:
        """Return one value; of a list nothing."""
        if kind == LIST:
            self._pass_over(self._number("I"), self._number("Q"))
            return None
        if kind == TEXT:
            return self._text()
        if kind not in SCALARS:
            raise _Wrong(f"a value has type {kind}, which there is not")
        return self._number(SCALARS[kind])

    def _pass_over(self, kind: int, count: int) -> None:
        if kind in SCALARS:
            self._skip(count * struct.calcsize(SCALARS[kind]))
            return
        if kind != TEXT:
            raise _Wrong(f"a list is of type {kind}, which there is not")
        self._refuse_many(count, 8, "texts in a list")
        if count > MOST:
            raise _Wrong(f"a list in its header has {count:,} texts")
        for _ in range(count):
            self._skip(self._number("Q"))

    def _refuse_many(self, count: int, each: int, what: str) -> None:
        if count * each > self._size - self._at:
            raise _Wrong(f"it says that it has {count:,} {what}, for which it is too short")

    def _tensor(self) -> tuple[int, int]:
        """Return a tensor's number of weights, and where in the data they begin."""
        self._text()
        if (dimensions := self._number("I")) > DIMENSIONS:
            raise _Wrong(f"a tensor has {dimensions:,} dimensions")
        size = math.prod(self._number("Q") for _ in range(dimensions))
        self._skip(4)  # its type
        return size, self._number("Q")

    def _refuse_cut(self, alignment: Value, offsets: list[int]) -> None:
        step = alignment if isinstance(alignment, int) and alignment > 0 else 32
        start = -(-self._at // step) * step
        if offsets and start + max(offsets) >= self._size:
            raise _Wrong(f"it ends after {self._size:,} bytes, before its last weights")
