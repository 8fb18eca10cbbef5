"""`selfloop calibrate RUN`: fits the combined verdict on a run's gold answers, for other runs to use."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from selfloop_plugins._shared.output import force_option, refuse_taken, writing

from selfloop import hookimpl
from selfloop.cli.options import FilePath, run_argument, run_folder, runs_dir

if TYPE_CHECKING:
    from selfloop_plugins._shared.calibration import Calibration
    from selfloop_plugins._shared.calibration import Confidences as Said

LEAST = 30  # labels; with fewer a fit says nothing
# for a line of free form; with fewer it follows the noise (Niculescu-Mizil & Caruana 2005)
ENOUGH = 1000
FOLDS = 10


@click.command("calibrate")
@run_argument
@click.option(
    "--out",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Where to write the fit; by default calibration-labels.json in RUN.",
)
@force_option
@runs_dir
@click.option(
    "--method",
    type=click.Choice(["auto", "platt", "isotonic"]),
    default="auto",
    show_default=True,
    help="The form of the fit; auto takes isotonic from 1,000 labels on, else platt.",
)
def command(
    run: str,
    out: Path | None,
    force: bool,
    runs: Path,
    method: Literal["auto", "platt", "isotonic"],
) -> None:
    """Fit the verifier `combined` on the gold answers of RUN's questions; RUN is a folder, or a
    name in --runs.

    A recipe uses the result as {kind: combined, calibration: FILE}. It never judges a question that
    it was fitted on. Printed are the weight of each verifier, and how well the fit tells right from
    wrong on labels that it did not see.

    \b
    Examples:
      selfloop eval smollm2-135m-instruct --data questions.jsonl
      selfloop calibrate eval-questions --out calibration.json
    """
    import numpy as np

    from selfloop.evaluation import metrics

    folder = run_folder(run, runs)
    file = out or folder / "calibration-labels.json"
    refuse_taken(file, "calibration on labels", force=force, ours=_is_earlier)
    said, right, questions = _labelled(folder)
    shaped = method == "isotonic" or (method == "auto" and len(said) >= ENOUGH)
    what = f"{len(said)} labels of {folder.name}, {'isotonic' if shaped else 'Platt'}"
    found = _fitted(said, right, shaped, what, questions)
    with writing(file):
        found.write(file)
    held = np.empty(len(said))
    for fold in range(FOLDS):
        inside = [i for i in range(len(said)) if i % FOLDS != fold]
        part = _fitted([said[i] for i in inside], [right[i] for i in inside], shaped, "", ())
        held[fold::FOLDS] = part(said[fold::FOLDS])
    for name, weight in sorted(
        zip(found.detectors, found.weights, strict=True), key=lambda one: -one[1]
    ):
        click.echo(f"  {weight:5.2f}  {name}")
    every = np.ones(len(said))
    click.echo(
        f"fitted on {what}. On labels that a fit did not see ({FOLDS} folds): AUROC "
        f"{float(metrics.auroc(held, right, every)):.3f}, ECE "
        f"{float(metrics.ece(held, right, every)):.3f}"
    )
    click.echo(
        f"Use it in a recipe, last of the verifiers: {{kind: combined, calibration: {file}}}"
    )


def _labelled(run: Path) -> "tuple[list[Said], list[bool], tuple[str, ...]]":
    """Return what was said of each answer that has gold answers, whether it was right, and the questions' ids."""
    from selfloop.errors import RecipeError
    from selfloop.evaluation.gold import judged
    from selfloop.storage.store import attempts_of, declining_as_in

    with declining_as_in(run):
        known = [
            (attempt, judged(attempt.question, attempt.answer))
            for attempt in attempts_of(run)
            if attempt.draft
        ]
    labelled = [
        (attempt, bool(good)) for attempt, good in known if good is not None and attempt.verdicts
    ]
    if len({good for _, good in labelled}) < 2 or len(labelled) < LEAST:
        right = sum(good for _, good in labelled)
        raise RecipeError(
            f"{run} has {len(labelled)} answers with gold answers beside them, {right} of them "
            "right. It takes "
            f"{LEAST}, some right and some wrong: ask more questions, with `selfloop eval`."
        )
    said = [
        {
            name: given
            for name, given in attempt.confidences(attempt.chosen).items()
            if given is not None and name != "combined"
        }
        for attempt, _ in labelled
    ]
    return (
        said,
        [good for _, good in labelled],
        tuple(attempt.question.id for attempt, _ in labelled),
    )


def _fitted(
    said: "Sequence[Said]",
    right: Sequence[bool],
    shaped: bool,
    what: str,
    questions: tuple[str, ...],
) -> "Calibration":
    from dataclasses import replace

    from selfloop_plugins._shared.calibration import fit
    from selfloop_plugins._shared.calibration import fit_isotonic as isotonic

    detectors = list(dict.fromkeys(name for each in said for name in each))
    found = replace(
        fit(detectors, said, [float(good) for good in right], what), questions=questions
    )
    return replace(found, steps=isotonic(found(said), right)) if shaped else found


def _is_earlier(file: Path) -> bool:
    """Return whether a file is a fit on labels; the one that `combined` keeps with its run is not."""
    from selfloop_plugins._shared.calibration import read

    from selfloop.errors import RecipeError

    try:
        return bool(read(file).questions)
    except RecipeError:
        return False


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
