"""A model's name in a recipe -> a folder that transformers loads. A GGUF file is converted once:

    <cache>/converted/<sha256 of the file>-<transformers>/    config, tokenizer, weights in bfloat16
    as safetensors

The folder appears whole or not at all.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from operator import length_hint
from pathlib import Path
from typing import Any

from selfloop_plugins import models

from selfloop import progress
from selfloop.errors import MissingExtraError, ModelError
from selfloop.storage import atomic
from selfloop.storage.plain_json import read_object

ADAPTER = "adapter_config.json"
INDEX = "model.safetensors.index.json"
SETTINGS_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    INDEX,
)

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_log = logging.getLogger("selfloop.models")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder, or a name on the hub; and the GGUF file that it was converted from."""

    place: str
    gguf: Path | None = None

    def model_hash(self) -> str:
        """Return the hash of the GGUF file; of a folder, that of its files' names and hashes.

        Only the files that transformers may load count.
        """
        if self.gguf:
            return models.sha256(self.gguf)
        suffixes = (".safetensors", ".json", ".jinja", ".model", ".py")
        files = sorted(path for path in Path(self.place).iterdir() if path.suffix in suffixes)
        lines = [f"{path.name} {models.sha256(path)}" for path in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check(model: str) -> None:
    """Raise ModelError for a mistake that shows before anything is fetched or converted."""
    path = Path(model).expanduser()
    if path.is_dir():
        _refuse_folder(path)
    elif not _on_hub(model):
        models.check(model)


def locate(model: str) -> Checkpoint:
    """Return where a model is, after converting it if it is a GGUF file that was not converted yet.

    Raises ModelError for a place without a model, and for a file that transformers cannot convert.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        _refuse_folder(path)
        return Checkpoint(str(path))
    if _on_hub(model):
        return Checkpoint(model)
    shipped = models.locate(model)
    return Checkpoint(str(converted(shipped)), shipped)


def _on_hub(model: str) -> bool:
    return (
        model not in models.KNOWN_MODELS
        and not Path(model).expanduser().exists()
        and bool(_HUB.fullmatch(model))
    )


def _refuse_folder(folder: Path) -> None:
    """Raise ModelError for a folder that is no model, or holds more than a model."""
    # transformers would load the model that it names, and the adapter
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{folder} has an {ADAPTER}: an adapter is not applied here. Merge it into its model "
            "(merge_and_unload of peft) and name that folder, or move the adapter's files away"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json: it is no model of transformers. Name a folder that has "
            "one"
        )
    for name in SETTINGS_FILES:
        _read_settings(folder / name)
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has no .safetensors file. Other weights may hold programs (pickle) and are "
            "not loaded: "
            "save the model with save_pretrained"
        )
    # the index maps each tensor to its file
    weight_map = _read_settings(folder / INDEX).get("weight_map", {})
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {missing[0]} ({len(missing)} of {len(names)} files). Fetch all of them"
        )


def _read_settings(path: Path) -> dict[str, Any]:
    """Return one of a model's JSON files, empty if it is not there.

    Raises ModelError for a damaged one.
    """
    if not path.exists():
        return {}
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read: {reason}. Fetch it again") from error


def converted(shipped: Path) -> Path:
    """Return the folder with a GGUF file's model, made now if it is not there yet."""
    # another version of transformers may convert it in another way
    name = f"{models.sha256(shipped)[:16]}-{version('transformers')}"
    folder = models.cache_folder() / "converted" / name
    if folder.is_dir():
        return folder
    with models.exclusive("the converted model", folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():  # another process may have converted it meanwhile
            _convert(shipped, folder)
    return folder


def _convert(shipped: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if len(models.files_of(shipped)) > 1:
        raise ModelError(
            f"{shipped} is one of several files, of which transformers would read this one alone; "
            "merge them with "
            "llama-gguf-split --merge, or name a folder or a hub name of the same model"
        )
    _log.info("converting %s for transformers, once", shipped.name)
    with (
        atomic.replacing_folder(folder) as part,
        quiet(),
        progress.task(f"converting {shipped.name} for transformers") as task,
    ):
        try:
            where: dict[str, Any] = {"gguf_file": shipped.name, "local_files_only": True}
            tokenizer = AutoTokenizer.from_pretrained(str(shipped.parent), **where)
            with _counting_tensors(task):
                model = AutoModelForCausalLM.from_pretrained(
                    str(shipped.parent), dtype=torch.bfloat16, **where
                )
        except ImportError as error:
            raise MissingExtraError("gguf", "tune", f"Converting {shipped.name}") from error
        except Exception as error:
            # it raises KeyError, ValueError and more for models that it does not know
            raise ModelError(
                f"transformers {version('transformers')} cannot convert {shipped}: "
                f"{_first_line(error)}. "
                "Name a folder or a hub name of the same model instead"
            ) from error
        _unquantised(model)
        with saving(), writing(model, part):
            model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def _unquantised(model: Any) -> None:
    """Take off the marks of packed weights.

    The weights are plain numbers by now, and transformers would refuse to save them as packed ones.
    """
    for name in ("hf_quantizer", "quantization_method"):
        with suppress(AttributeError):
            delattr(model, name)
    model.is_quantized = False
    with suppress(AttributeError):
        del model.config.quantization_config


@contextmanager
def saving() -> Iterator[None]:
    """Let safetensors raise an OSError for a full disk, as everything else does."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


@contextmanager
def _counting_tensors(task: progress.Task) -> Iterator[None]:
    """Let `task` count the tensors that transformers unpacks.

    Transformers itself shows them in a bar of tqdm, which `quiet` hides.
    """
    from transformers import modeling_gguf_pytorch_utils

    def bar(tensors: Iterable[Any], **options: Any) -> Iterator[Any]:
        total = length_hint(tensors)
        for number, tensor in enumerate(tensors, start=1):
            yield tensor
            task.count(number, total, "tensors")

    module: Any = modeling_gguf_pytorch_utils
    original = module.tqdm
    module.tqdm = bar
    try:
        yield
    finally:
        module.tqdm = original


def writing(model: Any, folder: Path) -> AbstractContextManager[progress.Task]:
    """Return a task of writing a model's weights into a folder."""
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return progress.task(
        f"writing {folder.name}", weights, progress.BYTES, progress.size_of(folder)
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers show neither bars nor warnings meanwhile.

    Some of its bars cannot be switched off, so standard error is discarded too.
    """
    from transformers.utils import logging

    hf_logging: Any = logging  # it has no types
    level, has_bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        hf_logging.set_verbosity(level)
        if has_bars:
            hf_logging.enable_progress_bar()
