"""How much memory a model takes, loaded and in training: said before it is tried, with the numbers.

For the backward pass a LoRA keeps, for each token, the inputs of its layers in float32, and about
as much of their outputs; so the widths of the layers tell most of the memory. docs/hf.md has the
error of this estimate.
"""

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from selfloop import system
from selfloop.errors import ModelError
from selfloop.text.units import size

SHARE = 0.9  # of the free memory
BESIDE = 0.3e9  # bytes: the tokenizer, and short prompts
# bytes for each input and output of a layer and token: four, and the losses of the allocator
KEPT = 6.0
# times an adapter: its gradients, Adam's two moments, the best so far, and a copy that is being
# saved
ADAPTER = 6
# times the logits: as they come, in float32, the base's, the terms of both, and the gradients
LOGITS = 8


def loading(config: Any, dtype: torch.dtype, *, trust_remote_code: bool = False) -> float:
    """Return the bytes of a loaded model, by its configuration.

    0 for packed weights: a configuration does not tell how large they are.
    """
    if getattr(config, "quantization_config", None):
        return 0.0
    make: Any = AutoModelForCausalLM.from_config  # it has no types
    with torch.device("meta"):  # shapes, and no numbers
        model = make(config, dtype=dtype, trust_remote_code=trust_remote_code)
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return float(weights) + BESIDE


def training(model: Any, *, share: float, rank: int, tokens: int, learnt: int) -> float:
    """Return the bytes that training a LoRA takes beside the loaded model.

    It is on all linear layers of the upper `share` of the model's layers; those below keep nothing.
    `tokens` are those of the largest batch, padding among them; `learnt` is how many of them have
    logits at a time.
    """
    head = model.get_output_embeddings()
    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    layers = [layer for layer in linear if layer is not head]
    width = share * sum(layer.in_features + layer.out_features for layer in layers)
    return KEPT * width * tokens + 4.0 * (
        ADAPTER * rank * width + LOGITS * learnt * len(head.weight)
    )


def refuse(need: float, what: str, device: torch.device, advice: str) -> None:
    """Raise ModelError if `what`, of `need` bytes, does not fit the device's free memory.

    The message has both numbers and the `advice`.
    """
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else system.free_memory()
    if need > SHARE * free:
        raise ModelError(
            f"{what} takes about {size(need)}, and {size(free)} are free on the "
            f"{device.type}. {advice}"
        )
