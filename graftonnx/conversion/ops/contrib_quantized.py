"""Quantised operators of the domain `com.microsoft`, as ONNX Runtime's quantizer writes them.

Names, order and defaults are those that ONNX Runtime registers; a test compares them. Products of integers
are exact; where ONNX Runtime computes with float numbers or tables, so do these, and a result at the middle
between two integers may come out as the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from graftonnx.conversion import quantization
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.grids import (
    Grid,
    dequantized,
    element_type,
    grid_of,
    known_shape,
    quantized,
    typed,
)
from graftonnx.conversion.ops import pool
from graftonnx.conversion.ops.activation import softmax_1
from graftonnx.conversion.ops.contrib import MICROSOFT
from graftonnx.conversion.ops.quantize import (
    by_row,
    integer_product,
    qlinear_conv,
    quantized_like,
)
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


def _grid(g: Builder, scale: Value, zero: Value, index: int, like: Value = None) -> Grid:
    """Return the one grid of a tensor; `index` is the input that tells the element type."""
    name = element_type(g, zero if zero is not None else like, index) or "uint8"
    return grid_of(g, scale, zero, name, like=None)


def _numbers(g: Builder, x: Value, scale: Value, zero: Value, index: int) -> Value:
    """Emit the numbers that the input `index`, x, stands for."""
    return dequantized(g, x, _grid(g, scale, zero, index, x))


def _elementwise(g: Builder, function: Any, a: Value, b: Value) -> Value:
    x, y = known_shape(g, a), known_shape(g, b)
    shape = x if x == y or (x is not None and y is not None and len(x) > len(y)) else None
    if shape is None and x is not None and y is not None:
        shape = (None,) * max(len(x), len(y))
    return typed(g.call(function, a, b), "float32", shape)


@op("QLinearAdd", since=1, domain=MICROSOFT)
def qlinear_add(
    g: Builder,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value = None,
    c_scale: Value = None,
    c_zero_point: Value = None,
) -> Result:
    """Sum of what integers stand for, with broadcasting."""
    numbers = _numbers(g, a, a_scale, a_zero_point, 0), _numbers(g, b, b_scale, b_zero_point, 3)
    total = _elementwise(g, torch.add, *numbers)
    return quantized(g, total, quantized_like(g, c_scale, c_zero_point, 7, 0))


@op("QLinearMul", since=1, domain=MICROSOFT)
def qlinear_mul(
    g: Builder,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value = None,
    c_scale: Value = None,
    c_zero_point: Value = None,
) -> Result:
    """Product of what integers stand for, with broadcasting."""
    numbers = _numbers(g, a, a_scale, a_zero_point, 0), _numbers(g, b, b_scale, b_zero_point, 3)
    product = _elementwise(g, torch.mul, *numbers)
    return quantized(g, product, quantized_like(g, c_scale, c_zero_point, 7, 0))


@op("QLinearSigmoid", since=1, domain=MICROSOFT)
def qlinear_sigmoid(
    g: Builder, x: Value, x_scale: Value, x_zero_point: Value, y_scale: Value, y_zero_point: Value = None
) -> Result:
    """Sigmoid of what integers stand for."""
    y = g.call(torch.sigmoid, _numbers(g, x, x_scale, x_zero_point, 0))
    grid = quantized_like(g, y_scale, y_zero_point, 4, 0)
    return quantized(g, typed(y, "float32", known_shape(g, x)), grid)


@op("QLinearLeakyRelu", since=1, domain=MICROSOFT)
def qlinear_leaky_relu(
    g: Builder,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value = None,
    *,
    alpha: float = 0.01,
) -> Result:
    """Return x where positive, alpha * x elsewhere, of what integers stand for."""
    y = g.call(F.leaky_relu, _numbers(g, x, x_scale, x_zero_point, 0), alpha)
    grid = quantized_like(g, y_scale, y_zero_point, 4, 0)
    return quantized(g, typed(y, "float32", known_shape(g, x)), grid)


@op("QLinearSoftmax", since=1, domain=MICROSOFT)
def qlinear_softmax(
    g: Builder,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
    *,
    axis: int = -1,
    opset: int,
) -> Result:
    """Normalised exponentials of what integers stand for, by the meaning of Softmax in `opset`."""
    numbers = _numbers(g, x, x_scale, x_zero_point, 0)
    y: Any = softmax_1(g, numbers, axis=axis) if opset < 13 else g.call(F.softmax, numbers, dim=axis)
    grid = quantized_like(g, y_scale, y_zero_point, 4, 0)
    return quantized(g, typed(y, "float32", known_shape(g, x)), grid)


@op("QLinearAveragePool", since=1, domain=MICROSOFT)
def qlinear_average_pool(
    g: Builder,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Mean of each window of what integers stand for. x: [N, C, ...], or [N, ..., C] if `channels_last`."""
    numbers = _channels_second(g, _numbers(g, x, x_scale, x_zero_point, 0), channels_last)
    y = pool.average_pool(
        g,
        numbers,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    y = typed(y, "float32", _pooled(g, numbers, 0))
    y = _channels_back(g, y, channels_last)
    return quantized(g, y, quantized_like(g, y_scale, y_zero_point, 4, 0))


@op("QLinearGlobalAveragePool", since=1, domain=MICROSOFT)
def qlinear_global_average_pool(
    g: Builder,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
    *,
    channels_last: int = 0,
) -> Result:
    """Mean of each plane of what integers stand for. x: [N, C, ...], or [N, ..., C] if `channels_last`."""
    numbers = _channels_second(g, _numbers(g, x, x_scale, x_zero_point, 0), channels_last)
    y = typed(pool.global_average_pool(g, numbers), "float32", _pooled(g, numbers, 1))
    return quantized(g, _channels_back(g, y, channels_last), quantized_like(g, y_scale, y_zero_point, 4, 0))


def _pooled(g: Builder, x: Value, extent: int) -> tuple[int | None, ...]:
    """Return the shape of a pooled [N, C, ...]: its spatial extents are `extent`, or unknown if that is 0."""
    shape = known_shape(g, x) or (None,) * g.rank(x)
    return (*shape[:2], *((extent or None,) * (len(shape) - 2)))


@op("NhwcMaxPool", since=1, domain=MICROSOFT)
def nhwc_max_pool(
    g: Builder,
    x: Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Largest integer of each window. x: [N, ..., C] -> [N, ..., C]."""
    planes = _channels_second(g, x, 1)
    y: Any = pool.max_pool(
        g,
        planes,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _channels_back(g, typed(y, g.type(x).dtype, _pooled(g, planes, 0)), 1)


def _channels_second(g: Builder, x: Value, last: int) -> Value:
    """Return x: [N, ..., C] as [N, C, ...] if `last`."""
    if not last:
        return x
    shape = known_shape(g, x) or (None,) * g.rank(x)
    return typed(g.call(torch.movedim, x, -1, 1), g.type(x).dtype, (shape[0], shape[-1], *shape[1:-1]))


def _channels_back(g: Builder, y: Value, last: int) -> Value:
    """Return y: [N, C, ...] as [N, ..., C] if `last`."""
    if not last:
        return y
    shape = known_shape(g, y) or (None,) * g.rank(y)
    return typed(g.call(torch.movedim, y, 1, -1), g.type(y).dtype, (shape[0], *shape[2:], shape[1]))


@op("QLinearConv", since=1, domain=MICROSOFT)
def qlinear_conv_microsoft(
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
    channels_last: int = 0,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Like the standard's, but x may be [N, ..., C]; w: [M, C/group, ...] stays."""
    y: Any = qlinear_conv(
        g,
        _channels_second(g, x, channels_last),
        x_scale,
        x_zero_point,
        w,
        w_scale,
        w_zero_point,
        y_scale,
        y_zero_point,
        b,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    shape = (None, (known_shape(g, w) or (None,))[0], *(None,) * (g.rank(w) - 2))
    return _channels_back(g, typed(y, element_type(g, y_zero_point, 7), shape), channels_last)


@op("QLinearConcat", since=1, domain=MICROSOFT)
def qlinear_concat(g: Builder, y_scale: Value, y_zero_point: Value, *inputs: Value, axis: int) -> Result:
    """Tensors one after the other along `axis`; inputs are triples of integers, scale and zero point."""
    parts = [_numbers(g, inputs[i], inputs[i + 1], inputs[i + 2], i + 2) for i in range(0, len(inputs), 3)]
    shape = list(known_shape(g, parts[0]) or ())
    if shape:
        shape[axis] = None
    y = typed(g.call(torch.cat, parts, dim=axis), "float32", tuple(shape) or None)
    return quantized(g, y, quantized_like(g, y_scale, y_zero_point, 1, 2))


@op("QLinearWhere", since=1, domain=MICROSOFT)
def qlinear_where(
    g: Builder,
    condition: Value,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    y: Value,
    y_scale: Value,
    y_zero_point: Value,
    z_scale: Value,
    z_zero_point: Value,
) -> Result:
    """Return x where the condition holds, y elsewhere, of what integers stand for."""
    first, second = _numbers(g, x, x_scale, x_zero_point, 1), _numbers(g, y, y_scale, y_zero_point, 4)
    rank = max(g.rank(value) for value in (condition, x, y))
    chosen = typed(g.call(torch.where, condition, first, second), "float32", (None,) * rank)
    return quantized(g, chosen, quantized_like(g, z_scale, z_zero_point, 8, 1))


@op("DynamicQuantizeMatMul", since=1, domain=MICROSOFT)
def dynamic_quantize_mat_mul(
    g: Builder, a: Value, b: Value, b_scale: Value, b_zero_point: Value = None, bias: Value = None
) -> Result:
    """Matrix product of a, quantised to the grid that it fills, and integers b. a: [..., M, K], b: [K, N]."""
    a = g.tensor(a)
    both = g.call(quantization.dynamic_grid, a)
    scale, zero = g.item(both, 0), g.item(both, 1)
    steps = g.call(quantization.quantize, a, scale, zero, 0, 255, torch.uint8)
    return _scaled(g, a, steps, b, scale, b_scale, zero, b_zero_point, bias)


@op("MatMulIntegerToFloat", since=1, domain=MICROSOFT)
def mat_mul_integer_to_float(
    g: Builder,
    a: Value,
    b: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero_point: Value = None,
    b_zero_point: Value = None,
    bias: Value = None,
) -> Result:
    """Matrix product of integers, as the numbers that it stands for. a: [..., M, K], b: [..., K, N]."""
    return _scaled(g, a, a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias)


def _scaled(
    g: Builder,
    like: Value,
    a: Value,
    b: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero: Value,
    b_zero: Value,
    bias: Value,
) -> Value:
    """Emit the numbers that a product of integers stands for, plus bias; its shape resembles `like`."""
    total = integer_product(g, a, b, a_zero, b_zero)
    y = g.call(quantization.scaled, total, by_row(g, g.frozen(a_scale)), g.frozen(b_scale))
    y = y if bias is None else g.call(torch.add, y, bias)
    shape = known_shape(g, like)
    width = (known_shape(g, b) or (None,))[-1]
    return typed(y, "float32", None if shape is None else (*shape[:-1], width))


@op("QGemm", since=1, domain=MICROSOFT)
def qgemm(
    g: Builder,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value,
    c: Value = None,
    y_scale: Value = None,
    y_zero_point: Value = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # ONNX's spelling
    transB: int = 0,  # ONNX's spelling
) -> Result:
    """Alpha * A B + C of integers; float32 without y_scale. a: [M, K], b: [K, N], c: int32, to [M, N]."""
    if transA and a_scale is not None and (known_shape(g, a_scale) or ()) not in ((), (1,)):
        raise UnsupportedOpError("a_scale is a vector, expected a number.")
    a = g.call(torch.t, a) if transA else a
    b = g.call(torch.t, b) if transB else b
    total = integer_product(g, a, b, a_zero_point, b_zero_point)
    total = total if c is None else g.call(torch.add, total, c)
    shape = ((known_shape(g, a) or (None,))[0], (known_shape(g, b) or (None, None))[1])
    scales = g.frozen(a_scale), g.frozen(b_scale)
    if y_scale is None:
        y = g.call(quantization.scaled, total, *scales)
        return typed(y if alpha == 1 else g.call(torch.mul, y, alpha), "float32", shape)
    grid = quantized_like(g, y_scale, y_zero_point, 8, 0)
    ratio = g.call(quantization.ratio, *scales, g.frozen(y_scale))
    ratio = ratio if alpha == 1 else g.call(torch.mul, ratio, alpha)
    y = g.call(quantization.requantize, total, ratio, grid.zero, grid.low, grid.high, grid.storage)
    return typed(y, grid.name, shape)
