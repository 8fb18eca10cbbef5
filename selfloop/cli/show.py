"""`selfloop show RUN`"""

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import click
from pydantic_core import to_json

from selfloop.cli.options import as_json, run_argument, run_folder, runs_dir
from selfloop.evaluation.flips import flip
from selfloop.records import Attempt, Completion, Failure, Round
from selfloop.text.display import printable

DECISIONS = ["belief", "declined", "undecided", "dropped", "failed"]


@click.command("show")
@run_argument
@click.option(
    "--only", type=click.Choice(DECISIONS), multiple=True, help="Only attempts that ended so."
)
@click.option(
    "--question", metavar="TEXT", help="The whole history of the questions that contain TEXT."
)
@click.option("--failures", is_flag=True, help="What went wrong, and whose it was.")
@runs_dir
@as_json
def command(
    run: str, only: tuple[str, ...], question: str | None, failures: bool, runs: Path, as_json: bool
) -> None:
    """Show RUN (a folder, or a name in --runs): each round's beliefs, and what was declined and
    why.

    Each line is a question, the answer and how sure the verifiers are of it, under what was
    decided.

    \b
    Examples:
      selfloop show quickstart --only declined
      selfloop show runs/quickstart --question capital
    """
    from selfloop.storage.store import Store, declining_as_in

    store = Store(folder := run_folder(run, runs), write=False)
    try:
        rounds, pinned, sessions = list(store.rounds()), store.meta(), store.sessions()
        before = store.round_failures(0)
    finally:
        store.close()
    picked = [(ended, _picked(ended, only, question)) for ended in rounds]
    if as_json:
        attempts = [{"round": ended.number, **asdict(a)} for ended, own in picked for a in own]
        found = {"pinned": pinned, "sessions": sessions, "attempts": attempts}
        click.echo(to_json(found, indent=2, inf_nan_mode="null").decode())
    elif failures:
        _print_failures(before, rounds)
    elif not rounds:
        again = printable(f"selfloop resume {quote(str(folder))}")
        click.echo(f"no round has ended yet; if the run was stopped, go on with: {again}")
    elif question is not None:
        if not any(own for _, own in picked):
            click.echo(f"none of these questions contains {printable(question, 60)!r}")
        with declining_as_in(folder):
            for ended, own in picked:
                for attempt in own:
                    _print_history(ended, attempt)
    else:
        _print_rounds(picked, only)


def _picked(ended: Round, only: tuple[str, ...], question: str | None) -> list[Attempt]:
    return [
        a
        for a in ended.attempts
        if (not only or a.decision in only)
        and (question is None or question.lower() in a.question.text.lower())
    ]


def _print_rounds(picked: list[tuple[Round, list[Attempt]]], only: tuple[str, ...]) -> None:
    for ended, own in picked:
        click.echo(
            f"round {ended.number}: " + ", ".join(f"{ended.count(d)} {d}" for d in DECISIONS)
        )  # type: ignore[arg-type]
        for attempt in own:
            if attempt.decision != "dropped" or "dropped" in only:
                _line(attempt)


def _line(attempt: Attempt) -> None:
    confidence = "    " if attempt.confidence is None else f"{attempt.confidence:.2f}"
    answer = f" — {printable(attempt.answer, 60)}" if attempt.draft else ""
    why = "" if attempt.decision == "belief" else f"  ({printable(attempt.reason, 60)})"
    click.echo(
        f"  {confidence} {attempt.decision or '':9} "
        f"{printable(attempt.question.text, 100)}{answer}{why}"
    )


def _print_failures(before: tuple[Failure, ...], rounds: list[Round]) -> None:
    lost = [(0, "", f) for f in before] + [(r.number, "", f) for r in rounds for f in r.failures]
    lost += [
        (r.number, printable(a.question.text, 60), f)
        for r in rounds
        for a in r.attempts
        for f in a.failures
    ]
    for number, question, f in lost:
        click.echo(
            f"round {number} {f.step} {f.component}: {f.type}: {printable(f.message, 200)}  {question}".rstrip()
        )
    if not lost:
        click.echo("nothing failed")


def _print_history(ended: Round, attempt: Attempt) -> None:
    rows: list[tuple[str, Any]] = [
        ("question", f"{attempt.question.text} (from {attempt.question.source})")
    ]
    rows += [
        (f"column {printable(name, 20)}", value)
        for name, value in attempt.question.other_columns.items()
    ]
    rows += [(f"score {s.scorer}", f"{s.value:.2f} {s.reason}") for s in attempt.scores]
    rows += [("draft", _said(attempt.draft)), *(("sample", _said(s)) for s in attempt.samples)]
    rows += [("critique", _said(attempt.critique)), ("revision", _said(attempt.revision))]
    rows.append(("flip", flip(attempt) or None))
    for v in attempt.verdicts:
        confidence = "abstains" if v.confidence is None else f"{v.confidence:.2f}"
        rows.append((f"{v.verifier} on {v.candidate}", f"{confidence} {v.reason}"))
    rows += [
        ("failure", f"{f.step} {f.component}: {f.type}: {f.message}") for f in attempt.failures
    ]
    rows.append(
        (
            str(attempt.decision),
            f"{attempt.answer or '(no answer)'} ({attempt.chosen}; {attempt.reason})",
        )
    )
    click.echo(f"round {ended.number}")
    for name, text in rows:
        if text is not None:
            click.echo(f"  {name:28} {printable(str(text), 160)}")


def _said(completion: Completion | None) -> str | None:
    if completion is None:
        return None
    return f"{completion.text.strip()!r} (log-probability {sum(completion.logprobs):.2f}, {completion.finish})"
