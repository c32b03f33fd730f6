"""What generated code calls to reduce or accumulate along axes, where PyTorch has no single function."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cum_sum(x: Tensor, axes: list[int], exclusive: bool, reverse: bool) -> Tensor:
    """Return the running sum of x along one axis, without the element itself if `exclusive`."""
    (axis,) = axes
    y = torch.flip(x, [axis]) if reverse else x
    total = torch.cumsum(y, axis, dtype=x.dtype)
    if exclusive:
        total = total - y
    return torch.flip(total, [axis]) if reverse else total


def cum_prod(x: Tensor, axes: list[int], exclusive: bool, reverse: bool) -> Tensor:
    """Return the running product of x along one axis, without the element itself if `exclusive`."""
    (axis,) = axes
    y = torch.flip(x, [axis]) if reverse else x
    total = torch.cumprod(y, axis, dtype=x.dtype)
    if exclusive:
        extent = x.shape[axis]
        one = torch.ones_like(total.narrow(axis, 0, min(1, extent)))
        total = torch.cat([one, total.narrow(axis, 0, max(0, extent - 1))], axis)
    return torch.flip(total, [axis]) if reverse else total


def reduce_l1(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the sum of magnitudes over `axes`."""
    return reduce_sum(x.abs(), axes, keepdim)


def reduce_l2(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the Euclidean norm over `axes`."""
    if x.is_floating_point() and axes:
        norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim)
        return norm
    return reduce_sum_square(x, axes, keepdim).double().sqrt().to(x.dtype)


def reduce_log_sum(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the logarithm of the sum over `axes`."""
    return reduce_sum(x, axes, keepdim).log()


def reduce_log_sum_exp(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the logarithm of the sum of exponentials over `axes`."""
    return torch.logsumexp(x, axes, keepdim) if axes else x


def reduce_max(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the largest element over `axes`; of none it is the type's lowest number."""
    if x.numel() == 0 and axes:
        return _of_nothing(x, axes, keepdim, lowest=True)
    return torch.amax(x, axes, keepdim) if axes else x


def reduce_mean(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the mean over `axes`; of integers, rounded towards zero."""
    if not axes:
        return x
    if x.is_floating_point():
        return torch.mean(x, axes, keepdim)
    return torch.mean(x.double(), axes, keepdim).to(x.dtype)


def reduce_min(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the smallest element over `axes`; of none it is the type's highest number."""
    if x.numel() == 0 and axes:
        return _of_nothing(x, axes, keepdim, lowest=False)
    return torch.amin(x, axes, keepdim) if axes else x


def _of_nothing(x: Tensor, axes: list[int], keepdim: bool, lowest: bool) -> Tensor:
    if x.dtype == torch.bool:
        value: float = not lowest
    elif x.is_floating_point():
        value = -math.inf if lowest else math.inf
    else:
        value = torch.iinfo(x.dtype).min if lowest else torch.iinfo(x.dtype).max
    return torch.full_like(x.sum(axes, keepdim), value).to(x.dtype)


def reduce_prod(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the product over `axes`."""
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim, dtype=x.dtype)
    return x


def reduce_sum(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the sum over `axes`, of the same element type."""
    return torch.sum(x, axes, keepdim, dtype=x.dtype) if axes else x


def reduce_sum_square(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Return the sum of squares over `axes`."""
    return reduce_sum(x * x, axes, keepdim)


def arg_extreme(x: Tensor, axis: int, keepdim: bool, last: bool, largest: bool) -> Tensor:
    """Return the index of the first or last largest (or smallest) element along `axis`."""
    find = torch.argmax if largest else torch.argmin
    if not last:
        return find(x, axis, keepdim)
    return x.shape[axis] - 1 - find(torch.flip(x, [axis]), axis, keepdim)
