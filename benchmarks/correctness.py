"""Is what the batched engine gives what the model says? On a float working copy, so that kernels do
not blur it.

    # both models, about ten minutes on two cores
    python benchmarks/correctness.py

Each row compares two ways to the same answers, on 200 prompts: how many greedy texts are the same,
and the largest difference of a log-probability, in nats. Then draws against the softmax, and
loglikelihood against generation.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from generate import MODELS, SHOWN, cpu, questions
from numpy.typing import NDArray
from scipy.stats import chisquare  # type: ignore[import-untyped]
from selfloop_plugins import models
from selfloop_plugins._decoding.sampling import Sampler
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.model import Model
from selfloop_plugins.backends.llama_cpp.weights import converted_weights

from selfloop.records import Completion, Continuation, Request, Sampling

COUNT, DRAWS = 200, 20_000


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--weights", default="bf16")
    options = parser.parse_args()
    print(cpu())
    for name in options.names:
        path = converted_weights(models.locate(name), options.weights).path
        print(f"\n**{name}**, {path.name}\n")
        print(
            "| compared | same greedy texts | largest difference of a log-probability "
            "|\n|---|---|---|"
        )
        for line in comparisons(path):
            print(line, flush=True)
        print("\n| drawn 20,000 times | tokens compared | chi-square's p |\n|---|---|---|")
        for line in draws(path):
            print(line, flush=True)
        print(f"\n{scores(path)}", flush=True)


def comparisons(path: Path) -> Iterator[str]:
    """Yield the rows about ways to run the same requests."""
    bare = [f"Question: {question}\nAnswer:" for question in questions(COUNT)]
    shown = [SHOWN + text for text in bare]
    one, many, apart = (
        LlamaCpp(path, sequences=1),
        LlamaCpp(path, sequences=64),
        LlamaCpp(path, sequences=64),
    )
    alone = [greedy(one, [text])[0] for text in bare]
    yield compare(
        "64 sequences at once, against each prompt in a call of its own", greedy(many, bare), alone
    )
    first = greedy(many, shown)
    next(iter(apart.generate([Request("x", Sampling(max_tokens=1))])))
    assert apart._scheduler
    apart._scheduler.sharing = False
    yield compare("shared prefixes, against none shared", first, greedy(apart, shown))
    yield compare(
        "prefixes kept from the call before, against none shared",
        greedy(many, shown),
        greedy(apart, shown),
    )
    for backend in (one, many, apart):
        backend.close()
    yield compare(
        "selfloop, against llama_cpp.Llama (its text, and its log-probabilities)",
        *reference(path, bare[:50]),
    )


def greedy(backend: LlamaCpp, texts: list[str]) -> list[Completion]:
    """Return the greedy completions, in order."""
    found = dict(backend.generate([Request(text, Sampling(max_tokens=16)) for text in texts]))
    return [c for c in (found[i] for i in range(len(texts))) if isinstance(c, Completion)]


def compare(label: str, some: list[Completion], others: list[Completion]) -> str:
    """Return a row; log-probabilities are compared up to where two texts part."""
    same = sum(a.tokens == b.tokens for a, b in zip(some, others, strict=True))
    most = 0.0
    for a, b in zip(some, others, strict=True):
        for x, y, p, q in zip(a.tokens, b.tokens, a.logprobs, b.logprobs, strict=False):
            if x != y:
                break
            most = max(most, abs(p - q))
    return f"| {label} | {same} of {len(some)} | {most:.4f} |"


def reference(path: Path, texts: list[str]) -> tuple[list[Completion], list[Completion]]:
    """Return what selfloop and the high-level class say, the latter's log-probabilities from its
    full logits.
    """
    from selfloop_plugins.backends.llama_cpp.plain import PlainLlama

    backend = LlamaCpp(path)
    ours, prompts = (
        greedy(backend, texts),
        [backend._prompt_tokens(Request(text)) for text in texts],
    )
    backend.close()
    llama = PlainLlama(str(path), n_ctx=256, logits_all=True, verbose=False)
    theirs: list[Completion] = []
    for prompt in prompts:
        llama.reset()  # type: ignore[no-untyped-call]
        llama.eval(prompt)
        tokens: list[int] = []
        logs: list[float] = []
        for _ in range(16):
            row = llama.scores[llama.n_tokens - 1].astype(np.float64)
            token = int(row.argmax())
            tokens.append(token)
            logs.append(float(row[token] - row.max() - np.log(np.exp(row - row.max()).sum())))
            if token == llama.token_eos():
                break
            llama.eval([token])
        theirs.append(Completion("", tuple(tokens), tuple(logs)))
    llama.close()
    return ours, theirs


def draws(path: Path) -> Iterator[str]:
    """Yield rows that compare how often tokens are drawn with the softmax, after a real prompt."""
    row = row_after("My favourite colour is", path)
    settings = {
        "temperature 1": Sampling(1.0),
        "temperature 0.7": Sampling(0.7),
        "top-k 40": Sampling(1.0, top_k=40),
        "top-p 0.9": Sampling(1.0, top_p=0.9),
        "min-p 0.05": Sampling(1.0, min_p=0.05),
        "top-k 40, top-p 0.9, temperature 0.7": Sampling(0.7, top_k=40, top_p=0.9),
    }
    from selfloop_plugins._decoding.sampling import read_logits

    output = read_logits(row, np.empty_like(row))
    for label, sampling in settings.items():
        sampler = Sampler(sampling, seed=11, sample=0)
        counts = np.bincount([sampler.draw(output) for _ in range(DRAWS)], minlength=len(row))
        expected = softmax(row, sampling) * DRAWS
        assert not counts[expected == 0].any(), "a token that was cut came out"
        often = expected >= 5
        observed, wanted = counts[often], expected[often]
        # what is too rare to be compared one by one
        if (rest := expected.sum() - wanted.sum()) > 1e-9:
            observed, wanted = np.append(observed, DRAWS - observed.sum()), np.append(wanted, rest)
        yield f"| {label} | {len(wanted)} | {chisquare(observed, wanted).pvalue:.3f} |"


def row_after(text: str, path: Path) -> NDArray[np.float32]:
    """Return the logits after a text."""
    from selfloop_plugins._decoding.chat import Piece
    from selfloop_plugins.backends.llama_cpp import context
    from selfloop_plugins.backends.llama_cpp.cache import Token

    model = Model(path)
    cache = context.open_cache(model, context.Size(512, 8, 8), None)
    tokens, sequence = model.tokens([Piece(text, False)]), cache.reserve()
    output = cache.decode(
        [Token(token, i, sequence, i + 1 == len(tokens)) for i, token in enumerate(tokens)]
    )
    row = output[0].logits.copy()
    cache.close()
    model.close()
    return row


def softmax(row: NDArray[np.float32], sampling: Sampling) -> NDArray[np.float64]:
    """Return each token's probability by the textbook: temperature, min-p, top-k, top-p."""
    logits = row.astype(np.float64) / sampling.temperature
    each = np.exp(logits - logits.max())
    each /= each.sum()
    each[each < sampling.min_p * each.max()] = 0
    order = np.argsort(-each)
    if sampling.top_k:
        each[order[sampling.top_k :]] = 0
    each /= each.sum()
    if sampling.top_p < 1:
        enough = int(np.searchsorted(each[order].cumsum(), sampling.top_p)) + 1
        each[order[enough:]] = 0
    probabilities: NDArray[np.float64] = each / each.sum()
    return probabilities


def scores(path: Path) -> str:
    """Return how loglikelihood compares with the log-probabilities of what was generated."""
    backend = LlamaCpp(path)
    texts = [f"{SHOWN}Question: {question}\nAnswer:" for question in questions(COUNT)]
    requests = [Request(text, Sampling(0.7, max_tokens=16), seed=i) for i, text in enumerate(texts)]
    found = [(texts[i], c) for i, c in backend.generate(requests) if isinstance(c, Completion)]
    again = backend.loglikelihood([Continuation(text, c.tokens) for text, c in found])
    most = max(
        abs(sum(c.logprobs) - sum(s))
        for (_, c), s in zip(found, again, strict=True)
        if isinstance(s, tuple)
    )
    backend.close()
    return (
        f"loglikelihood of {len(found)} sampled answers: the sums differ by at most {most:.5f} "
        "from the generated ones."
    )


if __name__ == "__main__":
    main()
