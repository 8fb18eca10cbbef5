"""Merging an adapter into the weights, W + scale * B A: into the GGUF file that the model came in,
or into a folder of transformers."""

import ctypes
import errno
import logging
import os
import shutil
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selfloop_plugins.backends.llama_cpp.requantise import requantise_file

from selfloop import progress
from selfloop.errors import MissingExtraError, ModelError
from selfloop.records import Adapter
from selfloop.storage.pinned import verify_model

Array = NDArray[np.float32]
FTYPES: Mapping[str, int] = {  # llama.cpp's numbers of formats
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18,
    "bf16": 32,
}  # fmt: skip
# beginnings of formats of four bits and less, which lose part of an adapter: docs/tuning.md
COARSE_FORMATS = ("q2", "q3", "q4", "iq", "tq")

_log = logging.getLogger("selfloop.export")


def merge_gguf(base: Path, adapter: Adapter, out: Path, kind: str | None = None) -> frozenset[str]:
    """Write `base` with the adapter in its weights; return the types of those weights.

    Each tensor keeps its type, and all else its bytes.

    Tensors outside the adapter are copied. The others are unpacked, added to and packed again by
    llama.cpp's own function, which rounds: with four bits a weight, small changes are partly lost.
    With a `kind` all weights are packed in that, after the adapter was added to them in float32.
    Raises ModelError for an adapter of another model, and for a type that can only be written with
    data about its use (IQ1 to IQ2); OSError for a full disk.
    """
    if kind is None:
        size = base.stat().st_size
        with progress.task(f"copying {base.name}", size, progress.BYTES, progress.size_of(out)):
            shutil.copyfile(base, out)
        kinds = frozenset(kind.lower() for kind in _add_adapter(adapter, out, base.name))
        _warn_if_coarse(kinds)
        return kinds
    _warn_if_coarse({kind})
    # a packed weight cannot take a small change, so the adapter is added in float32 first
    wide = out.with_name(f"{out.name}.f32")
    try:
        requantise(base, wide, "f32")
        _add_adapter(adapter, wide, base.name)
        requantise(wide, out, kind)
    finally:
        wide.unlink(missing_ok=True)
    return frozenset({kind})


def _warn_if_coarse(kinds: Set[str]) -> None:
    coarse = sorted(kind for kind in kinds if is_coarse(kind))
    if coarse:
        _log.warning(
            "packing weights in %s rounds away part of the tuning; --type q8_0 or bf16 keeps more",
            ", ".join(coarse),
        )


def is_coarse(kind: str) -> bool:
    """Return whether a format has four bits or less."""
    return kind.lower().startswith(COARSE_FORMATS)


def adapted_types(base: Path, adapter: Adapter) -> frozenset[str]:
    """Return the formats of the weights of `base` that the adapter changes, as "q4_k"."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", "Reading an adapter") from error
    matrices, _ = _lora_matrices(Path(adapter.path))
    tensors = gguf.GGUFReader(base).tensors
    return frozenset(
        tensor.tensor_type.name.lower() for tensor in tensors if tensor.name in matrices
    )


def _add_adapter(adapter: Adapter, model: Path, name: str) -> set[str]:
    """Add the adapter to the weights in the file `model`; return their types.

    Messages call the file `name`.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", "Merging an adapter") from error
    matrices, alpha = _lora_matrices(Path(adapter.path))
    kinds = set[str]()
    file = gguf.GGUFReader(model, "r+")  # mapped: a change of its arrays changes the file
    for tensor in progress.counted(
        "adding the adapter", file.tensors, "tensors", len(file.tensors)
    ):
        pair = matrices.pop(tensor.name, None)
        if pair is None:
            continue
        # W is (out, in); A is (rank, in) and B is (out, rank)
        down, up = pair["lora_a"], pair["lora_b"]
        weights = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        if weights.shape != (up.shape[0], down.shape[1]):
            raise ModelError(
                f"{adapter.path} is an adapter of another model: its {tensor.name} is "
                f"{up.shape[0]} x {down.shape[1]}, "
                f"that of {name} {' x '.join(map(str, weights.shape))}. Put the run's own adapter "
                "back"
            )
        # llama.cpp scales by alpha / rank, and so does peft
        merged = weights + np.float32(adapter.scale * alpha / len(down)) * (up @ down)
        tensor.data.reshape(-1).view(np.uint8)[:] = packed(merged, int(tensor.tensor_type))
        kinds.add(tensor.tensor_type.name)
    if matrices:
        raise ModelError(
            f"{adapter.path} is an adapter of another model: {name} has no {min(matrices)}. Put "
            "back the run's"
        )
    file.data.flush()
    return kinds


def _lora_matrices(path: Path) -> tuple[dict[str, dict[str, Array]], float]:
    """Return the matrices `lora_a` and `lora_b` by the name of the tensor that they change, and
    alpha, which is divided by the rank."""
    import gguf

    try:
        file = gguf.GGUFReader(path)
        alpha = float(file.fields["adapter.lora.alpha"].contents())
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is no LoRA adapter in GGUF: {error}. Put the run's own back"
        ) from error
    matrices: dict[str, dict[str, Array]] = {}
    for tensor in file.tensors:
        name, _, side = tensor.name.rpartition(".")  # "blk.0.attn_q.weight.lora_a"
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        matrices.setdefault(name, {})[side] = values
    return matrices, alpha


def packed(weights: Array, kind: int) -> NDArray[np.uint8]:
    """Return weights, (rows, columns), as the bytes of one of ggml's types.

    Raises MissingExtraError without llama.cpp, ModelError for a type that needs an importance
    matrix.
    """
    try:
        from llama_cpp._ctypes_extensions import load_shared_library
        from llama_cpp._ggml import libggml_base_path
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            str(error.name), "llamacpp", "Merging an adapter into a GGUF file"
        ) from error
    ggml = load_shared_library("ggml-base", libggml_base_path)
    ggml.ggml_row_size.restype = ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    rows, columns = weights.shape
    if ggml.ggml_quantize_requires_imatrix(kind):
        raise ModelError(
            "the base has weights of a type that cannot be made of weights alone; give another "
            "--type"
        )
    source = np.ascontiguousarray(weights, np.float32)
    target = np.empty(rows * ggml.ggml_row_size(kind, ctypes.c_int64(columns)), np.uint8)
    # ggml_quantize_chunk(type, source, target, first weight, rows, columns, importance matrix)
    ggml.ggml_quantize_chunk(
        kind,
        source.ctypes.data_as(ctypes.c_void_p),
        target.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(rows),
        ctypes.c_int64(columns),
        None,
    )
    return target


def requantise(source: Path, target: Path, kind: str) -> None:
    """Write a GGUF file in another format, by llama.cpp's own function in a process of its own.

    Raises ModelError where llama.cpp refuses, OSError where the disk fails.
    """
    expected_bytes = _count_weights(source) * _bytes_per_weight(kind)
    with progress.task(f"packing in {kind}"):
        threads = os.cpu_count() or 1
        fault = requantise_file(source, target, FTYPES[kind], threads, expected_bytes)
    if fault:
        if "iostream" in fault:  # all that C++ says of a write that failed
            raise OSError(
                errno.EIO, f"llama.cpp could not write all of the {kind} file; the disk may be full"
            )
        raise ModelError(
            f"llama.cpp cannot write {source.name} in {kind}: {fault}. Give another --type"
        )


def _count_weights(file: Path) -> int:
    """Return how many weights a GGUF file has; 0 for one that cannot be read, which llama.cpp
    then reports."""
    import gguf

    try:
        return sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(file).tensors)
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def _bytes_per_weight(kind: str) -> float:
    """Return about how many bytes a weight takes in a format; a mix of formats counts as the one
    that it is named after."""
    import gguf

    weights, size = gguf.GGML_QUANT_SIZES[
        gguf.GGMLQuantizationType[kind.removesuffix("_m").upper()]
    ]
    return float(size / weights)


def merge_hf(model: Mapping[str, Any], adapter: Adapter, out: Path) -> None:
    """Write the model of a run with the adapter in its weights, as a folder of transformers, in its
    own dtype.

    `model` is the pinned model of the run: `file` (a GGUF file, a folder, a name on the hub) and
    `sha256`.
    """
    try:
        from peft.tuners.lora import LoraLayer
        from selfloop_plugins._torch.backend import Transformers
        from selfloop_plugins._torch.checkpoint import locate, quiet, saving, writing
        from selfloop_plugins._torch.options import HfOptions
        from transformers import AutoConfig, AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", "Merging an adapter") from error
    place = locate(str(model["file"])).place
    with quiet():
        dtype = AutoConfig.from_pretrained(place, trust_remote_code=False).dtype
    dtype_name: Any = str(dtype or "float32").removeprefix("torch.")
    backend = Transformers(HfOptions(model=str(model["file"]), device="cpu", dtype=dtype_name))
    verify_model(model, backend.describe().sha256)
    backend.load_adapter(adapter)  # which refuses the adapter of another model
    merged = backend.loaded.model
    for layer in list(merged.modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
    backend.load_adapter(None)  # takes the adapter's layers off; the merged weights stay
    tokenizer: Any = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    with quiet(), saving(), writing(merged, out):
        merged.save_pretrained(out)
        tokenizer.save_pretrained(out)
    backend.close()
