"""`selfloop score MODEL FILE`"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selfloop.cli.options import (
    FilePath,
    accept_license,
    as_json,
    column_options,
    complete_asked,
    overrides,
    runs_dir,
)
from selfloop.text.display import printable

if TYPE_CHECKING:
    from selfloop.api.score import ScoredAnswer


@click.command("score")
@click.argument("model", metavar="MODEL|RECIPE|RUN", shell_complete=complete_asked)
@click.argument("file", type=FilePath(path_type=Path))
@column_options("answer")
@overrides
@runs_dir
@accept_license
@as_json
def command(
    model: str,
    file: Path,
    question_column: str,
    answers_column: str,
    answer_column: str,
    skip_broken: bool,
    overrides: tuple[str, ...],
    runs: Path,
    as_json: bool,
) -> None:
    """Score the answers in FILE for likely correctness, by MODEL (a name, or a .gguf file).

    FILE has rows with a question and an answer: JSONL, JSON, CSV, TSV or Parquet, also as .gz, or -
    for standard input. The answers may come from anywhere. The model reads each of them, and
    answers the question itself a few times to compare. The result is a run in --runs. The columns
    that were used are printed on standard error.

    Pass a RECIPE (a .yaml file) to use its model, prompts and detectors, or a RUN (a run's folder)
    to use its tuned adapter too.

    Each line of the output is an answer: its confidence from 0 to 1, the question and the answer.
    --json prints the other columns of the row too, under `columns`.

    \b
    Examples:
      selfloop score smollm2-135m-instruct answers.jsonl
      selfloop score runs/quickstart answers.csv --json
    """
    from selfloop.api.score import score

    scores = score(
        model,
        file,
        overrides,
        question_column=question_column,
        answers_column=answers_column,
        answer_column=answer_column,
        skip_broken=skip_broken,
        runs=runs,
        quiet=as_json,
    )
    for answer in scores:
        line = json.dumps(answer.plain(), ensure_ascii=False) if as_json else _line(answer)
        click.echo(line)
    # Printed first: each line has its own error.
    scores.raise_for_failure()


def _line(answer: "ScoredAnswer") -> str:
    if answer.confidence is not None:
        confidence = f"{answer.confidence:.2f}"
    elif answer.error:
        confidence = f"  error ({answer.reason})"
    else:
        confidence = f"  ? ({answer.reason})"
    question, text = printable(answer.question, 100), printable(answer.answer, 60)
    return f"{printable(confidence, 80)}  {question} — {text}"
