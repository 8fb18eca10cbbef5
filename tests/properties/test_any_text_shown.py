"""Any text: what is shown of it is harmless and keeps to its width. Any time: one rounding rule."""

import re
from unicodedata import category

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfloop.text.display import REPLACEMENT, cells, printable, printable_block
from selfloop.text.units import duration

JOINERS = "\u200c\u200d"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ODD = st.sampled_from(
    [
        *BIDI,
        *JOINERS,
        "\x1b[2J",
        "\x9b",
        "\r",
        "\n",
        "\u2028",
        "\ud800",
        "e\u0301",
        "富",
        " ",
        "\u3000",
        "…",
    ]
)
ANY = st.text(st.characters(exclude_categories=()))  # lone surrogates too
TEXTS = st.lists(st.one_of(ODD, ANY), max_size=12).map("".join)
WIDTHS = st.one_of(st.none(), st.integers(0, 60))


def harmless(line: str) -> bool:
    return all(char.isprintable() or char in JOINERS for char in line)


@given(TEXTS, WIDTHS)
@example("a" + "\u200d" * 500, 3)
@example("\u0301" * 500, 2)
def test_what_is_shown_is_one_harmless_line(text: str, width: int | None) -> None:
    shown = printable(text, width)
    assert harmless(shown) and not set(shown) & set(BIDI)
    assert not {category(char) for char in shown} & {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert shown == shown.strip() and "  " not in shown
    shown.encode("utf-8")


@given(TEXTS, st.integers(0, 60))
def test_what_is_shown_fits_its_width(text: str, width: int) -> None:
    assert cells(printable(text, width)) <= width


@given(TEXTS, WIDTHS)
def test_what_was_shown_once_is_shown_as_it_is(text: str, width: int | None) -> None:
    shown = printable(text, width)
    assert printable(shown, width) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
def test_plain_words_stay_as_they_are(text: str) -> None:
    assert printable(text) == text == printable(text, 1 + 2 * len(text))


@given(TEXTS)
def test_a_block_keeps_its_lines_and_nothing_that_acts(text: str) -> None:
    shown = printable_block(text)
    assert len(shown.split("\n")) == max(1, len(text.splitlines()))
    assert all(harmless(line) for line in shown.split("\n"))
    assert printable_block(shown).rstrip("\n") == shown.rstrip("\n")


@given(TEXTS)
def test_nothing_disappears_without_a_mark(text: str) -> None:
    """As many characters that are no space come out as went in."""
    marks = len("".join(text.split()))
    assert len("".join(printable(text).split())) >= marks - sum(
        category(char) == "Zs" for char in text
    )


UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
FORM = re.compile(r"(?:([\d,]+) (min|h|d) (\d\d)|([\d.]+)) (ms|s|min|h)")
MOST = {"ms": 1000, "s": 60, "min": 60, "h": 24}
SECONDS = st.one_of(
    st.floats(0, 2e9),
    st.integers(0, 10**9).map(lambda tenths: tenths / 10),
    st.integers(0, 200).map(lambda n: n * 30.0),
)


def read(shown: str) -> tuple[float, float]:
    """Return the seconds that a duration says, and the length of its smallest unit."""
    found = FORM.fullmatch(shown)
    assert found, shown
    large, unit, small, alone, last = found.groups()
    number = float(alone or small)
    assert number < MOST[last], shown  # never 60 s, 60 min, 24 h
    if large is None:
        return number * UNITS[last], UNITS[last] * (0.1 if last == "s" else 1)
    whole = float(large.replace(",", ""))
    assert unit == "d" or whole < MOST[unit], shown
    return whole * UNITS[unit] + number * UNITS[last], UNITS[last]


@given(SECONDS)
@example(59.95)
@example(59.96)
@example(3599.5)
@example(86369.9999)
@example(0.0004)
def test_a_duration_is_rounded_to_its_smallest_unit(seconds: float) -> None:
    value, unit = read(duration(seconds))
    assert abs(value - seconds) <= unit / 2 * (1 + 1e-9) + 1e-9


@given(SECONDS, SECONDS)
def test_what_takes_longer_is_never_shown_as_less(one: float, other: float) -> None:
    sooner, later = sorted((one, other))
    assert read(duration(sooner))[0] <= read(duration(later))[0]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"), (0.0124, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (4.25, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"), (62, "1 min 02 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"), (86369, "23 h 59 min"), (86400, "1 d 00 h"), (273600, "3 d 04 h"),
        (-1, "0 ms"), (float("nan"), "?"), (float("inf"), "?"),
    ],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_replacement_is_shown_as_it_is() -> None:
    assert printable(REPLACEMENT) == REPLACEMENT
