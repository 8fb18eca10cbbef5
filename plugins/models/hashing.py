"""The hash of a model's files.

A large file takes minutes to hash, so the hash is stored with the file's size and time (its
*stamp*). It is read again only when one of the two has changed.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from selfloop import progress
from selfloop.errors import StoreError
from selfloop.storage import atomic
from selfloop.storage.plain_json import read_object

from .caching import cache_folder
from .gguf_header import files_of

MAX_STAMP_BYTES = 10_000
BLOCK_BYTES = 1 << 20  # read at a time


def sha256(path: Path) -> str:
    """Return the hash of a file; of a model of several files that of their hashes."""
    files = files_of(path)
    if len(files) == 1:
        return _file_sha256(path)
    return _hash_of_hashes([_file_sha256(file) for file in files])


def stored_sha256(path: Path) -> str | None:
    """Return `sha256(path)` if no file has to be read for it, else None."""
    files = files_of(path)
    hashes: list[str] = []
    for file in files:
        stored = _stored_file_sha256(file)
        if stored is None:
            return None
        hashes.append(stored)
    return hashes[0] if len(files) == 1 else _hash_of_hashes(hashes)


def hash_file(path: Path) -> str:
    """Return a file's sha256. Reads all of it, and shows how far it is."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with (
        path.open("rb") as file,
        progress.task(f"hashing {path.name}", size, progress.BYTES) as task,
    ):
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            task.advance(len(block))
    return digest.hexdigest()


def _hash_of_hashes(hashes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    stored = _stored_file_sha256(path)
    if stored:
        return stored
    # Taken before the file is read: if it changes meanwhile, the stamp is out of date at once.
    state = _size_and_time(path)
    digest = hash_file(path)
    with suppress(OSError, StoreError):  # a stamp only saves time
        atomic.write_text(
            _stamp_path(path), json.dumps({"file": state, "sha256": digest}), parents=True
        )
    return digest


def _stored_file_sha256(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged stamp is no stamp
        stamp = read_object(_stamp_path(path), MAX_STAMP_BYTES)
        if stamp["file"] == _size_and_time(path):
            return str(stamp["sha256"])
    return None


def _stamp_path(path: Path) -> Path:
    # A path may hold any bytes and be longer than a file's name may be: its hash is the name.
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=16).hexdigest()
    return cache_folder() / "stamps" / f"{name}.json"


def _size_and_time(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
