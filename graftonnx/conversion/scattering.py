"""What generated code calls to pick and write elements at places that are tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
"""ONNX's names of reductions, and PyTorch's."""


def gather_nd(data: Tensor, indices: Tensor, batch_dims: int) -> Tensor:
    """Return slices of `data` at places that the last axis of `indices` names.

    Args:
        data: [*B, ...].
        indices: [*B, ..., K], places along the K axes after the batch.
        batch_dims: How many leading axes both have in common.
    """
    batch = []
    for axis in range(batch_dims):
        ones = [1] * (indices.ndim - 1)
        ones[axis] = -1
        batch.append(torch.arange(data.shape[axis], device=data.device).reshape(ones))
    return data[(*batch, *_places(data, indices, batch_dims))]


def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """Return `data` with `updates` written at places that the last axis of `indices` names.

    Args:
        data: [...].
        indices: [*I, K], places along the first K axes.
        updates: [*I, ...], the slices to write.
        reduction: none, or how an update is combined with what is there.
    """
    places = _places(data, indices, 0)
    if reduction in ("none", "add"):
        return data.index_put(places, updates, accumulate=reduction == "add")
    depth = len(places)
    flat = data.reshape(math.prod(data.shape[:depth]), -1)
    rows = torch.zeros_like(places[0])
    for place, extent in zip(places, data.shape, strict=False):
        rows = rows * extent + place
    rows = rows.reshape(-1, 1).expand(-1, flat.shape[1])
    written = flat.scatter_reduce(0, rows, updates.reshape(rows.shape), REDUCTIONS[reduction])
    return written.reshape(data.shape)


def scatter_elements(data: Tensor, indices: Tensor, updates: Tensor, axis: int, reduction: str) -> Tensor:
    """Return `data` with each of `updates` written at the place along `axis` that `indices` names."""
    indices = indices.long()
    indices = torch.where(indices < 0, indices + data.shape[axis], indices)
    if reduction == "none":
        return data.scatter(axis, indices, updates)
    return data.scatter_reduce(axis, indices, updates, REDUCTIONS[reduction])


def tensor_scatter(cache: Tensor, update: Tensor, starts: Tensor | None, axis: int, circular: bool) -> Tensor:
    """Return `cache` with `update` written along `axis`, from a place of each sample's own.

    Args:
        cache: [N, ..., S, ...], S the extent of `axis`.
        update: [N, ..., T, ...].
        starts: [N]; None for zeros.
        axis: The axis of the sequence, not the first.
        circular: Whether places beyond the end begin again.
    """
    axis = axis % cache.ndim
    places = torch.arange(update.shape[axis], device=cache.device)
    if starts is not None:
        places = starts.reshape(-1, 1) + places
    if circular:
        places = places % cache.shape[axis]
    shape = [1] * cache.ndim
    shape[0], shape[axis] = (1 if starts is None else cache.shape[0]), update.shape[axis]
    return cache.scatter(axis, places.reshape(shape).expand(update.shape), update)


def compress(x: Tensor, condition: Tensor, axis: int | None) -> Tensor:
    """Return the slices of x along `axis` whose condition is true; without an axis, elements of flat x."""
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return x.index_select(axis, condition.nonzero().squeeze(1))


def one_hot(indices: Tensor, depth: Sequence[float], values: Tensor, axis: int) -> Tensor:
    """Return values[1] at the place along a new axis that each index names, values[0] elsewhere.

    Negative indices count back; for those outside the range there is no place.
    """
    count = int(depth[0])
    indices = indices.long()
    axis = axis % (indices.ndim + 1)
    indices = torch.where(indices < 0, indices + count, indices).unsqueeze(axis)
    places = torch.arange(count, device=indices.device)
    hot = indices == places.reshape([-1] + [1] * (indices.ndim - 1 - axis))
    return torch.where(hot, values[1], values[0])


def reverse_sequence(x: Tensor, lengths: Tensor, batch_axis: int, time_axis: int) -> Tensor:
    """Reverse the first `lengths[n]` steps of each sample n of x; lengths: [N]."""
    samples = x.movedim((batch_axis, time_axis), (0, 1))
    steps = torch.arange(samples.shape[1], device=x.device)
    ends = lengths.long().reshape(-1, 1)
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    rows = torch.arange(samples.shape[0], device=x.device).reshape(-1, 1)
    return samples[rows, places].movedim((0, 1), (batch_axis, time_axis))


def eye_like(x: Tensor, dtype: torch.dtype, k: int) -> Tensor:
    """Return ones on the k-th diagonal and zeros elsewhere, of the shape of x: [M, N]."""
    rows = torch.arange(x.shape[0], device=x.device).reshape(-1, 1)
    columns = torch.arange(x.shape[1], device=x.device)
    return (columns - rows == k).to(dtype)


def _places(data: Tensor, indices: Tensor, first: int) -> tuple[Tensor, ...]:
    """Return the places along each axis from `first` on; negative ones count back."""
    indices = indices.long()
    places = []
    for i in range(indices.shape[-1]):
        place = indices[..., i]
        places.append(torch.where(place < 0, place + data.shape[first + i], place))
    return tuple(places)
