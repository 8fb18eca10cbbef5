"""What a thousand labels do for the probes (EliCal's second stage, arXiv 2510.17509), on and off
the set they are of.

    # see trivia.py; eight minutes
    python benchmarks/elical.py trivia.jsonl places.jsonl [--model gemma-3-270m]

Both probes learn from the model's agreement with itself on the trivia questions after the first
thousand; then again with the first thousand's labels. They judge what they learnt from (each
question by a head that has not seen it) and the other file, of which they have seen nothing.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from detectors import answered, questions, recorded, rights, shown
from selfloop_plugins import models
from selfloop_plugins.backends.llama_cpp.backend import LlamaCpp
from selfloop_plugins.backends.llama_cpp.weights import converted_weights
from selfloop_plugins.detectors.probes import AnswerProbe, QuestionProbe

from selfloop import VerifyContext
from selfloop.evaluation import metrics
from selfloop.evaluation.metrics import interval

LABELS = 1000


def main() -> None:
    """Answer both files, and print one row for each probe, with labels and without."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs=2)
    parser.add_argument("--model", default="gemma-3-270m")
    options = parser.parse_args()
    backend = LlamaCpp(converted_weights(models.locate(options.model), "auto").path)
    with recorded(backend) as (recorder, home, render):
        told = VerifyContext(recorder, render, lambda claims: [()] * len(claims))
        on, off = (answered(recorder, questions(file), render) for file in options.files)
        good, right = rights(on), rights(off)
        rows = [
            json.dumps({"question": c.question.text, "answer": c.answer.text, "right": bool(known)})
            for c, known in zip(on[:LABELS], good[:LABELS], strict=True)
        ]
        (home / "labels.jsonl").write_text("\n".join(rows), encoding="utf-8")
        print(
            "| probe | learns from | AUROC | ECE | off its set: AUROC | ECE "
            "|\n|---|---|---|---|---|---|"
        )
        for build in (QuestionProbe, AnswerProbe):
            for what, labels in (
                ("agreement", None),
                (f"and {LABELS} labels", home / "labels.jsonl"),
            ):
                own = home / f"{build.name}-{labels is not None}"
                own.mkdir()
                probe = build(folder=own, labels=labels)
                cells = [
                    shown(interval(partial(metric, given, truth), len(truth)))
                    for claims, truth in ((on[LABELS:], good[LABELS:]), (off, right))
                    for given in [
                        np.array([v.confidence or 0.0 for v in probe.verify(claims, told)])
                    ]
                    for metric in (metrics.auroc, metrics.ece)
                ]
                print(f"| {build.name} | {what} | {' | '.join(cells)} |", flush=True)
    backend.close()


if __name__ == "__main__":
    main()
