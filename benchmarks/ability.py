"""Does a tuned model still know and reason as its base does? Accuracy on multiple-choice tasks, by
lm-evaluation-harness.

    python -m venv build/ability                  # an environment apart: lm_eval brings much along
    build/ability/bin/pip install -c constraints.txt -e '.[tune]' 'lm_eval[hf]'
    selfloop export RUN --to hf --out TUNED
    build/ability/bin/python benchmarks/ability.py DATA BASE TUNED --stored FOLDER

DATA/choices has arc_easy, piqa, boolq and winogrande, 500 rows of each: no hub is asked. A model is
a folder of transformers, a GGUF file or a name of `selfloop models`; files are unpacked once. The
prompts and measures are those of lm_eval's own tasks, without examples and without a chat template.
`acc` takes the choice of the highest log-likelihood, `acc_norm` that of the highest one a
character.

Each model is compared with the first, row by row: the difference with its standard error, the rows
that were right and are wrong now (lost), the reverse (gained), and McNemar's exact test. With
--stored a run that was killed goes on. --show writes two examples of each task, as the model reads
them, to standard error.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]
from selfloop_plugins._torch.checkpoint import Checkpoint, locate

from selfloop.errors import ModelError

# Fields of lm_eval's own tasks, with the columns of our files.
PROMPTS: Mapping[str, Mapping[str, str]] = {
    "arc_easy": {
        "doc_to_text": "{{query}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
    },
    "piqa": {  # its queries end with a line break
        "doc_to_text": "{{query.strip()}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
    },
    "boolq": {  # lm_eval's task has the passage without a label
        "doc_to_text": "{{query.removeprefix('Passage: ')}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
    },
    # The choices are contexts here, and one continuation is read behind each. lm_eval takes a
    # number in doc_to_text as the sign of that.
    "winogrande": {
        "doc_to_text": "gold",
        "doc_to_choice": "context_options",
        "doc_to_target": "continuation",
    },
}
MEASURES = {
    "arc_easy": ("acc", "acc_norm"),
    "piqa": ("acc", "acc_norm"),
    "boolq": ("acc",),
    "winogrande": ("acc",),
}
EXAMPLES = 2

Scores = dict[tuple[str, str], NDArray[np.float64]]  # of task and measure: 1 or 0 for each row


def main() -> None:
    """Print a table for each model, as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+", metavar="model")
    parser.add_argument("--limit", type=int, help="rows of each task; by default all")
    parser.add_argument("--stored", type=Path, help="keep log-likelihoods in this folder")
    parser.add_argument("--device", default="cpu")
    # log-probabilities fill the memory: rows x tokens x vocabulary
    parser.add_argument("--batch", type=int, default=1, help="rows at a time")
    parser.add_argument("--dtype", default="float32", help="of the calculation")
    parser.add_argument("--show", action="store_true", help="write examples to standard error")
    options = parser.parse_args()
    files = {name: options.data / "choices" / f"{name}.jsonl" for name in PROMPTS}
    for file in files.values():
        if not file.is_file():
            parser.error(f"{file} is not there. DATA is the folder that has choices/ in it")
    # before any of the libraries is imported: a model's name must not be looked up
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from lm_eval import __version__ as version  # type: ignore[import-not-found]
        from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        parser.error(f"{error.name} is missing. The first lines of {__file__} install it")
    try:
        checkpoints = [locate(model) for model in options.models]
    except ModelError as error:
        parser.error(str(error))
    with TemporaryDirectory() as folder:
        write_tasks(files, Path(folder))
        tasks = TaskManager(include_path=folder, include_defaults=False)
        if options.show:
            print("\n".join(examples(tasks)), file=sys.stderr)
        print(f"lm_eval {version}, {options.dtype}, {options.device}\n", flush=True)
        first: Scores = {}
        for model, checkpoint in zip(options.models, checkpoints, strict=True):
            scores = measured(checkpoint, tasks, options)
            first = first or scores
            print(f"**{model}**\n")
            print("\n".join(table(scores, first)) + "\n", flush=True)


def write_tasks(files: Mapping[str, Path], folder: Path) -> None:
    """Write a file of lm_eval for each task. JSON is YAML."""
    for name, file in files.items():
        metrics = [
            {"metric": measure, "aggregation": "mean", "higher_is_better": True}
            for measure in MEASURES[name]
        ]
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"validation": str(file.resolve())},
                "cache_dir": str(folder / "cache"),
            },
            "validation_split": "validation",
            "output_type": "multiple_choice",
            "metric_list": metrics,
            **PROMPTS[name],
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task), "utf-8")


def examples(tasks: Any) -> Iterator[str]:
    """Yield the first rows of each task as pairs of prompt and continuation."""
    for name, task in tasks.load(list(PROMPTS))["tasks"].items():
        task.build_all_requests(limit=EXAMPLES)
        for request in task.instances:
            prompt, continuation = request.args
            verdict = "right" if request.idx == request.doc["gold"] else "wrong"
            yield f"{name} {request.doc['id']} {verdict}: {prompt!r} -> {continuation!r}"


def measured(checkpoint: Checkpoint, tasks: Any, options: argparse.Namespace) -> Scores:
    """Return a model's scores, in the order of the rows."""
    from lm_eval import simple_evaluate

    cache = None
    if options.stored:
        name = f"{checkpoint.model_hash()[:16]}-{options.dtype}-{options.device.split(':')[0]}"
        cache = str(options.stored / name)
    results = simple_evaluate(
        model="hf",
        model_args={"pretrained": checkpoint.place, "dtype": options.dtype},
        tasks=list(PROMPTS),
        task_manager=tasks,
        device=options.device,
        batch_size=options.batch,
        limit=options.limit,
        use_cache=cache,
        bootstrap_iters=0,  # the mean has a formula for its standard error
    )
    scores: Scores = {}
    for name, measures in MEASURES.items():
        rows = sorted(results["samples"][name], key=lambda row: row["doc_id"])
        for measure in measures:
            scores[name, measure] = np.array([row[measure] for row in rows], float)
    return scores


def table(scores: Scores, first: Scores) -> Iterator[str]:
    """Yield the lines of a model's table; the last row is the mean of all tasks' `acc`."""
    yield "| task | accuracy | to the first | lost, gained | p |"
    yield "|---|---|---|---|---|"
    changes = {key: values - first[key] for key, values in scores.items()}
    for key, values in scores.items():
        yield row(" ".join(key), [values], [changes[key]])
    accs = [(name, "acc") for name in PROMPTS]
    yield row("mean acc", [scores[key] for key in accs], [changes[key] for key in accs])


def row(label: str, values: list[NDArray[np.float64]], changes: list[NDArray[np.float64]]) -> str:
    """Return a line of the table, of one task or of the mean of several."""
    all_changes = np.concatenate(changes)
    lost, gained = int((all_changes < 0).sum()), int((all_changes > 0).sum())
    cells = [
        label,
        with_error(values),
        with_error(changes, sign="+"),
        f"{lost}, {gained}",
        f"{p_value(lost, gained):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def with_error(parts: list[NDArray[np.float64]], sign: str = "") -> str:
    """Return the mean of the parts' means, and its standard error."""
    mean = np.mean([part.mean() for part in parts])
    variances = [part.var(ddof=1) / len(part) for part in parts]
    error = np.sqrt(np.sum(variances)) / len(parts)
    return f"{mean:{sign}.3f} ± {error:.3f}"


def p_value(lost: int, gained: int) -> float:
    """Return the p-value of McNemar's exact test."""
    if lost + gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained).pvalue)


if __name__ == "__main__":
    main()
