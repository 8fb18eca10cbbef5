"""The one way to write a file or a folder: it is there whole, or as it was before.

The new content is written under a temporary name in the same folder, flushed to the disk, and
renamed over the old content. A process that is killed, or a disk that is full, leaves the old
content and perhaps a temporary file, which the next write of the same file clears away. Temporary
names are hidden and end in `.part`; nobody reads them.

Errors: DiskFullError where there is no room, any other OSError as the system raised it.
"""

import ctypes
import errno
import os
import platform
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from selfloop.errors import disk_full

# seconds for which a temporary file of another computer is left alone: nothing here can tell
# whether its process still runs
STALE_S = 24 * 3600.0
# characters of the file's own name in a temporary one: file systems take 255 bytes, and a
# character has up to four
MAX_NAME = 40
_LEFTOVER = re.compile(
    r"\..+\.(?P<host>[0-9a-f]{6})-(?P<process>\d+)-[0-9a-f]{8}\.(?P<kind>part|old)"
)

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux: fcntl.h and linux/fs.h
# the errors of systems where a disk has no hard links, or none across two of them
_NO_HARD_LINKS = (
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EXDEV,
)


def write_text(path: Path, text: str, *, parents: bool = False) -> None:
    """Write a file in UTF-8, with the line ends that `text` has.

    With `parents` its folders are made too.
    """
    write_bytes(path, text.encode(), parents=parents)


def write_bytes(path: Path, content: bytes, *, parents: bool = False) -> None:
    """Write a file; with `parents` its folders are made too."""
    with replacing(path, parents=parents) as part:
        part.write_bytes(content)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises FileExistsError if it is, also for a link that leads nowhere.
    """
    part = _temporary(path)
    try:
        with _full_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # whole and flushed under another name first: a link cannot be half written
            part.write_bytes(text.encode())
            _flush(part)
            _link(part, path)
            _flush_folder(path.parent)
    finally:
        _remove(part)


@contextmanager
def replacing(path: Path, *, parents: bool = False) -> Iterator[Path]:
    """Give the name of a temporary file, which becomes the file `path` if the block ends well.

    With `parents` its folders are made too. An old file's permissions are kept; of a link, the file
    that it leads to is replaced. Raises OSError for a device, a pipe or a folder in that place.
    """
    target = Path(os.path.realpath(path))
    part = _temporary(target)
    try:
        with _full_disk_errors(path):
            _refuse_special(target)
            if parents:
                target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(target.parent, target.name)
            yield part
            _copy_permissions(target, part)
            move(part, target)
    finally:
        _remove(part)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder, empty. It becomes the folder `path`, in place of an old one, if the
    block ends well.

    Linux exchanges the two at once. Elsewhere the old folder is renamed first: a process that is
    killed between the two renames leaves it under a temporary name, and the next call puts it back.
    """
    target = Path(os.path.realpath(path))
    part = _temporary(target)
    try:
        with _full_disk_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            _put_back(target)
            remove_leftovers(target.parent, target.name)
            part.mkdir()
            yield part
            _flush_tree(part)
            if target.is_dir():
                _exchange(part, target)
            else:
                part.rename(target)
            _flush_folder(target.parent)
    finally:
        _remove(part)  # after an exchange this name is the old folder's


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`, which is removed at the end.

    Files that are made in it can be moved to `path`: it is on the same disk.
    """
    folder = _temporary(path)
    try:
        with _full_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent, path.name)
            folder.mkdir()
            yield folder
    finally:
        _remove(folder)


def move(source: Path, target: Path) -> None:
    """Rename a finished file to `target`, on the same disk, after its content was flushed."""
    with _full_disk_errors(target):
        # in this order: a name on the disk must not come before its content
        _flush(source)
        source.replace(target)
        _flush_folder(target.parent)


def appending(path: Path) -> BinaryIO:
    """Open a file of lines to add to it.

    A line that a killed process left half written is ended first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab+")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of killed processes: those of the file `name`, or of all files."""
    begin = "." if name is None else f".{name[:MAX_NAME]}."
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(begin) and _is_stale(Path(entry.path)):
                _remove(Path(entry.path))


def _temporary(target: Path, kind: str = "part") -> Path:
    """Return a name beside `target` that no other process or thread takes.

    It has the computer and the process in it, so that others can tell whether it is still in use.
    """
    return target.with_name(
        f".{target.name[:MAX_NAME]}.{_host()}-{os.getpid()}-{uuid4().hex[:8]}.{kind}"
    )


@cache
def _host() -> str:
    return blake2b(platform.node().encode(errors="replace"), digest_size=3).hexdigest()


def _is_stale(path: Path) -> bool:
    """Return whether a temporary file's process is gone.

    An old folder that was set aside is never stale.
    """
    leftover = _LEFTOVER.fullmatch(path.name)
    if not leftover or leftover["kind"] == "old":
        return False
    # on Windows a signal 0 would end the process, so that none can be asked
    if leftover["host"] == _host() and sys.platform != "win32":
        return not _is_alive(int(leftover["process"]))
    return time.time() - path.lstat().st_mtime > STALE_S


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True


def _put_back(target: Path) -> None:
    """Rename an old folder back that a killed process had set aside."""
    if target.exists() or not target.parent.is_dir():
        return
    begin = f".{target.name[:MAX_NAME]}."
    for path in target.parent.iterdir():
        leftover = _LEFTOVER.fullmatch(path.name)
        if path.name.startswith(begin) and leftover and leftover["kind"] == "old":
            path.rename(target)
            return


def _refuse_special(target: Path) -> None:
    """Raise where a rename would replace a device, a pipe or a folder by a file."""
    if not target.exists():
        return
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not target.is_file():
        raise OSError(errno.EINVAL, "This is a device or a pipe, not a file", str(target))


def _copy_permissions(source: Path, target: Path) -> None:
    """Give a new file the permissions, and where allowed the owner, of the one that it replaces."""
    if not source.exists():
        return
    old = source.stat()
    with suppress(OSError):  # only root may give files away
        new = target.stat()
        is_same_owner = (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid)
        if not is_same_owner and hasattr(os, "chown"):
            os.chown(target, old.st_uid, old.st_gid)
    with suppress(OSError):  # some file systems have no permissions
        target.chmod(stat.S_IMODE(old.st_mode))


def _link(part: Path, path: Path) -> None:
    """Give a finished file its name, unless there is one already."""
    try:
        os.link(part, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        path.touch(exist_ok=False)  # takes the name: whoever else wants it fails
        part.replace(path)


def _exchange(part: Path, target: Path) -> None:
    """Let two folders swap names: at once on Linux, elsewhere with a moment without `target`."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        paths = os.fsencode(part), os.fsencode(target)
        exchange = getattr(libc, "renameat2", None)
        if exchange and exchange(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
            return  # not every file system can: then as elsewhere
    old = _temporary(target, "old")
    target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can say so."""
    with suppress(OSError):  # Windows opens no folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)


def _remove(path: Path) -> None:
    with suppress(OSError):  # it may not have been made
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _full_disk_errors(path: Path) -> Iterator[None]:
    """Raise DiskFullError for any error that means that there is no room for `path`."""
    try:
        yield
    except Exception as error:
        full = disk_full(error, path)
        if full:
            raise full from error
        raise
