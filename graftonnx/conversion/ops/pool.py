"""Pooling over windows and over whole planes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from graftonnx.conversion import windows
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.conv import pad_widths
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError

MOST_OF_WINDOW = 1 << 20
"""Elements of a window: a plane of 1024 x 1024."""

_MAX_LAYERS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MAX_CALLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_LAYERS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


@op("MaxPool", since=1)
def max_pool(
    g: Builder,
    x: Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Result:
    """Largest element of each window. x: [N, C, ...] -> [N, C, ...], and its index if wanted."""
    kernel, stride, dilation, pad = window(kernel_shape, strides, dilations, pads)
    rank = len(kernel)
    _check_same(auto_pad, kernel, dilation)
    narrow = None if g.is_float(x) else g.type(x).dtype
    if narrow is not None:
        if narrow not in ("int8", "uint8"):
            raise UnsupportedOpError(f"PyTorch cannot pool elements of type {narrow}.")
        x = g.call(torch.Tensor.to, g.tensor(x), torch.float32)
    if g.wanted > 1:
        wide = any(2 * p > k for p, k in zip(pad, kernel, strict=False))
        if auto_pad != "NOTSET" or ceil_mode or pad[:rank] != pad[rank:] or wide:
            raise UnsupportedOpError(
                "the output Indices with auto_pad, ceil_mode, unequal or wide pads has no exact form."
            )
        x = g.tensor(x)
        pooled = g.call(_MAX_CALLS[rank], x, kernel, stride, pad[:rank], dilation, return_indices=True)
        y, inside = g.item(pooled, 0), g.item(pooled, 1)
        indices = g.call(windows.pool_indices, inside, x, bool(storage_order))
        return (y if narrow is None else _back(g, y, narrow)), indices
    x, pad, ceil = _arranged(g, x, kernel, stride, dilation, auto_pad, pad, bool(ceil_mode), float("-inf"))
    layer = _MAX_LAYERS[rank](kernel, stride, pad[:rank], dilation, ceil_mode=ceil)
    y = g.layer(layer, x)
    return y if narrow is None else _back(g, y, narrow)


@op("AveragePool", since=1)
def average_pool(
    g: Builder,
    x: Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Mean of each window. x: [N, C, ...] -> [N, C, ...]."""
    kernel, stride, dilation, pad = window(kernel_shape, strides, dilations, pads)
    rank = len(kernel)
    if auto_pad == "VALID":
        pad = (0,) * 2 * rank
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    _check_same(auto_pad, kernel, dilation)
    if same and ceil_mode:
        raise UnsupportedOpError(f"ONNX Runtime divides otherwise with auto_pad={auto_pad} and ceil_mode=1.")
    plain = not same and not ceil_mode and set(dilation) == {1} and pad[:rank] == pad[rank:]
    if plain and all(2 * p <= k for p, k in zip(pad, kernel, strict=False)):
        include = bool(count_include_pad) or not any(pad)
        return g.layer(_AVERAGE_LAYERS[rank](kernel, stride, pad[:rank], count_include_pad=include), x)
    x = g.tensor(x)
    if same:
        return g.call(
            windows.average_same,
            x,
            kernel,
            stride,
            dilation,
            auto_pad == "SAME_LOWER",
            bool(count_include_pad),
        )
    return g.call(
        windows.average_valid, x, kernel, stride, dilation, pad, bool(ceil_mode), bool(count_include_pad)
    )


@op("LpPool", since=2)
def lp_pool(
    g: Builder,
    x: Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """p-norm of each window. x: [N, C, ...] -> [N, C, ...]."""
    kernel, stride, dilation, pad = window(kernel_shape, strides, dilations, pads)
    if auto_pad.startswith("SAME") and any(s > k for k, s in zip(kernel, stride, strict=True)):
        raise UnsupportedOpError(f"ONNX Runtime shifts windows smaller than their steps with {auto_pad}.")
    _check_same(auto_pad, kernel, dilation)
    x, pad, ceil = _arranged(g, x, kernel, stride, dilation, auto_pad, pad, bool(ceil_mode), 0.0, always=True)
    if ceil:
        raise UnsupportedOpError("ceil_mode=1 has no exact PyTorch form here. Re-export with ceil_mode=0.")
    return g.call(windows.lp_pool, g.tensor(x), p, kernel, stride, dilation)


@op("GlobalAveragePool", since=1)
def global_average_pool(g: Builder, x: Value) -> Value:
    """Mean of each plane. x: [N, C, ...] -> [N, C, 1, ...]."""
    return g.call(torch.mean, g.tensor(x), dim=_planes(g, x), keepdim=True)


@op("GlobalMaxPool", since=1)
def global_max_pool(g: Builder, x: Value) -> Value:
    """Largest element of each plane. x: [N, C, ...] -> [N, C, 1, ...]."""
    return g.call(torch.amax, g.tensor(x), dim=_planes(g, x), keepdim=True)


@op("GlobalLpPool", since=2)
def global_lp_pool(g: Builder, x: Value, *, p: int = 2) -> Value:
    """p-norm of each plane. x: [N, C, ...] -> [N, C, 1, ...]."""
    return g.call(torch.linalg.vector_norm, g.tensor(x), ord=p, dim=_planes(g, x), keepdim=True)


def window(
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel, strides, dilations and pads of a pooling window, with ONNX's defaults filled in.

    Raises:
        UnsupportedOpError: If the window has more than three axes, is larger than any plane, or lies on pads
            alone somewhere.
    """
    rank = len(kernel_shape)
    if rank not in _MAX_LAYERS:
        raise UnsupportedOpError(f"the window has {rank} axes, expected 1, 2 or 3.")
    if math.prod(kernel_shape) > MOST_OF_WINDOW:
        raise UnsupportedOpError(
            f"the window {list(kernel_shape)} has {math.prod(kernel_shape):,} elements, at most "
            f"{MOST_OF_WINDOW:,}: PyTorch looks at every one of them at every place, pads included."
        )
    if pads and any(pad >= extent for pad, extent in zip(pads, [*kernel_shape] * 2, strict=False)):
        raise UnsupportedOpError(
            f"pads {list(pads)} are not all smaller than the window {list(kernel_shape)}, "
            "which ONNX Runtime asks for."
        )
    return (
        tuple(kernel_shape),
        tuple(strides or [1] * rank),
        tuple(dilations or [1] * rank),
        tuple(pads or [0] * 2 * rank),
    )


def _arranged(
    g: Builder,
    x: Value,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    auto_pad: str,
    pad: tuple[int, ...],
    ceil: bool,
    value: float,
    *,
    always: bool = False,
) -> tuple[Value, tuple[int, ...], bool]:
    """Return x, pads and ceil mode for a PyTorch pooling; x is padded before where that cannot do."""
    rank = len(kernel)
    none = (0,) * 2 * rank
    if auto_pad == "VALID":
        return x, none, ceil
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        lower = auto_pad == "SAME_LOWER"
        return g.call(windows.pad_same, g.tensor(x), kernel, stride, dilation, lower, value), none, False
    fits = pad[:rank] == pad[rank:] and all(2 * p <= k for p, k in zip(pad, kernel, strict=False))
    if (fits and not always) or not any(pad):
        return x, pad, ceil
    if ceil:
        return g.call(windows.pad_ceil, g.tensor(x), kernel, stride, dilation, pad, value), none, False
    return g.call(F.pad, g.tensor(x), pad_widths(pad), value=value), none, False


def _check_same(auto_pad: str, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> None:
    """Refuse dilated windows whose pads ONNX Runtime computes as if they were not dilated."""
    dilated = any(k > 1 and d > 1 for k, d in zip(kernel, dilation, strict=True))
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and dilated:
        raise UnsupportedOpError(
            f"dilations together with auto_pad={auto_pad} are read differently by ONNX and ONNX Runtime. "
            "Re-export with pads."
        )


def _planes(g: Builder, x: Value) -> list[int]:
    return list(range(2, g.rank(x)))


def _back(g: Builder, y: Value, dtype: str) -> Value:
    return g.call(torch.Tensor.to, y, getattr(torch, dtype))
