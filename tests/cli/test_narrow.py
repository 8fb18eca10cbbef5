"""On a narrow terminal no figure of a table is cut; wide glyphs and long names break over lines."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import RECIPE, Selfloop
from hypothesis import given
from hypothesis import strategies as st
from selfloop_plugins.observers import console

from selfloop.cli.tables import print_table, wrapped
from selfloop.text.display import cells

pytestmark = pytest.mark.slow

Write = Callable[[Mapping[str, str | bytes]], Path]
WIDTHS = (1, 10, 20, 40, 79, 200)
GOLD = "".join(
    json.dumps({"question": f"What is number {n}?", "answers": [str(n)]}) + "\n" for n in range(6)
)
COMMANDS = [
    ("run", "r.yaml", "--set", "observers=[]"),
    ("show", "runs/one"),
    ("show", "runs/one", "--question", "number"),
    ("eval", "runs/one"),
    ("compare", "runs/one", "runs/another", "--out", "c.html"),
    ("plugins", "agreement"),
    ("models",),
    ("beliefs", "--runs", "runs"),
    ("recipes",),
]
FIGURE = re.compile(r"\d+\.\d+|\d+")


@pytest.fixture
def runs(write: Write, selfloop: Selfloop) -> Path:
    recipe = RECIPE.replace("[blank_slate]", "[{kind: file, path: q.jsonl}], scorers: []").replace(
        "2", "6", 1
    )
    folder = write({"r.yaml": recipe, "q.jsonl": GOLD})
    for name in ("one", "another"):
        assert selfloop("run", "r.yaml", "--quiet", "--set", f"name={name}").code == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_figure_is_there_at_any_width(
    command: tuple[str, ...], runs: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {}
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        said = selfloop(*command)
        assert said.code == 0, said.err
        assert not re.search(r"\d…", said.out), said.out
        said_once = re.sub(r"runs/r(-\d)?\b|file q.jsonl", "", said.out)
        figures[width] = sorted(FIGURE.findall(said_once))
    assert all(figures[width] == figures[200] for width in WIDTHS)


def test_the_table_of_an_evaluation_at_20_columns(
    runs: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults.md: figures were cut to "1…"."""
    monkeypatch.setenv("COLUMNS", "20")
    lines = selfloop("eval", "runs/one").out.splitlines()
    assert "confidence" in lines
    assert any(re.fullmatch(r"  Brier \d\.\d\d|  Brier -", line) for line in lines)


def test_what_is_no_terminal_wraps_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(["", "x" * 200], [["a", "1.25"]])
    assert len(capsys.readouterr().out.splitlines()[2]) == 2 + 1 + 3 + 200


@given(
    st.lists(
        st.tuples(st.text(), st.floats(allow_nan=False).map(str), st.integers().map(str)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 120),
)
def test_a_table_has_all_figures_at_any_width(rows: list[tuple[str, str, str]], width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        said: list[str] = []
        patch.setattr("click.echo", lambda text="", **_: said.append(str(text)))
        patch.setattr("click.secho", lambda text="", **_: said.append(str(text)))
        print_table(["", "a", "b"], rows)
    words = " ".join(said).split()
    for _, *figures in rows:
        assert set(figures) <= set(words)


@given(st.text(alphabet=st.sampled_from("ab 東京é\u0301"), max_size=60), st.integers(1, 30))
def test_lines_break_at_spaces_by_the_width_of_glyphs(text: str, width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        lines = wrapped(text, more="  ")
    assert " ".join(lines).split() == text.split()
    assert all(cells(line) <= width or len(line.split()) == 1 for line in lines)


def test_a_live_picture_is_drawn_only_where_it_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for width, is_live in {"20": False, "39": False, "40": True, "120": True}.items():
        monkeypatch.setenv("COLUMNS", width)
        assert console.can_draw(Terminal()) is is_live  # type: ignore[arg-type]
