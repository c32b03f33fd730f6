"""What generated code calls for elementwise formulas and normalisation that PyTorch has no function for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_from(x: Tensor, axis: int, log: bool) -> Tensor:
    """Normalise exponentials over all axes from `axis` on together, as ONNX did before opset 13."""
    flat = x.flatten(axis) if axis else x.reshape(1, -1)
    dim = axis if axis else 1
    y = F.log_softmax(flat, dim) if log else F.softmax(flat, dim)
    return y.reshape(x.shape)


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Divide x: [N, C, ...] by the local energy of `size` neighbouring channels, of any number.

    ONNX's window of an even size reaches one channel further up than PyTorch's.
    """
    if size < 2 * x.shape[1] - 1:
        squares = F.pad((x * x).flatten(2), (0, 0, (size - 1) // 2, size // 2))
        energy = squares.unfold(1, size, 1).sum(-1).reshape(x.shape)
    else:  # all channels lie in every window
        energy = (x * x).sum(1, keepdim=True)
    return x / (bias + alpha / size * energy) ** beta


def batch_norm_of_batch(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise x: [N, C, ...] by the statistics of the batch itself."""
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)


def batch_norm_training(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise x: [N, C, ...] by its own statistics; return it and the new running statistics.

    ONNX counts the running variance over the population, PyTorch over a sample.
    """
    axes = [0, *range(2, x.ndim)]
    new_mean = x.mean(axes)
    new_var = x.var(axes, correction=0)
    y = F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
    return y, mean * momentum + new_mean * (1 - momentum), var * momentum + new_var * (1 - momentum)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise each plane of x: [N, C, ...]; planes of one element become `bias`."""
    axes = list(range(2, x.ndim))
    centred = x - x.mean(axes, keepdim=True)
    normal = centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    ones = [1] * len(axes)
    return normal * weight.reshape(-1, *ones) + bias.reshape(-1, *ones)


def layer_norm(
    x: Tensor, axis: int, scale: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over the axes from `axis` on; return the result, the mean and 1 / standard deviation."""
    axes = list(range(axis, x.ndim))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    y = (centred * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


def rms_norm(x: Tensor, axis: int, scale: Tensor, eps: float) -> Tensor:
    """Divide x by its root mean square over the axes from `axis` on."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    inverse = torch.rsqrt((wide * wide).mean(list(range(axis, x.ndim)), keepdim=True) + eps)
    return (wide * inverse).to(x.dtype) * scale


def rms_norm_of(x: Tensor, shape: list[int], weight: Tensor | None, eps: float) -> Tensor:
    """Apply `F.rms_norm`, which warns where autocast gives x another type than the weight."""
    return F.rms_norm(x, shape, None if weight is None else weight.to(x.dtype), eps)


def group_norm_by_group(x: Tensor, scale: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """Normalise groups of channels of x: [N, C, ...], with one scale and bias for each group."""
    channels = x.shape[1] // groups
    return F.group_norm(x, groups, scale.repeat_interleave(channels), bias.repeat_interleave(channels), eps)


def mean_variance_norm(x: Tensor, axes: list[int]) -> Tensor:
    """Subtract the mean over `axes` and divide by the standard deviation; ONNX fixes epsilon at 1e-9."""
    mean = x.mean(axes, keepdim=True)
    variance = (x * x).mean(axes, keepdim=True) - mean * mean
    normal: Tensor = (x - mean) / (variance.sqrt() + 1e-9)
    return normal


def lp_normalize(x: Tensor, axis: int, p: int) -> Tensor:
    """Divide x by its p-norm along `axis`; where the norm is zero the result is zero."""
    norm = torch.linalg.vector_norm(x, ord=p, dim=axis, keepdim=True)
    return torch.where(
        norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm)
    )


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Return x where positive, slope * x elsewhere; slope broadcasts to x."""
    return torch.where(x < 0, x * slope, x)


def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return gamma * x where positive, gamma * alpha * (exp(x) - 1) elsewhere."""
    return gamma * F.elu(x, alpha)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Clamp alpha * x + beta to 0..1."""
    return torch.clamp(x * alpha + beta, 0, 1)


def swish(x: Tensor, alpha: float) -> Tensor:
    """Return x * sigmoid(alpha * x)."""
    return x * torch.sigmoid(alpha * x)


def shrink(x: Tensor, bias: float, lambd: float) -> Tensor:
    """Return x + bias below -lambd, x - bias above lambd, 0 between."""
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


def hardmax(x: Tensor, axis: int) -> Tensor:
    """Return 1 at the first largest element along `axis`, 0 elsewhere."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def hardmax_from(x: Tensor, axis: int) -> Tensor:
    """Return 1 at the first largest element over all axes from `axis` on together, 0 elsewhere."""
    axis = axis % x.ndim
    return hardmax(x.reshape(*x.shape[:axis], -1), axis).reshape(x.shape)


def gemm(a: Tensor, b: Tensor, c: Tensor, alpha: float, beta: float) -> Tensor:
    """Return alpha * a b + beta * c. a: [M, K], b: [K, N], c: broadcast to [M, N]."""
    return (
        torch.mm(a, b) * alpha + c * beta
        if a.is_floating_point()
        else torch.mm(a, b) * int(alpha) + c * int(beta)
    )


def cast_to_type_of(x: Tensor, like: Tensor) -> Tensor:
    """Return x with the element type of `like`."""
    return x.to(like.dtype)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x with another element type; not-a-number is true, as in C.

    Raises:
        TypeError: If that would lose imaginary parts.
    """
    if x.is_complex() and not dtype.is_complex:
        raise TypeError("complex numbers cannot become real ones")
    return x != 0 if dtype == torch.bool else x.to(dtype)
