"""`Transformers`: the model and the engine as one `selfloop.protocols.Backend`."""

import json
import math
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from selfloop_plugins._decoding.backend import Array, DecodingBackend
from selfloop_plugins._decoding.prompting import split
from selfloop_plugins._decoding.tasks import Job, Result

from selfloop import progress
from selfloop.errors import MissingExtraError, ModelError, RequestError
from selfloop.records import Adapter, Continuation, ModelInfo

from . import GIVES
from .adapter import CONFIG, WEIGHTS
from .checkpoint import locate, quiet
from .engine import Engine, attentions
from .model import Loaded, refuse_unknown_head
from .options import HfOptions

ADAPTER_NAME = "selfloop"  # by which peft knows the adapter
CPU_ROWS, GPU_ROWS = 16, 64  # of a batch


class Transformers(DecodingBackend):
    """A model of transformers whose completions depend on their request alone; see `engine`.

    Another `batch`, device or dtype may give other bits.
    """

    def __init__(self, options: HfOptions) -> None:
        """Load a model, converting a GGUF file first."""
        if options.threads:
            torch.set_num_threads(options.threads)
        self._loaded: Loaded | None = Loaded(
            locate(options.model),
            device=options.device,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
        )
        refuse_unknown_head(self._loaded.model)
        super().__init__(self._loaded.vocabulary)
        self._batch = options.batch or (
            GPU_ROWS if self._loaded.device.type == "cuda" else CPU_ROWS
        )
        self._engine = Engine(self._loaded.model, self._batch)
        self._info: ModelInfo | None = None
        # by peft, while an adapter is in effect; its layers stand in those of the model
        self._wrapped: Any = None

    @property
    def loaded(self) -> Loaded:
        """Return the model itself, to train it: a change to its layers changes its outputs."""
        return self._open_model()

    def describe(self) -> ModelInfo:
        """Return the configuration's facts, the hash of the files, and the versions that run it."""
        if self._info is None:
            loaded = self._open_model()
            dtype = str(loaded.dtype).removeprefix("torch.")
            about = f"{dtype} on {loaded.device.type}, {self._batch} rows"
            versions = [(name, version(name)) for name in ("transformers", "torch")]
            self._info = ModelInfo(
                name=loaded.vocabulary.name,
                architecture=str(loaded.model.config.model_type),
                parameters=loaded.parameters,
                context=loaded.context,
                chat=bool(loaded.vocabulary.template),
                capabilities=GIVES,
                file=str(loaded.at.gguf or loaded.at.place),
                sha256=loaded.model_hash(),
                versions=(*versions, ("weights", about)),
            )
        return self._info

    def attentions(self, pairs: Sequence[Continuation]) -> list[Array | RequestError]:
        """Return how much each head attends to the token before, (layers, heads, tokens).

        See `selfloop.protocols.Backend`.
        """
        self._start_call()
        results: list[Any] = [RequestError("the text after the prompt is empty")] * len(pairs)
        texts: dict[int, tuple[list[int], int]] = {}
        for i, pair in enumerate(pairs):
            try:
                prompt, tokens = split(self._vocabulary, pair)
                self._refuse_too_long(len(prompt), len(tokens), "the text after it")
            except RequestError as error:
                results[i] = error
            else:
                if tokens:
                    texts[i] = [*prompt, *tokens], len(tokens)
        with progress.task("", len(texts), "texts") as task:
            for i, weights in attentions(self._open_model().model, texts):
                results[i] = weights
                task.advance()
        return results

    def close(self) -> None:
        """Free the model, and end the call under way; calling it again does nothing."""
        self._end_call_under_way()
        if self._loaded:
            self._loaded = None
            del self._engine
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _open_model(self) -> Loaded:
        if self._loaded is None:
            raise ModelError(f"the model {self._vocabulary.name} has been closed")
        return self._loaded

    def _decode(self, jobs: Sequence[Job], layer: int | None) -> Iterator[tuple[int, Result]]:
        return self._engine.run(jobs, layer)

    def _refuse_layer(self, layer: int) -> None:
        last = int(self._open_model().text_config.num_hidden_layers)
        if not -last - 1 <= layer <= last:
            raise RequestError(
                f"layer must be from 0 (the tokens) to {last}, or from -1 down to {-last - 1}, "
                f"not {layer}"
            )

    def _refuse_too_long(self, prompt: int, answer: int, after: str) -> None:
        total, context = prompt + answer, self._open_model().context
        if total > context:
            verb = "lower" if after == "max_tokens" else "shorten"
            raise RequestError(
                f"{prompt} prompt tokens + {answer} that may follow = {total}, but the model "
                f"reads at most {context}: shorten the prompt or {verb} {after}"
            )

    def _apply_adapter(self, adapter: Adapter | None) -> None:
        """Put an adapter into effect, and let go of the one before."""
        model = self._open_model().model
        if self._wrapped is not None:
            self._wrapped.unload()  # puts the model's own layers back in their places
            self._wrapped = None
        if adapter is None:
            return
        if not math.isfinite(adapter.scale):
            raise ModelError(f"an adapter's scale must be a number, not {adapter.scale}")
        folder = _adapter_folder(Path(adapter.path))
        try:
            from peft import PeftConfig, PeftModel
            from peft.tuners.lora import LoraLayer
        except ModuleNotFoundError as error:
            raise MissingExtraError("peft", "tune", "Loading an adapter") from error
        try:
            _refuse_foreign(model, folder)
            with quiet():
                config = PeftConfig.from_pretrained(str(folder))
                self._wrapped = PeftModel(model, config, ADAPTER_NAME)
                self._wrapped.load_adapter(str(folder), ADAPTER_NAME)
        except ModelError:
            raise
        except Exception as error:  # peft and torch have many of their own
            self._apply_adapter(None)
            raise ModelError(
                f"{folder} is no adapter for {self._vocabulary.name}: {error}"
            ) from error
        self._wrapped.eval().requires_grad_(requires_grad=False)
        for layer in self._wrapped.modules():
            if isinstance(layer, LoraLayer) and ADAPTER_NAME in layer.scaling:
                layer.scaling[ADAPTER_NAME] *= adapter.scale


def _adapter_folder(path: Path) -> Path:
    """Return the folder of an adapter as peft saves it: the path, or the one that it lies in."""
    folder = path if path.is_dir() else path.parent
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{path} is no adapter that transformers can load: {folder} has no "
            f"{' and no '.join(missing)}"
        )
    return folder


def _refuse_foreign(model: Any, folder: Path) -> None:
    """Raise ModelError for an adapter of another architecture.

    Peft itself silently skips weights of layers that the model has not.
    """
    from safetensors import safe_open

    kind = json.loads((folder / CONFIG).read_text("utf-8")).get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"{folder} holds an adapter of kind {kind}, not LORA; make one of that kind"
        )
    modules = {name for name, _ in model.named_modules()}
    with safe_open(folder / WEIGHTS, "pt") as file:
        keys = list(file.keys())
    layers = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in keys}
    unknown = sorted(layers - modules - {""})
    if unknown:
        raise ModelError(
            f"{folder} is an adapter of another model: this one has no {unknown[0]}. Name its own "
            "model"
        )
