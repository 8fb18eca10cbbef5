"""python benchmarks/high_level.py MODEL LENGTH THREADS PROMPT...: tokens/s of llama-cpp-python's
own class, in a loop.

A process of its own, without selfloop in it, as that class's users have it. Prints tokens/s of
prompts and answers, and of answers alone.
"""

import sys
import time
from typing import Any, cast

from llama_cpp import CreateCompletionResponse, Llama


def main(path: str, length: str, threads: str, *texts: str) -> None:
    """Warm up, then time."""
    llama = Llama(path, n_ctx=512, n_threads=int(threads), verbose=False)
    llama(texts[0], max_tokens=2, temperature=0)
    start = time.perf_counter()
    used: list[Any] = []
    for text in texts:
        # not a stream, so one response
        response = cast(
            CreateCompletionResponse, llama(text, max_tokens=int(length), temperature=0)
        )
        used.append(response["usage"])
    seconds = time.perf_counter() - start
    print(
        sum(u["total_tokens"] for u in used) / seconds,
        sum(u["completion_tokens"] for u in used) / seconds,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
