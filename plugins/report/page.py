"""A run as one HTML page that needs nothing else: no network, no font, no script but its own."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfloop_plugins._shared.output import HEAD, MARK, has_mark, writing

from selfloop.storage import atomic
from selfloop.storage.run_folder import REPORT
from selfloop.text.units import duration

from .canvas import svg
from .facts import Facts
from .pictures import KINDS, Picture, drawn
from .questions import embedded, questions, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

FIRST = 12  # beliefs, and questions that were declined, that stand in the page itself
# which pictures a section has
SECTIONS = {
    "glance": ("rounds", "growth"),
    "asked": ("topics",),
    "held": ("confidence", "changes"),
    "truth": ("reliability", "risk"),
    "tuning": ("gates", "losses"),
    "cost": ("cost",),
}


@dataclass(frozen=True)
class Shown:
    """A picture in a page."""

    picture: Picture
    svg: "Markup"


def written(facts: Facts, path: Path) -> Path:
    """Write the page of a run, whole or not at all. Raises StoreError for the disk."""
    text = page(facts)
    with writing(path):
        atomic.write_text(path, text, parents=True)
    return path


def page(facts: Facts, live: str = "") -> str:
    """Return the page of a run. `live` is where the server `view` says how far it is."""
    from markupsafe import Markup

    shown = {
        picture.name: Shown(picture, Markup(svg(figure, picture.name)))
        for picture, figure in drawn(facts)
    }
    return render(
        "run.html",
        "run.js",
        "report",
        facts=facts,
        live=live,
        sections={
            name: [shown[one] for one in own if one in shown] for name, own in SECTIONS.items()
        },
        tiles=tiles(facts),
        beliefs=sorted(facts.past.beliefs, key=lambda one: -one.confidence),
        declined=[a for _, a in facts.last if a.decision == "declined"],
        costs=costs(facts),
        data=Markup(embedded(questions(facts.rounds))),
        first=FIRST,
    )


def is_report(path: Path) -> bool:
    """Return whether a file is a page that `written` made; the first ones had no mark, and lie beside their run."""
    if has_mark(path, "report"):
        return True
    with path.open("rb") as file:
        return path.name == REPORT and b" \xc2\xb7 selfloop</title>" in file.read(HEAD)


def render(template: str, script: str, command: str, **values: Any) -> str:
    """Return a template filled in, everything in it escaped, with its style, its script, and what
    else is forbidden.

    `command` is the one whose output it is, by which a later call knows it.
    """
    from markupsafe import Markup

    source = _text(script)
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'; "
    policy += "img-src data:; base-uri 'none'; form-action 'self'"
    return (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            style=Markup(_text("page.css")),
            script=Markup(source),
            version=version("selfloop"),
            generator=MARK.format(command=command),
            **values,
        )
    )


def tiles(facts: Facts) -> list[tuple[str, str, str]]:
    """Return the figures that say most: value, what it is, and the colour it has in pictures."""
    kinds = {kind: sum(a.decision == kind for _, a in facts.last) for kind in KINDS}
    found = [(f"{len(facts.past.beliefs):,}", "believed", "belief")]
    found += [(f"{kinds[kind]:,}", kind, kind) for kind in KINDS[1:]]
    found.append((f"{len(facts.rounds)} of {facts.wanted}", "rounds", ""))
    found.append((f"{sum(tokens for _, tokens in facts.spent.values()):,}", "tokens written", ""))
    if facts.seconds:
        found.append((duration(sum(facts.seconds.values())), "of work", ""))
    return found


def costs(facts: Facts) -> list[tuple[str, str, str, str, str]]:
    """Return what each step cost: time, completions, tokens, tokens a second."""
    seconds: dict[str, float] = {}
    for (_, step), spent in facts.seconds.items():
        seconds[step] = seconds.get(step, 0.0) + spent
    rows = []
    for step in dict.fromkeys([*seconds, *facts.spent]):
        completions, tokens = facts.spent.get(step, (0, 0))
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
    made = Environment(
        loader=DictLoader({name: _text(name) for name in names}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"visible": visible}
    return made


@cache
def _text(name: str) -> str:
    return (files(__package__) / "page" / name).read_text("utf-8")
