"""Numbers for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.units import format_bytes, format_count, format_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (1536 * 1024**2, "1.50 GiB"),
        (15.25 * 1024**3, "15.2 GiB"),
        (1024**3 - 1, "1.00 GiB"),
        (152 * 1024**3, "152 GiB"),
        (-5 * 1024**2, "-5.00 MiB"),
        (3 * 1024**6, "3072 PiB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0 k"),
        (2_600_000, "2.60 M"),
        (8_030_261_248, "8.03 B"),
    ],
)
def test_counts(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0853, "85.3 ms"),
        (0.9996, "1.0 s"),
        (4.25, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.integers(1024, 1024**6))
def test_a_size_is_shown_with_three_digits_and_within_their_precision(count: int) -> None:
    number, prefix = format_bytes(count).split()
    factor = 1024 ** (1 + ["KiB", "MiB", "GiB", "TiB", "PiB"].index(prefix))
    assert abs(float(number) * factor - count) <= 0.006 * count
    assert len(number) <= 5 or prefix == "PiB"
