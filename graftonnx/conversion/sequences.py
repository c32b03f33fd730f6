"""What generated code calls for sequences, which are lists, and for optional values, which may be None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def construct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return a sequence of these tensors."""
    return list(tensors)


def at(sequence: Sequence[Tensor], position: Tensor | int) -> Tensor:
    """Return the tensor at a place; negative ones count back."""
    return sequence[int(position)]


def insert(sequence: Sequence[Tensor], tensor: Tensor, position: Tensor | int | None) -> list[Tensor]:
    """Return a sequence that has one more tensor before a place, or at the end."""
    place = len(sequence) if position is None else int(position)
    if not -len(sequence) <= place <= len(sequence):
        raise IndexError(f"place {place} is outside of a sequence of {len(sequence)} tensors")
    longer = list(sequence)
    longer.insert(place, tensor)
    return longer


def erase(sequence: Sequence[Tensor], position: Tensor | int | None) -> list[Tensor]:
    """Return a sequence without the tensor at a place, or without the last one."""
    shorter = list(sequence)
    del shorter[-1 if position is None else int(position)]
    return shorter


def split(x: Tensor, sizes: int | Sequence[int], axis: int) -> list[Tensor]:
    """Return parts of x along `axis`: of equal extent, the last one perhaps smaller, or of given ones."""
    return list(torch.split(x, sizes if isinstance(sizes, int) else list(sizes), axis))


def unbind(x: Tensor, axis: int) -> list[Tensor]:
    """Return the slices of x along `axis`, which they lack."""
    return list(torch.unbind(x, axis))


def concat(sequence: Sequence[Tensor], axis: int, new_axis: bool) -> Tensor:
    """Join the tensors along `axis`, which is new or one that they have."""
    return torch.stack(list(sequence), axis) if new_axis else torch.cat(list(sequence), axis)


def nothing() -> None:
    """Return an optional value that is absent."""


def has_element(value: Any) -> Tensor:
    """Return whether an optional value is present: []."""
    return torch.tensor(value is not None)
