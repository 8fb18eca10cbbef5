"""How large a llama.cpp context must be, whether there is memory for it, and opening it."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from heapq import nlargest
from itertools import pairwise
from typing import Any

from selfloop_plugins._decoding.tasks import Job, common

from selfloop import system
from selfloop.errors import ModelError
from selfloop.text.units import size as size_text

from .cache import ROWS, SEQUENCES, WANTED, Cache
from .model import Model, lib, log

F16, BF16 = 1, 30  # ggml's numbers of the types
LEAST, MOST = 1024, 16384  # cells that are chosen where the recipe does not say
AHEAD = 8  # prompts that are read before there is a free strand for them
# sequences for what prompts have in common; each costs llama.cpp a row of logits, one MiB in Gemma
PROMPTS = 16
# cells beyond those given out: for the dead between two compactions, and for the next call
SPARE = 512 + ROWS


@dataclass(frozen=True, slots=True)
class Size:
    """Cells that may be in use at a time, how many completions are written at once, and how many prompts lie ready."""

    cells: int
    strands: int
    prompts: int

    def covers(self, other: "Size") -> bool:
        """Return whether there is room for what wants the other size."""
        return all(
            mine >= wanted for mine, wanted in zip(astuple(self), astuple(other), strict=True)
        )


def size(model: Model, jobs: Sequence[Job], *, n_ctx: int | None, sequences: int | None) -> Size:
    """Return what jobs want, as far as memory allows. `n_ctx` and `sequences` are the recipe's."""
    strands = sequences or WANTED  # more would take turns
    rooms = [task.room for _, tasks in jobs for task in tasks]
    ready = min(len(jobs), strands * len(jobs) // max(1, len(rooms)) + AHEAD) + PROMPTS
    if n_ctx:
        return Size(n_ctx, strands, ready)
    prompts = sorted(prompt for prompt, _ in jobs)
    shared = [common(a, b) for a, b in pairwise(prompts)]
    own = [len(prompt) - length for prompt, length in zip(prompts, [0, *shared], strict=False)]
    # A full house: a prompt and a task for each strand, and what prompts share. Twice that, for
    # prompts of other calls.
    house = (
        sum(nlargest(strands, rooms)) + sum(nlargest(strands + AHEAD, own)) + max(shared, default=0)
    )
    chosen = min(max(2 * house, LEAST), MOST, affordable(model) // 2)
    return Size(max([chosen, *longest(jobs)]), strands, ready)


def longest(jobs: Sequence[Job]) -> list[int]:
    """Return the most tokens that one sequence of each job comes to."""
    return [len(prompt) + max(task.room for task in tasks) for prompt, tasks in jobs]


def open_cache(model: Model, wanted: Size, threads: int | None) -> Cache:
    """Return an empty cache. Raises ModelError if there is no memory for it."""
    cells = wanted.cells + SPARE
    needed, free = cells * bytes_a_cell(model), system.free_memory()
    advice = f"Lower n_ctx (now {wanted.cells}), or shorten prompts and max_tokens where n_ctx is not set."
    # the system might promise memory that it has not got, and kill the process later
    if needed > free:
        raise ModelError(
            f"a cache of {size_text(needed)} does not fit the {size_text(free)} free. {advice}"
        )
    params = lib.llama_context_default_params()
    sequences = min(wanted.strands + wanted.prompts + 2, SEQUENCES)
    params.n_ctx, params.n_seq_max, params.kv_unified, params.swa_full = (
        cells,
        sequences,
        True,
        True,
    )
    params.n_batch = params.n_ubatch = ROWS
    # llama.cpp aborts below n_seq_max, and clears them all
    params.n_outputs_max = max(WANTED, sequences)
    params.type_k, params.type_v = F16, BF16  # see cache.py
    params.n_threads = params.n_threads_batch = threads or system.physical_cores()
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
    with log().listening() as said:
        context: Any = lib.llama_init_from_model(model.pointer, params)
    if not context:
        raise ModelError(
            f"llama.cpp cannot make a context for {model.path}: {said.reason}. {advice}"
        )
    return Cache(context, cells, sequences, model.vocab_size, model.width, params.n_threads)


def affordable(model: Model) -> int:
    """Return for how many cells there is memory now."""
    return system.free_memory() // bytes_a_cell(model)


def bytes_a_cell(model: Model) -> int:
    """Return about how much one token takes in the cache: 16-bit keys and values of every layer."""
    arch = model.meta("general.architecture")

    def number(key: str, default: int) -> int:
        text = model.meta(f"{arch}.{key}")
        return int(text) if text.isdigit() else default

    heads = number("attention.head_count", 1) or 1
    head = number("embedding_length", 0) // heads
    widths = number("attention.key_length", head) + number("attention.value_length", head)
    return 2 * number("block_count", 0) * number("attention.head_count_kv", heads) * widths
