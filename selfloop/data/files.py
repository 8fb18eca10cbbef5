"""The bytes of a file or of standard input, unpacked, and their text.

A file whose first bytes show another format, such as a PDF, is refused.
"""

import codecs
import re
import stat
import sys
import zlib
from pathlib import Path

from selfloop.errors import RecipeError

STDIN = "-"
MAX_BYTES = 2 * 1024**3  # of text, unpacked: more does not fit the memory of a laptop as rows
# first bytes of formats that are read
GZIP = b"\x1f\x8b"
PARQUET, ARROW = b"PAR1", b"ARROW1"

# Formats of other programs by their first bytes, with advice for a file that can be read.
NO_DATA = {
    b"PK\x03\x04": "a zip archive, as spreadsheets are too. Unpack it, or save the sheet as CSV",
    b"BZh": "packed with bzip2. Unpack it: bunzip2",
    b"\xfd7zXZ": "packed with xz. Unpack it: unxz",
    b"\x28\xb5\x2f\xfd": "packed with zstd. Unpack it: unzstd",
    b"SQLite format 3\0": "an SQLite database. Export its table as CSV",
    b"%PDF-": "a PDF. Copy its questions to a text file",
    b"\xd0\xcf\x11\xe0": "an old Office file. Save the sheet as CSV",
    b"GGUF": "a model. Give a file of questions",
    b"\x89PNG": "a picture. Give a file of questions",
    b"version https://git-lfs": "a pointer of Git LFS in place of the data. Fetch it: git lfs pull",
}
# a web page in place of the file, which a wrong link gives
_PAGE = re.compile(rb"\s*<(!doctype html|html)\b", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)


def is_stream(path: Path) -> bool:
    """Return whether a path can be read only once: standard input, or a pipe."""
    if str(path) == STDIN:
        return True
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def content(path: Path) -> bytes:
    """Return the bytes of a file, a pipe or standard input (`-`), unpacked. Raises RecipeError."""
    try:
        data = _stdin() if str(path) == STDIN else _file(path)
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:  # a null byte in the path
        raise unreadable(path, str(error)) from error
    for _ in range(3):  # a packed file may have been packed again
        if data.startswith(GZIP):
            data = _unpacked(path, data)
    return data


def unreadable(path: Path, why: str) -> RecipeError:
    """Return the error for a file that cannot be read at all."""
    return RecipeError(f"cannot read {path}: {why}. Give another file.")


def _stdin() -> bytes:
    if sys.stdin is None:
        raise OSError("there is no standard input")
    return sys.stdin.buffer.read()


def _file(path: Path) -> bytes:
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise OSError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no regular file")
    _refuse_large(path, status.st_size)
    return path.read_bytes()


def _refuse_large(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise RecipeError(
            f"cannot read {path}: it holds more than {MAX_BYTES / 1024**3:.0f} GiB. Give a part "
            "of it, or Parquet."
        )


def _unpacked(path: Path, data: bytes) -> bytes:
    """Return the content of all members of a .gz; no more than MAX_BYTES is ever unpacked."""
    parts, size = list[bytes](), 0
    while data.startswith(GZIP):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            parts.append(unpacker.decompress(data, MAX_BYTES + 1 - size))
        except zlib.error as error:
            raise unreadable(path, f"it is damaged as a .gz: {error}") from error
        size += len(parts[-1])
        _refuse_large(path, size)
        if not unpacker.eof:
            raise unreadable(path, "it is cut off: the .gz has no end")
        data = unpacker.unused_data.lstrip(b"\0")  # tapes are padded
    if data:
        raise unreadable(path, "there is something else after the end of the .gz")
    return b"".join(parts)


def refuse_foreign(path: Path, data: bytes) -> None:
    """Raise RecipeError for a file whose first bytes say that it is something else than data."""
    for beginning, kind in NO_DATA.items():
        if data.startswith(beginning) and not (beginning == b"BZh" and data[4:10] != b"1AY&SY"):
            raise RecipeError(f"cannot read {path}: it is {kind}.")
    if _PAGE.match(data[:200]):
        raise RecipeError(f"cannot read {path}: it is a web page. Fetch the file itself.")


def decoded(path: Path, data: bytes) -> str:
    """Return the text of a file, each line ended by a line feed: UTF-8, or UTF-16 and UTF-32 that
    begin with a mark.

    Raises RecipeError with the line for bytes that are no such text.
    """
    matching = [(bom, name) for bom, name in _BOMS if data.startswith(bom)]
    # the longest first: a mark of UTF-32 begins with one of UTF-16
    mark, encoding = matching[0] if matching else (b"", "utf-8")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(encoding, "replace")
        place = f"{path}, line {line_count(before)}"
        code = error.object[error.start]
        advice = "Save it anew"
        if not mark:
            advice = f"It may be Windows-1252: iconv -f WINDOWS-1252 -t UTF-8 {path} > NEW"
        raise RecipeError(
            f"{place}: this is not {encoding.upper()}, byte {code:#04x}. {advice}."
        ) from error
    if "\0" in text:
        place = f"{path}, line {line_count(text[: text.index(chr(0))])}"
        raise RecipeError(
            f"{place}: there is a null byte, which no text has. Save it as UTF-8 text."
        )
    return _plain_lines(text)


def without_broken_lines(data: bytes) -> tuple[bytes, list[int]]:
    """Return UTF-8 with those lines emptied that are not UTF-8, or hold a null byte, and their
    numbers."""
    if data.startswith(tuple(mark for mark, name in _BOMS if name != "utf-8")):
        return data, []
    lines, broken = re.split(rb"\r\n|\r|\n", data), list[int]()
    for place, line in enumerate(lines):
        try:
            is_text = "\0" not in line.decode()
        except UnicodeDecodeError:
            is_text = False
        if not is_text:
            broken.append(place + 1)
            lines[place] = b""
    return b"\n".join(lines), broken


def _plain_lines(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # files that were put together keep their marks
    return text.replace("\n\ufeff", "\n").removeprefix("\ufeff")


def line_count(text: str) -> int:
    """Return the number of the line in which a text ends, from 1."""
    return len(re.findall(r"\r\n|\r|\n", text)) + 1
