"""`selfloop calibrate RUN`: fits the detector `combined` on a run's gold answers.

The fit is a regularised logistic regression over the detectors' log-odds, refined by Platt scaling
or by isotonic regression. Cross-validation measures it on labels that it was not fitted on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from selfloop_plugins._shared.output import force_option, refuse_taken, writing

from selfloop import hookimpl
from selfloop.cli.options import FilePath, run_argument, run_folder, runs_dir
from selfloop.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from selfloop_plugins._shared.calibration import Calibration

Method = Literal["auto", "platt", "isotonic"]
MIN_LABELS = 30  # a fit on fewer is mostly noise
# Isotonic regression follows the noise of fewer labels (Niculescu-Mizil & Caruana 2005).
MIN_LABELS_ISOTONIC = 1000
FOLDS = 10  # of the cross-validation
COMBINED = "combined"  # the detector that is fitted, which cannot be one of its own inputs


@dataclass(frozen=True)
class Labels:
    """Answers with their labels: per answer the detectors' confidences, and whether it is right.

    `questions` are the ids of the questions.
    """

    confidences: Sequence[Mapping[str, float]]
    right: Sequence[bool]
    questions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.right)

    def without_fold(self, fold: int) -> "Labels":
        """Return the labels of all folds but one; every `FOLDS`-th answer is in the same fold."""
        kept = [index for index in range(len(self)) if index % FOLDS != fold]
        return Labels(
            [self.confidences[index] for index in kept],
            [self.right[index] for index in kept],
            tuple(self.questions[index] for index in kept),
        )


@click.command("calibrate")
@run_argument
@click.option(
    "--out",
    type=FilePath(dir_okay=False, path_type=Path),
    help="The file of the fit; by default calibration-labels.json in RUN.",
)
@force_option
@runs_dir
@click.option(
    "--method",
    type=click.Choice(["auto", "platt", "isotonic"]),
    default="auto",
    show_default=True,
    help="The form of the fit; auto uses isotonic from 1,000 labels on, else platt.",
)
def command(run: str, out: Path | None, force: bool, runs: Path, method: Method) -> None:
    """Fit the detector `combined` on the gold answers of RUN (a folder, or a name in --runs).

    A recipe uses the result as {kind: combined, calibration: FILE}. It never judges a question that
    it was fitted on. The output has the weight of each detector, and how well the fit tells right
    from wrong on labels that it was not fitted on.

    \b
    Examples:
      selfloop eval smollm2-135m-instruct --data questions.jsonl
      selfloop calibrate eval-questions --out calibration.json
    """
    import numpy as np

    from selfloop.evaluation import metrics

    folder = run_folder(run, runs)
    file = out or RunFolder(folder).calibration_on_labels
    refuse_taken(file, "calibration on labels", force=force, ours=_is_earlier)
    labels = _labels(folder)
    is_isotonic = method == "isotonic"
    is_isotonic |= method == "auto" and len(labels) >= MIN_LABELS_ISOTONIC
    source = f"{len(labels)} labels of {folder.name}, {'isotonic' if is_isotonic else 'Platt'}"
    calibration = replace(_fitted(labels, is_isotonic, source), questions=labels.questions)
    with writing(file):
        calibration.save(file)
    weights = zip(calibration.detectors, calibration.weights, strict=True)
    for name, weight in sorted(weights, key=lambda detector: -detector[1]):
        click.echo(f"  {weight:5.2f}  {name}")
    # On its own labels a fit looks better than it is.
    probabilities = _cross_validated(labels, is_isotonic)
    # Metrics take weights for the bootstrap; here each answer counts once.
    weight_of_each = np.ones(len(labels))
    auroc = float(metrics.auroc(probabilities, labels.right, weight_of_each))
    ece = float(metrics.ece(probabilities, labels.right, weight_of_each))
    click.echo(
        f"fitted on {source}. On labels that a fit did not see ({FOLDS} folds): AUROC "
        f"{auroc:.3f}, ECE {ece:.3f}"
    )
    click.echo(
        f"Use it in a recipe, last of the detectors: {{kind: combined, calibration: {file}}}"
    )


def _labels(run: Path) -> Labels:
    """Return the labels of a run's answers.

    Raises RecipeError where they are too few, or all right, or all wrong.
    """
    from selfloop.errors import RecipeError
    from selfloop.storage.store import declining_as_in

    with declining_as_in(run):
        answers = list(_labelled(run))
    labels = Labels(
        [confidences for confidences, _, _ in answers],
        [right for _, right, _ in answers],
        tuple(question for _, _, question in answers),
    )
    if len(labels) < MIN_LABELS or len(set(labels.right)) < 2:
        raise RecipeError(
            f"{run} has {len(labels)} answers with gold answers, {sum(labels.right)} of them "
            f"right. It takes {MIN_LABELS}, some right and some wrong: ask more questions, with "
            "`selfloop eval`."
        )
    return labels


def _labelled(run: Path) -> Iterator[tuple[dict[str, float], bool, str]]:
    """Yield the detectors' confidences in each answer with gold answers, its label, its id."""
    from selfloop.evaluation.gold import judged
    from selfloop.storage.store import attempts_of

    for attempt in attempts_of(run):
        if not attempt.draft or not attempt.verdicts:
            continue
        label = judged(attempt.question, attempt.answer)
        if label is None:  # without gold answers
            continue
        # A detector that abstained has no confidence; the fit adds nothing for it.
        confidences = {}
        for name, confidence in attempt.confidences(attempt.chosen).items():
            if confidence is not None and name != COMBINED:
                confidences[name] = confidence
        yield confidences, bool(label), attempt.question.id


def _fitted(labels: Labels, is_isotonic: bool, source: str) -> "Calibration":
    """Return the fit on these labels; `source` says which they are."""
    from selfloop_plugins._shared.calibration import fit, fit_isotonic

    detectors: dict[str, None] = {}  # a set that keeps the order
    for confidences in labels.confidences:
        detectors |= dict.fromkeys(confidences)
    targets = [float(right) for right in labels.right]
    calibration = fit(list(detectors), labels.confidences, targets, source)
    if not is_isotonic:
        return calibration
    steps = fit_isotonic(calibration(labels.confidences), labels.right)
    return replace(calibration, steps=steps)


def _cross_validated(labels: Labels, is_isotonic: bool) -> "NDArray[np.float64]":
    """Return the probability of each answer by a fit on the other folds, (answers,)."""
    import numpy as np

    probabilities = np.empty(len(labels))
    for fold in range(FOLDS):
        calibration = _fitted(labels.without_fold(fold), is_isotonic, "")
        probabilities[fold::FOLDS] = calibration(labels.confidences[fold::FOLDS])
    return probabilities


def _is_earlier(file: Path) -> bool:
    """Return whether a file is a fit on labels; the one that `combined` keeps in its run is not."""
    from selfloop_plugins._shared.calibration import read_calibration

    from selfloop.errors import RecipeError

    try:
        return bool(read_calibration(file).questions)
    except RecipeError:
        return False


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
