"""An adapter as peft saves it -> the GGUF file of the same adapter, for llama.cpp.

Its tensors have llama.cpp's names, `blk.N.<name>.weight.lora_a` and `.lora_b`. For the architecture
`llama` its converter keeps the rows of each attention head's queries and keys in another order than
transformers does: RoPE rotates pairs of rows, which llama.cpp keeps side by side and transformers
half a head apart. So the rows of their `lora_b` are permuted in the same way.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfloop.errors import MissingExtraError, ModelError
from selfloop.storage import atomic

CONFIG, WEIGHTS, GGUF = "adapter_config.json", "adapter_model.safetensors", "adapter.gguf"

# transformers' name of an architecture -> llama.cpp's
ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
}
PERMUTED = ("q_proj", "k_proj")  # of the architecture llama

Array = NDArray[np.float32]


def refuse_unknown_architecture(config: Any) -> None:
    """Raise ModelError for a model whose adapters have no names in llama.cpp, or in this file."""
    kind = config.get_text_config().model_type
    if kind not in ARCHITECTURES:
        supported = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(
            f"an adapter of a model of the type {kind} cannot be written as GGUF; those of "
            f"{supported} can"
        )


def write_gguf(folder: Path, config: Any) -> Path:
    """Write `adapter.gguf` beside the adapter in `folder`, whole or not at all; return its path.

    `config` is that of the base model. Raises ModelError for an architecture that is not in
    `ARCHITECTURES`, and for features that a GGUF adapter cannot hold: DoRA, a bias, whole layers,
    ranks that differ. Raises OSError for a full disk.
    """
    try:
        import gguf
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", "Writing an adapter as GGUF") from error
    refuse_unknown_architecture(config)
    text = config.get_text_config()
    adapter_config = json.loads((folder / CONFIG).read_text("utf-8"))
    _refuse_inexpressible(adapter_config)
    architecture = ARCHITECTURES[text.model_type]
    path = folder / GGUF
    with atomic.replacing(path) as part:
        writer = gguf.GGUFWriter(part, architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", _alpha(adapter_config))
        for name, weights in _tensors(load_file(folder / WEIGHTS), text, architecture):
            writer.add_tensor(name, weights)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def _alpha(adapter_config: Mapping[str, Any]) -> float:
    """Return the alpha with which llama.cpp's scale, alpha / rank, is peft's."""
    rank, alpha = int(adapter_config["r"]), float(adapter_config["lora_alpha"])
    # rsLoRA (arXiv:2312.03732) scales by alpha / sqrt(rank)
    return alpha * rank**0.5 if adapter_config.get("use_rslora") else alpha


def _refuse_inexpressible(adapter_config: Mapping[str, Any]) -> None:
    """Raise ModelError for an adapter that is more than two matrices a layer, or of two ranks."""
    keys = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
    extras = [key for key in keys if adapter_config.get(key)]
    if adapter_config.get("bias", "none") != "none":
        extras.append("bias")
    if adapter_config.get("peft_type") != "LORA" or extras:
        why = ", ".join(extras) or str(adapter_config.get("peft_type"))
        raise ModelError(
            f"this adapter has {why}, which a GGUF adapter cannot hold; a plain LoRA can be written"
        )


def _tensors(
    weights: Mapping[str, Array], config: Any, architecture: str
) -> Iterator[tuple[str, Array]]:
    """Yield llama.cpp's name and the weights of each half of each layer's adapter."""
    import gguf

    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for key, values in sorted(weights.items()):
        # such as base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
        path = key.removeprefix("base_model.model.").removesuffix(".weight")
        layer, _, side = path.rpartition(".")
        name = names.get_name(f"{layer}.weight", try_suffixes=(".weight",))
        if name is None or side not in ("lora_A", "lora_B"):
            raise ModelError(
                f"llama.cpp has no name for {key} of an adapter of {architecture}. Use it with hf"
            )
        values = np.ascontiguousarray(values, np.float32)
        if architecture == "llama" and side == "lora_B" and layer.endswith(PERMUTED):
            values = permute_rope(values, _heads(config, layer))
        yield f"{name}.{side.lower()}", values


def _heads(config: Any, layer: str) -> int:
    """Return how many heads a layer of queries or keys has."""
    key_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(config.num_attention_heads if layer.endswith("q_proj") else key_heads)


def permute_rope(rows: Array, heads: int) -> Array:
    """Return the rows in llama.cpp's order: of each head the two halves interleaved."""
    half = rows.shape[0] // heads // 2
    # (heads, 2 halves, rows of a half, rank) -> (heads, rows of a half, 2 halves, rank)
    interleaved = rows.reshape(heads, 2, half, -1).swapaxes(1, 2)
    return np.ascontiguousarray(interleaved.reshape(rows.shape))
