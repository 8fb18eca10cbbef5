"""`selfloop score MODEL FILE`"""

import json
from pathlib import Path
from typing import Any

import click

from selfloop.cli.closed_book import closed_book, kept_input, refuse_ignored
from selfloop.cli.options import (
    FilePath,
    accept_license,
    answers_column,
    as_json,
    complete_asked,
    overrides,
    question_column,
    runs_dir,
    skip_broken,
)
from selfloop.config.defaults import FILE_SOURCE
from selfloop.text.display import printable


@click.command("score")
@click.argument("what", metavar="MODEL|RECIPE|RUN", shell_complete=complete_asked)
@click.argument("file", type=FilePath(path_type=Path))
@question_column
@answers_column
@click.option(
    "--answer-column",
    default="",
    metavar="NAME",
    help="The column of the answers that are to be judged.",
)
@skip_broken
@overrides
@runs_dir
@accept_license
@as_json
def command(
    what: str,
    file: Path,
    question_column: str,
    answers_column: str,
    answer_column: str,
    skip_broken: bool,
    overrides: tuple[str, ...],
    runs: Path,
    as_json: bool,
) -> None:
    """Say how likely the answers in FILE are true, going by MODEL (a name, or a .gguf file).

    FILE has rows with a question and an answer: JSONL, JSON, CSV, TSV or Parquet, also as .gz, or -
    for standard input. Who wrote the answers does not matter. The model reads each, and answers the
    question itself some times to compare. It is a run like any other, in --runs. Which column was
    taken for what is said on standard error.

    In place of MODEL, RECIPE (a .yaml file) is its model by its prompts and verifiers, and RUN (a
    run's folder) the same with the adapter that it was tuned to last.

    Printed is a line for each answer: the confidence in it, from 0 to 1, the question and the
    answer. With --json the other columns of its row come out again, under `columns`.

    \b
    Examples:
      selfloop score smollm2-135m-instruct answers.jsonl
      selfloop score runs/quickstart answers.csv --json
    """
    from selfloop import data
    from selfloop.errors import StepFailed
    from selfloop.storage.store import attempts_of

    # no draft is written
    refuse_ignored(overrides, "critique", "answer.careful", "prompts.critique", "prompts.revise")
    path = kept_input(file, runs)
    wanted = data.Columns(question_column, answers_column, answer_column)
    table = data.read(path, "score", wanted, skip_broken=skip_broken)
    source = {
        "kind": FILE_SOURCE,
        "path": str(path.absolute()),
        "judge": True,
        "skip_broken": skip_broken,
        "question_column": question_column,
        "answers_column": answers_column,
        "answer_column": answer_column,
    }
    plain = ("critique=none", *overrides)
    pinned = {"data": table.plain()}
    count = len(table.questions)
    failure: StepFailed | None = None
    try:
        folder = closed_book(
            what, source, count, plain, runs, name="score", quiet=as_json, pinned=pinned
        )
    except StepFailed as failed:
        folder, failure = failed.folder, failed
    for attempt in attempts_of(folder):
        told: dict[str, Any] = {
            "question": attempt.question.text,
            "answer": attempt.question.answer,
        }
        if as_json:
            columns = attempt.question.other_columns
            told |= {"id": columns["id"]} if "id" in columns else {}
            told |= {
                "confidence": attempt.confidence,
                "reason": attempt.reason,
                "verdicts": attempt.confidences(attempt.chosen),
                "columns": columns,
            }
            told |= {"error": attempt.reason} if attempt.decision == "failed" else {}
            click.echo(json.dumps(told, ensure_ascii=False))
            continue
        unsure = "error" if attempt.decision == "failed" else "?"
        sure = (
            f"  {unsure} ({attempt.reason})"
            if attempt.confidence is None
            else f"{attempt.confidence:.2f}"
        )
        click.echo(
            f"{printable(sure, 80)}  {printable(attempt.question.text, 100)} — "
            f"{printable(attempt.answer, 60)}"
        )
    if failure:
        raise failure
