"""A run as one HTML page that needs no network, no font file, and no script but its own."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfloop_plugins._shared.output import HEAD, MARK, has_mark, writing
from selfloop_plugins._shared.round_figures import round_figures

from selfloop.storage import atomic
from selfloop.storage.run_folder import REPORT
from selfloop.text.units import duration

from ._packages import require_packages
from .figure_style import svg
from .figures import DECISIONS, ReportFigure, draw_all
from .questions import json_for_script, question_rows, visible
from .run_summary import RunSummary

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# beliefs, and declined questions, that are shown in the page itself; its script lists all
FIRST_ROWS = 12
# the figures of each section
SECTIONS = {
    "glance": ("rounds", "growth"),
    "asked": ("topics",),
    "held": ("confidence", "changes"),
    "truth": ("reliability", "risk"),
    "tuning": ("gates", "losses"),
    "cost": ("cost",),
}


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure in a page, and its SVG element."""

    figure: ReportFigure
    svg: "Markup"


def write_page(run: RunSummary, path: Path) -> Path:
    """Write the page of a run, whole or not at all. Raises StoreError for the disk."""
    text = page(run)
    with writing(path):
        atomic.write_text(path, text, parents=True)
    return path


def page(run: RunSummary, live: str = "") -> str:
    """Return the page of a run. `live` is the address at which `selfloop view` reports progress.

    Raises MissingExtraError without the packages of the extra `report`.
    """
    require_packages("The page of a run")
    from markupsafe import Markup

    figures = embedded_figures(run)
    sections: dict[str, list[EmbeddedFigure]] = {}
    for section, names in SECTIONS.items():
        sections[section] = [figures[name] for name in names if name in figures]
    beliefs = sorted(run.history.beliefs, key=lambda belief: -belief.confidence)
    declined = [attempt for _, attempt in run.last_attempts if attempt.decision == "declined"]
    return render_page(
        "run.html",
        "run.js",
        "report",
        run=run,
        live=live,
        sections=sections,
        rounds=round_figures(run.folder, run.rounds),
        tiles=tiles(run),
        beliefs=beliefs,
        declined=declined,
        costs=cost_rows(run),
        data=Markup(json_for_script(question_rows(run.rounds))),
        first=FIRST_ROWS,
    )


def embedded_figures(run: RunSummary, suffix: str = "") -> dict[str, EmbeddedFigure]:
    """Return the figures of a run by name, as SVG.

    `suffix` makes the ids in it unique where several runs are in one page.
    """
    from markupsafe import Markup

    figures = {}
    for figure, drawing in draw_all(run):
        element = Markup(svg(drawing, f"{figure.name}{suffix}"))
        figures[figure.name] = EmbeddedFigure(figure, element)
    return figures


def is_report(path: Path) -> bool:
    """Return whether a file is a page that `write_page` made; those of the first versions have no
    mark and are known by their name and title."""
    if has_mark(path, "report"):
        return True
    with path.open("rb") as file:
        return path.name == REPORT and b" \xc2\xb7 selfloop</title>" in file.read(HEAD)


def render_page(template: str, script: str, command: str, **values: Any) -> str:
    """Return a template filled in, with every value escaped, its style and its script.

    A content security policy forbids every other script, by the hash of this one. `command` is
    noted in the page, so that a later call of this command knows it as its own. Raises
    MissingExtraError without the packages of the extra `report`.
    """
    require_packages(f"selfloop {command}")
    from markupsafe import Markup

    source = _file_text(script)
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'self'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            style=Markup(_file_text("page.css")),
            script=Markup(source),
            version=version("selfloop"),
            generator=MARK.format(command=command),
            **values,
        )
    )


def tiles(run: RunSummary) -> list[tuple[str, str, str]]:
    """Return the most important figures: value, label, and the decision whose colour it has."""
    tokens = sum(tokens for _, tokens in run.spent.values())
    rows = [(f"{len(run.history.beliefs):,}", "believed", "belief")]
    for decision in DECISIONS[1:]:
        rows.append((f"{run.count_decision(decision):,}", decision, decision))
    rows.append((f"{len(run.rounds)} of {run.rounds_planned}", "rounds", ""))
    rows.append((f"{tokens:,}", "tokens written", ""))
    if run.seconds:
        rows.append((duration(sum(run.seconds.values())), "of work", ""))
    return rows


def cost_rows(run: RunSummary) -> list[tuple[str, str, str, str, str]]:
    """Return for each step its time, completions, tokens, and tokens a second, as text."""
    seconds: dict[str, float] = {}
    for (_, step), spent in run.seconds.items():
        seconds[step] = seconds.get(step, 0.0) + spent
    rows = []
    for step in dict.fromkeys([*seconds, *run.spent]):
        completions, tokens = run.spent.get(step, (0, 0))
        rate = f"{tokens / seconds[step]:,.0f}" if tokens and seconds.get(step) else ""
        time = duration(seconds[step]) if step in seconds else ""
        rows.append(
            (
                step,
                time,
                f"{completions:,}" if completions else "",
                f"{tokens:,}" if tokens else "",
                rate,
            )
        )
    return rows


@cache
def _environment() -> "Environment":
    from jinja2 import DictLoader, Environment, StrictUndefined

    names = ("base.html", "run.html", "compare.html", "runs.html", "wrong.html")
    environment = Environment(
        loader=DictLoader({name: _file_text(name) for name in names}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible}
    return environment


@cache
def _file_text(name: str) -> str:
    return (files(__package__) / "page" / name).read_text("utf-8")
