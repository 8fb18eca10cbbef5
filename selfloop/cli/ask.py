"""`selfloop ask MODEL QUESTION`"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from selfloop.answers import UNKNOWN
from selfloop.cli.closed_book import closed_book
from selfloop.cli.options import accept_license, as_json, complete_asked, overrides
from selfloop.records import Attempt
from selfloop.text import printable


@click.command("ask")
@click.argument("what", metavar="MODEL|RECIPE|RUN", shell_complete=complete_asked)
@click.argument("questions", metavar="QUESTION...", nargs=-1, required=True)
@overrides
@accept_license
@as_json
def command(what: str, questions: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Ask MODEL (a name, or a .gguf file) a QUESTION: its answer, how likely that is true, and what it said else.

    In place of MODEL, RECIPE (a .yaml file) is its model by its prompts and verifiers, and RUN (a run's folder) the
    same with the adapter that it was tuned to last. It says "I don't know" where the answer would not become a belief.
    Set the threshold with --set decide.belief=0.8. Nothing is kept.

    \b
    Examples:
      selfloop ask smollm2-135m-instruct "What is the capital of France?"
      selfloop ask runs/quickstart "Who wrote Hamlet?" "Who wrote Emma?" --json
    """
    from selfloop.errors import Stopped

    if blank := [question for question in questions if not question.strip()]:
        raise click.UsageError(f"a question is empty: {blank[0]!r}")
    try:
        attempts = _answered(what, questions, overrides)
    except Stopped:
        raise Stopped("stopped; nothing was kept.") from None
    found = [_plain(attempt) for attempt in attempts]
    if as_json:
        click.echo(json.dumps(found if len(found) > 1 else found[0], indent=2, ensure_ascii=False))
        return
    for number, one in enumerate(found):
        if number:
            click.echo()
        _print(one, named=len(found) > 1)


def _answered(what: str, questions: tuple[str, ...], overrides: tuple[str, ...]) -> list[Attempt]:
    """Run one round over the questions in a folder that goes away; return what became of each, in order."""
    from tempfile import TemporaryDirectory

    from selfloop.store import attempts_of

    with TemporaryDirectory(prefix="selfloop-ask-") as home:
        file = Path(home) / "questions.jsonl"
        file.write_text("".join(json.dumps({"question": text}) + "\n" for text in questions), encoding="utf-8")
        source = {"kind": "file", "path": str(file), "quiet": True}
        quiet = ("observers=[]", *overrides)
        folder = closed_book(what, source, len(questions), quiet, Path(home), name="ask", quiet=True)
        return attempts_of(folder)


def _plain(attempt: Attempt) -> dict[str, Any]:
    known = attempt.decision == "belief"
    return {
        "question": attempt.question.text,
        "answer": attempt.answer if known else UNKNOWN,
        "known": known,
        "guess": attempt.answer,
        "confidence": attempt.confidence,
        "decision": attempt.decision,
        "reason": attempt.reason,
        "samples": Counter(" ".join(sample.text.split()) for sample in attempt.samples),
        "verdicts": attempt.confidences(attempt.chosen),
    }


def _print(one: dict[str, Any], *, named: bool) -> None:
    if named:
        click.echo(printable(one["question"], 200))
    click.secho(printable(one["answer"], 200), bold=True)
    if one["decision"] == "failed":
        click.echo(f"  failed: {printable(one['reason'], 300)}")
        return
    if one["confidence"] is None:
        click.echo(f"  {printable(one['reason'], 200)}")
    elif one["known"]:
        click.echo(f"  confidence {one['confidence']:.2f}")
    else:
        click.echo(f"  confidence {one['confidence']:.2f} in: {printable(one['guess'], 120)}")
    said = one["samples"].most_common()
    shown = [f"{printable(text or '(nothing)', 60)}{f' ×{count}' if count > 1 else ''}" for text, count in said]
    click.echo(f"  asked {sum(one['samples'].values())} times more: {', '.join(shown)}")
