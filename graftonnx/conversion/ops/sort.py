"""Ordering, counting and finding elements."""

from __future__ import annotations

from graftonnx.conversion import sorting
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value


@op("TopK", since=1)
def top_k_1(g: Builder, x: Value, *, axis: int = -1, k: int) -> Result:
    """The k largest elements along `axis`, and their places."""
    return _top_k(g, x, [k], axis, True)


@op("TopK", since=10)
def top_k_10(g: Builder, x: Value, k: Value, *, axis: int = -1) -> Result:
    """The k largest elements along `axis`, and their places."""
    return _top_k(g, x, g.ints(k, "k"), axis, True)


@op("TopK", since=11)
def top_k(g: Builder, x: Value, k: Value, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Result:
    """The k largest or smallest elements along `axis`, and their places; always in order."""
    return _top_k(g, x, g.ints(k, "k"), axis, bool(largest))


@op("NonZero", since=9)
def non_zero(g: Builder, x: Value) -> Result:
    """Places of the elements that are not zero. x: [...] of R axes -> [R, count]."""
    return g.call(sorting.non_zero, g.frozen(x))


@op("Unique", since=11)
def unique(g: Builder, x: Value, *, axis: int | None = None, sorted: int = 1) -> Result:
    """Distinct slices of x along `axis`, where they first occur, which is which, and how often."""
    many = g.call(sorting.unique, x, axis, bool(sorted))
    return tuple(g.item(many, i) for i in range(4))


def _top_k(g: Builder, x: Value, k: list[object], axis: int, largest: bool) -> Result:
    both = g.call(sorting.top_k, g.tensor(x), k, axis, largest)
    return g.item(both, 0), g.item(both, 1)
