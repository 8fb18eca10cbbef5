"""`selfloop ask MODEL QUESTION`"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from selfloop.cli.closed_book import closed_book, refuse_ignored
from selfloop.cli.options import accept_license, as_json, complete_asked, overrides
from selfloop.config.defaults import FILE_SOURCE
from selfloop.records import Attempt
from selfloop.text.answers import UNKNOWN
from selfloop.text.display import encodable, printable


@click.command("ask")
@click.argument("what", metavar="MODEL|RECIPE|RUN", shell_complete=complete_asked)
@click.argument("questions", metavar="QUESTION...", nargs=-1, required=True)
@overrides
@accept_license
@as_json
def command(
    what: str, questions: tuple[str, ...], overrides: tuple[str, ...], as_json: bool
) -> None:
    """Ask MODEL (a name, or a .gguf file) a QUESTION: its answer, how likely that is true, and what
    it said else.

    In place of MODEL, RECIPE (a .yaml file) is its model by its prompts and verifiers, and RUN (a
    run's folder) the same with the adapter that it was tuned to last. It says "I don't know" where
    the answer would not become a belief. Set the threshold with --set decide.belief=0.8. Nothing is
    kept. With --json it prints a list, a result for each QUESTION in order; one that failed has an
    error in place of an answer.

    \b
    Examples:
      selfloop ask smollm2-135m-instruct "What is the capital of France?"
      selfloop ask runs/quickstart "Who wrote Hamlet?" "Who wrote Emma?" --json
    """
    from selfloop.errors import Stopped

    if blank := [question for question in questions if not question.strip()]:
        raise click.UsageError(f"a question is empty: {blank[0]!r}")
    refuse_ignored(overrides, "name", "observers")  # nothing of the run is kept
    try:
        attempts = _answered(what, tuple(dict.fromkeys(map(_asked, questions))), overrides)
    except Stopped:
        raise Stopped("stopped; nothing was kept.") from None
    results = {attempt.question.text: _plain(attempt) for attempt in attempts}
    found = [
        results.get(text, {"question": text, "error": "it was not asked"})
        for text in map(_asked, questions)
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for number, one in enumerate(found):
            if number:
                click.echo()
            _print(one, named=len(found) > 1)
    _refuse_unanswered(attempts)


def _asked(question: str) -> str:
    """Return a question as it is asked: bytes of the command line that are no text are replaced."""
    return encodable(question.strip())


def _refuse_unanswered(attempts: list[Attempt]) -> None:
    """Raise where not one question has a result, but errors."""
    from selfloop.errors import NothingAnswered
    from selfloop.failed_steps import nothing_answered, unanswered

    if attempts and all(_error(attempt) for attempt in attempts):
        advice = "See the model with `selfloop doctor`, and the recipe with `selfloop check`."
        why = (
            nothing_answered(attempts)
            if all(map(unanswered, attempts))
            else f"{_error(attempts[0])}."
        )
        raise NothingAnswered(f"{why} {advice}", Path())


def _answered(what: str, questions: tuple[str, ...], overrides: tuple[str, ...]) -> list[Attempt]:
    """Run one round over the questions in a folder that goes away; return what became of each, in order."""
    from tempfile import TemporaryDirectory

    from selfloop.errors import StepFailed
    from selfloop.storage.store import attempts_of

    with TemporaryDirectory(prefix="selfloop-ask-") as home:
        file = Path(home) / "questions.jsonl"
        file.write_text(
            "".join(json.dumps({"question": text}) + "\n" for text in questions), encoding="utf-8"
        )
        source = {"kind": FILE_SOURCE, "path": str(file), "quiet": True}
        quiet = ("observers=[]", *overrides)
        try:
            folder = closed_book(
                what, source, len(questions), quiet, Path(home), name="ask", quiet=True
            )
        except StepFailed as failed:
            folder = failed.folder  # each question says its own error
        return attempts_of(folder)


def _error(attempt: Attempt) -> str:
    """Return why there is no result for a question, or an empty string where there is one."""
    if attempt.decision == "failed":
        return attempt.reason
    if not attempt.answer:
        return "the model wrote nothing; see answer.stop, answer.thought_tokens and the prompt"
    broke = [failure for failure in attempt.failures if failure.step == "verify"]
    if attempt.decision == "undecided" and attempt.confidence is None and broke:
        return f"no verifier could judge the answer: {broke[-1].component}: {broke[-1].message}"
    return ""


def _plain(attempt: Attempt) -> dict[str, Any]:
    if error := _error(attempt):
        return {"question": attempt.question.text, "error": error, "decision": attempt.decision}
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
    if "error" in one:
        click.secho(f"error: {printable(one['error'], 300)}", fg="red")
        return
    click.secho(printable(one["answer"], 200), bold=True)
    if one["confidence"] is None:
        click.echo(f"  {printable(one['reason'], 200)}")
    elif one["known"]:
        click.echo(f"  confidence {one['confidence']:.2f}")
    else:
        click.echo(f"  confidence {one['confidence']:.2f} in: {printable(one['guess'], 120)}")
    said = one["samples"].most_common()
    shown = [
        f"{printable(text or '(nothing)', 60)}{f' ×{count}' if count > 1 else ''}"
        for text, count in said
    ]
    click.echo(f"  asked {sum(one['samples'].values())} times more: {', '.join(shown)}")
