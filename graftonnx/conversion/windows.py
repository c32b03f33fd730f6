"""What generated code calls for pooling and padding of windows, where PyTorch has no single function.

Extents are plain integers or SymInts and stay so; nothing depends on a tensor's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def pad_same(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    lower: bool,
    value: float = 0.0,
) -> Tensor:
    """Pad x: [N, C, ...] so that a window gives ceil(extent / stride) outputs along each axis.

    Args:
        x: The tensor.
        kernel: Extents of the window, for each spatial axis.
        strides: Its steps.
        dilations: Its gaps.
        lower: Whether the larger half of an odd padding comes first.
        value: The padding.
    """
    pads: list[int] = []
    for extent, k, s, d in zip(
        reversed(x.shape[2:]), reversed(kernel), reversed(strides), reversed(dilations), strict=True
    ):
        total = max(0, ((extent + s - 1) // s - 1) * s + d * (k - 1) + 1 - extent)
        small = total // 2
        pads += [total - small, small] if lower else [small, total - small]
    return F.pad(x, pads, value=value)


def pad_ceil(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    value: float,
) -> Tensor:
    """Pad x: [N, C, ...] by `pads` and, at the end, so far that the last partial window is whole.

    A window that would start in the padding at the end is left out, as in ONNX.

    Args:
        x: The tensor.
        kernel: Extents of the window, for each spatial axis.
        strides: Its steps.
        dilations: Its gaps.
        pads: Of each spatial axis at the beginning, then of each at the end.
        value: The padding.
    """
    rank = len(kernel)
    widths: list[int] = []
    for axis in reversed(range(rank)):
        begin, end = pads[axis], pads[axis + rank]
        extent, step = x.shape[axis + 2], strides[axis]
        window = dilations[axis] * (kernel[axis] - 1) + 1
        count = -(-(extent + begin + end - window) // step) + 1
        if (count - 1) * step >= extent + begin:
            count = count - 1
        widths += [begin, max(end, (count - 1) * step + window - extent - begin)]
    return F.pad(x, widths, value=value)


def pool_indices(y_indices: Tensor, x: Tensor, column_major: bool) -> Tensor:
    """Turn PyTorch's indices within a channel into ONNX's, which count from the tensor's first element.

    Args:
        y_indices: [N, C, ...], as `max_pool(return_indices=True)` gives them.
        x: [N, C, ...], what was pooled.
        column_major: Whether the spatial axes are counted with the first one fastest.
    """
    extents = x.shape[2:]
    inside = y_indices
    if column_major:
        inside = torch.zeros_like(y_indices)
        rest, weight = y_indices, math.prod(extents)
        for extent in reversed(extents):
            weight = weight // extent
            inside = inside + rest % extent * weight
            rest = rest // extent
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    planes = planes.reshape(x.shape[0], x.shape[1], *[1] * len(extents))
    return inside + planes * math.prod(extents)


def average_valid(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    ceil: bool,
    include_pad: bool,
) -> Tensor:
    """Average x: [N, C, ...] over windows, for paddings and dilations that `avg_pool` does not know.

    Args:
        x: The tensor.
        kernel: Extents of the window, for each spatial axis.
        strides: Its steps.
        dilations: Its gaps.
        pads: Of each spatial axis at the beginning, then of each at the end.
        ceil: Whether a partial window at the end counts.
        include_pad: Whether padded elements count in the divisor; those beyond `pads` never do.
    """
    rank = len(kernel)
    widths = [w for axis in reversed(range(rank)) for w in (pads[axis], pads[axis + rank])]
    valid = F.pad(torch.ones_like(x[:1, :1]), widths, value=float(include_pad))
    x = F.pad(x, widths)
    if ceil:
        extra = _missing_at_end(x, kernel, strides, dilations, pads)
        x, valid = F.pad(x, extra), F.pad(valid, extra)
    count = _window_sum(valid, kernel, strides, dilations)
    return _window_sum(x, kernel, strides, dilations) / count


def _missing_at_end(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> list[int]:
    """Return how much more padding at the end makes the last partial windows whole, last axis first."""
    rank = len(kernel)
    extra: list[int] = []
    for axis in reversed(range(rank)):
        extent, step = x.shape[axis + 2], strides[axis]
        window = dilations[axis] * (kernel[axis] - 1) + 1
        count = -(-(extent - window) // step) + 1
        if (count - 1) * step >= extent - pads[axis + rank]:
            count = count - 1
        extra += [0, max(0, (count - 1) * step + window - extent)]
    return extra


def average_same(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    lower: bool,
    include_pad: bool,
) -> Tensor:
    """Average x: [N, C, ...] over windows that give ceil(extent / stride) outputs along each axis."""
    valid = pad_same(torch.ones_like(x[:1, :1]), kernel, strides, dilations, lower, float(include_pad))
    total = _window_sum(pad_same(x, kernel, strides, dilations, lower), kernel, strides, dilations)
    return total / _window_sum(valid, kernel, strides, dilations)


def lp_pool(
    x: Tensor, p: int, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Tensor:
    """Return the p-norm of each window of x: [N, C, ...]."""
    return _window_sum(x.abs() ** p, kernel, strides, dilations) ** (1 / p)


def _window_sum(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Return the sum of each window of x: [N, C, ...]."""
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    ones = torch.ones((1, 1, *kernel), dtype=x.dtype, device=x.device)
    flat = x.reshape(-1, 1, *x.shape[2:])
    y = convolve(flat, ones, stride=strides, dilation=dilations)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def add_channels(x: Tensor, bias: Tensor) -> Tensor:
    """Add bias: [C] to x: [N, C, ...]."""
    return x + bias.reshape(-1, *[1] * (x.ndim - 2))
