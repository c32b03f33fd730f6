"""Shapes: reading extents, and rearranging axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from graftonnx.conversion import indexing
from graftonnx.conversion.builder import TYPE, Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Array, Result, Size, Type, Value
from graftonnx.errors import UnsupportedOpError


@op("Shape", since=1)
def shape_1(g: Builder, x: Value) -> Result:
    """Extents of x: [...] -> [rank]."""
    return shape(g, x)


@op("Shape", since=15)
def shape(g: Builder, x: Value, *, end: int | None = None, start: int = 0) -> Result:
    """Extents of the axes start..end of x: [...] -> [axes]."""
    rank = g.rank(x)
    axes = range(rank)[start:end]
    return integers([g.size(x, axis) for axis in axes])


@op("Size", since=1)
def size(g: Builder, x: Value) -> Result:
    """Number of elements of x, as a tensor without dimensions."""
    return integers([math.prod(g.sizes(x), start=1)]).reshape(())


@op("Reshape", since=5)
def reshape_5(g: Builder, x: Value, shape: Value) -> Result:
    """The same elements in another shape; 0 copies an extent, -1 takes what is left."""
    return reshape(g, x, shape)


@op("Reshape", since=14)
def reshape(g: Builder, x: Value, shape: Value, *, allowzero: int = 0) -> Result:
    """The same elements in another shape; 0 copies an extent unless allowzero, -1 takes what is left."""
    target = g.ints(shape, "shape")
    if not allowzero:
        target = [g.size(x, i) if _is_zero(extent) else extent for i, extent in enumerate(target)]
    if isinstance(x, np.ndarray):
        return x.reshape([_known(extent) for extent in target])
    surprising = not allowzero and any(isinstance(e, Size) and not e.natural for e in target)
    return _shaped(g.call(indexing.reshape if surprising else torch.reshape, x, target), g, x, target)


@op("Flatten", since=1)
def flatten(g: Builder, x: Value, *, axis: int = 1) -> Result:
    """Axes before `axis` and those from it on, each as one. x: [...] -> [.., ..]."""
    rank = g.rank(x)
    axis = axis + rank if axis < 0 else axis
    if axis == 1 and rank >= 2:
        return g.call(torch.flatten, x, 1)
    if axis == 0:
        return g.call(torch.reshape, x, [1, -1])
    return g.call(torch.reshape, x, [math.prod(g.size(x, i) for i in range(axis)), -1])


@op("Squeeze", since=1)
def squeeze_1(g: Builder, x: Value, *, axes: Sequence[int] | None = None) -> Result:
    """Drop axes of extent 1."""
    return _squeeze(g, x, axes)


@op("Squeeze", since=13)
def squeeze(g: Builder, x: Value, axes: Value = None) -> Result:
    """Drop axes of extent 1."""
    if isinstance(axes, fx.Node):
        return g.call(indexing.squeeze, g.tensor(x), g.numbers(axes))
    return _squeeze(g, x, None if axes is None else g.numbers(axes))


@op("Unsqueeze", since=1)
def unsqueeze_1(g: Builder, x: Value, *, axes: Sequence[int]) -> Result:
    """Insert axes of extent 1."""
    return _unsqueeze(g, x, axes)


@op("Unsqueeze", since=13)
def unsqueeze(g: Builder, x: Value, axes: Value) -> Result:
    """Insert axes of extent 1."""
    if isinstance(axes, fx.Node):
        return g.call(indexing.unsqueeze, g.tensor(x), g.numbers(axes))
    return _unsqueeze(g, x, g.numbers(axes))


@op("Transpose", since=1)
def transpose(g: Builder, x: Value, *, perm: Sequence[int] | None = None) -> Result:
    """Reorder the axes; without `perm`, reverse them."""
    order = list(perm) if perm is not None else list(range(g.rank(x)))[::-1]
    if isinstance(x, np.ndarray):
        return x.transpose(order)
    return g.call(torch.permute, x, order)


@op("Expand", since=8)
def expand(g: Builder, x: Value, shape: Value) -> Result:
    """Broadcast x and `shape` against each other."""
    target = g.ints(shape, "shape")
    rank = g.rank(x)
    extents = [1] * max(0, len(target) - rank) + list(g.shape(x) or ())
    target = [1] * max(0, rank - len(target)) + target
    if any(
        isinstance(t, int) and t != 1 and e is not None and e not in (1, t)
        for t, e in zip(target, extents, strict=True)
    ):
        raise UnsupportedOpError(f"the shapes {extents} and {target} do not broadcast.")
    # -1 keeps an extent; ONNX's 1 does so too.
    kept = [
        -1 if isinstance(t, int) and t == 1 and i >= len(target) - rank else t for i, t in enumerate(target)
    ]
    call = indexing.expand if any(isinstance(t, Size) for t in kept) else torch.Tensor.expand
    return _shaped(g.call(call, g.tensor(x), kept), g, x, kept)


@op("Tile", since=6)
def tile(g: Builder, x: Value, repeats: Value) -> Result:
    """Repeat x along each axis."""
    return g.call(torch.tile, x, g.ints(repeats, "repeats"))


@op("DepthToSpace", since=1)
def depth_to_space_1(g: Builder, x: Value, *, blocksize: int) -> Result:
    """Channels become pixels of a block. x: [N, C, H, W] -> [N, C/b², H b, W b]."""
    return g.call(indexing.depth_to_space, g.tensor(x), blocksize)


@op("DepthToSpace", since=11)
def depth_to_space(g: Builder, x: Value, *, blocksize: int, mode: str = "DCR") -> Result:
    """Channels become pixels of a block. x: [N, C, H, W] -> [N, C/b², H b, W b]."""
    if mode == "CRD":
        return g.call(torch.pixel_shuffle, x, blocksize)
    if mode != "DCR":
        raise UnsupportedOpError(f"mode is '{mode}', expected DCR or CRD.")
    return g.call(indexing.depth_to_space, g.tensor(x), blocksize)


@op("SpaceToDepth", since=1)
def space_to_depth_1(g: Builder, x: Value, *, blocksize: int) -> Result:
    """Pixels of a block become channels. x: [N, C, H, W] -> [N, C b², H/b, W/b]."""
    return g.call(indexing.space_to_depth, g.tensor(x), blocksize)


@op("SpaceToDepth", since=28)
def space_to_depth(g: Builder, x: Value, *, blocksize: int, mode: str = "DCR") -> Result:
    """Pixels of a block become channels. x: [N, C, H, W] -> [N, C b², H/b, W/b]."""
    if mode == "CRD":
        return g.call(torch.pixel_unshuffle, x, blocksize)
    if mode != "DCR":
        raise UnsupportedOpError(f"mode is '{mode}', expected DCR or CRD.")
    return g.call(indexing.space_to_depth, g.tensor(x), blocksize)


def integers(items: Sequence[Any]) -> Array:
    """Return integers as an int64 array, or as an array of objects if one is a :class:`Size`.

    >>> integers([1, 2])
    array([1, 2])
    """
    if not any(isinstance(item, Size) for item in items):
        return np.array([int(item) for item in items], dtype=np.int64)
    array = np.empty(len(items), dtype=object)
    array[:] = list(items)
    return array


def _squeeze(g: Builder, x: Value, axes: Sequence[int] | None) -> Result:
    if axes is None:
        shape = g.shape(x)
        if shape is None or None in shape:
            raise UnsupportedOpError("it has no axes, and an extent of its input is unknown.")
        axes = [axis for axis, extent in enumerate(shape) if extent == 1]
    if isinstance(x, np.ndarray):
        return np.squeeze(x, tuple(axes))
    return g.call(torch.squeeze, x, tuple(axes))


def _unsqueeze(g: Builder, x: Value, axes: Sequence[int]) -> Result:
    if isinstance(x, np.ndarray):
        return np.expand_dims(x, tuple(axes))
    rank = g.rank(x) + len(axes) if min(axes, default=0) < 0 else 0
    for axis in sorted(axis + rank if axis < 0 else axis for axis in axes):
        x = g.call(torch.unsqueeze, x, axis)
    return x


def _shaped(result: Value, g: Builder, x: Value, target: Sequence[Any]) -> Value:
    """Note the shape of a result that inference may not know."""
    if isinstance(result, fx.Node):
        extents = tuple(e if isinstance(e, int) and e >= 0 else None for e in target)
        result.meta[TYPE] = Type(g.type(x).dtype, extents)
    return result


def _is_zero(extent: Any) -> bool:
    return not isinstance(extent, Size) and bool(extent == 0)


def _known(extent: Any) -> int:
    if isinstance(extent, Size):
        raise UnsupportedOpError("it gives a constant a shape that is only known when the model runs.")
    return int(extent)
