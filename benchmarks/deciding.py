"""Where a model is to decline: before its answer, by a mark behind it, or in both places.

    python benchmarks/deciding.py DATA RUN OUT --private places.jsonl trivia.jsonl

Each arm is a tune of the finished RUN of a base model, with the same settings and the same seed.
`shuffled` is `after` with the chances of the answers shuffled among the questions: what it tells is
no knowledge. `one answer` is `after` without the base's other answers to the same questions. The
adapters are written to OUT, also those that the gate refuses; one that is there is not made again.

Each set is asked bare and behind five fixed examples, greedily, in the weights alone. A question
that is declined before its answer is asked again with declining forbidden, so each has a guess: an
answer without its mark. `declined` counts both ways. `kept` is the share of the base's right
answers in the same prompt that are given and right, `wrong left` counts the wrong ones given as a
share of the base's. `before` and `mark` are AUROCs of the model's log-odds in the two places, for
"its guess is right", with 95 % intervals by bootstrap; `sum` is that of both together, and
`probability` that of the guess's own probability. Gold answers are for this table only.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
from detectors import Render, questions, recorded, shown
from generate import cpu
from honesty import BARE, FORMS, SETS, TOKENS
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import decline_continuation
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights
from selfloop_plugins.detectors.flag import WITHOUT_DECLINING
from selfloop_plugins.tuners.lora import Lora, tuner
from selfloop_plugins.tuners.lora.checkpoint import EpochResult
from selfloop_plugins.tuners.lora.settings import Decide
from selfloop_plugins.tuners.lora.tokenized import TokenizedExample
from selfloop_plugins.tuners.lora.training import TrainingData, train
from single_pass import prompts_of

from selfloop import History, Question, TuneContext
from selfloop.config.prompts import Prompts
from selfloop.errors import ModelError
from selfloop.evaluation import metrics
from selfloop.evaluation.gold import judged
from selfloop.evaluation.metrics import interval
from selfloop.records import Adapter, Completion, Continuation, Request, Sampling
from selfloop.storage.store import Store
from selfloop.text.answers import MARK, declines, is_marked

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
ARMS: dict[str, Decide] = {
    "before": "before",
    "after": "after",
    "both": "both",
    "shuffled": "after",
    "one answer": "after",
}
COLUMNS = (
    "right",
    "wrong",
    "declined",
    "kept",
    "wrong left",
    "before",
    "mark",
    "sum",
    "probability",
)
SEED = 1


@dataclass(frozen=True)
class Said:
    """What a model says to a set.

    right     which guesses are right
    given     which are given, neither declined nor marked
    logprobs  the log-probability of each guess
    before    by how many nats declining is behind the likeliest answer
    mark      by how many nats the mark behind the guess is behind the end of the line
    """

    right: Bools
    given: Bools
    logprobs: Floats
    before: Floats
    mark: Floats


def main() -> None:
    """Tune each arm, and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--private", type=Path, nargs="*", default=[], help="more sets")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--limit", type=int, help="questions of each set")
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--min-kept", type=float, default=0.9)
    options = parser.parse_args()
    print(cpu(), flush=True)
    files = [options.data / f"{name}.jsonl" for name in options.sets] + options.private
    sets = {path.stem: questions(path)[: options.limit] for path in files}
    backend = LlamaCpp(converted_weights(models.locate(options.model), "bf16").path)
    with closing(Store(options.run, write=False)) as store:
        history = store.history()
    stored = options.out / "stored"
    stored.mkdir(parents=True, exist_ok=True)
    with recorded(backend, stored) as (recorder, _, _):
        cases = [(name, form) for name in sets for form in FORMS]
        base = {case: said(recorder, sets[case[0]], case[1]) for case in cases}
        print("\n".join(table("base", base, base)), flush=True)
        for arm in options.arms:
            settings = Lora(decide=ARMS[arm], rate=options.rate, min_kept=options.min_kept)
            folder = options.out / arm.replace(" ", "_")
            recorder.load_adapter(tuned(recorder, history, folder, arm, settings))
            found = {case: said(recorder, sets[case[0]], case[1]) for case in cases}
            print("\n".join(table(arm, found, base)), flush=True)
    backend.close()


def tuned(backend: Any, history: History, folder: Path, arm: str, settings: Lora) -> Adapter:
    """Return the adapter of an arm, also where the gate refuses it."""
    files = (folder / "adapter.gguf", folder / "candidate" / "adapter.gguf")
    if not any(file.is_file() for file in files):
        backend.load_adapter(None)
        prompt: Render = partial(Prompts([PROMPTS]).render, chat=backend.describe().chat)
        context = TuneContext(1, (), history, folder, backend, prompt, SEED)
        try:
            with control(arm):
                settings.tune(context)
        except ModelError as error:
            print(f"{arm}: {error}", flush=True)
    (file,) = (file for file in files if file.is_file())
    return Adapter(str(file), models.sha256(file), 1)


def control(arm: str) -> AbstractContextManager[Any]:
    """Return the change of the tuner that makes an arm a control; of the others nothing changes."""
    if arm == "one answer":
        return patch.object(tuner, "other_answers", lambda *args: [])
    if arm == "shuffled":
        return patch.object(tuner, "train", train_shuffled)
    return nullcontext()


def train_shuffled(wrapped: Any, data: TrainingData, *others: Any) -> list[EpochResult]:
    """Train with the chances of being correct shuffled among all examples."""
    mixed = replace(data, examples=shuffled(data.examples), held_out=shuffled(data.held_out))
    return train(wrapped, mixed, *others)


def shuffled(examples: Sequence[TokenizedExample]) -> list[TokenizedExample]:
    """Return the examples with each other's chances of being correct."""
    chances = [example.p_correct for example in examples]
    Random(SEED).shuffle(chances)
    pairs = zip(examples, chances, strict=True)
    return [replace(example, p_correct=chance) for example, chance in pairs]


def said(backend: Any, asked: Sequence[Question], form: str) -> Said:
    """Return what a model says to a set in one of the forms."""
    prompts = prompts_of(asked, form)
    first = answers(backend, prompts)
    declined = [not is_marked(one.text) and declines(one.text) for one in first]
    asked_again = [p for p, d in zip(prompts, declined, strict=True) if d]
    again = answers(backend, asked_again, decline_bias=WITHOUT_DECLINING)
    guesses, given, likeliest = list[str](), list[bool](), list[float]()
    instead = iter(again)
    for one, is_declined in zip(first, declined, strict=True):
        answer = next(instead) if is_declined else one
        guesses.append(answer.text.strip().removesuffix(MARK.strip()).strip())
        given.append(not is_declined and not is_marked(answer.text))
        likeliest.append(answer.logprobs[0] if answer.logprobs else 0.0)
    right = [bool(judged(q, guess)) for q, guess in zip(asked, guesses, strict=True)]
    declining = backend.loglikelihood(
        [decline_continuation(prompt, open_turn=True) for prompt in prompts]
    )
    logprobs, mark = behind(backend, prompts, guesses)
    return Said(
        np.array(right, bool),
        np.array(given, bool),
        logprobs,
        np.array(likeliest) - np.array([one[0] for one in declining]),
        mark,
    )


def answers(backend: Any, prompts: Sequence[str], decline_bias: float = 0.0) -> list[Completion]:
    """Return the greedy answers."""
    sampling = Sampling(max_tokens=TOKENS, stop=("\n",), decline_bias=decline_bias)
    requests = [Request(prompt, sampling, open_turn=True) for prompt in prompts]
    completions = dict(backend.generate(requests))
    return [completions[i] for i in range(len(requests))]


def behind(backend: Any, prompts: Sequence[str], guesses: Sequence[str]) -> tuple[Floats, Floats]:
    """Return the log-probability of each guess, and by how many nats the mark is behind the end of
    its line."""

    def read(ending: str) -> list[tuple[float, ...]]:
        lines = [f" {guess}{ending}\n" for guess in guesses]
        pairs = zip(prompts, lines, strict=True)
        found: list[tuple[float, ...]] = backend.loglikelihood(
            [Continuation(prompt, line, True) for prompt, line in pairs]
        )
        return found

    totals, margins = list[float](), list[float]()
    for plain, marked in zip(read(""), read(MARK), strict=True):
        at = len(plain) - 1  # of the end of the line; the tokens before it are the guess's
        totals.append(sum(plain[:at]))
        margins.append(plain[at] - marked[at])
    return np.array(totals), np.array(margins)


Case = tuple[str, str]


def table(arm: str, found: dict[Case, Said], base: dict[Case, Said]) -> Iterator[str]:
    """Yield the rows of an arm."""
    yield f"\n**{arm}**\n"
    yield f"| set | {' | '.join(COLUMNS)} |"
    yield f"|---|{'---|' * len(COLUMNS)}"
    for (name, form), row in found.items():
        before = base[name, form]
        right, wrong = row.right & row.given, ~row.right & row.given
        right_before, wrong_before = before.right & before.given, ~before.right & before.given
        kept = (right & right_before).sum() / max(right_before.sum(), 1)
        left = wrong.sum() / max(wrong_before.sum(), 1)
        shares = " | ".join(f"{part.mean():.3f}" for part in (right, wrong, ~row.given))
        scores = (row.before, row.mark, row.before + row.mark, row.logprobs)
        aurocs = " | ".join(
            shown(interval(partial(metrics.auroc, score, row.right), len(row.right)))
            for score in scores
        )
        label = f"{name}, {'bare' if form == BARE else 'shown'} ({right_before.sum()} right)"
        yield f"| {label} | {shares} | {kept:.2f} | {left:.2f} | {aurocs} |"


if __name__ == "__main__":
    main()
