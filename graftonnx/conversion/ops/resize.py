"""Resize and Upsample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx
from torch.nn import functional as F

from graftonnx.conversion import resampling
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.resampling import LARGEST_FACTOR, Sampling, is_whole
from graftonnx.conversion.values import Result, Size, Value
from graftonnx.errors import UnsupportedOpError

_COORDINATES = frozenset(
    {
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    }
)
_NEAREST = frozenset({"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"})


@op("Upsample", since=1)
def upsample_1(
    g: Builder, x: Value, *, height_scale: float, mode: str = "nearest", width_scale: float
) -> Result:
    """X enlarged by factors. x: [N, C, H, W]."""
    return _by_scales(g, x, [1.0, 1.0, height_scale, width_scale], _old(mode))


@op("Upsample", since=7)
def upsample_7(g: Builder, x: Value, *, mode: str = "nearest", scales: Sequence[float]) -> Result:
    """X enlarged by factors."""
    return _by_scales(g, x, list(scales), _old(mode))


@op("Upsample", since=9)
def upsample(g: Builder, x: Value, scales: Value, *, mode: str = "nearest") -> Result:
    """X enlarged by factors."""
    return _by_scales(g, x, g.numbers(scales), _old(mode))


@op("Resize", since=10)
def resize_10(g: Builder, x: Value, scales: Value, *, mode: str = "nearest") -> Result:
    """X resized by factors."""
    return _by_scales(g, x, g.numbers(scales), _old(mode))


@op("Resize", since=11)
def resize_11(
    g: Builder,
    x: Value,
    roi: Value = None,
    scales: Value = None,
    sizes: Value = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Result:
    """X resized to sizes, or by factors."""
    return resize(
        g,
        x,
        roi,
        scales,
        sizes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        mode=mode,
        nearest_mode=nearest_mode,
    )


@op("Resize", since=18)
def resize(
    g: Builder,
    x: Value,
    roi: Value = None,
    scales: Value = None,
    sizes: Value = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Result:
    """X resized to sizes, or by factors."""
    sampling = Sampling(
        mode=mode,
        coordinates=coordinate_transformation_mode,
        nearest=nearest_mode,
        cubic_a=cubic_coeff_a,
        exclude_outside=bool(exclude_outside),
        antialias=bool(antialias),
        outside=extrapolation_value,
    )
    _check(sampling)
    if sampling.antialias and not g.is_float(x):
        raise UnsupportedOpError("antialias=1 for integers has no exact form. Resize floating-point numbers.")
    along = list(range(g.rank(x))) if axes is None else [axis % g.rank(x) for axis in axes]
    if sampling.coordinates == "tf_crop_and_resize":
        sampling = replace(sampling, roi=g.numbers(roi))
    if sizes is not None and (not isinstance(sizes, np.ndarray) or sizes.size):
        wanted = g.ints(sizes, "sizes")
        return _by_sizes(g, x, along, wanted, sampling, keep_aspect_ratio_policy)
    return _by_scales(g, x, g.numbers(scales), sampling, along)


def _by_sizes(
    g: Builder, x: Value, axes: Sequence[int], sizes: list[Any], sampling: Sampling, policy: str
) -> Result:
    if policy != "stretch":
        return g.call(resampling.resize_within, g.tensor(x), axes, sizes, policy, **sampling.changed())
    shape = g.shape(x) or ()
    crops = sampling.roi is not None
    pairs = [(a, s) for a, s in zip(axes, sizes, strict=True) if crops or not _keeps(g, x, a, s, shape)]
    if not pairs:
        return x
    along, wanted = [axis for axis, _ in pairs], [size for _, size in pairs]
    fast = _interpolation(g, x, along, sampling)
    if fast is not None and (sampling.mode == "linear" or _repeats(along, wanted, shape)):
        return g.call(F.interpolate, x, size=wanted, **fast)
    return g.call(resampling.resize_to, g.tensor(x), along, wanted, None, **sampling.changed())


def _by_scales(
    g: Builder, x: Value, scales: Any, sampling: Sampling, axes: Sequence[int] | None = None
) -> Result:
    along = list(range(g.rank(x))) if axes is None else list(axes)
    if isinstance(scales, fx.Node):
        return g.call(resampling.resize_by, g.tensor(x), along, scales, **sampling.changed())
    crops = sampling.roi is not None
    pairs = [(a, float(s)) for a, s in zip(along, scales, strict=True) if s != 1 or crops]
    if not pairs:
        return x
    along, factors = [axis for axis, _ in pairs], [scale for _, scale in pairs]
    fast = _interpolation(g, x, along, sampling)
    largest = math.inf if sampling.mode == "linear" else LARGEST_FACTOR
    if fast is not None and all(scale == int(scale) <= largest for scale in factors):
        return g.call(F.interpolate, x, scale_factor=factors, **fast)
    return g.call(resampling.resize_by, g.tensor(x), along, factors, **sampling.changed())


def _keeps(g: Builder, x: Value, axis: int, size: Any, shape: tuple[int | None, ...]) -> bool:
    """Return whether an axis keeps its extent, so that resizing it changes nothing."""
    if isinstance(size, Size):
        return bool(size is g.size(x, axis))
    return bool(size == shape[axis])


def _repeats(axes: Sequence[int], sizes: Sequence[Any], shape: tuple[int | None, ...]) -> bool:
    """Return whether the new extents are known to be whole multiples of the old ones."""
    extents = [shape[axis] for axis in axes]
    return all(
        isinstance(extent, int) and isinstance(size, int) and is_whole(extent, size)
        for extent, size in zip(extents, sizes, strict=True)
    )


def _interpolation(g: Builder, x: Value, axes: Sequence[int], sampling: Sampling) -> dict[str, Any] | None:
    """Return the arguments with which `F.interpolate` samples so; None if it cannot.

    In the nearest mode it does only where it repeats elements: its places are rounded otherwise.
    """
    rank = g.rank(x)
    if list(axes) != list(range(2, rank)) or rank not in (3, 4, 5) or sampling.antialias or not g.is_float(x):
        return None
    if sampling.takes_before:
        return {"mode": "nearest"}
    if sampling.mode == "linear" and sampling.coordinates in ("half_pixel", "align_corners"):
        kind = {3: "linear", 4: "bilinear", 5: "trilinear"}[rank]
        return {"mode": kind, "align_corners": sampling.coordinates == "align_corners"}
    return None


def _old(mode: str) -> Sampling:
    """Return how Upsample, and Resize before opset 11, sample."""
    kind = "linear" if mode == "bilinear" else mode
    sampling = Sampling(mode=kind, coordinates="asymmetric", nearest="floor")
    _check(sampling)
    return replace(sampling, nearest="simple")


def _check(sampling: Sampling) -> None:
    for name, found, known in (
        ("mode", sampling.mode, {"nearest", "linear", "cubic"}),
        ("coordinate_transformation_mode", sampling.coordinates, _COORDINATES),
        ("nearest_mode", sampling.nearest, _NEAREST),
    ):
        if found not in known:
            raise UnsupportedOpError(f"{name} is '{found}', expected one of {', '.join(sorted(known))}.")
