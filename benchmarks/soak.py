"""Thousands of requests of all kinds in a small cache: no crash, no leak, every request answered
exactly once.

    # 20,000 requests, SmolLM2, 15 minutes on two cores
    python benchmarks/soak.py

Prompts have 1 to 1,500 tokens, some share beginnings; answers are greedy or sampled, one or
several, with random stop strings, lengths and grammars; some requests cannot fit. Calls are
cancelled in the middle, an adapter is swapped in and out between them, and now and then a call
scores given text instead. Printed every so often: what is done, and the memory that is resident.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np
import psutil
from selfloop_plugins import models
from selfloop_plugins.backends.llama_cpp import build
from selfloop_plugins.backends.llama_cpp.reference_prompts import REFERENCE_TEXT

from selfloop.errors import RequestError
from selfloop.records import Adapter, Completion, Continuation, Request, Sampling

CONTEXT = 2048
WORDS = REFERENCE_TEXT.split()
STOPS = ((), ("\n",), (".", "the"), ("e",), (" light",))


def main() -> None:
    """Run the requests and print what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--weights", default="bf16")
    options = parser.parse_args()
    backend = build(model=options.model, weights=options.weights, n_ctx=CONTEXT)
    dice, process, start = random.Random(1), psutil.Process(), time.monotonic()
    asked = answered = refused = cancelled = swaps = scored = 0
    memory: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        adapter = write_adapter(Path(folder) / "adapter.gguf")
        print(
            "| requests | answers | refused | cancelled calls | swaps | scored | minutes | "
            "resident MiB |"
        )
        print("|---|---|---|---|---|---|---|---|")
        while asked < options.requests:
            kind = dice.random()
            if kind < 0.05:
                backend.load_adapter(dice.choice((adapter, None)))
                swaps += 1
            if kind > 0.95:
                pairs = [
                    Continuation(prompt(dice), " ".join(dice.choices(WORDS, k=5)))
                    for _ in range(20)
                ]
                found = backend.loglikelihood(pairs)
                assert len(found) == len(pairs) and all(found)
                scored += len(pairs)
            requests = [
                request(dice) for _ in range(min(dice.randint(1, 150), options.requests - asked))
            ]
            given, wrong, ended = run(backend, requests, dice.random() < 0.1, dice)
            asked, answered, refused, cancelled = (
                asked + len(requests),
                answered + given,
                refused + wrong,
                cancelled + ended,
            )
            memory.append(process.memory_info().rss)
            if len(memory) % 25 == 0 or asked == options.requests:
                minutes = (time.monotonic() - start) / 60
                counts = f"{asked} | {answered} | {refused} | {cancelled} | {swaps} | {scored}"
                print(f"| {counts} | {minutes:.1f} | {memory[-1] / 2**20:.0f} |", flush=True)
    third = len(memory) // 3
    middle, last = max(memory[third : 2 * third]), max(memory[2 * third :])
    print(
        f"\nMost resident in the second third {middle / 2**20:.0f} MiB, in the last "
        f"{last / 2**20:.0f} MiB."
    )


def run(
    backend: object, requests: list[Request], cancel: bool, dice: random.Random
) -> tuple[int, int, bool]:
    """Run one call, to its end or not; return how many completions and refusals came, and whether
    it was cancelled.
    """
    wanted = {(i, k) for i, r in enumerate(requests) for k in range(r.n)}
    stop, came, wrong = dice.randint(0, len(wanted)) if cancel else None, 0, 0
    stream = backend.generate(requests)  # type: ignore[attr-defined]
    for index, result in stream:
        if isinstance(result, RequestError):
            assert "tokens" in str(result) and " n_ctx is " in str(result), result
            gone = {(i, k) for i, k in wanted if i == index}
            assert len(gone) == requests[index].n, "a request failed that was answered"
            wanted -= gone
            wrong += 1
        else:
            assert isinstance(result, Completion)
            wanted.remove((index, result.sample))  # KeyError: answered twice, or never asked
            assert 1 <= len(result.tokens) <= requests[index].sampling.max_tokens
            came += 1
        if stop is not None and came >= stop:
            stream.close()
            return came, wrong, True
    assert not wanted, f"{len(wanted)} completions never came"
    return came, wrong, False


def prompt(dice: random.Random) -> str:
    """Return a text of 1 to about 1,500 tokens; most are short, and many begin alike."""
    most = dice.choices((8, 60, 300, 1200), (75, 20, 4, 1))[0]
    length = dice.randint(1, most)
    first = dice.randrange(len(WORDS)) if dice.random() < 0.5 else dice.choice((0, 10, 20))
    return " ".join((WORDS * 10)[first : first + length])


def request(dice: random.Random) -> Request:
    """Return a request of any kind; one in a hundred cannot fit."""
    length = dice.choice((1, 1, 2, 2, 4, 8, 16)) if dice.random() > 0.01 else CONTEXT
    sampling = Sampling(
        temperature=dice.choice((0.0, 0.7, 1.0)),
        top_k=dice.choice((0, 0, 20)),
        top_p=dice.choice((1.0, 1.0, 0.9)),
        max_tokens=length,
        stop=dice.choice(STOPS),
        repetition_penalty=dice.choice((1.0, 1.0, 1.0, 1.2)),
        grammar=dice.choice(("",) * 50 + ('root ::= "yes" | "no"',)),
    )
    return Request(prompt(dice), sampling, n=dice.choice((1, 1, 1, 3)), seed=dice.randrange(10**6))


def write_adapter(path: Path) -> Adapter:
    """Write a small LoRA for SmolLM2."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    noise = np.random.default_rng(0)
    writer.add_tensor(
        "blk.5.attn_output.weight.lora_a", noise.normal(size=(2, 576)).astype(np.float32)
    )
    writer.add_tensor(
        "blk.5.attn_output.weight.lora_b", (noise.normal(size=(576, 2)) * 0.05).astype(np.float32)
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Adapter(str(path), models.sha256(path))


if __name__ == "__main__":
    main()
