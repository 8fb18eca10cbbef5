"""The style of a report's figures, as SVG for a page that may be dark, or as files.

Colours are named by their role. A figure is drawn in the light ones; in a page each becomes a CSS
variable, so that one figure serves light, dark and paper.
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

# All are different, for in a page a colour is replaced by its role. Those of decisions are Okabe
# and Ito's, which the colour-blind can tell apart.
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
    """Draw in this style, without warnings of missing glyphs: the browser has other fonts."""
    import matplotlib

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def new_figure(width: float = 5.2, height: float = 3.2) -> "tuple[Figure, Axes]":
    """Return an empty figure of this size in inches, and its axes. No window, no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: "Figure", name: str) -> str:
    """Return a figure as an SVG element for a page: colours are variables, and ids begin with
    `name`, for several figures are in one page."""
    text = _svg_file(figure, name)
    text = text[text.index("<svg") :]  # without the XML declaration
    # as wide as the page allows, up to its own width
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


def _svg_file(figure: "Figure", name: str) -> str:
    """Return a figure as an SVG file, the same each time: no date, ids from `name`."""
    import matplotlib

    file = StringIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a file of its own, PNG or SVG by its suffix, on white.

    Raises StoreError for the disk.
    """
    suffix = path.suffix.removeprefix(".")
    mark = {"Creator" if suffix == "svg" else "Software": MARK.format(command="picture")}
    with writing(path, "--pictures"), atomic.replacing(path, parents=True) as part, styled():
        figure.savefig(part, format=suffix, dpi=200, facecolor=COLOURS["paper"], metadata=mark)
