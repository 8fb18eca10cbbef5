"""A model of llama.cpp: loading its GGUF file, its vocabulary, and its metadata."""

import ctypes
import os
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from selfloop_plugins._decoding import chat
from selfloop_plugins._decoding.chat import Piece

from selfloop import progress
from selfloop.errors import ModelError, RequestError


def _bindings() -> Any:
    # Threads that spin at llama.cpp's many barriers halve its speed as soon as another program
    # wants a core too. The OpenMP library reads this when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import llama_cpp

    return llama_cpp


# Any: the bindings' annotations and the types that ctypes takes differ too often to check
lib: Any = _bindings()

# ggml's log levels: from WARN on a line may be the reason of a failure, and a line of the level
# CONTINUED goes on with the one before
WARN, CONTINUED = 3, 5
MAX_LOG_LINES = 20


class Log:
    """The last messages of llama.cpp.

    It has one log for the whole process, so there is one of these (`log()`).
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MAX_LOG_LINES)
        self._level = 0
        # an attribute, so that Python does not free it: llama.cpp keeps only the address
        self.callback = lib.llama_log_callback(self._take_line)
        lib.llama_log_set(self.callback, None)

    def _take_line(self, level: int, text: bytes, _: object) -> None:
        self._level = self._level if level == CONTINUED else level
        if self._level >= WARN and text.strip():
            self.lines.append(text.decode("utf-8", "replace").strip())

    def call(self, function: Any, *arguments: Any, free: Any = None) -> Any:
        """Return what a function of llama.cpp returns, and keep its messages alone.

        It runs on a thread of its own. Python raises a Ctrl-C in the main thread, and within the
        callback of the log it would be lost: ctypes prints it and goes on. So it is raised when the
        function has returned, and `free` is called with what that has made.
        """
        # take the log over if another program has it
        lib.llama_log_set(self.callback, None)
        self.lines.clear()
        with ThreadPoolExecutor(1, thread_name_prefix="llama.cpp") as thread:
            called = thread.submit(function, *arguments)
            try:
                return called.result()
            except KeyboardInterrupt:
                made = called.result()
                if free and made:
                    free(made)
                raise

    @property
    def reason(self) -> str:
        """Return the fault in llama.cpp's words, without its functions' names.

        The deepest cause comes first in its log.
        """
        errors = [
            re.sub(r"^[\w:~<>]+: ", "", line).removeprefix("error loading model: ")
            for line in self.lines
        ]
        return errors[0] if errors else "llama.cpp gives no reason"


@cache
def log() -> Log:
    """Return the one log, made when it is first wanted; starts llama.cpp as well."""
    messages = Log()
    lib.llama_backend_init()
    return messages


@cache
def uses_amx() -> bool:
    """Return whether llama.cpp would multiply quantised weights by AMX tiles.

    Its AMX kernels are left out. Built by GCC 12 they crash: GCC takes the tile configuration to be
    8 bytes long and drops the stores of the other 56. Whether their results depend on the batch was
    never measured either.
    """
    return b"AMX_INT8 = 1" in lib.llama_print_system_info()


class Model:
    """A loaded model file and its vocabulary. Raises ModelError for a file that cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = not uses_amx()
        with progress.task(f"loading {self.name}"):
            self.pointer = log().call(
                lib.llama_model_load_from_file,
                str(path).encode(),
                params,
                free=lib.llama_model_free,
            )
        if not self.pointer:
            raise ModelError(
                f"llama.cpp cannot load {path}: {log().reason}. "
                "If the file is cut off, fetch it again; if its architecture is unknown, upgrade "
                "llama-cpp-python."
            )
        try:
            self._refuse_unsupported()
        except ModelError:
            self.close()
            raise
        self.vocab = lib.llama_model_get_vocab(self.pointer)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self.vocab))
        self.bos = self._special_text(lib.llama_vocab_bos)
        self.eos = self._special_text(lib.llama_vocab_eos)
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}

    def close(self) -> None:
        """Free the model; everything made from it must be freed before."""
        if self.pointer:
            lib.llama_model_free(self.pointer)
            self.pointer = None

    def _refuse_unsupported(self) -> None:
        """Raise ModelError for a model that has not one cell of cache for each token.

        Its prompts could not be shared, nor one sequence of many forgotten.
        """
        for kind in ("recurrent", "hybrid", "diffusion"):
            if getattr(lib, f"llama_model_is_{kind}")(self.pointer):
                raise ModelError(
                    f"{self.path} is a {kind} model; llama_cpp runs causal transformers only. "
                    "Name another file"
                )
        if lib.llama_model_has_encoder(self.pointer) or self.meta("general.type") == "adapter":
            raise ModelError(
                f"{self.path} is no decoder-only language model, which llama_cpp needs. Name "
                "another file"
            )

    def meta(self, key: str) -> str:
        """Return a value of the file's metadata, or an empty string."""
        size = 256
        while True:  # llama.cpp says how long a value is that did not fit
            buffer = ctypes.create_string_buffer(size)
            length = int(lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size))
            if length < size:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else ""
            size = length + 1

    @cached_property
    def template(self) -> str:
        """Return the chat template, empty for a base model."""
        template = lib.llama_model_chat_template(self.pointer, None)
        return template.decode("utf-8", "replace") if template else ""

    @property
    def context(self) -> int:
        """Return how many tokens the model was trained to read at once."""
        return int(lib.llama_model_n_ctx_train(self.pointer))

    @property
    def width(self) -> int:
        """Return the size of a hidden state."""
        return int(lib.llama_model_n_embd(self.pointer))

    @property
    def window(self) -> int:
        """Return how far back its sliding-window layers look, 0 if it has none."""
        return int(lib.llama_model_n_swa(self.pointer))

    @property
    def parameters(self) -> int:
        """Return the number of weights."""
        return int(lib.llama_model_n_params(self.pointer))

    def _special_text(self, special: Any) -> str:
        """Return the text of the token that `special` gives, empty if there is none."""
        token = int(special(self.vocab))
        return self._token_text(token) if token >= 0 else ""

    def _token_text(self, token: int) -> str:
        text: bytes = lib.llama_vocab_get_text(self.vocab, token)
        return text.decode("utf-8", "replace")

    @cached_property
    def controls(self) -> dict[str, int]:
        """Return the tokens that plain text never becomes, by their text."""
        hidden = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        controls: dict[str, int] = {}
        for token in range(self.vocab_size):
            if lib.llama_vocab_get_attr(self.vocab, token) & hidden:
                controls[self._token_text(token)] = token
        return controls

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return chat.control_pattern(self.controls)

    def tokens(self, pieces: Sequence[Piece]) -> list[int]:
        """Return a prompt's tokens, opened by BOS if the vocabulary wants that.

        Plain text never becomes a control token.
        """
        tokens = chat.tokens(pieces, self.controls, self._control_pattern, self._tokenize_plain)
        bos = int(lib.llama_vocab_bos(self.vocab))
        wants_bos = lib.llama_vocab_get_add_bos(self.vocab) and bos >= 0
        # a template may begin with BOS itself
        return [bos, *tokens] if wants_bos and tokens[:1] != [bos] else tokens

    def _tokenize_plain(self, text: str) -> list[int]:
        data = text.encode("utf-8", "replace")
        size = len(data) + 8  # a token has a byte at least, and there may be a few beside
        buffer = (ctypes.c_int32 * size)()
        count = int(lib.llama_tokenize(self.vocab, data, len(data), buffer, size, False, False))
        if count < 0:
            raise RequestError(f"llama.cpp cannot tokenise a text of {len(data)} bytes")
        return list(buffer[:count])

    def token_bytes(self, token: int) -> bytes:
        """Return a token's bytes, none for a special one; a character may be spread over tokens."""
        if token not in self._pieces:
            size = 64
            buffer = ctypes.create_string_buffer(size)
            length = int(lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, False))
            if length < 0:  # the size that it needs
                buffer = ctypes.create_string_buffer(-length)
                length = int(lib.llama_token_to_piece(self.vocab, token, buffer, -length, 0, False))
            self._pieces[token] = buffer.raw[:length]
        return self._pieces[token]

    def is_end(self, token: int) -> bool:
        """Return whether a token ends the text."""
        if token not in self._ends:
            self._ends[token] = bool(lib.llama_vocab_is_eog(self.vocab, token))
        return self._ends[token]
