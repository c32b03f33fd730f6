"""Quantisation: between float numbers and integers, and products of integers.

Scales and zero points are settings, which do not train. A QuantizeLinear whose integers only a
DequantizeLinear of the same grid reads becomes one call that lets gradients pass straight through. A
DequantizeLinear of integers that the file holds gives a weight, which trains in float numbers and which write
back stores as a float initializer if it changed. Nothing flows back through integers themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from graftonnx.conversion import quantization
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.grids import (
    Grid,
    aligned,
    element_type,
    grid_of,
    narrowed,
    numbers_of,
    quantized,
)
from graftonnx.conversion.ops.conv import kernel_of, padded, spatial_rank
from graftonnx.conversion.registry import op
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import FLOATS, Result, Value, Weight
from graftonnx.errors import UnsupportedOpError

_EXACT_IN_FLOAT32 = 258
"""So many products of 8-bit integers add up to less than 2 ** 24."""

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@op("QuantizeLinear", since=10)
def quantize_linear_10(g: Builder, x: Value, y_scale: Value, y_zero_point: Value = None) -> Result:
    """Integers that stand for x, on one grid. x: [...] -> same shape."""
    return quantize_linear(g, x, y_scale, y_zero_point)


@op("QuantizeLinear", since=13)
@op("QuantizeLinear", since=1, domain="com.microsoft")
def quantize_linear_13(
    g: Builder, x: Value, y_scale: Value, y_zero_point: Value = None, *, axis: int = 1
) -> Result:
    """Integers that stand for x, on one grid or one for each index along `axis`."""
    return quantize_linear(g, x, y_scale, y_zero_point, axis=axis)


@op("QuantizeLinear", since=19)
def quantize_linear_19(
    g: Builder, x: Value, y_scale: Value, y_zero_point: Value = None, *, axis: int = 1, saturate: int = 1
) -> Result:
    """Integers or 8-bit floats that stand for x, on one grid or one for each index along `axis`."""
    return quantize_linear(g, x, y_scale, y_zero_point, axis=axis, saturate=saturate)


@op("QuantizeLinear", since=21)
def quantize_linear_21(
    g: Builder,
    x: Value,
    y_scale: Value,
    y_zero_point: Value = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
) -> Result:
    """Integers or 8-bit floats that stand for x, on one grid, or one for each index or block of `axis`."""
    return quantize_linear(
        g,
        x,
        y_scale,
        y_zero_point,
        axis=axis,
        block_size=block_size,
        output_dtype=output_dtype,
        saturate=saturate,
    )


@op("QuantizeLinear", since=23)
def quantize_linear(
    g: Builder,
    x: Value,
    y_scale: Value,
    y_zero_point: Value = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Result:
    """Integers or 8-bit floats that stand for x, on one grid, or one for each index or block of `axis`.

    The division is computed in float32, as ONNX Runtime does.
    """
    if dtype_name(precision) not in (None, "float32"):
        raise UnsupportedOpError(f"precision is {dtype_name(precision)}, expected float32.")
    fallback = dtype_name(output_dtype) if output_dtype else "uint8"
    name = element_type(g, y_zero_point, 2) or fallback or ""
    if name.startswith("float"):
        # Their zero point can only be 0.
        scale = aligned(g, g.frozen(y_scale), x, axis, block_size)
        return narrowed(g, g.call(quantization.in_steps, x, scale), name, bool(saturate))
    return quantized(g, x, grid_of(g, y_scale, y_zero_point, name, like=x, axis=axis, block=block_size))


@op("DequantizeLinear", since=10)
def dequantize_linear_10(g: Builder, x: Value, x_scale: Value, x_zero_point: Value = None) -> Result:
    """Numbers that the integers x stand for, on one grid. x: [...] -> same shape."""
    return dequantize_linear(g, x, x_scale, x_zero_point)


@op("DequantizeLinear", since=13)
@op("DequantizeLinear", since=1, domain="com.microsoft")
def dequantize_linear_13(
    g: Builder, x: Value, x_scale: Value, x_zero_point: Value = None, *, axis: int = 1
) -> Result:
    """Numbers that the integers x stand for, on one grid or one for each index along `axis`."""
    return dequantize_linear(g, x, x_scale, x_zero_point, axis=axis)


@op("DequantizeLinear", since=21)
def dequantize_linear_21(
    g: Builder, x: Value, x_scale: Value, x_zero_point: Value = None, *, axis: int = 1, block_size: int = 0
) -> Result:
    """Numbers that x stands for, on one grid, or one for each index or block of `axis`."""
    return dequantize_linear(g, x, x_scale, x_zero_point, axis=axis, block_size=block_size)


@op("DequantizeLinear", since=23)
def dequantize_linear(
    g: Builder,
    x: Value,
    x_scale: Value,
    x_zero_point: Value = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Result:
    """Numbers that x stands for, on one grid, or one for each index or block of `axis`."""
    name = element_type(g, x, 0) or ""
    grid = grid_of(g, x_scale, x_zero_point, name, like=x, axis=axis, block=block_size)
    wanted = getattr(torch, dtype_name(output_dtype) or "") if output_dtype else None
    around = _whole_pair(g, x, grid)
    if around is not None:
        source, step, low, high = around
        y = g.call(quantization.fake_quantize, source, step, low, high, wanted)
    else:
        y = g.call(quantization.dequantize, x, grid.scale, grid.zero, wanted)
    return _weight(g, y) if isinstance(y, np.ndarray) else y


def _weight(g: Builder, array: Any) -> Value:
    """Return numbers that the file holds as integers: a weight, where write back can store it."""
    name = g.node.output[0]
    trains = array.dtype.name in FLOATS and array.size > 1 and name not in g.frozen_names
    if trains and g.source.can_write(name):
        return Weight(name, array, g.uses[name], g.trainable(name))
    return np.asarray(array)


def _whole_pair(g: Builder, x: Value, grid: Grid) -> tuple[Any, Any, Any, Any] | None:
    """Return the operand, step and bounds of the quantisation that made x, if it was by the same grid."""
    while isinstance(x, fx.Node) and x.target is torch.Tensor.to:
        x = x.args[0]  # type: ignore[assignment]  # what is narrowed or widened
    if not isinstance(x, fx.Node) or x.target is not quantization.quantize:
        return None
    source, step, zero, low, high, _ = x.args
    if not isinstance(grid.scale, np.ndarray) or not isinstance(grid.zero, int) or zero != grid.zero:
        return None
    held = numbers_of(g, step)
    if held is None or not np.array_equal(held, grid.scale):
        return None
    return source, step, low - zero, high - zero  # type: ignore[operator]  # integers


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(g: Builder, x: Value) -> Result:
    """8-bit integers that stand for x, on the grid that x fills; its scale and its zero point."""
    x = g.tensor(x)
    both = g.call(quantization.dynamic_grid, x)
    scale, zero = g.item(both, 0), g.item(both, 1)
    return g.call(quantization.quantize, x, scale, zero, 0, 255, torch.uint8), scale, zero


@op("MatMulInteger", since=10)
def mat_mul_integer(
    g: Builder, a: Value, b: Value, a_zero_point: Value = None, b_zero_point: Value = None
) -> Result:
    """Matrix product of integers. a: [..., M, K], b: [..., K, N] -> int32 [..., M, N]."""
    return g.call(quantization.to_int32, integer_product(g, a, b, a_zero_point, b_zero_point))


def integer_product(g: Builder, a: Value, b: Value, a_zero: Value, b_zero: Value) -> Value:
    """Return the matrix product of integers as float64; zero points may be for each row of a, column of b."""
    matrix = isinstance(b, np.ndarray) and b.ndim >= 2
    narrow = matrix and _is_exact_in_float32(b, b_zero, [-2])
    dtype = torch.float32 if narrow else torch.float64
    rows = g.call(quantization.centred, a, by_row(g, zero_of(a_zero)), dtype)
    columns = g.call(quantization.centred, b, zero_of(b_zero), dtype)
    y = g.call(torch.matmul, rows, columns)
    return g.call(torch.Tensor.double, y) if narrow else y


def zero_of(zero: Value) -> Any:
    """Return a zero point as an operand: 0 if absent, a number if it is one, else the value."""
    if zero is None:
        return 0
    return int(zero.item()) if isinstance(zero, np.ndarray) and zero.size == 1 else zero


def by_row(g: Builder, value: Any) -> Any:
    """Return a vector with one element for each row as a column; anything else as it is."""
    vector = not isinstance(value, (int, float)) and len(g.shape(value) or ()) == 1
    if not vector or (g.shape(value) or ())[0] == 1:
        return value
    return g.call(torch.unsqueeze, value, -1)


@op("QLinearMatMul", since=10)
def qlinear_mat_mul(
    g: Builder,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
) -> Result:
    """Matrix product of integers that stand for numbers. a: [..., M, K], b: [..., K, N] -> [..., M, N]."""
    total = integer_product(g, a, b, a_zero_point, b_zero_point)
    scales = by_row(g, g.frozen(a_scale)), g.frozen(b_scale), by_row(g, g.frozen(y_scale))
    grid = grid_of(g, y_scale, y_zero_point, element_type(g, y_zero_point, 7) or "uint8", like=None)
    return g.call(
        quantization.requantize,
        total,
        g.call(quantization.ratio, *scales),
        by_row(g, grid.zero),
        grid.low,
        grid.high,
        grid.storage,
    )


@op("ConvInteger", since=10)
def conv_integer(
    g: Builder,
    x: Value,
    w: Value,
    x_zero_point: Value = None,
    w_zero_point: Value = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Convolution of integers. x: [N, C, ...], w: [M, C/group, ...] -> int32 [N, M, ...]."""
    window = (auto_pad, dilations, group, kernel_shape, pads, strides)
    return g.call(quantization.to_int32, integer_convolution(g, x, w, x_zero_point, w_zero_point, *window))


def integer_convolution(
    g: Builder,
    x: Value,
    w: Value,
    x_zero: Value,
    w_zero: Value,
    auto_pad: str,
    dilations: Sequence[int] | None,
    group: int,
    kernel_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Value:
    """Return the convolution of integers as float64; what is padded stands for 0."""
    rank = spatial_rank(g, w)
    kernel = kernel_of(g, w, kernel_shape)
    stride, dilation = tuple(strides or [1] * rank), tuple(dilations or [1] * rank)
    depthwise = (g.shape(w) or (0, 0))[1] == 1 and math.prod(kernel) <= _EXACT_IN_FLOAT32
    # A larger window may be computed by transforms, which round.
    pointwise = math.prod(kernel) == 1 and _is_exact_in_float32(w, w_zero, range(1, rank + 2))
    narrow = depthwise or pointwise
    dtype = torch.float32 if narrow else torch.float64
    steps = g.call(quantization.centred, x, zero_of(x_zero), dtype)
    steps, padding = padded(g, steps, kernel, stride, dilation, auto_pad, pads)
    zero = zero_of(w_zero)
    if not isinstance(zero, int):
        zero = g.call(quantization.align, zero, rank + 2, 0, 0, None)
    weight = g.call(quantization.centred, w, zero, dtype)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": group}
    y = g.call(_CONVOLVE[rank], steps, weight, None, **settings)
    return g.call(torch.Tensor.double, y) if narrow else y


def _is_exact_in_float32(w: Value, zero: Value, summed: Iterable[int]) -> bool:
    """Return whether float32 holds every sum of products of 8-bit steps with constant weights w.

    Args:
        w: The weights.
        zero: Their zero points.
        summed: The axes along which products are added.
    """
    middles = np.unique(zero) if isinstance(zero, np.ndarray) else np.zeros(1, np.int8)
    fixed = zero is None or (isinstance(zero, np.ndarray) and len(middles) == 1)
    if not fixed or not isinstance(w, np.ndarray) or w.dtype not in (np.int8, np.uint8):
        return False
    sums = np.abs(w.astype(np.int64) - int(middles[0])).sum(axis=tuple(summed))
    return int(sums.max(initial=0)) * 255 <= 2**24


@op("QLinearConv", since=10)
def qlinear_conv(
    g: Builder,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    w: Value,
    w_scale: Value,
    w_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
    b: Value = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Convolution of integers that stand for numbers. x: [N, C, ...], b: int32 [M] -> [N, M, ...]."""
    window = (auto_pad, dilations, group, kernel_shape, pads, strides)
    total = integer_convolution(g, x, w, x_zero_point, w_zero_point, *window)
    rank = g.rank(w)
    if b is not None:
        total = g.call(torch.add, total, g.call(quantization.align, b, rank, 1, 0, None))
    w_step = g.call(quantization.align, g.frozen(w_scale), rank, 1, 0, None)
    grid = grid_of(g, y_scale, y_zero_point, element_type(g, y_zero_point, 7) or "uint8", like=None)
    ratio = g.call(quantization.ratio, g.frozen(x_scale), w_step, grid.scale)
    return g.call(quantization.requantize, total, ratio, grid.zero, grid.low, grid.high, grid.storage)


def quantized_like(g: Builder, scale: Value, zero: Value, index: int, fallback: int) -> Grid:
    """Return the grid of a result: of the zero point's type, input `index`, or else of input `fallback`."""
    name = g.source.types[g.node.input[fallback]].dtype if zero is None else element_type(g, zero, index)
    return grid_of(g, scale, zero, name or "uint8", like=None)
