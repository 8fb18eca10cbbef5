"""How much a token's logits change with what else is in the batch, and what takes the change away.

    python benchmarks/batch_invariance.py                          # both known models
    python benchmarks/batch_invariance.py smollm2-135m-instruct

24 prompts are decoded greedily for 4 tokens, each alone and then among 31 others, in one llama.cpp
context per setting. Printed: how many of the prompts have the same bits in all logits at step 1 and
4, and the largest difference (in logits). The last setting is what
`plugins/backends/llama_cpp/cache.py` does.
"""

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins._decoding.chat import Piece
from selfloop_plugins.backends.llama_cpp.model import Model, lib

F16, BF16 = 1, 30
# name, flash attention, most rows of a call, rows are filled up to a multiple of, type of the
# cache's values
SETTINGS = (
    ("llama.cpp as it comes", 0, 512, 1, F16),
    ("+ flash attention", 1, 512, 1, F16),
    ("+ at most 56 rows a call", 1, 56, 1, F16),
    ("+ rows in fours", 1, 56, 4, F16),
    ("+ rows in eights", 1, 56, 8, F16),
    ("256 rows in eights", 1, 256, 8, F16),
    ("256 rows in eights, values in BF16 (selfloop)", 1, 256, 8, BF16),
)
STEPS, SEQUENCES, BALLAST = 4, 32, 32
Logits = NDArray[np.float32]


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(models.KNOWN_MODELS))
    for name in parser.parse_args().models:
        model = Model(models.locate(name))
        print(f"**{name}**\n")
        print(
            "| setting | same bits, step 1 | step 4 | largest difference (step 1) "
            "|\n|---|---|---|---|"
        )
        for setting in SETTINGS:
            print(row(model, *setting), flush=True)
        model.close()
        print()


def row(model: Model, name: str, flash: int, rows: int, multiple: int, values: int) -> str:
    """Return a line of the table."""
    context = Context(model, flash, rows, multiple, values)
    texts = [f"Question: What is the {a} of {b}?\nAnswer:" for a in TRAITS for b in PLACES][
        :SEQUENCES
    ]
    prompts = [
        model.tokens([Piece(text + " well" * (i % 5), False)]) for i, text in enumerate(texts)
    ]
    together = context.greedy(prompts)
    some = range(24)
    alone = {i: context.greedy([prompts[i]])[0] for i in some}
    context.close()
    differences = {
        i: [float(np.abs(a - b).max()) for a, b in zip(alone[i], together[i], strict=True)]
        for i in some
    }
    same = [sum(not d[step] for d in differences.values()) for step in (0, STEPS - 1)]
    most = max(d[0] for d in differences.values())
    count = len(differences)
    return f"| {name} | {same[0]} of {count} | {same[1]} of {count} | {most:.3f} |"


TRAITS = ("capital", "oldest river", "best known poem", "national bird")
PLACES = ("France", "Peru", "Egypt", "Japan", "Spain", "Chile", "Cuba", "Kenya")


class Context:
    """A llama.cpp context with the settings under test."""

    def __init__(self, model: Model, flash: int, rows: int, multiple: int, values: int) -> None:
        self.vocab, self.rows, self.multiple = model.vocab_size, rows, multiple
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified, params.swa_full = (
            4096,
            SEQUENCES + 1,
            True,
            True,
        )
        params.n_batch, params.n_ubatch, params.flash_attn_type = rows, rows, flash
        params.n_threads = params.n_threads_batch = 2
        params.type_v = values
        self.pointer: Any = lib.llama_init_from_model(model.pointer, params)
        self.memory: Any = lib.llama_get_memory(self.pointer)
        self.batch: Any = lib.llama_batch_init(rows, 0, 1)

    def close(self) -> None:
        """Free it."""
        lib.llama_batch_free(self.batch)
        lib.llama_free(self.pointer)

    def greedy(self, prompts: list[list[int]]) -> list[list[Logits]]:
        """Return the logits of every step of every prompt, all in one batch."""
        lib.llama_memory_clear(self.memory, True)
        found: list[list[Logits]] = [[] for _ in prompts]
        rows = [
            (t, p, s, p + 1 == len(prompt))
            for s, prompt in enumerate(prompts)
            for p, t in enumerate(prompt)
        ]
        for step in range(STEPS):
            room = self.rows - (2 * self.multiple if self.multiple > 1 else 0)
            for start in range(0, len(rows), room):
                self.decode(rows[start : start + room], found)
            rows = [
                (int(f[-1].argmax()), len(p) + step, s, True)
                for s, (p, f) in enumerate(zip(prompts, found, strict=True))
            ]
        return found

    def decode(self, rows: list[tuple[int, int, int, bool]], found: list[list[Logits]]) -> None:
        """Run one call, filled up with tokens of a sequence of their own, and keep its logits."""
        wanted = sum(w for *_, w in rows)
        extra = -wanted % self.multiple
        more = extra + -(len(rows) + extra) % self.multiple
        for i, (token, position, sequence, want) in enumerate(
            [*rows, *((0, k, BALLAST, k < extra) for k in range(more))]
        ):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, want
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
        self.batch.n_tokens = len(rows) + more
        assert lib.llama_decode(self.pointer, self.batch) == 0
        lib.llama_memory_seq_rm(self.memory, BALLAST, -1, -1)
        for i, (_, _, sequence, want) in enumerate(rows):
            if want:
                found[sequence].append(
                    np.ctypeslib.as_array(
                        lib.llama_get_logits_ith(self.pointer, i), (self.vocab,)
                    ).copy()
                )


if __name__ == "__main__":
    main()
