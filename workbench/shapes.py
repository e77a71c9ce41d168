"""Shapes: tensors of a network as pairs of name and shape, and the parts that families share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]


def linear(name: str, rows: int, columns: int, *, bias: bool = False) -> Shapes:
    """Yield a matrix from `columns` inputs to `rows` outputs, and its bias."""
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def norm(name: str, size: int, *, bias: bool = False) -> Shapes:
    """Yield the scales of a normalization, and its shifts where it has them (RMSNorm does not)."""
    yield f"{name}.weight", (size,)
    if bias:
        yield f"{name}.bias", (size,)


def table(name: str, rows: int, columns: int) -> Shapes:
    """Yield a table with a row for each token or position."""
    yield f"{name}.weight", (rows, columns)


def under(prefix: str, shapes: Iterable[tuple[str, Shape]]) -> Shapes:
    """Yield shapes with a prefix before their names."""
    for name, shape in shapes:
        yield f"{prefix}.{name}", shape


def gated(name: str, hidden: int, inner: int, *, bias: bool = False) -> Shapes:
    """Yield a gated feed-forward part (Shazeer, arXiv:2002.05202), as Llama names it."""
    yield from linear(f"{name}.gate_proj", inner, hidden, bias=bias)
    yield from linear(f"{name}.up_proj", inner, hidden, bias=bias)
    yield from linear(f"{name}.down_proj", hidden, inner, bias=bias)
