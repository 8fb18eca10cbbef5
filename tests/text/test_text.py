import time

import pytest
from conftest import cpu_limit

from selfloop.text.display import ELLIPSIS, REPLACEMENT, cells, printable, printable_block

HOSTILE = [
    "\x1b]0;pwned\x07",
    "\x1b[2J\x1b[3A",
    "\x9b2J",
    "a\rb\bc\x7f",
    "\u202eevil\u2066x\u2069\u200f\ufeff",
    "\udc80\ud800",
    "\ue000\U000e0041\U0010ffff",
    "\x00\x1f\x85\u2028\u2029\x0b\x0c",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("width", [None, 5, 40])
def test_nothing_a_terminal_acts_on_is_left(text: str, width: int | None) -> None:
    shown = printable(f"{text} and {text}", width)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert all(line.isprintable() for line in printable_block(text).split("\n"))


def test_escape_sequences_stay_visible_as_text() -> None:
    assert printable("\x1b[2Jgone") == f"{REPLACEMENT}[2Jgone"


def test_white_space_becomes_one_space() -> None:
    assert printable("  a\n\n b\t\tc\u00a0 d\r\n") == "a b c d"
    assert printable("") == printable(" \n\t") == printable("", 10) == ""


def test_joiners_and_markup_are_left_alone() -> None:
    assert printable("می\u200cخواهم 👩\u200d🔬") == "می\u200cخواهم 👩\u200d🔬"
    assert printable("[bold red]x[/]") == "[bold red]x[/]"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("ab cdefg", 4, "ab…"),
        ("富士山", 6, "富士山"),
        ("富士山", 5, "富士…"),
        ("富士山", 4, "富…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("", 0, ""),
        ("e\u0301" * 3, 3, "e\u0301" * 3),
        ("abc" + " " * 10_000, 3, "abc"),
        (" " * 10_000 + "abc", 3, "abc"),
    ],
)
def test_cut_counts_cells(text: str, width: int, shown: str) -> None:
    assert printable(text, width) == shown
    assert cells(shown) <= width


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "\u0301" * 1_000_000, "\x1b" * 1_000_000, "a " * 500_000]
)
def test_a_million_characters_are_cut_first(text: str) -> None:
    start = time.process_time()
    for _ in range(20):
        shown = printable(text, 80)
    assert time.process_time() - start < cpu_limit(1.0)
    assert shown.endswith(ELLIPSIS)
    assert cells(shown) <= 80
    assert len(shown) < 1000


def test_cells_agree_with_rich() -> None:
    from rich.cells import cell_len

    for text in ("abc", "富士山", "e\u0301", "ｗｉｄｅ", "é…→–", f"a{REPLACEMENT}b"):
        assert cells(text) == cell_len(text)


def test_a_block_keeps_its_lines() -> None:
    assert printable_block("a\r\n\n  b\tc\x1b[1m\rd\n") == f"a\n\n  b c{REPLACEMENT}[1m\nd"
    assert printable_block("") == ""
