"""The model's last hidden states at chosen positions, from which logits are computed.

The output layer of a model with 262,144 tokens is most of the work. So it is applied only to the
positions that matter, and the tokens that all texts of a batch begin with, such as few-shot
examples, are read once for all of them; gradients flow back through both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from selfloop_plugins._torch.model import cache_argument, head, trunk

from .tokenized import MIN_SHARED_TOKENS, shared_prefix_length


def base_model(model: Any) -> Any:
    """Return the model that peft wrapped, with the adapter's layers in it, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logits_of(model: Any, states: torch.Tensor) -> torch.Tensor:
    """Return the logits of hidden states: (positions, width) to (positions, vocabulary)."""
    return head(base_model(model))(states)


@contextmanager
def _computing_in_its_type(model: Any) -> Iterator[None]:
    """Compute a bfloat16 model's adapter in bfloat16 too, though its weights are float32.

    So small steps of the optimizer are not rounded away, and no layer casts all that it reads to
    float32 and back: that took longer than the model itself.
    """
    if model.dtype != torch.bfloat16:
        yield
        return
    with torch.autocast(model.device.type, torch.bfloat16), disable_input_dtype_casting(model):
        yield


def last_hidden_states(
    model: Any, texts: Sequence[tuple[int, ...]], positions: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the last hidden states at some positions of each text: (positions of all texts,
    width), text by text."""
    # a position inside the prefix must be read with its text, so the prefix ends before it
    outputs, shared = _read(model, texts, min(min(wanted) for wanted in positions))
    states: torch.Tensor = outputs.last_hidden_state  # (texts, longest - shared, width)
    rows, columns = [], []
    for row, wanted in enumerate(positions):
        for position in wanted:
            rows.append(row)
            columns.append(position - shared)
    return states[rows, columns]


def hidden_states(model: Any, texts: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Return the hidden states at the last token of each text, (texts, width), of each layer."""
    outputs, shared = _read(model, texts, min(map(len, texts)) - 1, output_hidden_states=True)
    rows = torch.arange(len(texts))
    last = torch.tensor([len(text) - 1 - shared for text in texts])
    return [layer[rows, last] for layer in outputs.hidden_states]


def _read(
    model: Any, texts: Sequence[tuple[int, ...]], longest_prefix: int, **options: Any
) -> tuple[Any, int]:
    """Return the model's outputs behind the tokens that all texts begin with, and how many these
    are: at most `longest_prefix`, and none where they are too few."""
    base = base_model(model)
    shared = min(shared_prefix_length(texts), longest_prefix)
    if len(texts) < 2 or shared < MIN_SHARED_TOKENS:
        shared = 0
    cache: dict[str, Any] = {"use_cache": False}
    with _computing_in_its_type(model):
        if shared:
            prefix = torch.tensor([list(texts[0][:shared])], device=model.device)
            name = cache_argument(base)
            prefix_cache = trunk(base)(input_ids=prefix, use_cache=True)[name]
            # one row of the cache for each text
            prefix_cache.batch_repeat_interleave(len(texts))
            cache = {"use_cache": True, name: prefix_cache}
        outputs = trunk(base)(**_padded(texts, shared, model.device), **cache, **options)
    return outputs, shared


def _padded(texts: Sequence[tuple[int, ...]], start: int, device: Any) -> dict[str, torch.Tensor]:
    """Return the tokens of the texts from `start` on, padded to the longest, and the mask: 1 for a
    token, 0 for padding; also over the tokens before `start`."""
    longest = max(map(len, texts))
    tokens, mask = [], []
    for text in texts:
        padding = [0] * (longest - len(text))
        tokens.append([*text[start:], *padding])
        mask.append([1] * len(text) + padding)
    return {
        "input_ids": torch.tensor(tokens, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
