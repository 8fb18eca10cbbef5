"""The summary that ends a run."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, get_args

import click

from selfloop import flips
from selfloop.ledger import Past
from selfloop.records import Decision, Round
from selfloop.store import Store, declining_as_in
from selfloop.text import printable

REASONS = 4  # named for each scorer
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
            "beliefs": [
                {"question": b.question.text, "answer": b.answer, "confidence": b.confidence}
                for b in sorted(Past.of(rounds).beliefs, key=lambda belief: -belief.confidence)
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
        named = [f"{count:,} {reason}" for reason, count in list(counts.items())[:REASONS] if reason]
        more = ["..."] if len(counts) > REASONS else []
        reasons = f" ({', '.join(named + more)})" if len(counts) > 1 and named else ""
        pieces.append(f"{sum(counts.values()):,} {scorer}{reasons}")
    return f"dropped: {', '.join(pieces)}" if pieces else ""


def _flips(rounds: Iterable[Round]) -> dict[str, dict[str, int]]:
    """Return how many revisions there are of each flip, and how many of them were accepted."""
    attempts = [attempt for ended in rounds for attempt in ended.attempts]
    taken = flips.counts(attempts, accepted=True)
    return {flip: {"revisions": n, "accepted": taken[flip]} for flip, n in flips.counts(attempts).most_common()}


def flips_line(found: Mapping[str, Mapping[str, int]]) -> str:
    """Return how many revisions changed what, and how many of them the verifiers let pass."""
    pieces = [f"{n['revisions']:,} {flip} ({n['accepted']:,} accepted)" for flip, n in found.items()]
    return f"revisions: {', '.join(pieces)}" if pieces else ""


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
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=SIMPLE, title="what the model found out", title_justify="left")
    columns = ["round", "asked", "belief", "undecided", "declined", "failed", "revised", "dropped"]
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")  # on a narrow terminal too, no figure is cut
    for row in found["rounds"]:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)
    for line in filter(None, (dropped_line(found["dropped_for"]), flips_line(found["flips"]))):
        console.print(Text(f"  {printable(line)}"), soft_wrap=True)
    for belief in found["beliefs"][:5]:
        line = printable(f"{belief['question']} — {belief['answer']}", max(10, console.width - 8))
        console.print(Text(f"  {belief['confidence']:.2f}  {line}"), soft_wrap=True)
    if found["failures"]:
        console.print(failed, markup=False)
    console.print(f"\nThe run lies in {found['run']}. Look into it: {look}", markup=False, soft_wrap=True)
    for page in sorted(folder.glob("*.html")):  # what observers left there to be looked at
        console.print(f"As a page: {page}", markup=False, soft_wrap=True)
