"""A model of transformers: loading it, its vocabulary, and its output layer by itself."""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from selfloop_plugins._decoding import chat
from selfloop_plugins._decoding.chat import Piece
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selfloop import progress, system
from selfloop.errors import ModelError

from . import memory
from .checkpoint import Checkpoint, quiet

# PyTorch's products of BF16 by AMX tiles are less exact: an adapter's effect on log-probabilities
# then correlates by .94 with its effect in llama.cpp, else by more than .98.
# oneDNN reads this at its first product.
_ISA = "ONEDNN_MAX_CPU_ISA"
_USER_CHOSE_ISA = _ISA in os.environ
os.environ.setdefault(_ISA, "AVX512_CORE_BF16")

# Tokens that end a turn or a file, whatever the configuration says: many checkpoints name only one
# of theirs.
_ENDS = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
    "<|end_of_text|>", "<|eos|>", "</s>", "<eos>", "<EOT>", "<|return|>",
    "<reponame>", "<|repo_name|>", "<|file_sep|>", "<|fim_pad|>",
}  # fmt: skip
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def allow_amx() -> None:
    """Let PyTorch use AMX tiles, for a training: they multiply BF16 up to ten times as fast.

    A training bears the rounding. Without effect where the user chose the instructions, and after
    the first product of this process: a run of the backend `hf` stays exact.
    """
    if not _USER_CHOSE_ISA:
        os.environ[_ISA] = "AVX512_CORE_AMX"


class Vocabulary:
    """A tokenizer of transformers.

    `extra_ends` are the tokens that the model's configuration names as ends.
    """

    def __init__(
        self, name: str, tokenizer: Any, size: int, extra_ends: Sequence[int] = ()
    ) -> None:
        self.name, self.vocab_size, self._tokenizer = name, size, tokenizer
        self.bos, self.eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
        # a tokenizer may have several templates by name, of which none is the one to take
        template = tokenizer.chat_template
        self.template: str = template if isinstance(template, str) else ""
        self._added = {int(i): token for i, token in tokenizer.added_tokens_decoder.items()}
        self._controls = {token.content: i for i, token in self._added.items() if token.special}
        self._control_pattern = chat.control_pattern(self._controls)
        self._ends = {*extra_ends}
        self._ends.update(i for text, i in self._controls.items() if text in _ENDS)
        if tokenizer.eos_token_id is not None:
            self._ends.add(tokenizer.eos_token_id)
        # configurations do not say reliably whether texts begin with BOS, so one is tried
        adds_bos = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        self._opening_bos = tokenizer.bos_token_id if adds_bos else None
        decoder = None
        if tokenizer.is_fast:
            decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
        self._bytes = _bytes_by_character() if "ByteLevel" in json.dumps(decoder) else None

    def tokens(self, pieces: Sequence[Piece]) -> list[int]:
        """Return a prompt's tokens, opened by BOS if the vocabulary wants that.

        Plain text never becomes a control token.
        """
        tokens = chat.tokens(pieces, self._controls, self._control_pattern, self._tokenize_plain)
        bos = self._opening_bos
        # a template may begin with BOS itself
        return tokens if bos is None or tokens[:1] == [bos] else [bos, *tokens]

    def _tokenize_plain(self, text: str) -> list[int]:
        encoding = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        tokens: list[int] = encoding.input_ids
        return tokens

    def token_bytes(self, token: int) -> bytes:
        """Return a token's bytes, none for a special one; a character may be spread over tokens."""
        if token in self._added:
            added = self._added[token]
            return b"" if added.special else added.content.encode("utf-8", "replace")
        text = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:  # the output layer is wider than the vocabulary
            return b""
        if self._bytes:
            return bytes(self._bytes[character] for character in text if character in self._bytes)
        byte = _BYTE.fullmatch(text)
        if byte:
            return bytes([int(byte[1], 16)])
        # SentencePiece's character for a space
        return str(text).replace("▁", " ").encode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        """Return whether a token ends the text."""
        return token in self._ends


def _bytes_by_character() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    As in GPT-2 (Radford et al. 2019): printable characters of Latin-1 stand for themselves, and the
    characters from 256 on for the other bytes, in order.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    by_character = {chr(byte): byte for byte in printable}
    by_character.update((chr(256 + i), byte) for i, byte in enumerate(others))
    return by_character


class Loaded:
    """A causal model on its device, in evaluation mode.

    Raises ModelError for a model that cannot be loaded.
    """

    def __init__(self, at: Checkpoint, *, device: str, dtype: str, trust_remote_code: bool) -> None:
        self.at, self.device = at, _device(device)
        self.dtype = _dtype(dtype, self.device)
        where: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        with quiet(), progress.task(f"loading {Path(at.place).name}"):
            try:
                config = AutoConfig.from_pretrained(at.place, **where)
                tokenizer = AutoTokenizer.from_pretrained(at.place, **where)
                self._refuse_too_large(memory.loading(config, self.dtype, **where))
                # sdpa leaves out the cap on attention that Gemma 2 has
                capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
                load: Any = AutoModelForCausalLM.from_pretrained  # its types are wrong
                self.model: Any = load(
                    at.place,
                    dtype=self.dtype,
                    use_safetensors=True,
                    attn_implementation="eager" if capped else "sdpa",
                    **where,
                )
            except ModelError:
                raise
            except Exception as error:
                # the hub, the disk, the configuration: each has errors of its own
                raise ModelError(
                    f"transformers cannot load {at.place}: {_plain_reason(error)}"
                ) from error
        if getattr(self.model, "_hf_peft_config_loaded", False):
            raise ModelError(
                f"{at.place} is an adapter, which transformers put onto a model of its own "
                "choice. Name that model, or "
                "a folder in which both are merged"
            )
        self.model.to(self.device).eval().requires_grad_(requires_grad=False)
        self.text_config = config.get_text_config()
        size = int(self.model.get_output_embeddings().weight.shape[0])
        name = at.gguf.name if at.gguf else at.place
        self.vocabulary = Vocabulary(name, tokenizer, size, _end_tokens(self.model))

    def _refuse_too_large(self, need: float) -> None:
        """Raise ModelError if a model of `need` bytes does not fit the device's memory."""
        advice = "Take a smaller model"
        if self.dtype.itemsize > 2:
            advice = "Take dtype: bfloat16, or a smaller model"
        dtype = str(self.dtype).removeprefix("torch.")
        memory.refuse(need, f"{self.at.place} in {dtype}", self.device, advice)

    @property
    def context(self) -> int:
        """Return how many tokens the model reads at once."""
        return int(getattr(self.text_config, "max_position_embeddings", 0) or 2**20)

    def model_hash(self) -> str:
        """Return the hash of the files; of a model from the hub, that of its name and commit."""
        if Path(self.at.place).is_dir():
            return self.at.model_hash()
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
    """Return the output layer: last hidden states, (rows, width) -> float32 logits, (rows,
    vocabulary).

    By itself, it need not be computed for positions nobody asks about. With 262,144 tokens it is
    most of the work.
    """
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    # some models scale their logits (Cohere multiplies, Granite divides), some cap them (Gemma 2)
    multiplier = float(getattr(config, "logit_scale", None) or 1.0)
    scale = multiplier / float(getattr(config, "logits_scaling", None) or 1.0)

    def logits(states: torch.Tensor) -> torch.Tensor:
        # looked up each time: an adapter may have wrapped it
        rows = model.get_output_embeddings()(states).float()
        if scale != 1.0:
            rows = rows * scale
        capped: torch.Tensor = torch.tanh(rows / cap) * cap if cap else rows
        return capped

    return logits


@torch.inference_mode()
def refuse_unknown_head(model: Any) -> None:
    """Raise ModelError if `head` does not give the model's own logits, of a short text."""
    vocab_size = model.get_output_embeddings().weight.shape[0]
    tokens = torch.arange(8, device=model.device)[None] % vocab_size
    expected = model(input_ids=tokens).logits.float()[0]
    actual = head(model)(trunk(model)(input_ids=tokens).last_hidden_state[0])
    # wide enough for bfloat16, and far less than any scale or cap changes
    if not torch.allclose(actual, expected, rtol=0.02, atol=0.02 * float(expected.abs().max())):
        raise ModelError(
            f"{model.config.model_type} makes logits in a way that selfloop does not know. Take "
            "another model"
        )


def _end_tokens(model: Any) -> list[int]:
    """Return the tokens that the model's configuration names as ends of a text."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        return []
    return ends if isinstance(ends, list) else [ends]


def cache_argument(model: Any) -> str:
    """Return the name of the cache's argument in this version of transformers."""
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
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else system.multiplies_bf16()
    return torch.bfloat16 if fast else torch.float32


def _plain_reason(error: Exception) -> str:
    """Return the first line of an error, or plain words for one that users meet."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
    if "trust_remote_code" in str(error):
        return (
            "it comes with programs of its own. If you have read and trust them, set "
            "trust_remote_code: true"
        )
    if "onnect" in text or "offline" in text or "huggingface.co" in text:
        return f"{text} - there is no way to the hub from here: name a folder, or a GGUF file"
    return text


def windows(config: Any) -> dict[str, int]:
    """Return the kinds of attention of a model's layers, each with its window in tokens.

    A window of 0 is none: such layers look all the way back. A model whose layers are all alike has
    one kind, named "".
    """
    window = int(getattr(config, "sliding_window", None) or 0)
    if not getattr(config, "use_sliding_window", True):
        window = 0
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    if not kinds:
        return {"": window}
    return {kind: window if kind == "sliding_attention" else 0 for kind in kinds}
