"""Is it the same model, however it is run? A run's adapter through llama.cpp, through transformers,
and merged.

    python benchmarks/delivery.py DATA RUN --limit 150
    python benchmarks/delivery.py DATA RUN --exports

Questions of each set, bare and behind five demonstrations, greedily: the share that is answered
rightly, wrongly and declined by the base with the adapter beside it (the file that the run ran on)
in llama.cpp and in transformers, and by GGUF files that `selfloop export` writes. The last column
is the largest difference of a share to the first row of its prompt. Merged files are read by
llama.cpp alone: `untouched` goes through llama-cpp-python's own `Llama`, without any of selfloop,
one question after the other.

With `--exports` the run is exported in each form and type, and the table has the figures by which
`selfloop export` takes or refuses it: its own held-out questions, in the form of the template.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from detectors import questions
from generate import cpu
from honesty import FORMS, TOKENS, said, tuned
from selfloop_plugins import models
from selfloop_plugins._torch.backend import Transformers
from selfloop_plugins._torch.options import HfOptions
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.plain import PlainLlama
from selfloop_plugins.backends.llama_cpp.weights import converted_weights

from selfloop import Question
from selfloop.evaluation.gold import judged
from selfloop.text.answers import declines

SETS = ("easy_facts", "popqa")
TYPES = ("bf16", "q8_0", "q6_k", None)
UNTOUCHED = ("bf16", "q6_k")
# forms of `selfloop export`, each with the types in which it is written
EXPORTS = {"gguf": (*TYPES, "q5_k_m", "q4_k_m", "q4_0"), "ollama": (None,), "adapter": (None,)}


def main() -> None:
    """Print a row for each way and prompt, as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--exports", action="store_true", help="the figures of export alone")
    options = parser.parse_args()
    if options.exports:
        print("\n".join((f"{cpu()}\n", *exports(options.run))))
        return
    print(
        f"{cpu()}\n\n| way | prompt | right | wrong | declined | off by "
        "|\n|---|---|---|---|---|---|",
        flush=True,
    )
    asked = [
        one for name in SETS for one in questions(options.data / f"{name}.jsonl")[: options.limit]
    ]
    first: dict[str, list[float]] = {}
    for way, form, shares in ways(options, asked):
        off = max(abs(a - b) for a, b in zip(shares, first.setdefault(form, shares), strict=True))
        print(
            f"| {way} | {form} | {' | '.join(f'{share:.3f}' for share in shares)} | {off:.3f} |",
            flush=True,
        )


def transformers(file: Path, **options: Any) -> Transformers:
    """Return a model of transformers made from a GGUF file."""
    return Transformers(HfOptions(model=str(file), **options))


def ways(
    options: argparse.Namespace, asked: list[Question]
) -> Iterator[tuple[str, str, list[float]]]:
    """Yield what each way of running the model comes to in each prompt."""
    adapter = tuned(options.run)
    file = converted_weights(models.locate(options.model), "bf16").path
    backends: dict[str, Any] = {
        "llama.cpp, adapter": partial(LlamaCpp, file),
        "transformers, adapter": partial(transformers, file),
        "transformers in float32, adapter": partial(transformers, file, dtype="float32"),
    }
    for name, opened in backends.items():
        backend = opened(threads=options.threads)
        backend.load_adapter(adapter)
        yield from _through(name, backend, asked)
    with TemporaryDirectory() as folder:
        for type_ in TYPES:
            out = Path(folder) / "merged.gguf"
            # on the questions of DATA, the file is measured here
            export(options.run, "gguf", type_, out, "--questions", "0")
            name = f"merged, {type_ or 'as the base'}"
            yield from _through(name, LlamaCpp(out, threads=options.threads), asked)
            if type_ in UNTOUCHED:
                yield from untouched(name, out, asked, options.threads)


def export(run: Path, to: str, type_: str | None, out: Path, *more: str) -> dict[str, Any]:
    """Export a run by the command, also where it would be refused; return what it prints."""
    program = str(Path(sys.executable).with_name("selfloop"))
    command = [program, "export", str(run), "--to", to, "--out", str(out)]
    types = ["--type", type_] if type_ else []
    done = subprocess.run(
        [*command, *types, *more, "--force", "--json"],
        check=True,
        stdout=subprocess.PIPE,
    )
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def exports(run: Path) -> Iterator[str]:
    """Yield a row for each form and type, with the figures of `selfloop export`.

    `off` is the largest difference to base and adapter.
    """
    yield "| export | kept | declined | refused | off by | without --force |"
    yield "|---|---|---|---|---|---|"
    for to, types in EXPORTS.items():
        for type_ in types:
            with TemporaryDirectory() as folder:
                check = export(run, to, type_, Path(folder) / "out")["check"]
            if not check["questions"]:
                yield f"| {to}, {type_ or 'as the base'} | {check['reason']} | | | | |"
                continue
            written, reference = check["written"], check["reference"] or check["written"]
            off = max(abs(written[rate] - reference[rate]) for rate in written)
            shares = " | ".join(f"{share:.3f}" for share in written.values())
            result = "refused" if check["refusal"] else "written"
            yield f"| {to}, {type_ or 'as the base'} | {shares} | {off:.3f} | {result} |"


def _through(
    way: str, backend: Any, asked: list[Question]
) -> Iterator[tuple[str, str, list[float]]]:
    for form in FORMS:
        found = said(backend, asked, form)
        answered = ~found.silent
        yield (
            way,
            form,
            [
                *map(
                    float,
                    map(np.mean, (found.right & answered, ~found.right & answered, found.silent)),
                )
            ],
        )
    backend.close()


def untouched(
    way: str, file: Path, asked: list[Question], threads: int | None
) -> Iterator[tuple[str, str, list[float]]]:
    """Yield what llama-cpp-python alone makes of a file."""
    model = PlainLlama(str(file), n_ctx=512, n_threads=threads, verbose=False)
    for form, template in FORMS.items():
        shares = [0.0, 0.0, 0.0]
        for question in asked:
            prompt = template.replace("{}", question.text)
            made: Any = model(prompt, max_tokens=TOKENS, temperature=0.0, stop=["\n"])
            answer = made["choices"][0]["text"].strip()
            shares[2 if declines(answer) else not judged(question, answer)] += 1 / len(asked)
        yield f"{way}, untouched", form, shares
    model.close()


if __name__ == "__main__":
    main()
