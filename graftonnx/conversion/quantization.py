"""What generated code calls for quantisation: numbers on a grid of steps, and sums of products of integers.

A grid has a step (`scale`), the integer that stands for 0 (`zero`), and bounds (`low`, `high`). Rounding is
half to even and bounds saturate, as in ONNX Runtime. Sums of products are computed in float64, which holds
every sum of 8-bit products exactly and which all devices multiply; in float32, which is faster and holds
integers of up to 24 bits, where the weights bound the sums so far: in depthwise convolutions, convolutions of
one pixel and matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor

Number = int | float | Tensor


def quantize(x: Tensor, scale: Tensor, zero: Number, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Return the integers that stand for x; nothing flows back through them."""
    steps = torch.round(x.float() / scale.float())
    return torch.clamp(steps + zero, low, high).to(dtype)


def in_steps(x: Tensor, scale: Tensor) -> Tensor:
    """Return how many steps x is, in the type of `scale`."""
    return x.to(scale.dtype) / scale


def dequantize(q: Tensor, scale: Tensor, zero: Number, dtype: torch.dtype | None = None) -> Tensor:
    """Return the numbers that q stands for, of `dtype`, or else of the type of `scale`."""
    steps = q.float() if q.is_floating_point() else (q.to(torch.int64) - zero).float()
    return (steps * scale.float()).to(dtype or scale.dtype)


def fake_quantize(x: Tensor, scale: Tensor, low: int, high: int, dtype: torch.dtype | None = None) -> Tensor:
    """Quantise x and return the numbers that the integers stand for, of `dtype` or else the type of `scale`.

    Gradients pass straight through: unchanged where x lies between the bounds, zero beyond them.

    Args:
        x: The tensor.
        scale: The step.
        low: Least number of steps, counted from 0.
        high: Largest number of steps.
        dtype: Element type of the result.
    """
    steps = torch.clamp(x.float() / scale.float(), low, high)
    # The difference to the next integer is exact, so that the sum is the integer.
    whole = steps + (torch.round(steps) - steps).detach()
    return (whole * scale.float()).to(dtype or scale.dtype)


def to_float8(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """Return x as 8-bit floats, rounded half to even.

    Args:
        x: The tensor.
        dtype: One of PyTorch's 8-bit types.
        saturate: Whether what is too large, and infinity, becomes the largest number; else it becomes
            infinity where the type has one, and not-a-number otherwise.
    """
    if saturate:
        largest = torch.finfo(dtype).max
        x = torch.clamp(x, -largest, largest)
    elif dtype == torch.float8_e4m3fn:
        # 464 lies between the largest number and the next one that more bits would give.
        x = torch.where(x.abs() > 464, torch.full_like(x, torch.nan), x)
    return x.to(dtype)


def to_float8_e8m0(x: Tensor, round_mode: str, saturate: bool) -> Tensor:
    """Return x as 8-bit powers of two, rounded `up`, `down` or to the `nearest`, half up."""
    x = x.float()
    mantissa, exponent = torch.frexp(x)
    limit = {"up": 0.5, "down": 1.0, "nearest": 0.75}[round_mode]
    larger = mantissa > limit if round_mode == "up" else mantissa >= limit
    power = torch.where(x == 0, -127, exponent - 1 + larger.to(exponent.dtype))
    power = torch.where(torch.isinf(x), 128, power)
    number = torch.ldexp(torch.ones_like(x), power.clamp(-127, 127))
    failed = torch.isnan(x) | (x < 0)
    if not saturate:
        failed = failed | (power > 127)
    return torch.where(failed, torch.full_like(x, torch.nan), number).to(torch.float8_e8m0fnu)


def to_float4(x: Tensor) -> Tensor:
    """Return x rounded half to even to -6, -4, -3, -2, -1.5, ... 6, the numbers of float4_e2m1, as float32.

    Not-a-number becomes -0, as in the standard's cases: the type has no other place for it.
    """
    x = torch.clamp(x.float().nan_to_num(-0.0, torch.inf, -torch.inf), -6, 6)
    size = x.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.round(x / step) * step


def to_narrow(x: Tensor, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Return x as integers of 2 or 4 bits, held in `dtype`: floats are cut off and the low bits kept."""
    bits = x.to(torch.int64)
    return ((bits - low) % (high - low + 1) + low).to(dtype)


def align(value: Tensor, rank: int, axis: int, block: int, extent: int | None) -> Tensor:
    """Return the parameters of a grid in the shape that broadcasts to a tensor of `rank` axes.

    Args:
        value: Of one element, or one for each index along `axis`, or one for each block along `axis`.
        rank: Number of axes of the tensor.
        axis: The axis with a grid of its own at each index.
        block: How many indices share a grid; 0 if `value` has one dimension.
        extent: Of the axis; None where the blocks fill it.
    """
    if block:
        whole = value.repeat_interleave(block, axis)
        return whole if extent is None else whole.narrow(axis, 0, extent)
    if value.numel() == 1:
        return value.reshape(())
    axis = axis + rank if axis < 0 else axis
    return value.reshape([-1 if i == axis else 1 for i in range(rank)])


def dynamic_grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return step and zero of the 8-bit grid from the least to the largest element of x, and 0."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, torch.round(torch.clamp(-low / scale, 0, 255)).to(torch.uint8)


def centred(q: Tensor, zero: Number, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return how many steps q lies above 0, in `dtype`."""
    return q.to(dtype) - (zero.to(dtype) if isinstance(zero, Tensor) else zero)


def ratio(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return how many steps of y a product of a step of a and one of b is, in float32."""
    product: Tensor = a.float() * b.float() / y.float()
    return product


def requantize(total: Tensor, ratio: Tensor, zero: Number, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Return sums of products of integers as integers of a coarser grid."""
    return torch.clamp(torch.round(total.float() * ratio) + zero, low, high).to(dtype)


def to_int32(total: Tensor) -> Tensor:
    """Return sums of products as integers."""
    return total.to(torch.int64).to(torch.int32)


def scaled(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the float32 numbers that sums of products stand for; `a` and `b` are the factors' steps."""
    return total.float() * (a.float() * b.float())
