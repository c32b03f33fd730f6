"""Which projection turns one tap's map into what can be added to another, and what it costs.

| the target's grid | kind | chain |
|---|---|---|
| equal, and so are the channels | equal | nothing, or Conv 1x1 |
| equal, or larger by a few pixels | conv | Conv 1x1, which pads with zeros |
| smaller by about a whole factor, or by a few pixels | pool | AveragePool, Conv 1x1 |
| any other | resize | Conv 1x1 and Resize, in the cheaper order |

A Conv in front of the sum is what ONNX Runtime runs best: it computes the sum as well. A pool works in the
blocked layout of its Convs; a Resize does not, and tensors are laid out anew before and behind it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from graftonnx.costs import MOVED
from graftonnx.layouts import Layout
from graftonnx.plan import Projection
from graftonnx.shapes import convolved_extent, downscaling, edging

NEAR = 2.0
"""Grids that differ by more than this factor are not near: little of the map would survive."""

RESIZED = 200
"""MACs of a Conv that take as long as to resize an element, with what that costs around it; see `MOVED`."""

TOO_FAR = "sizes too far apart"
"""The beginning of the reason against grids that are not near; the policy `all` takes them."""

Policy = Literal["exact", "near", "all"]
"""Which pairs may be exchanged: equal shapes, grids within a factor of `NEAR`, or any."""


def project(source: Layout, target: Layout, policy: Policy = "near") -> Projection | str:
    """Find the projection that turns a map into one that can be added to another.

    Returns:
        The projection, or the reason in words why there is none.
    """
    if len(source.grid) != len(target.grid):
        return f"grids of different dimensions: {_spelled(source)} against {_spelled(target)}"
    ones, zeros = (1,) * len(source.grid), (0,) * 2 * len(source.grid)
    if source.shape == target.shape:
        return Projection(kind="equal", kernel=ones, stride=ones, pads=zeros)
    if policy == "exact":
        return f"shapes differ: {list(source.shape)} against {list(target.shape)}"
    if policy == "near" and ratio(source, target) > NEAR:
        return f"{TOO_FAR}: {_spelled(source)} against {_spelled(target)}, more than {NEAR:g}x"
    extents = list(zip(source.grid, target.grid, strict=True))
    edges = [edge for edge in (edging(*pair) for pair in extents) if edge]
    if len(edges) == len(extents):
        begin, end = zip(*edges, strict=True)
        return Projection(kind="conv", kernel=ones, stride=ones, pads=begin + end)
    windows = [window for window in (downscaling(*pair) for pair in extents) if window]
    if len(windows) == len(extents):
        kernel, stride, begin, end = zip(*windows, strict=True)
        return Projection(kind="pool", kernel=kernel, stride=stride, pads=begin + end)
    return Projection(kind="resize", kernel=ones, stride=ones, pads=zeros)


def ratio(a: Layout, b: Layout) -> float:
    """Return how many times as large one grid is as another, along the dimension where that is most."""
    return max(max(s, t) / min(s, t) for s, t in zip(a.grid, b.grid, strict=True))


def projected_shape(projection: Projection, source: Layout, target: Layout) -> tuple[int, ...]:
    """Return the shape (C, *grid) that a projection to `target` gives; Convs always give its channels."""
    if projection.kind == "equal":
        return source.shape
    if projection.kind == "resize":
        return target.shape
    count = len(source.grid)
    extents = (
        convolved_extent(
            source.grid[axis],
            projection.kernel[axis],
            projection.stride[axis],
            projection.pads[axis] + projection.pads[axis + count],
        )
        for axis in range(count)
    )
    return target.channels, *extents


def projection_parameters(projection: Projection, source: Layout, target: Layout) -> int:
    """Return the number of weights of a projection with a Conv."""
    kernel = projection.kernel if projection.kind == "conv" else ()
    return source.channels * target.channels * math.prod(kernel)


def projection_macs(projection: Projection, source: Layout, target: Layout) -> int:
    """Return the multiply-accumulates of a projection with a Conv for one image."""
    conv_is_first = projection.kind == "resize" and not resizes_first(source, target)
    positions = source.positions if conv_is_first else target.positions
    if is_product(projection, source, target):
        positions += target.prefix
    return projection_parameters(projection, source, target) * positions


def projection_price(projection: Projection, source: Layout, target: Layout) -> int:
    """Return the time that a projection with its sum takes for one image, in MACs; see `costs.price`."""
    read, summed = (math.prod(layout.shape) for layout in (source, target))
    price = projection_macs(projection, source, target) + MOVED * (read + 2 * summed)
    if projection.kind == "resize":
        resized = source if resizes_first(source, target) else target
        price += RESIZED * resized.channels * target.positions
    return price


def is_product(projection: Projection, source: Layout, target: Layout) -> bool:
    """Return whether a MatMul is the 1x1 Conv: channels come last on both sides, positions agree."""
    in_place = source == dataclasses.replace(target, channels=source.channels)
    return in_place and source.kind != "channels_first" and set(projection.kernel) == {1}


def resizes_first(source: Layout, target: Layout) -> bool:
    """Return whether Resize, Conv 1x1 takes less time than Conv 1x1, Resize, which computes the same.

    The Conv is cheaper on the smaller grid, the Resize on fewer channels.
    """
    spared = source.channels * target.channels * (source.positions - target.positions)
    return spared + RESIZED * (target.channels - source.channels) * target.positions > 0


def _spelled(layout: Layout) -> str:
    return "x".join(map(str, layout.grid))
