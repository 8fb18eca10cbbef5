"""How the combined verdict came to be what it is: the same answers weighed and scaled in several
ways.

    python benchmarks/combination.py QUESTIONS.jsonl ... [--model gemma-3-270m]      # see trivia.py

Each way is fitted without labels, as in a run; gold answers only say how good it is. `evidence` is
which detectors are weighed, `scaled to` what the result is scaled to: agreement itself (the fit's
target), the probability of the answer's meaning, or the geometric mean of the two. The last rows
are what labels could do, in ten folds.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectors import Render, answered, detectors, questions, recorded, rights, shown
from selfloop_plugins import models
from selfloop_plugins._shared.calibration import Calibration, fit
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights
from selfloop_plugins.detectors._claims import count_agreeing

from selfloop import Claim, VerifyContext
from selfloop.evaluation import metrics
from selfloop.evaluation.metrics import interval
from selfloop.storage.recorder import Recorder

SINGLE = (
    "sequence_probability", "meaning_probability", "agreement", "pmi", "perplexity",
    "mean_token_entropy", "cocoa",
    "discrete_semantic_entropy", "sar", "selfcheck_ngram",
)  # fmt: skip
EVIDENCE = {
    "all": SINGLE,
    "all but pmi": tuple(name for name in SINGLE if name != "pmi"),
    "the default, and agreement": (
        "sequence_probability",
        "meaning_probability",
        "pmi",
        "agreement",
    ),
    "the default, and sar": ("sequence_probability", "meaning_probability", "pmi", "sar"),
    "the default": ("sequence_probability", "meaning_probability", "pmi"),
    "meaning_probability": ("meaning_probability",),
}
Told = list[dict[str, float]]


def main() -> None:
    """Print a table for each file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--model", default="gemma-3-270m")
    options = parser.parse_args()
    backend = LlamaCpp(converted_weights(models.locate(options.model), "auto").path)
    for file in options.files:
        with recorded(backend) as (recorder, _, render):
            measure(file, recorder, render)
    backend.close()


def measure(file: Path, backend: Recorder, render: Render) -> None:
    """Answer, and print."""
    ours = detectors(backend)
    context = VerifyContext(backend, render, lambda claims: [()] * len(claims))
    claims = answered(backend, questions(file), render)
    right = rights(claims)

    def told(some: list[Claim]) -> Told:
        said: Told = [{} for _ in some]
        for name in SINGLE:
            for each, verdict in zip(said, ours[name].build().verify(some, context), strict=True):
                each |= {} if verdict.confidence is None else {name: verdict.confidence}
        return said

    whole = told(claims)
    halves = [[Claim(c.question, c.answer, c.samples[half::2]) for c in claims] for half in (0, 1)]
    other_halves = [*halves[1], *halves[0]]
    shares = [count_agreeing(claim) / len(claim.samples) for claim in other_halves]
    seen = [each for half in halves for each in told(half)]
    print(f"\n**{file.stem}**: {len(claims)} questions, {right.mean():.1%} right\n")
    print("| evidence | scaled to | AUROC | ECE |\n|---|---|---|---|")
    for name in SINGLE:
        line(f"{name} alone", "-", np.array([each.get(name, 0.0) for each in whole]), right)
    meaning = np.array([each.get("meaning_probability", 0.0) for each in whole])
    agreed = np.array([each.get("agreement", 0.0) for each in whole])
    targets = {"meaning": meaning, "the mean of both": np.sqrt(meaning * agreed)}
    for evidence, names in EVIDENCE.items():
        found = fit(names, seen, shares, "")
        line(evidence, "agreement", found(whole), right)
        for target, values in targets.items():
            line(evidence, target, found.towards(values, whole)(whole), right)
    for evidence in ("all", "the default"):
        line(f"{evidence}, with labels", "labels", folded(EVIDENCE[evidence], whole, right), right)


def folded(names: tuple[str, ...], said: Told, right: Any) -> Any:
    """Return what fits on the other nine tenths of the labels say."""
    found, order = np.empty(len(said)), np.random.default_rng(0).permutation(len(said)) % 10
    for k in range(10):
        inside, outside = np.flatnonzero(order != k), np.flatnonzero(order == k)
        part: Calibration = fit(names, [said[i] for i in inside], right[inside].astype(float), "")
        found[outside] = part([said[i] for i in outside])
    return found


def line(evidence: str, target: str, given: Any, right: Any) -> None:
    """Print one row."""
    auroc, ece = (
        interval(partial(metric, given, right), len(right))
        for metric in (metrics.auroc, metrics.ece)
    )
    print(f"| {evidence} | {target} | {shown(auroc)} | {shown(ece)} |", flush=True)


if __name__ == "__main__":
    main()
