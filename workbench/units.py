"""Words for people: sizes, times and counts in few characters; texts from elsewhere, harmless."""

from __future__ import annotations

import json
import math
import re

BINARY = ("KiB", "MiB", "GiB", "TiB", "PiB")
THOUSANDS = ("k", "M", "B", "T")


def format_bytes(count: float) -> str:
    """Return a size with binary prefixes and three digits, "1.50 GiB"; exact below 1 KiB."""
    if abs(count) < 1024:
        return f"{round(count)} byte{'' if round(count) == 1 else 's'}"
    return _scaled(count, 1024, BINARY)


def format_count(count: float) -> str:
    """Return a number with the prefixes used for parameters, "2.60 M"; exact below 10,000."""
    if abs(count) < 10_000:
        return f"{round(count):,}"
    return _scaled(count, 1000, THOUSANDS)


def format_seconds(seconds: float) -> str:
    """Return a time in the unit that fits it: "85 ms", "4.2 s", "3 min 05 s", "2 h 10 min"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _scaled(count: float, base: int, prefixes: tuple[str, ...]) -> str:
    """Divide by `base` until three digits show the number; keep the last prefix for the rest."""
    for prefix in prefixes:
        count /= base
        # What would be printed as 1024 or 1000 belongs to the next prefix.
        if abs(count) < base - 0.5 or prefix == prefixes[-1]:
            break
    digits = 2 if abs(count) < 9.995 else 1 if abs(count) < 99.95 else 0
    return f"{count:.{digits}f} {prefix}"


def printable(text: str) -> str:
    """Return a text from elsewhere without characters that could deceive whoever reads it.

    Each becomes U+FFFD: controls, which steer a terminal; those of bidirectional writing, which
    show a text in another order than it has; line separators; and halves of surrogates, which
    cannot be written at all.
    """
    return _DECEIVING.sub("\ufffd", text)


def printable_json(value: object) -> str:
    """Return a value as JSON for a terminal: the same data, such characters as escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return _DECEIVING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_DECEIVING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
