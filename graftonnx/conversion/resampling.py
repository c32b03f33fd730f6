"""Resizing, axis by axis, with every way of placing samples that ONNX has.

Each axis is resampled by taps: output i is the weighted sum of a few inputs. Which ones depends on the
extents alone, never on the tensor's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_TIE = 1e-6
"""How far from half-way a place may be for ONNX Runtime to treat it as half-way."""

LARGEST_FACTOR = 40
"""Up to here `F.interpolate` repeats elements exactly; its float32 reciprocal of 41 is too small."""


@dataclass(frozen=True)
class Sampling:
    """How outputs are made from inputs.

    Attributes:
        mode: nearest, linear or cubic.
        coordinates: Where output pixels lie among input pixels.
        nearest: Which neighbour the nearest mode takes; besides ONNX's names there is "simple", which takes
            the next one where an axis shrinks and else the one before.
        cubic_a: The cubic kernel's coefficient.
        exclude_outside: Whether weights outside the input are dropped, and the others scaled up.
        antialias: Whether the kernel is widened when an axis shrinks.
        outside: The value of outputs outside the region of interest (`tf_crop_and_resize`).
        roi: Starts, then ends, of the region of interest along the axes, relative to the extents.
    """

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    outside: float = 0.0
    roi: Sequence[float] | None = None

    def changed(self) -> dict[str, Any]:
        """Return the fields that are not as by default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    @property
    def takes_before(self) -> bool:
        """Whether an enlarged axis takes, for each output, the input at or before its place i / factor."""
        before = self.nearest in ("floor", "simple")
        return self.mode == "nearest" and self.coordinates == "asymmetric" and before

    def region(self, index: int) -> tuple[float, float]:
        """Return start and end of the region of interest along the axis of this index."""
        if self.roi is None:
            return 0.0, 1.0
        return self.roi[index], self.roi[index + len(self.roi) // 2]


def resize_to(
    x: Tensor, axes: Sequence[int], sizes: Sequence[int], scales: Sequence[float] | None, **how: Any
) -> Tensor:
    """Resize axes of x to sizes.

    Args:
        x: The tensor.
        axes: Which axes.
        sizes: Their new extents.
        scales: Factors for the placement of samples; by default new extent / old extent.
        how: The fields of :class:`Sampling`.
    """
    sampling = Sampling(**how)
    if scales is None and not torch.compiler.is_compiling() and _can_repeat(x, axes, sizes, sampling):
        return F.interpolate(x, size=list(sizes), mode="nearest")
    if all(size == x.shape[axis] for axis, size in zip(axes, sizes, strict=True)):
        return x
    dtype = x.dtype
    if sampling.mode != "nearest" and dtype != torch.float64:
        x = x.float()
    inside: list[tuple[int, Tensor]] = []
    for i, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        extent = x.shape[axis]
        scale = size / extent if scales is None else scales[i]
        places = _coordinates(size, extent, scale, sampling, i, x.device)
        if sampling.coordinates == "tf_crop_and_resize":
            inside.append((axis, (places >= 0) & (places <= extent - 1)))
        x = _resample(x, axis, places, scale, sampling)
    for axis, mask in inside:
        shape = [1] * x.ndim
        shape[axis] = -1
        x = torch.where(mask.reshape(shape), x, torch.full_like(x, sampling.outside))
    return x.to(dtype)


def is_whole(extent: int, size: int) -> bool:
    """Return whether `F.interpolate` resizes an axis exactly in the nearest mode: it repeats each element."""
    return size >= extent > 0 and size % extent == 0 and size // extent <= LARGEST_FACTOR


def _can_repeat(x: Tensor, axes: Sequence[int], sizes: Sequence[int], sampling: Sampling) -> bool:
    """Return whether one call of `F.interpolate`, which is faster, takes the same elements."""
    if not sampling.takes_before or list(axes) != list(range(2, x.ndim)) or x.ndim not in (3, 4, 5):
        return False
    extents = [x.shape[axis] for axis in axes]
    return x.is_floating_point() and all(map(is_whole, extents, sizes))


def resize_by(x: Tensor, axes: Sequence[int], scales: Sequence[float], **how: Any) -> Tensor:
    """Resize axes of x by factors; `how` are the fields of :class:`Sampling`.

    As in ONNX Runtime, and unlike in ONNX, the region of interest does not change the new extents.
    """
    sizes = [_scaled(x.shape[axis], scale) for axis, scale in zip(axes, scales, strict=True)]
    return resize_to(x, axes, sizes, scales, **how)


def resize_within(x: Tensor, axes: Sequence[int], sizes: Sequence[int], policy: str, **how: Any) -> Tensor:
    """Resize axes of x by one common factor, so that they fit into `sizes` or cover them."""
    factors = [size / x.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    scale = min(factors) if policy == "not_larger" else max(factors)
    extents = [math.floor(scale * x.shape[axis] + 0.5) for axis in axes]
    return resize_to(x, axes, extents, [scale] * len(extents), **how)


def _scaled(extent: int, scale: float) -> int:
    """Return the extent times a factor, rounded down in float32 as ONNX Runtime does."""
    if scale == int(scale):
        return extent * int(scale)
    if isinstance(extent, int):
        return int(np.float32(extent) * np.float32(scale))
    return math.floor(extent * scale)


def _coordinates(
    size: int, extent: int, scale: float, sampling: Sampling, index: int, device: torch.device
) -> Tensor:
    """Return where each of `size` outputs lies on the input axis: [size].

    Float32 throughout, in ONNX Runtime's order: at ties, one rounding more or less is another neighbour.
    """

    def single(number: float) -> Tensor:
        return torch.full((), number, dtype=torch.float32, device=device)

    i = torch.arange(size, dtype=torch.float32, device=device)
    factor = single(scale)
    kind = sampling.coordinates
    if scale == 1:
        return i
    if kind == "asymmetric":
        return i / factor
    if kind == "align_corners":
        return i * 0 if size == 1 else i * single(extent - 1) / single(_last_corner(size, extent, scale))
    if kind == "pytorch_half_pixel":
        return (i + 0.5) / factor - 0.5 if size > 1 else i * 0
    if kind == "tf_half_pixel_for_nn":
        return (i + 0.5) / factor
    if kind == "tf_crop_and_resize":
        start, end = single(sampling.region(index)[0]), single(sampling.region(index)[1])
        if size == 1:
            return i * 0 + 0.5 * (start + end) * (extent - 1)
        return start * (extent - 1) + i * (end - start) * (extent - 1) / single(size - 1)
    if kind == "half_pixel_symmetric":
        offset = extent / 2 * (1 - (single(size) / (factor * extent)).double())
        return (offset + (i + 0.5).double() / factor.double() - 0.5).float()
    return (i + 0.5) / factor - 0.5


def _last_corner(size: int, extent: int, scale: float) -> float:
    """Return where the output's last corner lies, with `align_corners`.

    ONNX puts it at `scale * extent - 1`, be that whole or not; ONNX Runtime always at the last element.
    """
    length = scale * extent
    return size - 1 if abs(length - size) <= 1e-5 * length else length - 1


def _resample(x: Tensor, axis: int, places: Tensor, scale: float, sampling: Sampling) -> Tensor:
    """Return x sampled along `axis` at `places`: [size]."""
    extent = x.shape[axis]
    if sampling.mode == "nearest":
        return x.index_select(axis, _nearest(places, sampling.nearest, scale).clamp(0, extent - 1))
    taps, weights = _taps(places, scale, sampling)
    if sampling.exclude_outside:
        weights = weights * ((taps >= 0) & (taps < extent))
    if sampling.exclude_outside or sampling.antialias:
        weights = weights / weights.sum(0)
    shape = [1] * x.ndim
    shape[axis] = -1
    first, *others = (
        x.index_select(axis, tap) * weight.reshape(shape)
        for tap, weight in zip(taps.clamp(0, extent - 1), weights.to(x.dtype), strict=True)
    )
    total: Tensor = sum(others, start=first)
    return total


def _nearest(places: Tensor, kind: str, scale: float) -> Tensor:
    """Return the neighbours of `places`; what is half-way but for `_TIE` counts as half-way."""
    if kind == "floor" or (kind == "simple" and scale >= 1):
        return torch.floor(places).long()
    if kind in ("ceil", "simple"):
        return torch.ceil(places).long()
    places = places.double()
    if kind == "round_prefer_floor":
        return torch.ceil(places - 0.5 - _TIE).long()
    return torch.floor(places + 0.5 + _TIE).long()


def _taps(places: Tensor, scale: float, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return for each output the inputs that it sums, and their weights: both [taps, size]."""
    radius = 1 if sampling.mode == "linear" else 2
    shrink = min(scale, 1.0) if sampling.antialias else 1.0
    reach = math.ceil(radius / shrink)
    offsets = torch.arange(1 - reach, reach + 1, device=places.device).reshape(-1, 1)
    first = torch.floor(places)
    distance = (places - first - offsets).abs() * shrink
    kernel = _linear(distance) if sampling.mode == "linear" else _cubic(distance, sampling.cubic_a)
    return first.long() + offsets, kernel


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
