"""Runs side by side: their figures, and the questions that more than one of them was asked."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from selfloop_plugins._shared.output import writing

from selfloop import Attempt
from selfloop.cli.tables import print_table
from selfloop.contradictions import agree
from selfloop.storage import atomic
from selfloop.text.display import printable
from selfloop.text.gist import gist

from .facts import Facts
from .page import Shown, render, tiles
from .pictures import KINDS, drawn

SIDE_BY_SIDE = ("rounds", "growth", "confidence", "risk", "reliability", "gates")
SHOWN = 200  # questions of a page, those that differ first
FEW = 8  # questions on a terminal
VALUE = 40  # cells of a model's or a recipe's name in a table


@dataclass(frozen=True)
class Answer:
    """What one run says to a question; `decision` is empty where it was not asked."""

    decision: str = ""
    answer: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Shared:
    """A question that several runs were asked, and what each says, in the order of the runs."""

    question: str
    answers: tuple[Answer, ...]

    @property
    def differs(self) -> bool:
        """Return whether one run holds what another does not, or holds another answer."""
        said = [one for one in self.answers if one.decision]
        held = [one.answer for one in said if one.decision == "belief"]
        return 0 < len(held) < len(said) or any(not agree(held[0], other) for other in held[1:])


@dataclass(frozen=True)
class Comparison:
    """Runs, rows of figures (a name, and a value for each run), and shared questions, those that differ first."""

    runs: tuple[Facts, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    shared: tuple[Shared, ...]


def of(runs: Sequence[Facts]) -> Comparison:
    """Return the comparison of runs."""
    twice = len({one.name for one in runs}) < len(runs)
    names = tuple(str(one.folder) if twice else one.name for one in runs)
    return Comparison(tuple(runs), names, _rows(runs), _shared(runs))


def _rows(runs: Sequence[Facts]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the figures; a row that no run has is left out."""
    columns = [_figures(one) for one in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return tuple((name, tuple(column.get(name, "") for column in columns)) for name in names)


def _figures(facts: Facts) -> dict[str, str]:
    asked = len(facts.last)
    found = {
        "model": str(facts.model.get("name", "")),
        "rounds": f"{len(facts.rounds)} of {facts.wanted}",
    }
    found["questions"] = f"{asked:,}"
    for kind in KINDS:
        count = sum(a.decision == kind for _, a in facts.last)
        found[kind] = f"{count:,} ({count / asked:.0%})" if asked else "0"
    found["dropped"] = f"{sum(one.count('dropped') for one in facts.rounds):,}"
    found["adapters"] = str(sum(one.adapter is not None for one in facts.rounds))
    found |= {label: value for value, label, role in tiles(facts) if not role and label != "rounds"}
    if facts.measured:
        run, sure = facts.measured.policies["run"], facts.measured.confidence.metrics
        for name, one in {
            "correct": run["correct"],
            "wrong": run["wrong"],
            "AUROC": sure["auroc"],
            "ECE": sure["ece"],
        }.items():
            if one.value == one.value:  # of no right answer there is no AUROC
                found[f"{name} by gold"] = f"{one.value:.2f} ({one.low:.2f}–{one.high:.2f})"
    return found


def _shared(runs: Sequence[Facts]) -> tuple[Shared, ...]:
    asked: dict[object, dict[int, Attempt]] = {}
    for k, facts in enumerate(runs):
        for _, attempt in facts.last:
            asked.setdefault(gist(attempt.question.text) or attempt.question.text, {})[k] = attempt
    several = [own for own in asked.values() if len(own) > 1]
    found = [
        Shared(
            next(iter(own.values())).question.text,
            tuple(_answer(own.get(k)) for k in range(len(runs))),
        )
        for own in several
    ]
    return tuple(
        sorted(
            found, key=lambda one: (not one.differs, -max(a.confidence or 0 for a in one.answers))
        )
    )


def _answer(attempt: Attempt | None) -> Answer:
    return (
        Answer(str(attempt.decision), attempt.answer, attempt.confidence) if attempt else Answer()
    )


def tell(found: Comparison, *, as_json: bool) -> None:
    """Print a comparison."""
    if as_json:
        click.echo(json.dumps(_plain(found), indent=2))
        return
    rows = [[label, *(printable(value, VALUE) for value in values)] for label, values in found.rows]
    print_table(["", *found.names], rows)
    differ = [one for one in found.shared if one.differs]
    click.echo(
        f"{len(found.shared):,} questions were asked in more than one run; on {len(differ):,} "
        "they differ."
    )
    for one in differ[:FEW]:
        click.echo(f"  {printable(one.question, 100)}")
        for name, said in zip(found.names, one.answers, strict=True):
            sure = "    " if said.confidence is None else f"{said.confidence:.2f}"
            if said.decision:
                click.echo(
                    f"    {sure} {said.decision:9} {printable(name)}: {printable(said.answer, 60)}"
                )


def _plain(found: Comparison) -> dict[str, Any]:
    return {
        "runs": [str(one.folder) for one in found.runs],
        "figures": {label: list(values) for label, values in found.rows},
        "shared": [{**asdict(one), "differs": one.differs} for one in found.shared],
    }


def written(found: Comparison, path: Path) -> Path:
    """Write the comparison as a page, whole or not at all. Raises StoreError for the disk."""
    text = _page(found)
    with writing(path):
        atomic.write_text(path, text, parents=True)
    return path


def _page(found: Comparison) -> str:
    from markupsafe import Markup

    from .canvas import svg

    columns = []
    for k, facts in enumerate(found.runs):
        own = {p.name: Shown(p, Markup(svg(figure, f"{p.name}{k}"))) for p, figure in drawn(facts)}
        columns.append(own)
    pictures = [[column.get(name) for column in columns] for name in SIDE_BY_SIDE]
    return render(
        "compare.html",
        "none.js",
        "compare",
        found=found,
        pictures=[row for row in pictures if any(row)],
        shared=found.shared[:SHOWN],
        differ=sum(one.differs for one in found.shared),
    )
