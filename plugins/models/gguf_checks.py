"""A file that is not a whole language model in GGUF is refused, with advice."""

import struct
from pathlib import Path

from selfloop.errors import ModelError, did_you_mean
from selfloop.text.display import printable

from . import known, stores
from .gguf_header import Header, files_of, read_header

MAX_NAMES = 5  # files that a message lists
FIXED_BYTES = 24  # of a header: magic, version, and two counts


def check_model_file(path: Path) -> None:
    """Raise ModelError unless this is a GGUF file of a whole model that can be asked by itself."""
    check_parts(path)
    try:
        header = read_header(path)
    except ModelError:  # the backend describes the damage of a file
        return
    _refuse_partial_model(path, header)
    if header.files > 1 and len(files_of(path)) != header.files:
        raise ModelError(
            f"{path} is one of the {header.files} files of a model, but its name does not say "
            "which; give them back "
            f"the names that end with -00001-of-{header.files:05}.gguf and so on"
        )


def _refuse_partial_model(path: Path, header: Header) -> None:
    """Raise ModelError for a file that goes with a model, but is not one."""
    kind = header.string("general.type")
    if kind == "adapter":
        raise ModelError(
            f"{path} is an adapter (LoRA), which is no model by itself; name its model, or merge "
            "the two with "
            "llama-export-lora and name the result"
        )
    if kind == "mmproj" or header.architecture == "clip":
        raise ModelError(
            f"{path} is the part of a model that sees or hears, which cannot be asked by itself; "
            "name the file of the "
            "language model"
        )
    if kind not in ("", "model"):
        raise ModelError(
            f"{path} says that it is no model but {printable(kind, 40)}; name the file of a model"
        )


def check_parts(path: Path) -> None:
    """Raise ModelError unless this is a GGUF file that llama.cpp can begin with.

    Of a model of several files it must be the first, and all others must lie beside it.
    """
    check_gguf(path)
    files = files_of(path)
    if path != files[0]:
        raise ModelError(
            f"{path} is not the first of the {len(files)} files of a model; name {files[0].name}"
        )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - MAX_NAMES} more" if len(missing) > MAX_NAMES else ""
        names = ", ".join(missing[:MAX_NAMES]) + more
        raise ModelError(
            f"{path} is one of the {len(files)} files of a model, and beside it lacks {names}; "
            "fetch them"
        )
    for file in files[1:]:
        check_gguf(file)


def check_gguf(path: Path) -> None:
    """Raise ModelError, with advice, unless this is a file that begins like a GGUF."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name a .gguf file in it")
    if not path.exists():
        names = ", ".join(known.KNOWN_MODELS)
        prefixes = ", ".join(f"{prefix}:" for prefix in sorted(stores.LOCATORS))
        raise ModelError(
            f"no such file: {path}.{did_you_mean(str(path), known.KNOWN_MODELS)} Models known by "
            f"name: {names}. With {prefixes} before it a name is one of another program. All that "
            "is here: selfloop models"
        )
    if not path.is_file():
        raise ModelError(
            f"{path} is no file but a device or a pipe, which may never end; name a .gguf file"
        )
    try:
        with path.open("rb") as file:
            begin = file.read(FIXED_BYTES)
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror}; see who may read it, or name another file"
        ) from error
    _refuse_begin(path, begin)


def _refuse_begin(path: Path, begin: bytes) -> None:
    if not begin.startswith(b"GGUF"):
        raise ModelError(
            f"{path} is not a GGUF file, it begins with {begin[:4]!r}; convert the model, or fetch "
            "it again"
        )
    if len(begin) < FIXED_BYTES:
        raise ModelError(f"{path} is cut off after {len(begin)} bytes; fetch it again")
    # A big-endian file shows a huge version here.
    version = struct.unpack("<I", begin[4:8])[0]
    if version not in (2, 3):
        raise ModelError(
            f"{path} has GGUF version {version}; versions 2 and 3 (little-endian) can be read; "
            "convert it anew"
        )
