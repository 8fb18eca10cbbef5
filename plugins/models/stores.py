"""Where other programs keep the models that they fetched: the Hugging Face hub's cache, Ollama, LM
Studio.

Each is a `ModelStore`. It lists its models by the names that a recipe may write,
`<prefix>:<name>`. Nothing is copied, and nothing is changed there.

To add a store, add its class to `STORES`. `LOCATORS` maps any other prefix to a function from the
rest of the name to a file.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Protocol

from selfloop import progress
from selfloop.errors import ModelError, did_you_mean
from selfloop.storage.plain_json import read_object

from .gguf_header import files_of

MAX_DEPTH = 6  # folders below one another that are looked into
MAX_ENTRIES = 200_000  # files and folders that are looked through below one folder
MAX_NAMES = 5  # that a message lists
PROJECTOR = "mmproj"  # in the name of the part of a model that sees or hears
# llama.cpp finds these by the first part
LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
PATH_WORKS = "The path of a .gguf file works too"

_log = logging.getLogger("selfloop.models")


class Locator(Protocol):
    """Finds the file that a name means, without its prefix."""

    def __call__(self, rest: str, *, fetch: bool = True) -> Path | None:
        """Return the file. Without `fetch`: None where it would have to be fetched.

        Raises ModelError.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model on this disk.

    `name`: its name in a recipe, with the prefix. `wrong`: why it cannot be used, if it cannot.
    `unused`: the parts of it that selfloop does not use.
    """

    name: str
    path: Path
    wrong: str = ""
    unused: str = ""


class ModelStore:
    """A program's folders of models."""

    prefix: str
    title: str

    def folders(self) -> list[Path]:
        """Return the folders to look in, whether they are there or not.

        Of two models with one name, the one in the earlier folder counts.
        """
        raise NotImplementedError

    def models_in(self, folder: Path) -> Iterator[ModelFile]:
        """Yield the models in one of the folders."""
        raise NotImplementedError

    def matching_names(self, rest: str, names: Sequence[str]) -> list[str]:
        """Return which of the store's names `rest` may mean."""
        return [name for name in names if name == rest]

    def fetch(self, rest: str, lacks: str, *, now: bool) -> Path | None:
        """Fetch a model that is not there (without `now`: see only whether that is possible).

        Raises ModelError that opens with `lacks`, which says that the model is not there.
        """
        raise ModelError(f"{lacks} {PATH_WORKS}.")

    def models(self) -> dict[str, ModelFile]:
        """Return all models, by their names without the prefix."""
        by_name: dict[str, ModelFile] = {}
        for folder in self.folders():
            if is_readable(folder):
                for model in self.models_in(folder):
                    by_name.setdefault(model.name.removeprefix(f"{self.prefix}:"), model)
        return by_name

    def __call__(self, rest: str, *, fetch: bool = True) -> Path | None:
        """Return the file that `rest` means. Without `fetch`: None where it would be fetched.

        Raises ModelError.
        """
        models = self.models()
        names = self.matching_names(rest, list(models))
        if not names:
            return self.fetch(rest, self._lacks(rest, models), now=fetch)
        if len(names) > 1:
            full = [f"{self.prefix}:{name}" for name in names]
            raise ModelError(
                f"{self.prefix}:{rest} may mean {_first_names(full)}. Write more of the name."
            )
        model = models[names[0]]
        if model.wrong:
            raise ModelError(f"{self.prefix}:{names[0]} cannot be used: {model.wrong}.")
        if fetch and model.unused:
            _log.info("of %s:%s not used: %s", self.prefix, names[0], model.unused)
        return model.path

    def _lacks(self, rest: str, models: Mapping[str, ModelFile]) -> str:
        """Say which model was sought, where, and which ones there are."""
        usable = [f"{self.prefix}:{name}" for name, model in models.items() if not model.wrong]
        sought = f"{self.prefix}:{rest}"
        models_here = f"There is {_first_names(usable)}." if usable else "There is no model."
        searched = " and ".join(with_absence(folder) for folder in self.folders())
        return f"no model {sought} in {searched}.{did_you_mean(sought, usable)} {models_here}"


class Hub(ModelStore):
    """The Hugging Face hub: its cache holds the fetched models, its own package fetches others."""

    prefix = "hf"
    title = "the Hugging Face cache"

    def folders(self) -> list[Path]:
        """Return the cache, wherever the environment says it is."""
        # in the order in which the hub's own package reads them
        variables = (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"))
        for variable, below in variables:
            if folder := os.environ.get(variable):
                return [Path(folder).expanduser() / below]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return [cache / "huggingface" / "hub"]

    def models_in(self, folder: Path) -> Iterator[ModelFile]:
        """Yield `hf:owner/repo/file.gguf` for each file of each snapshot, the branch main first."""
        for home in sorted(folder.glob("models--*")):
            repository = home.name.removeprefix("models--").replace("--", "/")
            for snapshot in _snapshots(home):
                for file in ggufs(snapshot, all_names=True):
                    within = file.relative_to(snapshot).as_posix()
                    # a snapshot is made of links into the cache's blobs
                    wrong = "" if file.exists() else f"{file} leads nowhere; fetch it again"
                    yield ModelFile(f"{self.prefix}:{repository}/{within}", file, wrong)

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
        # all files of a model that was split, which lie in one folder of the repository
        folder = PurePosixPath(file).parent
        names = [(folder / part.name).as_posix() for part in files_of(Path(file))]
        paths = [self._download(f"{owner}/{repository}", name, lacks, by_hand) for name in names]
        return paths[0]

    def _download(self, repository: str, file: str, lacks: str, by_hand: str) -> Path:
        from huggingface_hub import hf_hub_download

        _log.info("fetching %s of %s from the Hugging Face hub, once", file, repository)
        blobs = self.folders()[0] / f"models--{repository.replace('/', '--')}" / "blobs"
        hub_log = logging.getLogger("huggingface_hub")
        level_before = hub_log.level
        # it warns of each try, and the error below states the result
        hub_log.setLevel(logging.ERROR)
        try:
            with progress.task(f"fetching {file}", 0, progress.BYTES, _size_of_parts(blobs)):
                return Path(hf_hub_download(repository, file))
        except Exception as error:  # the network, the hub, the disk: each has errors of its own
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise ModelError(
                f"{lacks} It cannot be fetched: {why.rstrip('.')}. {by_hand}"
            ) from error
        finally:
            hub_log.setLevel(level_before)


def _size_of_parts(blobs: Path) -> Callable[[], float]:
    """Return a function that measures the files which the hub's own package is fetching."""
    return lambda: sum(part.stat().st_size for part in blobs.glob("*.incomplete"))


def _snapshots(home: Path) -> list[Path]:
    """Return a repository's snapshots: the branch main's, then the newest first."""
    main = ""
    with suppress(OSError):
        main = (home / "refs" / "main").read_text("utf-8", "replace").strip()
    snapshots = [path for path in home.glob("snapshots/*") if path.is_dir()]
    return sorted(snapshots, key=lambda path: (path.name != main, -path.stat().st_mtime))


class Ollama(ModelStore):
    """Ollama: a manifest for each name, and its layers by their hashes.

    A manifest lies at `manifests/<host>/<owner>/<model>/<tag>`, a layer at `blobs/sha256-<hash>`.
    """

    prefix = "ollama"
    title = "Ollama"
    HOSTS = ("registry.ollama.ai", "ollama.com")  # which Ollama itself leaves off a name
    KIND = "application/vnd.ollama.image."  # begins the type of every layer of a model
    MODEL = f"{KIND}model"
    # layers that are passed over, with the notes about them; a license has none
    UNUSED: ClassVar[Mapping[str, str]] = {
        "template": "its prompt template",
        "prompt": "its prompt template",
        "system": "its system prompt",
        "params": "its parameters",
        "messages": "its example messages",
        "projector": "the part that sees or hears",
        "license": "",
    }
    MAX_MANIFEST_BYTES = 1 << 20
    DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")  # nothing else: it becomes a file's name

    def folders(self) -> list[Path]:
        """Return Ollama's folder of models: of this user, and of the service on Linux."""
        if folder := os.environ.get("OLLAMA_MODELS"):
            return [Path(folder).expanduser()]
        return [Path("~/.ollama/models").expanduser(), Path("/usr/share/ollama/.ollama/models")]

    def models_in(self, folder: Path) -> Iterator[ModelFile]:
        """Yield `ollama:name:tag` for each manifest."""
        for manifests in sorted(folder.glob("manifest*")):
            for file in sorted(_files(manifests)):
                address = file.relative_to(manifests).parts
                if len(address) == 4 and not file.name.startswith("."):
                    yield self._entry(folder, file, address)

    def matching_names(self, rest: str, names: Sequence[str]) -> list[str]:
        """Return the name; without a tag it is the latest."""
        return super().matching_names(rest if ":" in rest else f"{rest}:latest", names)

    def fetch(self, rest: str, lacks: str, *, now: bool) -> Path | None:
        """Leave fetching to Ollama."""
        raise ModelError(f"{lacks} Fetch it with: ollama pull {rest}. {PATH_WORKS}.")

    def _entry(self, folder: Path, file: Path, address: tuple[str, ...]) -> ModelFile:
        host, owner, model, tag = address
        # Ollama shows neither its own registry nor the owner of its own models
        owners = [owner] if host in self.HOSTS else [host, owner]
        if owners == ["library"]:
            owners = []
        short = "/".join([*owners, model])
        name = f"{self.prefix}:{short}:{tag}"
        try:
            layers = self._layers(file)
            blob = folder / "blobs" / f"sha256-{self._digest(layers)}"
            unused = self._unused(layers)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            return ModelFile(name, file, f"its manifest {file} cannot be used: {error}")
        wrong = ""
        if not blob.is_file():
            wrong = f"its weights are gone: {blob}; do: ollama pull {short}:{tag}"
        return ModelFile(name, blob, wrong, unused)

    def _layers(self, manifest: Path) -> list[tuple[str, str]]:
        """Return the type and the digest of each layer.

        Raises ValueError and others for a file that is not a manifest.
        """
        layers: list[dict[str, Any]] = read_object(manifest, self.MAX_MANIFEST_BYTES)["layers"]
        return [(str(layer["mediaType"]), str(layer["digest"])) for layer in layers]

    def _digest(self, layers: Sequence[tuple[str, str]]) -> str:
        """Return the hash of the weights that a manifest names."""
        digests = [digest for kind, digest in layers if kind == self.MODEL]
        if not digests:
            raise ValueError("it names no GGUF file")
        if len(digests) > 1:
            raise ValueError(
                f"it names {len(digests)} files of weights, of which selfloop can use one alone"
            )
        digest = self.DIGEST.fullmatch(digests[0])
        if not digest:
            raise ValueError(f"{digests[0]!r:.90} is no hash")
        return digest[1]

    def _unused(self, layers: Sequence[tuple[str, str]]) -> str:
        """Return which layers are left out.

        Raises ValueError for a layer that would make another model of the weights.
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


class Studio(ModelStore):
    """LM Studio: plain files, as `publisher/model/file.gguf`."""

    prefix = "lmstudio"
    title = "LM Studio"
    HOME_POINTER = "~/.lmstudio-home-pointer"  # a file with the path of its folder
    SETTINGS = "settings.json"
    MAX_SETTINGS_BYTES = 1 << 20

    def folders(self) -> list[Path]:
        """Return the folders of models of this user's LM Studio.

        The one that the user chose comes first, then those of newer and older versions.
        """
        homes = [Path("~/.lmstudio").expanduser(), Path("~/.cache/lm-studio").expanduser()]
        with suppress(OSError):
            pointer = Path(self.HOME_POINTER).expanduser().read_text("utf-8", "replace").strip()
            if pointer:
                homes.insert(0, Path(pointer).expanduser())
        chosen = [self._downloads(home / self.SETTINGS) for home in homes]
        by_default = [home / "models" for home in homes]
        return list(dict.fromkeys([*filter(None, chosen), *by_default]))

    def _downloads(self, settings: Path) -> Path | None:
        """Return the folder that the settings name, if they name one."""
        try:
            name = read_object(settings, self.MAX_SETTINGS_BYTES).get("downloadsFolder")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("the settings of LM Studio, %s, cannot be read: %s", settings, error)
            return None
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            return None
        folder = Path(name).expanduser()
        return folder if folder.is_absolute() else settings.parent / folder

    def models_in(self, folder: Path) -> Iterator[ModelFile]:
        """Yield `lmstudio:publisher/model/file.gguf` for each file."""
        for file in ggufs(folder):
            yield ModelFile(f"{self.prefix}:{file.relative_to(folder).as_posix()}", file)

    def models(self) -> dict[str, ModelFile]:
        """Return all models; a file that has several names has the first one."""
        by_file: dict[object, tuple[str, ModelFile]] = {}
        for name, model in super().models().items():
            by_file.setdefault(file_identity(model.path), (name, model))
        return dict(by_file.values())

    def matching_names(self, rest: str, names: Sequence[str]) -> list[str]:
        """Return the name itself, or the names that `rest` is a part of.

        The part of a model that sees lies beside it, and counts only where nothing else matches.
        """
        exact = super().matching_names(rest, names)
        if exact:
            return exact
        near = [name for name in names if rest and rest.lower() in name.lower()]
        language_models = [name for name in near if PROJECTOR not in name.lower()]
        return language_models or near


STORES: tuple[ModelStore, ...] = (Hub(), Ollama(), Studio())
LOCATORS: Mapping[str, Locator] = {store.prefix: store for store in STORES}


def ggufs(folder: Path, *, all_names: bool = False) -> list[Path]:
    """Return the .gguf files below a folder; of a model that is split the first part alone.

    A file that has several names (links) is returned once, by the first, unless `all_names`.
    """
    files = sorted(file for file in _files(folder) if file.suffix.lower() == ".gguf")
    first_parts = [file for file in files if not LATER_PART.search(file.name.lower())]
    if all_names:
        return first_parts
    by_file: dict[object, Path] = {}
    for file in first_parts:
        by_file.setdefault(file_identity(file), file)
    return list(by_file.values())


def file_identity(path: Path) -> object:
    """Return a key that is the same for all names of a file; its own name if it leads nowhere."""
    try:
        stat = path.stat()
    except OSError:
        return path
    return stat.st_dev, stat.st_ino


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, through links too: people keep models on other disks.

    A link may lead back into the tree, so each folder is entered once.
    """
    entered: set[object] = set()
    refused: list[str] = []
    count = 0
    for place, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: refused.append(error.filename)
    ):
        here = Path(place)
        entered.add(file_identity(here))
        # os.walk goes on into the folders that remain in this list
        folders.sort()
        folders[:] = [name for name in folders if _is_new(here / name, entered)]
        if len(here.relative_to(folder).parts) >= MAX_DEPTH:
            folders.clear()
        for name in names:
            yield here / name
        count += len(names) + len(folders)
        if count > MAX_ENTRIES:
            _log.warning(
                "%s has more than %d files: the rest is not looked through. Name a folder in it",
                folder,
                MAX_ENTRIES,
            )
            break
    if refused:
        more = f", and {len(refused) - 1} others" if len(refused) > 1 else ""
        _log.warning("%s may not be looked into%s", refused[0], more)


def _is_new(folder: Path, entered: set[object]) -> bool:
    """Return whether a folder was not entered before; from now on it counts as entered."""
    identity = file_identity(folder)
    is_new = identity not in entered
    entered.add(identity)
    return is_new


def is_readable(folder: Path) -> bool:
    """Return whether a folder is there and may be looked into."""
    with suppress(OSError):
        return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    return False


def with_absence(folder: Path) -> str:
    """Return a folder's path, and that it is not there if it is not."""
    return f"{folder}{'' if is_readable(folder) else ' (not there)'}"


def _first_names(names: Sequence[str]) -> str:
    surplus = len(names) - MAX_NAMES
    more = f" and {surplus} more (see: selfloop models)" if surplus > 0 else ""
    return ", ".join(names[:MAX_NAMES]) + more
