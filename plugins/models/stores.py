"""Where other programs keep the models that they fetched: the Hugging Face hub's cache, Ollama, LM
Studio.

Each is a `Place`: what lies there by the name that a recipe may write, `<prefix>:<name>`. Nothing
is copied, and nothing is changed there.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from selfloop import progress
from selfloop.errors import ModelError, did_you_mean
from selfloop.storage.plain_json import read_object

from .gguf_header import parts

DEPTH = 6  # folders below one another that are looked into
MOST = 200_000  # files and folders that are looked through below one folder
SEEING = "mmproj"  # in the name of the part of a model that sees
NAMED = 5  # names that a message lists
# llama.cpp finds these by the first part
LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
PATH_WORKS = "The path of a .gguf file works too"

_log = logging.getLogger("selfloop.models")


@dataclass(frozen=True, slots=True)
class Found:
    """A model on this disk: what a recipe calls it, its file, and, where it cannot be used, why.

    `unused` names the parts of it that selfloop does not use.
    """

    name: str
    path: Path
    wrong: str = ""
    unused: str = ""


class Place:
    """A place in which models lie."""

    prefix: str
    title: str

    def folders(self) -> list[Path]:
        """Return the folders to look in, whether they are there or not; what is in the first of them counts."""
        raise NotImplementedError

    def look(self, folder: Path) -> Iterator[Found]:
        """Yield what lies in one of the folders."""
        raise NotImplementedError

    def meant(self, rest: str, known: Sequence[str]) -> list[str]:
        """Return which of the known names `rest` may mean."""
        return [name for name in known if name == rest]

    def fetch(self, rest: str, lacks: str, *, now: bool) -> Path | None:
        """Fetch what is not there (not `now`: see only whether that could be).

        Raises ModelError that opens `lacks`.
        """
        raise ModelError(f"{lacks} {PATH_WORKS}.")

    def found(self) -> dict[str, Found]:
        """Return everything that lies here, by its name without the prefix."""
        found: dict[str, Found] = {}
        for one in (
            one for folder in self.folders() if is_there(folder) for one in self.look(folder)
        ):
            found.setdefault(one.name.removeprefix(f"{self.prefix}:"), one)
        return found

    def __call__(self, rest: str, *, fetch: bool = True) -> Path | None:
        """Return the file that `rest` means; not `fetch`: None where it would be fetched.

        Raises ModelError.
        """
        found = self.found()
        meant = self.meant(rest, list(found))
        if not meant:
            return self.fetch(rest, self._lacks(rest, found), now=fetch)
        if len(meant) > 1:
            names = [f"{self.prefix}:{name}" for name in meant]
            raise ModelError(
                f"{self.prefix}:{rest} may mean {_listed(names)}. Write more of the name."
            )
        if wrong := found[meant[0]].wrong:
            raise ModelError(f"{self.prefix}:{meant[0]} cannot be used: {wrong}.")
        if fetch and (unused := found[meant[0]].unused):
            _log.info("of %s:%s not used: %s", self.prefix, meant[0], unused)
        return found[meant[0]].path

    def _lacks(self, rest: str, found: Mapping[str, Found]) -> str:
        """Say what was sought, where, and what there is."""
        looked = " and ".join(
            f"{folder}{'' if is_there(folder) else ' (not there)'}" for folder in self.folders()
        )
        names = [f"{self.prefix}:{name}" for name, one in found.items() if not one.wrong]
        sought, there = (
            f"{self.prefix}:{rest}",
            f"There is {_listed(names)}." if names else "There is no model.",
        )
        return f"no model {sought} in {looked}.{did_you_mean(sought, names)} {there}"


class Hub(Place):
    """The Hugging Face hub: what was fetched lies in its cache; the rest its own package can fetch."""

    prefix = "hf"
    title = "the Hugging Face cache"

    def folders(self) -> list[Path]:
        """Return the cache, wherever the environment says it is."""
        for variable, below in (
            ("HF_HUB_CACHE", ""),
            ("HUGGINGFACE_HUB_CACHE", ""),
            ("HF_HOME", "hub"),
        ):
            if said := os.environ.get(variable):
                return [Path(said).expanduser() / below]
        return [
            Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
            / "huggingface"
            / "hub"
        ]

    def look(self, folder: Path) -> Iterator[Found]:
        """Yield `hf:owner/repo/file.gguf` for each file of each snapshot, those of the branch main first."""
        for home in sorted(folder.glob("models--*")):
            repository = home.name.removeprefix("models--").replace("--", "/")
            for snapshot in _snapshots(home):
                for file in ggufs(snapshot, all_names=True):
                    wrong = "" if file.exists() else f"{file} leads nowhere; fetch it again"
                    yield Found(
                        f"{self.prefix}:{repository}/{file.relative_to(snapshot).as_posix()}",
                        file,
                        wrong,
                    )

    def fetch(self, rest: str, lacks: str, *, now: bool) -> Path | None:
        """Fetch the file by the hub's own package, if it is installed and may."""
        owner, _, name = rest.partition("/")
        repository, _, file = name.partition("/")
        if not (owner and repository and file.lower().endswith(".gguf")):
            raise ModelError(
                f"{lacks} A name is {self.prefix}:owner/repository/file.gguf. {PATH_WORKS}."
            )
        load = f"hf download {owner}/{repository} {file}"
        if find_spec("huggingface_hub") is None:
            raise ModelError(
                f"{lacks} To fetch it: pip install huggingface_hub, then {load}. {PATH_WORKS}."
            )
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise ModelError(
                f"{lacks} It is not fetched, for HF_HUB_OFFLINE is set: unset it, or where there "
                "is a way to the hub: "
                f"{load}. {PATH_WORKS}."
            )
        if not now:
            return None
        by_hand = f"By hand: {load}. {PATH_WORKS}."
        names = [(PurePosixPath(file).parent / part.name).as_posix() for part in parts(Path(file))]
        paths = [self._download(f"{owner}/{repository}", name, lacks, by_hand) for name in names]
        return paths[0]

    def _download(self, repository: str, file: str, lacks: str, by_hand: str) -> Path:
        from huggingface_hub import hf_hub_download

        _log.info("fetching %s of %s from the Hugging Face hub, once", file, repository)
        blobs = self.folders()[0] / f"models--{repository.replace('/', '--')}" / "blobs"
        theirs = logging.getLogger("huggingface_hub")
        before = theirs.level
        theirs.setLevel(logging.ERROR)  # it warns of each try, and what comes of them is said below
        try:
            with progress.task(f"fetching {file}", 0, progress.BYTES, _size_of_parts(blobs)):
                return Path(hf_hub_download(repository, file))
        except Exception as error:  # the network, the hub, the disk: each has errors of its own
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise ModelError(
                f"{lacks} It cannot be fetched: {why.rstrip('.')}. {by_hand}"
            ) from error
        finally:
            theirs.setLevel(before)


def _size_of_parts(blobs: Path) -> Callable[[], float]:
    """Return what measures the files that the hub's own package is fetching."""
    return lambda: sum(part.stat().st_size for part in blobs.glob("*.incomplete"))


def _snapshots(home: Path) -> list[Path]:
    """Return a repository's snapshots: that of the branch main, then the newest first."""
    main = ""
    with suppress(OSError):
        main = (home / "refs" / "main").read_text("utf-8", "replace").strip()
    snapshots = [path for path in home.glob("snapshots/*") if path.is_dir()]
    return sorted(snapshots, key=lambda path: (path.name != main, -path.stat().st_mtime))


class Ollama(Place):
    """Ollama: a manifest for each name, and its layers by their hashes."""

    prefix = "ollama"
    title = "Ollama"
    HOSTS = ("registry.ollama.ai", "ollama.com")  # what Ollama itself leaves off
    KIND = "application/vnd.ollama.image."  # what the type of every layer of a model begins with
    MODEL = f"{KIND}model"
    UNUSED: ClassVar[Mapping[str, str]] = {
        "template": "its prompt template",
        "prompt": "its prompt template",
        "system": "its system prompt",
        "params": "its parameters",
        "messages": "its example messages",
        "projector": "the part that sees or hears",
        "license": "",
    }
    MANIFEST = 1 << 20  # bytes of a manifest, at most
    DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")  # nothing else: it becomes a file's name

    def folders(self) -> list[Path]:
        """Return Ollama's folder of models: of this user, and of the service on Linux."""
        if said := os.environ.get("OLLAMA_MODELS"):
            return [Path(said).expanduser()]
        return [Path("~/.ollama/models").expanduser(), Path("/usr/share/ollama/.ollama/models")]

    def look(self, folder: Path) -> Iterator[Found]:
        """Yield `ollama:name:tag` for each manifest."""
        for manifests in sorted(folder.glob("manifest*")):
            for file in sorted(_files(manifests)):
                parts = file.relative_to(manifests).parts
                if len(parts) == 4 and not file.name.startswith("."):
                    yield self._entry(folder, file, parts)

    def meant(self, rest: str, known: Sequence[str]) -> list[str]:
        """Return the name; without a tag it is the latest."""
        return super().meant(rest if ":" in rest else f"{rest}:latest", known)

    def fetch(self, rest: str, lacks: str, *, now: bool) -> Path | None:
        """Leave fetching to Ollama."""
        raise ModelError(f"{lacks} Fetch it with: ollama pull {rest}. {PATH_WORKS}.")

    def _entry(self, folder: Path, file: Path, parts: tuple[str, ...]) -> Found:
        host, owner, model, tag = parts
        owners = (owner,) if host in self.HOSTS else (host, owner)
        shown = "/".join((*(() if owners == ("library",) else owners), model))
        name = f"{self.prefix}:{shown}:{tag}"
        try:
            layers = self._layers(file)
            blob = folder / "blobs" / f"sha256-{self._digest(layers)}"
            unused = self._unused(layers)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            return Found(name, file, f"its manifest {file} cannot be used: {error}")
        gone = (
            "" if blob.is_file() else f"its weights are gone: {blob}; do: ollama pull {shown}:{tag}"
        )
        return Found(name, blob, gone, unused)

    def _layers(self, manifest: Path) -> list[tuple[str, str]]:
        """Return the type and the digest of each layer.

        Raises ValueError and others for what is no manifest.
        """
        layers: list[dict[str, Any]] = read_object(manifest, self.MANIFEST)["layers"]
        return [(str(layer["mediaType"]), str(layer["digest"])) for layer in layers]

    def _digest(self, layers: Sequence[tuple[str, str]]) -> str:
        """Return the hash of the weights that a manifest names."""
        named = [digest for kind, digest in layers if kind == self.MODEL]
        if not named:
            raise ValueError("it names no GGUF file")
        if len(named) > 1:
            raise ValueError(
                f"it names {len(named)} files of weights, of which selfloop can use one alone"
            )
        if not (digest := self.DIGEST.fullmatch(named[0])):
            raise ValueError(f"{named[0]!r:.90} is no hash")
        return digest[1]

    def _unused(self, layers: Sequence[tuple[str, str]]) -> str:
        """Return which layers are left out.

        Raises ValueError for one that would make another model of the weights.
        """
        unused = []
        for kind, digest in layers:
            name = kind.removeprefix(self.KIND)
            if kind == f"{self.KIND}adapter":
                raise ValueError(
                    f"its layer {digest[:19]} is an adapter, which is not applied here; merge it "
                    "into the weights, or "
                    "name the model that it was made for"
                )
            if kind != self.MODEL and (name not in self.UNUSED or kind == name):
                raise ValueError(f"its layer {digest[:19]} is of the unknown type {kind!r:.90}")
            if part := self.UNUSED.get(name):
                unused.append(part)
        return ", ".join(dict.fromkeys(unused))


class Studio(Place):
    """LM Studio: plain files, as `publisher/model/file.gguf`."""

    prefix = "lmstudio"
    title = "LM Studio"

    SETTINGS = "settings.json"
    LARGEST = 1 << 20  # bytes of its settings, at most

    def folders(self) -> list[Path]:
        """Return the folders of models of this user's LM Studio, that of its settings first, then new and old."""
        homes = [Path("~/.lmstudio").expanduser(), Path("~/.cache/lm-studio").expanduser()]
        with suppress(OSError):
            if (
                said := Path("~/.lmstudio-home-pointer")
                .expanduser()
                .read_text("utf-8", "replace")
                .strip()
            ):
                homes.insert(0, Path(said).expanduser())
        chosen = [folder for home in homes if (folder := self._downloads(home / self.SETTINGS))]
        return list(dict.fromkeys([*chosen, *(home / "models" for home in homes)]))

    def _downloads(self, settings: Path) -> Path | None:
        """Return the folder that the settings name, if they name one."""
        try:
            named = read_object(settings, self.LARGEST).get("downloadsFolder")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("the settings of LM Studio, %s, cannot be read: %s", settings, error)
            return None
        if not isinstance(named, str) or not named.strip() or "\0" in named:
            return None
        folder = Path(named).expanduser()
        return folder if folder.is_absolute() else settings.parent / folder

    def look(self, folder: Path) -> Iterator[Found]:
        """Yield `lmstudio:publisher/model/file.gguf` for each file."""
        for file in ggufs(folder):
            yield Found(f"{self.prefix}:{file.relative_to(folder).as_posix()}", file)

    def found(self) -> dict[str, Found]:
        """Return everything that lies here; a file that has several names has the first one."""
        by_file: dict[object, tuple[str, Found]] = {}
        for name, model in super().found().items():
            by_file.setdefault(file_identity(model.path), (name, model))
        return dict(by_file.values())

    def meant(self, rest: str, known: Sequence[str]) -> list[str]:
        """Return the name itself, or those that `rest` is a part of; the part that sees lies beside its model."""
        if exact := super().meant(rest, known):
            return exact
        near = [name for name in known if rest and rest.lower() in name.lower()]
        models = [name for name in near if SEEING not in name.lower()]
        return models or near


PLACES: tuple[Place, ...] = (Hub(), Ollama(), Studio())


def ggufs(folder: Path, *, all_names: bool = False) -> list[Path]:
    """Return the .gguf files below a folder; of one that is split the first part alone.

    A file that has several names (links) is returned once, by the first, unless `all_names`.
    """
    files = sorted(file for file in _files(folder) if file.suffix.lower() == ".gguf")
    firsts = [file for file in files if not LATER_PART.search(file.name.lower())]
    if all_names:
        return firsts
    by_file: dict[object, Path] = {}
    for file in firsts:
        by_file.setdefault(file_identity(file), file)
    return list(by_file.values())


def file_identity(path: Path) -> object:
    """Return what is the same for all names of a file, its own name where it leads nowhere."""
    try:
        stat = path.stat()
    except OSError:
        return path
    return stat.st_dev, stat.st_ino


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, through links too: people keep models on other disks.

    Each folder counts once.
    """
    entered: set[object] = set()
    refused: list[str] = []
    count = 0
    for place, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: refused.append(error.filename)
    ):
        here = Path(place)
        entered.add(file_identity(here))
        folders.sort()
        folders[:] = [name for name in folders if _is_new(here / name, entered)]
        if len(here.relative_to(folder).parts) >= DEPTH:
            folders.clear()
        for name in names:
            yield here / name
        count += len(names) + len(folders)
        if count > MOST:
            _log.warning(
                "%s has more than %d files: the rest is not looked through. Name a folder in it",
                folder,
                MOST,
            )
            break
    if refused:
        more = f", and {len(refused) - 1} others" if len(refused) > 1 else ""
        _log.warning("%s may not be looked into%s", refused[0], more)


def _is_new(folder: Path, entered: set[object]) -> bool:
    """Return whether a folder was not met before; it is now."""
    identity = file_identity(folder)
    is_new = identity not in entered
    entered.add(identity)
    return is_new


def is_there(folder: Path) -> bool:
    """Return whether a folder is there and may be looked into."""
    with suppress(OSError):
        return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    return False


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more (see: selfloop models)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
