"""`selfloop eval RECIPE|MODEL --data ...` and `selfloop eval RUN`"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfloop.cli.options import (
    accept_license,
    as_json,
    column_options,
    complete_asked,
    overrides,
    runs_dir,
)
from selfloop.cli.required import fail_over, fail_under, requirements
from selfloop.cli.tables import print_table
from selfloop.text.display import printable

if TYPE_CHECKING:
    from selfloop.api.choices import ChoiceEvaluation
    from selfloop.api.evaluate import Evaluation
    from selfloop.evaluation.evaluate import Report
    from selfloop.evaluation.metrics import Estimate

UNDEFINED = "-"  # a figure that the answers do not define, such as the AUROC of right answers only
MAX_MESSAGE = 400  # cells


@click.command("eval")
@click.argument("model", metavar="RECIPE|MODEL|RUN", shell_complete=complete_asked)
@click.option(
    "--data",
    metavar="FILE|hf:NAME[:SPLIT]",
    help="Questions with gold answers: a file, or a data set.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Ask this many questions, drawn at random, always the same.",
)
@click.option(
    "--match",
    metavar="RULE",
    default="exact",
    show_default=True,
    help="How an answer is compared with gold answers: exact, squad, contains, f1:0.5, "
    "numeric:0.01.",
)
@column_options()
@overrides
@runs_dir
@fail_under
@fail_over
@accept_license
@as_json
def command(
    model: str,
    data: str | None,
    limit: int | None,
    match: str,
    question_column: str,
    answers_column: str,
    skip_broken: bool,
    overrides: tuple[str, ...],
    runs: Path,
    fail_under: tuple[str, ...],
    fail_over: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how often a model is right, and how well its confidence tells right from wrong.

    RECIPE (a .yaml file) or MODEL (a name or a .gguf file) answers the questions of --data,
    closed-book, in a new run. A RUN (the folder of a run) answers them too, by its recipe and with
    its tuned adapter. Without --data, RUN is measured as it is, without the model.

    FILE has rows with a question and its gold answers: JSONL, JSON, CSV, TSV or Parquet, also as
    .gz, the file of a data set as its authors publish it, a folder of `datasets`, or - for standard
    input. The columns that were used are printed on standard error. hf:NAME is a data set of the
    hub: nq_open, trivia_qa, web_questions, popqa, simpleqa, truthful_qa.

    RULE is exact (the same answer by the house rule), squad (by the published SQuAD rule), contains
    (the answer contains a gold answer), f1:T (token F1 of at least T) or numeric:T (the number is
    off by at most the share T).

    The output has the accuracy, the quality of each detector's confidence, and the effect of the
    decisions, with intervals.

    \b
    Examples:
      selfloop eval smollm2-135m-instruct --data questions.jsonl
      selfloop eval quickstart --data hf:popqa --limit 500
      selfloop eval runs/quickstart
      selfloop eval quickstart --data questions.jsonl --fail-under accuracy=0.6 --fail-over failed=0
    """
    from pydantic_core import to_json

    from selfloop.api.choices import ChoiceEvaluation
    from selfloop.api.evaluate import evaluate

    # Parsed before a model loads.
    required = requirements(fail_under, fail_over)
    evaluation = evaluate(
        model,
        data,
        overrides,
        match=match,
        limit=limit,
        question_column=question_column,
        answers_column=answers_column,
        skip_broken=skip_broken,
        runs=runs,
        quiet=as_json,
        requirements=required,
    )
    if as_json:
        # NaN is not JSON; an undefined figure is null.
        click.echo(to_json(evaluation.plain(), indent=2, inf_nan_mode="null"))
    elif isinstance(evaluation, ChoiceEvaluation):
        _print_choices(evaluation)
    else:
        _print_evaluation(evaluation)
    if not isinstance(evaluation, ChoiceEvaluation) and evaluation.store_error:
        click.echo(f"selfloop: {printable(evaluation.store_error, MAX_MESSAGE)}", err=True)
    # Both errors come after the output: the figures are worth reading all the same.
    evaluation.raise_for_failures()
    evaluation.require(required)


def _print_evaluation(evaluation: "Evaluation") -> None:
    report, match = evaluation.report, evaluation.match
    notes = ""
    if report.failed:
        notes += f", {report.failed} failed"
    if report.without_gold:
        notes += f", {report.without_gold} without gold answer, not counted"
    click.echo(f"{printable(evaluation.model)}: {report.questions} questions{notes}")
    drafts, chosen = report.accuracy["draft"], report.accuracy["chosen"]
    revised = f" (drafts {_with_interval(drafts)})" if drafts != chosen else ""
    click.echo(f'accuracy {_with_interval(chosen)}{revised}, "I don\'t know" {report.silent:.0%}')
    click.echo(f"An answer is right if it is {match.says} (--match {match.name})")
    _print_confidences(report)
    _print_policies(report)
    if evaluation.rows:
        click.echo(_rows_line(evaluation.rows))
    if evaluation.files:
        files = ", ".join(map(str, evaluation.files))
        click.echo(f"All intervals, and data for plots: {files}")
    if evaluation.missing_extra:
        click.echo(evaluation.missing_extra)


def _print_confidences(report: "Report") -> None:
    rows = []
    for name, detector in {"confidence": report.confidence, **report.detectors}.items():
        metrics = detector.metrics
        others = [_value(metrics[metric]) for metric in ("aurc", "ece", "brier")]
        auroc = _with_interval(metrics["auroc"])
        rows.append((name, auroc, *others, f"{detector.abstains:.0%}"))
    columns = ["", "AUROC", "AURC", "ECE", "Brier", "abstains"]
    print_table(columns, rows, title="Confidence quality")


def _print_policies(report: "Report") -> None:
    names = list(report.policies)  # the first is the run's own decisions
    rows = []
    for metric, estimate in report.policies["run"].items():
        others = [_value(report.policies[policy][metric]) for policy in names[1:]]
        rows.append((metric.replace("_", " "), _with_interval(estimate), *others))
    print_table(["", *names], rows, title="Decision policies")


def _rows_line(rows: Mapping[str, Any]) -> str:
    """Return how many rows of the data were asked, and why the others were not, in a line."""
    # Nothing is lost in silence: each row was asked, left out or merged.
    counts = [f"{rows['questions']:,} drawn at random"] if rows["limit"] else []
    for left_out in rows["left_out"]:
        counts.append(f"left out: {left_out['rows']:,} {left_out['reason']}")
    if rows["merged"]:
        counts.append(f"{rows['merged']:,} merged with one that asks the same")
    account = ", ".join(counts) or "all asked"
    return f"{printable(rows['file'])}: {rows['rows']:,} rows, {account}"


def _print_choices(evaluation: "ChoiceEvaluation") -> None:
    failed = f", {evaluation.failed} failed" if evaluation.failed else ""
    click.echo(f"{evaluation.model}: {evaluation.questions} questions{failed}")
    click.echo(f"MC1 {_with_interval(evaluation.mc1)}")
    click.echo(f"MC2 {_with_interval(evaluation.mc2)}")


def _with_interval(estimate: "Estimate") -> str:
    if estimate.value != estimate.value:  # NaN
        return UNDEFINED
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _value(estimate: "Estimate") -> str:
    return UNDEFINED if estimate.value != estimate.value else f"{estimate.value:.2f}"
