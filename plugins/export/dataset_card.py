"""The card of a data set: its rows, the model and the recipe that made them, and its limits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from selfloop_plugins._shared.cards import block, code, front, made_with, table

from selfloop.records import Decision
from selfloop.storage.run_folder import RunFolder
from selfloop.text.answers import UNKNOWN

if TYPE_CHECKING:
    from selfloop import Run

# the hub's name for the task of a form
TASKS = {"qa": "question-answering", "sft": "text-generation", "preference": "text-generation"}
# functions of `datasets` for formats that `load_dataset` does not read
LOADERS = {"hf": "load_from_disk"}
# the hub's names for numbers of rows below each limit
SIZE_CATEGORIES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)
# every column that a form may have; the card explains those of its rows
COLUMNS: Mapping[str, str] = {
    "question": "the question, by the model itself or from a file",
    "answer": f'the final answer: "{UNKNOWN}" where the question was declined',
    "drafted": "the model's own answer, before the decision",
    "decision": "belief, declined or undecided; dropped was never answered, failed went wrong",
    "confidence": "how likely `drafted` is true, by the detector that decided, in [0, 1]",
    "round": "the round in which it was answered",
    "source": "the question's source",
    "topic": "the topic that the source asked about",
    "samples": "other answers to the same question, drawn at random",
    "verdicts": "each detector's confidence; none where it could not tell",
    "columns": "the other columns of the data that the questions came from",
    "adapter": "the sha256 of the LoRA adapter that answered; none for the model as it is",
    "model": "the model's name",
    "prompt": "the question",
    "completion": f'the answer where it is believed, "{UNKNOWN}" where it was declined',
    "chosen": f'the answer where it is believed, "{UNKNOWN}" where it was declined',
    "rejected": "the other of the two",
}
LICENCE = """\
Whoever publishes this data set states its licence. The model named above generated the text,
and the terms of that model hold for its output. Questions from a file have the licence of that
file."""
LIMITS = """\
**Nobody checked the answers: they are the beliefs of a model.** Some beliefs are wrong, and the
model would have answered some of the declined questions rightly. The confidences are estimates
by detectors, and where a model is sure of a wrong answer the detectors are often wrong too. A
model asks most about the subjects that were common in its training, in forms that were common
there. Do not use this as a source of facts, and do not measure a model by it. Text of a model
may contain anything, names of persons too."""


def card(run: "Run", form: str, to: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the card of these rows of a run."""
    name, model, decide = run.folder.resolve().name, run.model, run.decide
    if decide.risk is None:
        threshold = f"of at least {decide.belief:g}"
    else:
        threshold = f"such that {decide.risk:.0%} of a round is wrong"
    # of all questions of the run, also those that have no row here
    counts = Counter(row["decision"] for row in run.rows(get_args(Decision)))
    parts = [
        front(_front_matter(name, form, to, len(rows))) + f"\n# {code(f'{name}-{form}')}",
        "A language model's answers to questions, as the detectors of selfloop judged them. Model: "
        f"{made_with(model)}.",
        f"## Rows\n\n{len(rows):,} rows, one a question, as the run left it:",
        table(("column", "meaning"), [(code(column), COLUMNS[column]) for column in rows[0]]),
        block(
            f'import datasets\n\ndatasets.{LOADERS.get(to, "load_dataset")}("THIS FOLDER")',
            "python",
        ),
        f"## How it was made\n\nThe run {code(name)} had {len(run.rounds)} rounds. In the end its "
        "questions were:",
        table(
            ("decision", "questions"),
            [(decision, f"{count:,}") for decision, count in counts.most_common()],
        ),
        f"An answer with a confidence {threshold} is a belief, one of at most {decide.declined:g} "
        "was declined, and one between the two is undecided. The recipe:",
        block(RunFolder(run.folder).recipe.read_text(encoding="utf-8"), "yaml"),
        f"## Licence\n\n{LICENCE}",
        f"## Limits\n\n{LIMITS}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(name: str, form: str, to: str, count: int) -> dict[str, Any]:
    """Return the card's front matter, which the hub reads."""
    matter: dict[str, Any] = {
        "pretty_name": f"{name}-{form}",
        "task_categories": [TASKS[form]],
        "size_categories": [_size_category(count)],
        "tags": ["selfloop", "synthetic"],
    }
    if to != "hf":  # a folder of `datasets` itself says which file holds which split
        split = {"split": "train", "path": f"train.{to}"}
        matter["configs"] = [{"config_name": "default", "data_files": [split]}]
    return matter


def _size_category(count: int) -> str:
    """Return the hub's name for a number of rows."""
    for limit, category in SIZE_CATEGORIES:
        if count < limit:
            return category
    return "n>1M"
