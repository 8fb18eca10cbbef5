"""How well detectors tell right answers from wrong ones, on question sets with gold answers.

    python benchmarks/detectors.py DATA                    # a folder of JSONL files; both models, about ten minutes

Each question gets one greedy answer and eight samples at temperature 0.7, drawn once for all detectors. Gemma, a
base model, sees five demonstrations; SmolLM2 gets the recipes' own prompt. Nothing is fitted here: confidences are as
the detectors give them, uncalibrated. Where a detector abstains, its confidence counts as 0: the answer would not be
believed. Seconds are the detector's own, for 1,000 questions, in addition to answering.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from generate import MODELS, SHOWN, cpu
from numpy.typing import NDArray
from selfloop_plugins import models
from selfloop_plugins.llama_cpp.backend import LlamaCpp
from selfloop_plugins.llama_cpp.weights import working

from selfloop import Claim, Completion, Question, metrics
from selfloop.answers import declines
from selfloop.gold import correct, correct_by_regex
from selfloop.manager import load
from selfloop.metrics import Estimate, interval
from selfloop.prompts import Prompt, Prompts, is_open
from selfloop.records import Request, Sampling

SETS = ("easy_facts", "popqa", "nq_open", "webquestions", "curatedtrec")
SAMPLES, TEMPERATURE, TOKENS = 8, 0.7, 24
PROMPTS = Prompts()
UNTOLD = "cannot be told"


def main() -> None:
    """Print one table for each model and set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--weights", default="auto")
    options = parser.parse_args()
    print(cpu(), flush=True)
    for name in options.names:
        path = working(models.locate(name), options.weights).path
        backend = LlamaCpp(path)
        for label in SETS:
            rows = list(map(json.loads, (options.data / f"{label}.jsonl").read_text(encoding="utf-8").splitlines()))
            start = time.perf_counter()
            claims = answered(backend, [Question(row["question"], label) for row in rows])
            seconds = time.perf_counter() - start
            right = np.array([judged(claim.answer.text, row) for claim, row in zip(claims, rows, strict=True)])
            silent = np.mean([declines(claim.answer.text) for claim in claims])
            accuracy = shown(interval(partial(metrics.mean, right), len(right)))
            print(f"\n**{name}** ({path.name}), **{label}**: {len(rows)} questions, accuracy {accuracy}, {silent:.0%}")
            print(f"declined; answering took {1000 * seconds / len(rows):.0f} s for 1,000 questions\n")
            for line in table(claims, right, backend):
                print(line, flush=True)
        backend.close()


def answered(backend: LlamaCpp, questions: list[Question]) -> list[Claim]:
    """Return each question with its greedy answer and its samples."""
    greedy = Sampling(max_tokens=TOKENS, stop=("\n",))
    drawn = Sampling(TEMPERATURE, max_tokens=TOKENS, stop=("\n",))
    requests = []
    for seed, question in enumerate(questions):
        prompt = asked(question.text, chat=backend.describe().chat)
        requests.append(Request(prompt, greedy, open_turn=is_open(prompt), entropy=True))
        requests.append(Request(prompt, drawn, n=SAMPLES, seed=seed, open_turn=is_open(prompt)))
    found: list[dict[int, Completion]] = [{} for _ in requests]
    for index, completion in backend.generate(requests):
        assert isinstance(completion, Completion), completion
        found[index][completion.sample] = completion
    samples = [tuple(made[k] for k in sorted(made)) for made in found]
    return [Claim(q, samples[2 * i][0], samples[2 * i + 1]) for i, q in enumerate(questions)]


def asked(question: str, *, chat: bool) -> Prompt:
    """Return what a model is asked."""
    if chat:
        return PROMPTS.render("answer", chat=True, question=question)
    return f"{SHOWN}Question: {question}\nAnswer:"


def judged(answer: str, row: dict[str, Any]) -> bool:
    """Return whether an answer counts as right."""
    if "answer_regex" in row:
        return not declines(answer) and correct_by_regex(answer, row["answer_regex"])
    return correct(answer, row["answers"])


def table(claims: list[Claim], right: NDArray[np.bool_], backend: LlamaCpp) -> Iterator[str]:
    """Yield one row for each built-in detector."""
    yield "| detector | AUROC | AURC | ECE | Brier | abstains | s / 1,000 |\n|---|---|---|---|---|---|---|"
    for kind, offer in load():
        if kind != "verifier" or not str(offer.component.build.__module__).startswith("selfloop_plugins."):
            continue
        start = time.perf_counter()
        verdicts = offer.component.build().verify(claims, backend)
        seconds = time.perf_counter() - start
        given = np.array([v.confidence or 0.0 for v in verdicts])
        silent = np.mean([v.confidence is None for v in verdicts])
        cells = [
            UNTOLD if silent == 1 else shown(interval(partial(metric, given, right), len(right)))
            for metric in (metrics.auroc, metrics.aurc, metrics.ece, metrics.brier)
        ]
        yield f"| {offer.component.name} | {' | '.join(cells)} | {silent:.0%} | {1000 * seconds / len(claims):.2f} |"


def shown(found: Estimate) -> str:
    """Return a value with its interval."""
    if np.isnan(found.value):
        return UNTOLD
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
