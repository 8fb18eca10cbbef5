"""An adapter into the weights: W + scale · B A, in the file that the model came in or as a folder of transformers."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfloop.errors import MissingExtra, ModelError
from selfloop.records import Adapter

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = NDArray[np.float32]
FTYPES: "Mapping[str, int]" = {  # llama.cpp's numbers of formats
    "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "bf16": 32,
}  # fmt: skip


def merge_gguf(base: Path, adapter: Adapter, out: Path) -> None:
    """Write `base` with the adapter in its weights. Each tensor keeps its type, and all else its bytes.

    What the adapter does not touch is copied; the rest is unpacked, added to and packed again by llama.cpp's own
    function, which rounds: with four bits a weight, small changes are partly lost. Raises ModelError for an adapter of
    another model, and for a type that can only be written with data about its use (IQ1 to IQ2).
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tune", "Merging an adapter") from error
    halves, alpha = _halves(Path(adapter.path))
    shutil.copyfile(base, out)
    file = gguf.GGUFReader(out, "r+")
    for tensor in file.tensors:
        if (pair := halves.pop(tensor.name, None)) is None:
            continue
        down, up = pair["lora_a"], pair["lora_b"]
        weights = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        if weights.shape != (up.shape[0], down.shape[1]):
            raise ModelError(
                f"{adapter.path} is an adapter of another model: its {tensor.name} is {up.shape[0]} x {down.shape[1]}, "
                f"that of {base.name} {' x '.join(map(str, weights.shape))}"
            )
        merged = weights + np.float32(adapter.scale * alpha / len(down)) * (up @ down)
        tensor.data.reshape(-1).view(np.uint8)[:] = packed(merged, int(tensor.tensor_type))
    if halves:
        raise ModelError(f"{adapter.path} is an adapter of another model: {base.name} has no {min(halves)}")
    file.data.flush()


def _halves(path: Path) -> tuple[dict[str, dict[str, Array]], float]:
    """Return both halves of each tensor's adapter by the tensor's name, and what is divided by the rank."""
    import gguf

    try:
        file = gguf.GGUFReader(path)
        alpha = float(file.fields["adapter.lora.alpha"].contents())
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is no LoRA adapter in GGUF: {error}") from error
    found: dict[str, dict[str, Array]] = {}
    for tensor in file.tensors:
        name, _, side = tensor.name.rpartition(".")
        found.setdefault(name, {})[side] = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    return found, alpha


def packed(weights: Array, kind: int) -> NDArray[np.uint8]:
    """Return weights, (rows, columns), in one of ggml's types."""
    from llama_cpp._ctypes_extensions import load_shared_library
    from llama_cpp._ggml import libggml_base_path

    ggml = load_shared_library("ggml-base", libggml_base_path)
    ggml.ggml_row_size.restype = ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    rows, columns = weights.shape
    if ggml.ggml_quantize_requires_imatrix(kind):
        raise ModelError("the base has weights of a type that cannot be made of weights alone; give another --type")
    source = np.ascontiguousarray(weights, np.float32)
    target = np.empty(rows * ggml.ggml_row_size(kind, ctypes.c_int64(columns)), np.uint8)
    whole = ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(columns)
    here, there = (each.ctypes.data_as(ctypes.c_void_p) for each in (source, target))
    ggml.ggml_quantize_chunk(kind, here, there, *whole, None)
    return target


def requantise(source: Path, target: Path, kind: str) -> None:
    """Write a GGUF file in another format, by llama.cpp's own function in a process of its own."""
    command = ["selfloop_plugins.llama_cpp.requantise", source, target, FTYPES[kind], os.cpu_count() or 1]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
        raise ModelError(f"llama.cpp cannot write {source.name} in {kind}: {said[-1]}")


def merge_hf(base: str, adapter: Adapter, out: Path) -> None:
    """Write the model in folder `base` with the adapter in its weights, as safetensors with its tokenizer."""
    try:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tune", "Merging an adapter") from error
    from ..hf.checkpoint import quiet

    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True)
        wrapped: Any = PeftModel.from_pretrained(model, str(Path(adapter.path).parent))
        for layer in wrapped.modules():
            if hasattr(layer, "scale_layer"):
                layer.scale_layer(adapter.scale)
        wrapped.merge_and_unload().save_pretrained(out)
        AutoTokenizer.from_pretrained(base).save_pretrained(out)
