"""A model in transformers' hands: loading it, its vocabulary, and its output layer by itself."""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# PyTorch's products of BF16 by AMX tiles are less exact: what an adapter changes in the
# log-probabilities then correlates by .94 with what it changes in llama.cpp, else by more than .98.
# oneDNN reads this at its first product.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

import torch
from selfloop_plugins._decoding import chat
from selfloop_plugins._decoding.chat import Piece
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selfloop import progress, system
from selfloop.errors import ModelError

from . import memory
from .checkpoint import Checkpoint, quiet

# Tokens that end a turn or a file, whatever the configuration says: many checkpoints name only one
# of theirs.
_ENDS = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<|eos|>", "</s>", "<eos>", "<EOT>", "<|return|>",
    "<reponame>", "<|repo_name|>", "<|file_sep|>", "<|fim_pad|>",
}  # fmt: skip
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """A tokenizer of transformers.

    `extra_ends` are the tokens that the model's configuration names as ends.
    """

    def __init__(
        self, name: str, tokenizer: Any, size: int, extra_ends: Sequence[int] = ()
    ) -> None:
        self.name, self.vocab_size, self._tokenizer = name, size, tokenizer
        self.bos, self.eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
        self.template: str = (
            tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
        )
        self._added = {int(i): token for i, token in tokenizer.added_tokens_decoder.items()}
        self._controls = {token.content: i for i, token in self._added.items() if token.special}
        self._control_finder = chat.finder(self._controls)
        self._ends = {*extra_ends, *(i for text, i in self._controls.items() if text in _ENDS)}
        if tokenizer.eos_token_id is not None:
            self._ends.add(tokenizer.eos_token_id)
        opened = tokenizer("a").input_ids
        self._opens = tokenizer.bos_token_id if opened[:1] == [tokenizer.bos_token_id] else None
        decoder = (
            json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
            if tokenizer.is_fast
            else None
        )
        self._bytes = _from_unicode() if "ByteLevel" in json.dumps(decoder) else None

    def tokens(self, pieces: Sequence[Piece]) -> list[int]:
        """Return a prompt's tokens, opened by BOS where the vocabulary wants that; plain text becomes no control."""
        found = chat.tokens(pieces, self._controls, self._control_finder, self._plain)
        return found if self._opens is None or found[:1] == [self._opens] else [self._opens, *found]

    def _plain(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True
        ).input_ids
        return found

    def piece(self, token: int) -> bytes:
        """Return a token's bytes, none for a special one; a character may be spread over tokens."""
        if token in self._added:
            return (
                b""
                if self._added[token].special
                else self._added[token].content.encode("utf-8", "replace")
            )
        text = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:  # the output layer is wider than the vocabulary
            return b""
        if self._bytes:
            return bytes(self._bytes[character] for character in text if character in self._bytes)
        if one := _BYTE.fullmatch(text):
            return bytes([int(one[1], 16)])
        return str(text).replace("▁", " ").encode("utf-8", "replace")

    def ends(self, token: int) -> bool:
        """Return whether a token ends the text."""
        return token in self._ends


def _from_unicode() -> dict[str, int]:
    """Return which byte each character of a byte-level vocabulary stands for (GPT-2, Radford et al.

    2019).
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class Loaded:
    """A causal model on its device, in evaluation mode.

    Raises ModelError for what cannot be loaded.
    """

    def __init__(self, at: Checkpoint, *, device: str, dtype: str, trust_remote_code: bool) -> None:
        self.at, self.device = at, _device(device)
        self.dtype = _dtype(dtype, self.device)
        where: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        with quiet(), progress.task(f"loading {Path(at.place).name}"):
            try:
                config = AutoConfig.from_pretrained(at.place, **where)
                tokenizer = AutoTokenizer.from_pretrained(at.place, **where)
                need = memory.loading(config, self.dtype, **where)
                advice = (
                    "a smaller model"
                    if self.dtype.itemsize == 2
                    else "dtype: bfloat16, or a smaller model"
                )
                what = f"{at.place} in {str(self.dtype).removeprefix('torch.')}"
                memory.refuse(need, what, self.device, f"Take {advice}")
                # sdpa leaves out the cap on attention that Gemma 2 has
                capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
                self.model: Any = AutoModelForCausalLM.from_pretrained(
                    at.place,
                    dtype=self.dtype,
                    use_safetensors=True,
                    attn_implementation="eager" if capped else "sdpa",
                    **where,
                )
            except ModelError:
                raise
            except (
                Exception
            ) as error:  # the hub, the disk, the configuration: each has errors of its own
                raise ModelError(
                    f"transformers cannot load {at.place}: {_explained(error)}"
                ) from error
        if getattr(self.model, "_hf_peft_config_loaded", False):
            raise ModelError(
                f"{at.place} is an adapter, which transformers put onto a model of its own "
                "choice. Name that model, or "
                "a folder in which both are merged"
            )
        self.model.to(self.device).eval().requires_grad_(requires_grad=False)
        self.text_config = config.get_text_config()
        ends = getattr(self.model.generation_config, "eos_token_id", None)
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        size = int(self.model.get_output_embeddings().weight.shape[0])
        self.vocabulary = Vocabulary(at.gguf.name if at.gguf else at.place, tokenizer, size, ends)

    @property
    def context(self) -> int:
        """Return how many tokens the model reads at once."""
        return int(getattr(self.text_config, "max_position_embeddings", 0) or 2**20)

    def sha256(self) -> str:
        """Return the hash of what was loaded; of a model from the hub, that of its name and commit."""
        if Path(self.at.place).is_dir():
            return self.at.sha256()
        commit = getattr(self.model.config, "_commit_hash", None)
        return hashlib.sha256(f"{self.at.place}@{commit}".encode()).hexdigest()

    @property
    def parameters(self) -> int:
        """Return the number of weights."""
        return int(self.model.num_parameters())


def trunk(model: Any) -> Any:
    """Return the model without its output layer."""
    return model.base_model


def head(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what makes float32 logits out of the last hidden states, (rows, width) -> (rows,
    vocabulary).

    By itself it need not be computed for positions nobody asks about: with 262,144 tokens it is
    most of the work.
    """
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    times = float(getattr(config, "logit_scale", None) or 1.0) / float(
        getattr(config, "logits_scaling", None) or 1.0
    )

    def logits(states: torch.Tensor) -> torch.Tensor:
        # looked up each time: an adapter may have wrapped it
        found = model.get_output_embeddings()(states).float()
        if times != 1.0:
            found = found * times
        capped: torch.Tensor = torch.tanh(found / cap) * cap if cap else found
        return capped

    return logits


@torch.inference_mode()
def refuse_unknown_head(model: Any) -> None:
    """Raise ModelError where `head` is not what the model itself does with its last hidden states."""
    tokens = (
        torch.arange(8, device=model.device)[None] % model.get_output_embeddings().weight.shape[0]
    )
    theirs = model(input_ids=tokens).logits.float()[0]
    ours = head(model)(trunk(model)(input_ids=tokens).last_hidden_state[0])
    if not torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max())):
        raise ModelError(
            f"{model.config.model_type} makes logits in a way that selfloop does not know. Take "
            "another model"
        )


def cache_argument(model: Any) -> str:
    """Return what this version of transformers calls the cache."""
    names = inspect.signature(trunk(model).forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "device: cuda, but PyTorch finds no GPU here. Set device: auto, or install PyTorch "
            "with CUDA"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted != "auto":
        found: torch.dtype = getattr(torch, wanted)
        return found
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else system.multiplies_bf16()
    return torch.bfloat16 if fast else torch.float32


def _explained(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
    if "trust_remote_code" in str(error):
        return "it comes with programs of its own. If you have read and trust them, set trust_remote_code: true"
    if "onnect" in text or "offline" in text or "huggingface.co" in text:
        return f"{text} - there is no way to the hub from here: name a folder, or a GGUF file"
    return text


def windows(config: Any) -> dict[str, int]:
    """Return the kinds of attention of a model's layers, each with how far back it looks, 0 for all the way."""
    window = int(getattr(config, "sliding_window", None) or 0)
    if not getattr(config, "use_sliding_window", True):
        window = 0
    kinds = set(getattr(config, "layer_types", None) or ())
    return {kind: window if kind == "sliding_attention" else 0 for kind in sorted(kinds)} or {
        "": window
    }
