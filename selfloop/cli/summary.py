"""The summary that ends a run."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, get_args

import click

from selfloop.cli.tables import print_table, terminal_width
from selfloop.errors import StepFailed
from selfloop.evaluation import flips
from selfloop.failed_steps import FailedStep, cause_text, failed_steps, failed_verifiers
from selfloop.history import Past
from selfloop.records import Decision, Round
from selfloop.storage.store import Store, declining_as_in
from selfloop.text.display import printable

REASONS = 4  # named for each scorer
LEAST, LONGEST = 40, 160  # cells of a belief, however wide the terminal is
_OWN = re.compile(r"\s*\([^()]*\)|'[^']{2,}'|\"[^\"]{2,}\"")


def summary(folder: Path) -> dict[str, Any]:
    """Return a run's counts: for each round and in all, and where it lies."""
    store = Store(folder, write=False)
    try:
        rounds = list(store.rounds())
        lost = dropped_for(rounds)
        with declining_as_in(folder):
            revised = _flips(rounds)
        return {
            "run": str(folder),
            "rounds": [_counts(ended) for ended in rounds],
            "completions": store.count("completions"),
            "failures": store.count("failures"),
            "dropped": {scorer: sum(counts.values()) for scorer, counts in lost.items()},
            "dropped_for": lost,
            "flips": revised,
            "failed_steps": [_failed_step(step) for step in failed_steps(rounds)],
            "failed_verifiers": [_failed_step(step) for step in failed_verifiers(rounds)],
            "beliefs": [
                {"question": b.question.text, "answer": b.answer, "confidence": b.confidence}
                for b in sorted(
                    Past.from_rounds(rounds).beliefs, key=lambda belief: -belief.confidence
                )
            ],
        }
    finally:
        store.close()


def dropped_for(rounds: Iterable[Round]) -> dict[str, dict[str, int]]:
    """Return for each scorer, the one that dropped most first, how many questions it dropped for which reason."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for attempt in (a for ended in rounds for a in ended.attempts if a.decision == "dropped"):
        scorer, _, why = attempt.reason.partition(":")
        found[scorer][_kind(why)] += 1
    ordered = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
    return {scorer: dict(counts.most_common()) for scorer, counts in ordered}


def _kind(why: str) -> str:
    """Return a reason without what is this question's own: quoted words, brackets, numbers."""
    if re.fullmatch(r"\s*\d+ words\s*", why):
        return "too short or too long"
    bare = _OWN.sub("", why.replace("\\'", "’"))
    kind = " ".join(re.sub(r"\d+(?:\.\d+)?", "n", bare).split()).strip(" ,;:")
    return "like an earlier one" if kind == "like" else kind


def dropped_line(found: Mapping[str, Mapping[str, int]]) -> str:
    """Return how many questions each scorer dropped, and for what where there is more than one reason."""
    pieces = []
    for scorer, counts in found.items():
        named = [
            f"{count:,} {reason}" for reason, count in list(counts.items())[:REASONS] if reason
        ]
        more = ["..."] if len(counts) > REASONS else []
        reasons = f" ({', '.join(named + more)})" if len(counts) > 1 and named else ""
        pieces.append(f"{sum(counts.values()):,} {scorer}{reasons}")
    return f"dropped: {', '.join(pieces)}" if pieces else ""


def _flips(rounds: Iterable[Round]) -> dict[str, dict[str, int]]:
    """Return how many revisions there are of each flip, and how many of them were accepted."""
    attempts = [attempt for ended in rounds for attempt in ended.attempts]
    taken = flips.counts(attempts, accepted=True)
    return {
        flip: {"revisions": n, "accepted": taken[flip]}
        for flip, n in flips.counts(attempts).most_common()
    }


def flips_line(found: Mapping[str, Mapping[str, int]]) -> str:
    """Return how many revisions changed what, and how many of them the verifiers let pass."""
    pieces = [
        f"{n['revisions']:,} {flip} ({n['accepted']:,} accepted)" for flip, n in found.items()
    ]
    return f"revisions: {', '.join(pieces)}" if pieces else ""


def _failed_step(step: FailedStep) -> dict[str, Any]:
    return {
        "round": step.round,
        "step": step.step,
        "questions": step.questions,
        "cause": cause_text(step.cause),
    }


def failed_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each step that failed throughout a round, and for each verifier that did."""
    steps = [
        f"round {one['round']}: {_failed(one)}: {one['cause']}" for one in found["failed_steps"]
    ]
    verifiers = [
        f"round {one['round']}: a verifier failed for every answer, others decided: {one['cause']}"
        for one in found["failed_verifiers"]
    ]
    return steps + verifiers


def _failed(step: Mapping[str, Any]) -> str:
    return (
        "the tuner made no adapter"
        if step["step"] == "tune"
        else f"{step['step']} failed for every question"
    )


def _counts(ended: Round) -> dict[str, int]:
    asked = [a for a in ended.attempts if a.decision != "dropped"]
    revised = sum(a.chosen == "revision" for a in asked)
    return {
        "round": ended.number,
        "asked": len(asked),
        **{d: ended.count(d) for d in get_args(Decision)},
        "revised": revised,
    }


def print_summary(folder: Path, *, as_json: bool, quiet: bool = False) -> None:
    """Print the summary as JSON, or as a table with the surest beliefs and where the run lies; `quiet`: that alone."""
    found = summary(folder)
    look = f"selfloop show {quote(found['run'])}"
    failed = f"{found['failures']} failures: {look} --failures"
    if quiet and not as_json:
        click.echo(printable(found["run"]))
        if found["failures"]:
            click.echo(failed, err=True)
        return
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    columns = ["round", "asked", "belief", "undecided", "declined", "failed", "revised", "dropped"]
    rows = [[str(row[column]) for column in columns] for row in found["rounds"]]
    print_table(columns, rows, title="what the model found out", left=0)
    for line in filter(None, (dropped_line(found["dropped_for"]), flips_line(found["flips"]))):
        click.echo(f"  {printable(line)}")
    for belief in found["beliefs"][:5]:
        line = printable(
            f"{belief['question']} — {belief['answer']}",
            max(LEAST, min(LONGEST, terminal_width() - 8)),
        )
        click.echo(f"  {belief['confidence']:.2f}  {line}")
    for line in failed_lines(found):
        click.secho(f"  {printable(line)}", fg="red")
    if found["failures"]:
        click.echo(printable(failed))
    click.echo("\n" + printable(f"The run lies in {found['run']}. Look into it: {look}"))
    for page in sorted(folder.glob("*.html")):  # what observers left there to be looked at
        click.echo(printable(f"As a page: {page}"))


def summed_up(play: Callable[[], Path], *, as_json: bool, quiet: bool = False) -> None:
    """Print the summary of the run that `play` returns, also where a step of it failed.

    Raises that StepFailed.
    """
    try:
        folder = play()
    except StepFailed as failed:
        print_summary(failed.folder, as_json=as_json, quiet=quiet)
        raise
    print_summary(folder, as_json=as_json, quiet=quiet)
