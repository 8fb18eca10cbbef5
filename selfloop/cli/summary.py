"""The summary that ends a run."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import click

from selfloop.records import Decision, Round
from selfloop.store import Store
from selfloop.text import printable


def summary(folder: Path) -> dict[str, Any]:
    """Return a run's counts: for each round and in all, and where it lies."""
    store = Store(folder, write=False)
    try:
        rounds, held = list(store.rounds()), store.past().beliefs
        return {
            "run": str(folder),
            "rounds": [_counts(ended) for ended in rounds],
            "completions": store.count("completions"),
            "failures": store.count("failures"),
            "dropped": Counter(a.reason.split(":")[0] for r in rounds for a in r.attempts if a.decision == "dropped"),
            "beliefs": [
                {"question": b.question.text, "answer": b.answer, "confidence": b.confidence}
                for b in sorted(held, key=lambda belief: -belief.confidence)
            ],
        }
    finally:
        store.close()


def _counts(ended: Round) -> dict[str, int]:
    asked = [a for a in ended.attempts if a.decision != "dropped"]
    revised = sum(a.chosen == "revision" for a in asked)
    return {
        "round": ended.number,
        "asked": len(asked),
        **{d: ended.count(d) for d in get_args(Decision)},
        "revised": revised,
    }


def print_summary(folder: Path, *, as_json: bool) -> None:
    """Print the summary as JSON, or as a table with the surest beliefs and where the run lies."""
    found = summary(folder)
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
        table.add_column(column, justify="right")
    for row in found["rounds"]:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)
    for belief in found["beliefs"][:5]:
        line = printable(f"{belief['question']} — {belief['answer']}", max(10, console.width - 8))
        console.print(Text(f"  {belief['confidence']:.2f}  {line}"), soft_wrap=True)
    if found["failures"]:
        console.print(f"{found['failures']} failures: selfloop show {found['run']} --failures", markup=False)
    console.print(
        f"\nThe run lies in {found['run']}. Look into it: selfloop show {found['run']}", markup=False, soft_wrap=True
    )
