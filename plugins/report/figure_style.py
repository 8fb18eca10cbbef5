"""A figure of matplotlib in this report's colours, as SVG for a page that may be dark, or as a file
of its own.

Colours are named by what they stand for. A picture is drawn in the light ones; in a page each
becomes a CSS variable, so that one picture serves light, dark and paper.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfloop_plugins._shared.output import MARK, writing

from selfloop.storage import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# No two may be the same: they are told apart by it. Those of decisions are Okabe and Ito's, safe
# for the colour-blind.
COLOURS = {
    "ink": "#1c2430",
    "soft": "#5b6675",
    "line": "#d5dae1",
    "paper": "#ffffff",
    "belief": "#009e73",
    "undecided": "#e69f00",
    "declined": "#56b4e9",
    "dropped": "#a7afba",
    "failed": "#d55e00",
    "accent": "#0072b2",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a topic with two dollar signs is text
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
_ID = re.compile(r'(\bid="|url\(#|xlink:href="#)')


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this report's style, and say nothing of a glyph that a font lacks: the browser has others."""
    import matplotlib

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def canvas(width: float = 5.2, height: float = 3.2) -> "tuple[Figure, Axes]":
    """Return an empty figure, in inches, and its axes. No window, no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: "Figure", name: str) -> str:
    """Return a figure as an SVG element to stand in a page: colours are variables, and ids its own."""
    text = _written(figure, name)
    text = text[text.index("<svg") :]
    text = re.sub(
        r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"',
        r'<svg \1 style="max-width: \2pt"',
        text,
        count=1,
    )
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for role, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{role})")
    return _ID.sub(rf"\g<1>{name}-", text)


def _written(figure: "Figure", name: str) -> str:
    import matplotlib

    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file := StringIO(), format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as a file of its own, PNG or SVG by its suffix, on white.

    Raises StoreError for the disk.
    """
    suffix = path.suffix.removeprefix(".")
    mark = {"Creator" if suffix == "svg" else "Software": MARK.format(command="picture")}
    with writing(path, "--pictures"), atomic.replacing(path, parents=True) as part, styled():
        figure.savefig(part, format=suffix, dpi=200, facecolor=COLOURS["paper"], metadata=mark)
