"""How large a llama.cpp context must be, whether there is memory for it, and opening it."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import pairwise
from typing import Any

from selfloop_plugins._decoding.tasks import Job, common_prefix

from selfloop import system
from selfloop.errors import ModelError
from selfloop.text.units import size as size_text

from .cache import (
    LLAMA_MAX_SEQUENCES,
    MAX_LOGIT_ROWS,
    MAX_ROWS,
    RESERVED_SEQUENCES,
    Cache,
)
from .model import Model, lib, log

F16, BF16 = 1, 30  # ggml's numbers of the types
MIN_CELLS, MAX_CELLS = 1024, 16384  # that are chosen if the recipe names no number
PROMPTS_AHEAD = 8  # prompts that are read before there is a free slot for them
# for prefixes that prompts have in common; each costs llama.cpp a row of logits, one MiB in Gemma
PREFIX_SEQUENCES = 16
# beyond the cells that are given out: for dead ones between two compactions, and for the next call
SPARE_CELLS = 512 + MAX_ROWS


@dataclass(frozen=True, slots=True)
class Size:
    """How large a cache is.

    `cells`: that may be in use at a time. `slots`: completions that are written at once. `prompts`:
    prompts and prefixes that have a sequence of their own.
    """

    cells: int
    slots: int
    prompts: int

    def covers(self, other: "Size") -> bool:
        """Return whether this is at least the other size."""
        return (
            self.cells >= other.cells
            and self.slots >= other.slots
            and self.prompts >= other.prompts
        )


def wanted_size(
    model: Model, jobs: Sequence[Job], *, n_ctx: int | None, sequences: int | None
) -> Size:
    """Return the size that jobs want, as far as memory allows.

    `n_ctx` and `sequences` are the recipe's.
    """
    slots = sequences or MAX_LOGIT_ROWS  # more would take turns
    new_tokens: list[int] = []
    for _, tasks in jobs:
        new_tokens += [task.max_new_tokens for task in tasks]
    # as many prompts as have tasks in the slots, and some ahead
    at_work = slots * len(jobs) // max(1, len(new_tokens)) + PROMPTS_AHEAD
    prompt_sequences = min(len(jobs), at_work) + PREFIX_SEQUENCES
    if n_ctx:
        return Size(n_ctx, slots, prompt_sequences)
    # In lexical order a prompt shares most with its neighbour: so much of it is read anew.
    prompts = sorted(prompt for prompt, _ in jobs)
    shared = [common_prefix(a, b) for a, b in pairwise(prompts)]
    unshared = [len(prompt) - length for prompt, length in zip(prompts, [0, *shared], strict=False)]
    # All slots at work: a prompt and a task for each, and a prefix that the prompts share.
    full = sum(nlargest(slots, new_tokens)) + max(shared, default=0)
    full += sum(nlargest(slots + PROMPTS_AHEAD, unshared))
    # Twice that, so that prompts of other calls may stay.
    chosen = min(max(2 * full, MIN_CELLS), MAX_CELLS, affordable(model) // 2)
    return Size(max([chosen, *longest_sequences(jobs)]), slots, prompt_sequences)


def longest_sequences(jobs: Sequence[Job]) -> list[int]:
    """Return the most tokens that a sequence of each job comes to."""
    lengths: list[int] = []
    for prompt, tasks in jobs:
        lengths.append(len(prompt) + max(task.max_new_tokens for task in tasks))
    return lengths


def open_cache(model: Model, wanted: Size, threads: int | None) -> Cache:
    """Return an empty cache. Raises ModelError if there is no memory for it."""
    cells = wanted.cells + SPARE_CELLS
    needed, free = cells * bytes_a_cell(model), system.free_memory()
    advice = (
        f"Lower n_ctx (now {wanted.cells}), or shorten prompts and max_tokens where n_ctx is not "
        "set."
    )
    # the system might promise memory that it has not got, and kill the process later
    if needed > free:
        raise ModelError(
            f"a cache of {size_text(needed)} does not fit the {size_text(free)} free. {advice}"
        )
    params = lib.llama_context_default_params()
    sequences = min(wanted.slots + wanted.prompts + RESERVED_SEQUENCES, LLAMA_MAX_SEQUENCES)
    params.n_ctx, params.n_seq_max = cells, sequences
    # One cache for all sequences, so that they can share cells; and sliding-window layers keep all
    # tokens, so that a prefix can be continued.
    params.kv_unified = params.swa_full = True
    params.n_batch = params.n_ubatch = MAX_ROWS
    # llama.cpp aborts if it is below n_seq_max, and clears all of them at each call
    params.n_outputs_max = max(MAX_LOGIT_ROWS, sequences)
    params.type_k, params.type_v = F16, BF16  # see cache.py
    params.n_threads = params.n_threads_batch = threads or system.physical_cores()
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
    context: Any = log().call(lib.llama_init_from_model, model.pointer, params, free=lib.llama_free)
    if not context:
        raise ModelError(
            f"llama.cpp cannot make a context for {model.path}: {log().reason}. {advice}"
        )
    return Cache(context, cells, sequences, model.vocab_size, model.width, params.n_threads)


def affordable(model: Model) -> int:
    """Return for how many cells there is memory now."""
    return system.free_memory() // bytes_a_cell(model)


def bytes_a_cell(model: Model) -> int:
    """Return about how much one token takes in the cache: 16-bit keys and values of every layer."""
    architecture = model.meta("general.architecture")

    def number(key: str, default: int) -> int:
        text = model.meta(f"{architecture}.{key}")
        return int(text) if text.isdigit() else default

    heads = number("attention.head_count", 1) or 1
    head_width = number("embedding_length", 0) // heads
    key_width = number("attention.key_length", head_width)
    value_width = number("attention.value_length", head_width)
    kv_heads = number("attention.head_count_kv", heads)
    return 2 * number("block_count", 0) * kv_heads * (key_width + value_width)
