"""Comparison, logic and choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Array, Result, Size, Value, is_symbolic


@op("Equal", since=7)
def equal(g: Builder, a: Value, b: Value) -> Result:
    """A == b."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and (is_symbolic(a) or is_symbolic(b)):
        known = _equal_sizes(a, b)
        if known is None:
            return g.call(torch.eq, g.tensor(a), g.tensor(b))
        return known
    return g.call(torch.eq, g.frozen(a), g.frozen(b))


@op("Greater", since=7)
def greater(g: Builder, a: Value, b: Value) -> Result:
    """A > b."""
    return g.call(torch.gt, g.frozen(a), g.frozen(b))


@op("GreaterOrEqual", since=12)
def greater_or_equal(g: Builder, a: Value, b: Value) -> Result:
    """A >= b."""
    return g.call(torch.ge, g.frozen(a), g.frozen(b))


@op("Less", since=7)
def less(g: Builder, a: Value, b: Value) -> Result:
    """A < b."""
    return g.call(torch.lt, g.frozen(a), g.frozen(b))


@op("LessOrEqual", since=12)
def less_or_equal(g: Builder, a: Value, b: Value) -> Result:
    """A <= b."""
    return g.call(torch.le, g.frozen(a), g.frozen(b))


@op("And", since=7)
def and_(g: Builder, a: Value, b: Value) -> Result:
    """Both are true."""
    return g.call(torch.logical_and, a, b)


@op("Or", since=7)
def or_(g: Builder, a: Value, b: Value) -> Result:
    """At least one is true."""
    return g.call(torch.logical_or, a, b)


@op("Xor", since=7)
def xor(g: Builder, a: Value, b: Value) -> Result:
    """Exactly one is true."""
    return g.call(torch.logical_xor, a, b)


@op("Not", since=1)
def not_(g: Builder, x: Value) -> Result:
    """The opposite."""
    return g.call(torch.logical_not, x)


@op("IsNaN", since=9)
def is_nan(g: Builder, x: Value) -> Result:
    """X is not a number."""
    return g.call(torch.isnan, x)


@op("IsInf", since=10)
def is_inf(g: Builder, x: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> Result:
    """X is infinite, on the sides that are asked for."""
    if detect_negative and detect_positive:
        return g.call(torch.isinf, g.frozen(x))
    if not detect_negative and not detect_positive:
        return g.call(torch.zeros_like, g.tensor(x), dtype=torch.bool)
    return g.call(torch.isposinf if detect_positive else torch.isneginf, g.frozen(x))


@op("Where", since=9)
def where(g: Builder, condition: Value, x: Value, y: Value) -> Result:
    """X where the condition is true, y elsewhere, with broadcasting."""
    constant = isinstance(condition, np.ndarray) and isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    if constant and (is_symbolic(x) or is_symbolic(y)):
        return _choose(condition, x, y)
    return g.call(torch.where, g.tensor(condition) if not constant else condition, x, y)


def _equal_sizes(a: Array, b: Array) -> Array | None:
    """Compare integers of which some are known when the module runs: an extent is never negative.

    Returns:
        Booleans; None if that does not decide all of them.
    """
    result = [_same(x, y) for x, y in np.broadcast(a, b)]
    if None in result:
        return None
    return np.array(result, dtype=bool).reshape(np.broadcast(a, b).shape)


def _same(x: Any, y: Any) -> bool | None:
    if x is y:
        return True
    if not isinstance(x, Size) and not isinstance(y, Size):
        return bool(x == y)
    plain = [item for item in (x, y) if not isinstance(item, Size)]
    natural = any(isinstance(item, Size) and item.natural for item in (x, y))
    return False if natural and any(item < 0 for item in plain) else None


def _choose(condition: Value, x: Value, y: Value) -> Array:
    assert isinstance(condition, np.ndarray)
    assert isinstance(x, np.ndarray)
    assert isinstance(y, np.ndarray)
    return np.where(condition.astype(bool), x.astype(object), y.astype(object))
