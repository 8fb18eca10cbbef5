"""The KV cache of one llama.cpp context: tokens in, logits out.

A row has the same bits whatever is beside it.

Results must not depend on the rest of the batch, or a run that is resumed would end elsewhere
than one that was not interrupted. On the CPU of llama.cpp four things make them independent, down
to the last bit:

1. Flash attention walks a row's own cells in the order they lie in and skips the others.
2. From 64 rows on it changes to another kernel, but only if keys and values have the same type. So
   keys are kept in F16 and values in BF16. That costs no accuracy: F16 values would be summed up
   in F16, these are summed up in F32 (`docs/experiments.md`).
3. Matrix kernels change below 8 rows and treat a remainder of 8 differently. So each call is filled
   up with *padding*, tokens of a sequence of their own, to a multiple of 8 rows. The same goes for
   the rows whose logits are wanted. Padding comes last and is removed at once.
4. The cells of a sequence must lie in the order of its tokens, but llama.cpp fills holes first. So
   there are no holes: the cells of a sequence that has finished go to the *tombstone* sequence, and
   new cells are only ever taken at the top. From time to time the cache is *compacted*
   (`scheduler.py`): the live sequences are saved byte by byte, the cache is cleared, and they are
   put back in order.
"""

import ctypes
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selfloop_plugins._decoding.sampling import Output, Row, read_logits

from selfloop.errors import ModelError

from .model import lib

MAX_ROWS = 256  # of one llama_decode; more are hardly faster
# rows with logits of one llama_decode; each takes memory, one MiB for a vocabulary of 262,144.
# Also the number of completions that are written at once by default.
MAX_LOGIT_ROWS = 64
ROW_STEP = 8  # see 3 above
LLAMA_MAX_SEQUENCES = 256  # the most that llama.cpp knows
RESERVED_SEQUENCES = 2  # padding and tombstone


@dataclass(frozen=True, slots=True)
class Token:
    """One row of a batch."""

    id: int
    position: int
    sequence: int
    wanted: bool


def _round_up(rows: int) -> int:
    """Return the next multiple of `ROW_STEP`."""
    return math.ceil(rows / ROW_STEP) * ROW_STEP


class Cache:
    """The cells of a context, which it owns, filled from below without holes.

    Sequences are numbers that `reserve` gives out. `top` is the number of cells in use. With
    `hidden` set, outputs have hidden states too, and all rows cost as much as wanted ones.
    """

    def __init__(
        self, context: Any, cells: int, sequences: int, vocab_size: int, width: int, threads: int
    ) -> None:
        self.context, self.cells = context, cells
        self.top, self.hidden = 0, False
        self._vocab_size, self._width = vocab_size, width
        self._memory = lib.llama_get_memory(context)
        self._batch = lib.llama_batch_init(MAX_ROWS, 0, 1)
        self.sequences = sequences - RESERVED_SEQUENCES
        self._padding, self._tombstone = self.sequences, self.sequences + 1
        self._free = list(range(self.sequences - 1, -1, -1))  # the lowest is given out first
        # Python sees Ctrl-C only between two calls into C, and a call may take long: it runs on a
        # thread of its own, and llama.cpp asks after every operation whether to stop. The function
        # that it asks is libc's strlen, about this buffer: an empty text is 0, "go on". A function
        # in Python would have to be called thousands of times a second.
        self._abort = ctypes.create_string_buffer(2)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="llama_decode")
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="logits")
        self._scratch = np.empty((threads, vocab_size), np.float32)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        lib.llama_set_abort_callback(context, strlen, ctypes.cast(self._abort, ctypes.c_void_p))

    def close(self) -> None:
        """Free it, with its context."""
        self._worker.shutdown()
        self._readers.shutdown()
        lib.llama_batch_free(self._batch)
        lib.llama_free(self.context)

    def clear(self) -> None:
        """Empty all cells; sequences stay taken."""
        lib.llama_memory_clear(self._memory, False)
        self.top = 0

    def reset(self) -> None:
        """Empty all cells and take all sequences back."""
        self.clear()
        self._free = list(range(self.sequences - 1, -1, -1))

    def reserve(self) -> int:
        """Return an empty sequence; `drop` gives it back."""
        return self._free.pop()

    def fits(self, rows: int, wanted: int) -> bool:
        """Return whether so many rows, of which `wanted` with logits, fit into one call.

        Their padding must fit too.
        """
        if self.hidden:  # then all rows have logits
            return _round_up(rows) <= MAX_LOGIT_ROWS
        padded = _round_up(wanted)
        return padded <= MAX_LOGIT_ROWS and _round_up(rows + padded - wanted) <= MAX_ROWS

    def decode(self, tokens: Sequence[Token]) -> list[Output]:
        """Run the model; return the outputs of the wanted rows, valid until the next call.

        If it fails or is interrupted, the content of the cells is undefined until `reset`.
        """
        wanted = sum(token.wanted for token in tokens)
        # Wanted rows are filled up by padding whose logits are wanted too, and then all rows by
        # padding without.
        extra = 0 if self.hidden else _round_up(wanted) - wanted
        total = _round_up(len(tokens) + extra)
        padding = [Token(0, i, self._padding, i < extra) for i in range(total - len(tokens))]
        self._fill([*tokens, *padding])
        lib.llama_set_embeddings(self.context, self.hidden)
        status = self._run()
        if status:
            why = f"with status {status} at {self.top} of {self.cells} cells"
            raise ModelError(
                f"llama_decode failed {why}. Lower backend.n_ctx or backend.sequences, and go on"
            )
        if padding:
            lib.llama_memory_seq_rm(self._memory, self._padding, -1, -1)
        self.top += len(tokens)
        return self._outputs(tokens, total if self.hidden else _round_up(wanted))

    def _run(self) -> int:
        try:
            return int(self._worker.submit(lib.llama_decode, self.context, self._batch).result())
        except BaseException:
            self._abort.value = b"\1"
            ended = self._worker.submit(int)
            while not ended.done():  # nothing may touch the memory before, not even a second Ctrl-C
                with suppress(KeyboardInterrupt):
                    wait([ended])
            self._abort.value = b""
            raise

    def _fill(self, tokens: Sequence[Token]) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token.id, token.position, token.wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, token.sequence

    def _outputs(self, tokens: Sequence[Token], rows: int) -> list[Output]:
        if not rows:
            return []
        logits = self._array(lib.llama_get_logits(self.context), rows, self._vocab_size)
        if not self.hidden:  # llama.cpp gives the wanted rows only
            return self._read_rows(list(logits[: sum(token.wanted for token in tokens)]))
        wanted = [i for i, token in enumerate(tokens) if token.wanted]
        hidden = self._array(lib.llama_get_embeddings(self.context), rows, self._width)
        outputs = self._read_rows([logits[i] for i in wanted])
        return [
            output._replace(hidden=hidden[i]) for i, output in zip(wanted, outputs, strict=True)
        ]

    def _read_rows(self, rows: Sequence[Row]) -> list[Output]:
        """Read rows on all threads.

        A pass over a large vocabulary takes long, and numpy lets go of Python's lock meanwhile.
        """
        threads = len(self._scratch)

        def read_share(thread: int) -> list[Output]:
            scratch = self._scratch[thread]
            return [read_logits(rows[i], scratch) for i in range(thread, len(rows), threads)]

        # thread t has rows t, t + threads, t + 2 threads, ...
        shares = list(self._readers.map(read_share, range(threads)))
        return [shares[i % threads][i // threads] for i in range(len(rows))]

    def _array(self, pointer: Any, rows: int, columns: int) -> Row:
        if not pointer:
            raise ModelError("the model gives no logits: it is no language model")
        return np.ctypeslib.as_array(pointer, shape=(rows, columns))

    def fork(self, source: int, target: int, length: int) -> None:
        """Let `target` share the first `length` tokens of `source`."""
        if length:
            lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def drop(self, sequence: int, start: int) -> None:
        """Give a sequence back.

        Its cells from position `start` on stay in use until the next compaction.
        """
        lib.llama_memory_seq_cp(self._memory, sequence, self._tombstone, start, -1)
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self._free.append(sequence)

    def save(self, sequence: int, start: int) -> NDArray[np.uint8]:
        """Return a sequence's bytes from position `start` on; the part before is dropped from it.

        llama.cpp leaves out cells which a sliding window hides from the sequence's next token.
        """
        lib.llama_memory_seq_rm(self._memory, sequence, 0, start)
        buffer = np.empty(int(lib.llama_state_seq_get_size(self.context, sequence)), np.uint8)
        if not lib.llama_state_seq_get_data(
            self.context, _byte_pointer(buffer), buffer.size, sequence
        ):
            raise ModelError("llama.cpp cannot save a sequence. Lower backend.sequences, and go on")
        return buffer

    def restore(self, sequence: int, saved: NDArray[np.uint8], cells: int) -> None:
        """Put a saved sequence of so many cells at the top; its other cells are lost."""
        if not lib.llama_state_seq_set_data(
            self.context, _byte_pointer(saved), saved.size, sequence
        ):
            raise ModelError(
                "llama.cpp cannot restore a sequence. Lower backend.sequences, and go on"
            )
        self.top += cells


def _byte_pointer(buffer: NDArray[np.uint8]) -> Any:
    return buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
