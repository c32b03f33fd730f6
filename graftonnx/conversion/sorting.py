"""What generated code calls to order, count and find elements."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def top_k(x: Tensor, k: Sequence[int], axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """Return the k[0] largest or smallest elements along `axis`, and their places; of equals the first."""
    if k[0] > x.shape[axis]:
        raise ValueError(f"k (={k[0]}) is larger than the extent of the axis ({x.shape[axis]}).")
    if x.dtype == torch.bool or not x.dtype.is_floating_point:
        places = torch.argsort(x, dim=axis, descending=largest, stable=True)
        places = places.narrow(axis, 0, k[0])
        return torch.gather(x, axis, places), places
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k[0]), places.narrow(axis, 0, k[0])


def non_zero(x: Tensor) -> Tensor:
    """Return the places of the elements that are not zero. x: [...] of R axes -> [R, count]."""
    return x.nonzero().t()


def unique(x: Tensor, axis: int | None, in_order: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the distinct slices of x along `axis`; without an axis, the distinct elements.

    Args:
        x: The tensor.
        axis: Along which the slices lie.
        in_order: Whether they are sorted; else they come as they first occur.

    Returns:
        The slices; where each first occurs; for each slice of x its place among them; how often it occurs.
    """
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis % x.ndim)
    distinct, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True, dim=axis)
    count = distinct.shape[axis]
    places = torch.arange(x.shape[axis], device=x.device)
    first = places.new_full((count,), x.shape[axis]).scatter_reduce(0, inverse, places, "amin")
    if not in_order:
        order = first.argsort()
        first, counts = first[order], counts[order]
        rank = torch.empty_like(order).scatter(0, order, torch.arange(count, device=x.device))
        inverse = rank[inverse]
    return x.index_select(axis, first), first, inverse, counts
