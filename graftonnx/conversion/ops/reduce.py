"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from graftonnx.conversion import reductions
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value, is_symbolic
from graftonnx.errors import UnsupportedOpError

_REDUCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "ReduceL1": (reductions.reduce_l1, 18),
    "ReduceL2": (reductions.reduce_l2, 18),
    "ReduceLogSum": (reductions.reduce_log_sum, 18),
    "ReduceLogSumExp": (reductions.reduce_log_sum_exp, 18),
    "ReduceMax": (reductions.reduce_max, 18),
    "ReduceMean": (reductions.reduce_mean, 18),
    "ReduceMin": (reductions.reduce_min, 18),
    "ReduceProd": (reductions.reduce_prod, 18),
    "ReduceSum": (reductions.reduce_sum, 13),
    "ReduceSumSquare": (reductions.reduce_sum_square, 18),
}
"""Operator -> the function of (x, axes, keepdim), and the opset at which axes became an input."""


def _register(op_type: str, function: Callable[..., Any], axes_since: int) -> None:
    """Register both forms of a reduction: axes as an attribute, and as an input."""

    def by_attribute(g: Builder, x: Value, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Result:
        return _reduce(g, function, x, axes, keepdims)

    def by_input(
        g: Builder, x: Value, axes: Value = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Result:
        chosen = [] if axes is None else g.numbers(axes)
        if isinstance(chosen, fx.Node):
            shape = g.shape(axes)
            if shape is None or None in shape:
                raise UnsupportedOpError("axes has an unknown number of elements, expected a known one.")
            chosen = chosen if 0 not in shape else []
        everything = not chosen and not noop_with_empty_axes
        return _reduce(g, function, x, None if everything else chosen, keepdims)

    for convert, since in ((by_attribute, 1), (by_input, axes_since)):
        convert.__name__ = f"{op_type.lower()}_{since}"
        convert.__doc__ = f"{op_type} over `axes`, over all of them if there are none."
        op(op_type, since=since)(convert)


def _reduce(g: Builder, function: Callable[..., Any], x: Value, axes: Any, keepdims: int) -> Result:
    if is_symbolic(x) and function is reductions.reduce_prod:
        assert isinstance(x, np.ndarray)
        return np.asarray(np.multiply.reduce(x.ravel()), dtype=object).reshape([1] * bool(keepdims))
    dims = list(range(g.rank(x))) if axes is None else axes
    if isinstance(dims, tuple):
        dims = list(dims)
    return g.call(function, x, dims, bool(keepdims))


for _op_type, (_function, _axes_since) in _REDUCTIONS.items():
    _register(_op_type, _function, _axes_since)


@op("ArgMax", since=1)
def arg_max_1(g: Builder, x: Value, *, axis: int = 0, keepdims: int = 1) -> Result:
    """Index of the first largest element along `axis`."""
    return g.call(torch.argmax, g.frozen(x), axis, bool(keepdims))


@op("ArgMax", since=12)
def arg_max(g: Builder, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Result:
    """Index of the first, or the last, largest element along `axis`."""
    return g.call(reductions.arg_extreme, g.frozen(x), axis, bool(keepdims), bool(select_last_index), True)


@op("ArgMin", since=1)
def arg_min_1(g: Builder, x: Value, *, axis: int = 0, keepdims: int = 1) -> Result:
    """Index of the first smallest element along `axis`."""
    return g.call(torch.argmin, g.frozen(x), axis, bool(keepdims))


@op("ArgMin", since=12)
def arg_min(g: Builder, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Result:
    """Index of the first, or the last, smallest element along `axis`."""
    return g.call(reductions.arg_extreme, g.frozen(x), axis, bool(keepdims), bool(select_last_index), False)
