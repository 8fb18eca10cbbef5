"""`selfloop score MODEL FILE`"""

import json
from pathlib import Path
from typing import Any

import click

from selfloop.cli.closed_book import closed_book, refuse_ignored
from selfloop.cli.options import FilePath, accept_license, as_json, complete_asked, overrides, runs_dir
from selfloop.text import printable


@click.command("score")
@click.argument("what", metavar="MODEL|RECIPE|RUN", shell_complete=complete_asked)
@click.argument("file", type=FilePath(path_type=Path))
@overrides
@runs_dir
@accept_license
@as_json
def command(what: str, file: Path, overrides: tuple[str, ...], runs: Path, as_json: bool) -> None:
    """Say how likely the answers in FILE are true, going by MODEL (a name, or a .gguf file).

    FILE is JSONL, a line {"question": "...", "answer": "..."}; who wrote the answers does not matter. The model reads
    each, and answers the question itself some times to compare. It is a run like any other, in --runs.

    In place of MODEL, RECIPE (a .yaml file) is its model by its prompts and verifiers, and RUN (a run's folder) the
    same with the adapter that it was tuned to last.

    Printed is a line for each answer: the confidence in it, from 0 to 1, the question and the answer.

    \b
    Examples:
      selfloop score smollm2-135m-instruct answers.jsonl
      selfloop score runs/quickstart answers.jsonl --json
    """
    from selfloop.errors import StepFailed
    from selfloop.store import attempts_of

    count = _count(file)
    source = {"kind": "file", "path": str(file.resolve())}
    refuse_ignored(overrides, "critique", "answer.careful", "prompts.critique", "prompts.revise")  # no draft is written
    plain = ("critique=none", *overrides)
    failure: StepFailed | None = None
    try:
        folder = closed_book(what, source, count, plain, runs, name="score", quiet=as_json)
    except StepFailed as failed:
        folder, failure = failed.folder, failed
    for attempt in attempts_of(folder):
        told: dict[str, Any] = {"question": attempt.question.text, "answer": attempt.question.answer}
        if as_json:
            told |= {
                "confidence": attempt.confidence,
                "reason": attempt.reason,
                "verdicts": attempt.confidences(attempt.chosen),
            }
            told |= {"error": attempt.reason} if attempt.decision == "failed" else {}
            click.echo(json.dumps(told, ensure_ascii=False))
            continue
        unsure = "error" if attempt.decision == "failed" else "?"
        sure = f"  {unsure} ({attempt.reason})" if attempt.confidence is None else f"{attempt.confidence:.2f}"
        click.echo(f"{printable(sure, 80)}  {printable(attempt.question.text, 100)} — {printable(attempt.answer, 60)}")
    if failure:
        raise failure


def _count(file: Path) -> int:
    """Return how many questions there are; refuse a file in which one has no answer."""
    from selfloop.errors import RecipeError
    from selfloop.rows import read

    rows = read(file)
    for number, row in enumerate(rows, start=1):
        if not str(row.get("answer") or "").strip():
            form = '{"question": "...", "answer": "..."}'
            raise RecipeError(f"{file}, row {number}: there is no answer to score. Each line is {form}.")
    return len(rows)
