"""What generated code calls to pick and rearrange elements, where PyTorch has no single function.

Extents are plain integers or SymInts and stay so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_INTS = 4096
"""A list of settings that is computed has at most so many elements: each is a node of the graph."""

LEAST = -(1 << 62)
"""In front of every element; PyTorch warns of a slice that begins or ends much further away."""

_LARGEST_32, _LARGEST_64 = (1 << 31) - 1, (1 << 63) - 1


def sizes_to_tensor(sizes: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return integers as an int64 tensor of `shape`."""
    return torch.stack([torch.scalar_tensor(size, dtype=torch.int64) for size in sizes]).reshape(shape)


def to_ints(x: Tensor) -> list[int]:
    """Return the integers in a tensor; this waits for the device."""
    values: list[int] = x.reshape(-1).tolist()
    return values


def to_numbers(x: Tensor) -> list[int] | list[float]:
    """Return the numbers in a tensor; this waits for the device."""
    values: list[int] | list[float] = x.reshape(-1).tolist()
    return values


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Give x another shape, in which 0 copies an extent and -1 takes what is left."""
    return x.reshape([x.shape[i] if extent == 0 else extent for i, extent in enumerate(shape)])


def squeeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Drop axes of extent 1."""
    return x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Insert axes of extent 1, at their places in the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def pad(x: Tensor, pads: Sequence[int], axes: Sequence[int] | None, value: float, mode: str) -> Tensor:
    """Pad x; `pads` has all beginnings, then all ends, for each of `axes`."""
    along = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
    widths = [0] * 2 * x.ndim
    for i, axis in enumerate(along):
        widths[2 * (x.ndim - 1 - axis)] = pads[i]
        widths[2 * (x.ndim - 1 - axis) + 1] = pads[i + len(along)]
    return F.pad(x, widths, value=value) if mode == "constant" else pad_by_index(x, widths, mode)


def slice_(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Tensor:
    """Return the part of x between starts and ends, every step-th element."""
    along = range(len(starts)) if axes is None else axes
    return slice_backwards(x, starts, ends, along, [1] * len(starts) if steps is None else steps)


def trilu(x: Tensor, k: Sequence[int], upper: bool) -> Tensor:
    """Return a triangle of the last two axes of x, zeros elsewhere."""
    return torch.triu(x, k[0]) if upper else torch.tril(x, k[0])


def count_up(like: Tensor, start: int, limit: int, delta: int) -> Tensor:
    """Return integers from start to limit, exclusive, in steps of delta, on the device of `like`."""
    return torch.arange(start, limit, delta, device=like.device)


def arange(
    like: Tensor,
    start: Sequence[float],
    limit: Sequence[float],
    delta: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    """Return numbers from start to limit, exclusive, in steps of delta, on the device of `like`."""
    count = max(0, math.ceil((limit[0] - start[0]) / delta[0]))
    wide = torch.float64 if dtype.is_floating_point else torch.int64
    steps = torch.arange(count, dtype=wide, device=like.device)
    return (start[0] + steps * delta[0]).to(dtype)


def expand(x: Tensor, target: Sequence[int]) -> Tensor:
    """Broadcast x to `target`; -1, or 1 where x is larger, keeps x's extent."""
    offset = len(target) - x.ndim
    kept = [
        x.shape[i - offset] if i >= offset and (extent == -1 or extent == 1) else extent
        for i, extent in enumerate(target)
    ]
    return x.expand(kept)


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """Turn channels into blocks of pixels, the block's position being the slowest part of the channel."""
    n, c, h, w = x.shape
    y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """Turn blocks of pixels into channels, the block's position being the slowest part of the channel."""
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * block**2, h // block, w // block)


def gather(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Return slices of `data` along `axis`, at the places that `indices` name; negative ones count back."""
    axis = axis % data.ndim
    indices = indices.long()
    positive = torch.where(indices < 0, indices + data.shape[axis], indices)
    picked = data.index_select(axis, positive.reshape(-1))
    return picked.reshape([*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]])


def gather_elements(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Return elements of `data`, at the places along `axis` that `indices` name; negative ones count back."""
    indices = indices.long()
    return torch.gather(data, axis, torch.where(indices < 0, indices + data.shape[axis], indices))


def slice_backwards(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> Tensor:
    """Slice x with steps of which some are negative."""
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            index = [slice(None)] * x.ndim
            index[axis] = slice(max(start, LEAST), max(end, LEAST), step)
            x = x[tuple(index)]
            continue
        places = places_backwards(start, end, step, x.shape[axis])
        x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
    return x


def places_backwards(start: int, end: int, step: int, extent: int) -> range:
    """Return the places that a Slice with a negative step takes.

    Unlike in Python, a start before the first element is the first one, and as in ONNX Runtime the largest
    integer as the end means all.
    """
    first = min(max(start + extent if start < 0 else start, 0), extent - 1)
    if end in (_LARGEST_32, _LARGEST_64):
        last = -1
    else:
        last = min(max(end + extent if end < 0 else end, -1), extent - 1)
    return range(first, last, step)


def pad_by_index(x: Tensor, widths: Sequence[int], mode: str) -> Tensor:
    """Pad x with its own elements: mirrored, repeated at the edge, or wrapped around.

    Args:
        x: The tensor.
        widths: Pairs (begin, end), the last axis first.
        mode: reflect, edge or wrap.
    """
    for pair in range(len(widths) // 2):
        axis = x.ndim - 1 - pair
        begin, end, extent = widths[2 * pair], widths[2 * pair + 1], x.shape[axis]
        if begin == 0 and end == 0:
            continue
        if mode == "wrap":
            x = x.narrow(axis, max(0, -begin), extent + min(begin, 0) + min(end, 0))
            begin, end, extent = max(begin, 0), max(end, 0), x.shape[axis]
        places = torch.arange(-begin, extent + end, device=x.device)
        if mode == "edge":
            places = places.clamp(0, extent - 1)
        elif mode == "wrap":
            places = places % extent
        else:
            period = max(2 * (extent - 1), 1)
            places = (extent - 1 - (places % period - (extent - 1)).abs()).clamp(min=0)
        x = x.index_select(axis, places)
    return x
