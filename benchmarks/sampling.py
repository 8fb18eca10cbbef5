"""What one token costs to draw, with its exact log-probability, from a row of logits: four ways, on
one thread.

    pip install numba                                      # for its contender; left out if missing
    python benchmarks/sampling.py                          # both models' own logits, a minute

The contenders take turns. llama.cpp's chain needs a table of all candidates first, and sorts or
cuts it; it gives no log-probability under the full softmax, so the pass that finds it is added, as
for numba and numpy.
"""

import ctypes
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from generate import MODELS, cpu
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins._decoding.sampling import Sampler, read_logits
from selfloop_plugins.backends.llama_cpp import context
from selfloop_plugins.backends.llama_cpp.cache import Token
from selfloop_plugins.backends.llama_cpp.model import Model, lib

from selfloop.records import Sampling

ROWS, ROUNDS = 64, 5
SETTINGS = {
    "greedy": Sampling(0.0),
    "temperature 0.7": Sampling(0.7),
    "temperature 0.7, top-k 40, top-p 0.9": Sampling(0.7, top_k=40, top_p=0.9),
}
Row = NDArray[np.float32]
Draw = Callable[[Row], tuple[int, float]]


def main() -> None:
    """Print one table for each model."""
    print(f"{cpu()}; numpy {np.__version__}\n")
    for name in MODELS:
        rows = logits(name)
        print(
            f"**{name}**, {rows.shape[1]} tokens; microseconds a token, median of {ROUNDS} rounds "
            f"of {ROWS}\n"
        )
        print(f"| | {' | '.join(SETTINGS)} |\n|---|{'---|' * len(SETTINGS)}")
        made = {label: contenders(sampling, rows.shape[1]) for label, sampling in SETTINGS.items()}
        times = {label: measure(draws, rows) for label, draws in made.items()}
        for contender in next(iter(times.values())):
            print(
                f"| {contender} | "
                f"{' | '.join(f'{times[label][contender]:.0f}' for label in SETTINGS)} |"
            )
        print(flush=True)


def logits(name: str) -> Row:
    """Return what the model says after 64 short texts."""
    model = Model(models.locate(name))
    cache = context.open_cache(model, context.Size(1024, ROWS, 8), None)
    sequences = [cache.reserve() for _ in range(ROWS)]
    for position in range(4):
        outputs = cache.decode(
            [Token(1000 + 37 * s + position, position, s, position == 3) for s in sequences]
        )
    rows = np.stack([output.logits for output in outputs])
    cache.close()
    model.close()
    return rows


def measure(draws: dict[str, Draw], rows: Row) -> dict[str, float]:
    """Return microseconds a token of each contender."""
    times: dict[str, list[float]] = {name: [] for name in draws}
    for turn in range(-1, ROUNDS):
        for name, draw in draws.items():
            start = time.perf_counter()
            for row in rows:
                draw(row)
            if turn >= 0:
                times[name].append((time.perf_counter() - start) / len(rows) * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


def contenders(sampling: Sampling, size: int) -> dict[str, Draw]:
    """Return the ways to draw."""
    ways = {
        "selfloop": ours(sampling, size),
        "plain numpy": plain(sampling),
        "llama_sampler chain": chain(sampling, size),
    }
    return ways | ({"numba": compiled(sampling)} if importlib.util.find_spec("numba") else {})


def ours(sampling: Sampling, size: int) -> Draw:
    """Return what the engine does."""
    sampler, scratch = Sampler(sampling, 1, 0), np.empty(size, np.float32)

    def draw(row: Row) -> tuple[int, float]:
        output = read_logits(row, scratch)
        token = sampler.draw(output)
        return token, output.logprob(token)

    return draw


def plain(sampling: Sampling) -> Draw:
    """Return the textbook: the whole softmax, sorted where there is a cut, and cumulated."""
    random = np.random.default_rng(1)

    def draw(row: Row) -> tuple[int, float]:
        logs = row - row.max()
        logs -= np.log(np.exp(logs).sum())
        if not sampling.temperature:
            token = int(row.argmax())
            return token, float(logs[token])
        each = np.exp(logs / np.float32(sampling.temperature))
        if sampling.top_k:
            order = np.argsort(-each)[: sampling.top_k]
            sums = each[order].cumsum() / each[order].sum()
            order = order[: int(np.searchsorted(sums, sampling.top_p)) + 1]
            token = int(random.choice(order, p=each[order] / each[order].sum(dtype=np.float64)))
        else:
            sums = each.cumsum()
            token = int(np.searchsorted(sums, random.random() * sums[-1]))
        return token, float(logs[token])

    return draw


def chain(sampling: Sampling, size: int) -> Draw:
    """Return llama.cpp's own samplers, and the full softmax for the log-probability."""
    samplers = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    if sampling.temperature:
        if sampling.top_k:
            lib.llama_sampler_chain_add(samplers, lib.llama_sampler_init_top_k(sampling.top_k))
            lib.llama_sampler_chain_add(samplers, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        lib.llama_sampler_chain_add(samplers, lib.llama_sampler_init_temp(sampling.temperature))
        lib.llama_sampler_chain_add(samplers, lib.llama_sampler_init_dist(1))
    else:
        lib.llama_sampler_chain_add(samplers, lib.llama_sampler_init_greedy())
    kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    table, scratch, ids = (
        np.empty(size, kind),
        np.empty(size, np.float32),
        np.arange(size, dtype=np.int32),
    )
    data: Any = table.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))

    def draw(row: Row) -> tuple[int, float]:
        table["id"], table["logit"] = ids, row
        array = lib.llama_token_data_array(data=data, size=size, selected=-1, sorted=False)
        lib.llama_sampler_apply(samplers, ctypes.byref(array))
        token = int(table["id"][array.selected])
        return token, read_logits(row, scratch).logprob(token)

    return draw


def compiled(sampling: Sampling) -> Draw:
    """Return one loop in numba: the softmax's sum, and the weights, cumulated until the drawn place
    is reached.
    """
    import numba  # type: ignore[import-not-found]

    temperature = np.float32(sampling.temperature or 1)

    @numba.njit(fastmath=True)  # type: ignore[untyped-decorator]
    def sums(row: Any, peak: Any) -> Any:
        total, heated = np.float32(0), np.float32(0)
        for x in row:
            total += np.exp(x - peak)
            heated += np.exp((x - peak) / temperature)
        return total, heated

    @numba.njit(fastmath=True)  # type: ignore[untyped-decorator]
    def place(row: Any, peak: Any, target: Any) -> Any:
        for i in range(len(row)):
            target -= np.exp((row[i] - peak) / temperature)
            if target <= 0:
                return i
        return len(row) - 1

    random = np.random.default_rng(1)
    cut = Sampler(sampling, 1, 0) if sampling.top_k else None
    scratch = np.empty(0, np.float32)

    def draw(row: Row) -> tuple[int, float]:
        nonlocal scratch
        best = int(row.argmax())
        total, heated = sums(row, row[best])
        token = best
        if cut:
            token = cut._pick(row, best)
        elif sampling.temperature:
            token = int(place(row, row[best], np.float32(random.random()) * heated))
        return token, float(row[token] - row[best] - np.log(total))

    return draw


if __name__ == "__main__":
    main()
