"""Numbers as people read them, one function each. Durations: properties/test_any_text_shown.py."""

import pytest

from selfloop.text.units import parameters, plural, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (9_940, "9.9 kB"),
        (9_960, "10 kB"),
        (98_000_000, "98 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (4_149_000_000, "4.1 GB"),
        (12_345_000_000_000, "12,345.0 GB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ""),
        (999_999, "999,999"),
        (134_515_008, "135M"),
        (999_499_999, "999M"),
        (999_600_000, "1.0B"),
        (1_240_000_000, "1.2B"),
    ],
)
def test_parameters(count: int, text: str) -> None:
    assert parameters(count) == text


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "round", "0 rounds"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (2000, "belief", "2,000 beliefs"),
    ],
)
def test_plurals(count: int, noun: str, text: str) -> None:
    assert plural(count, noun) == text
