"""What generated code calls for bits, where PyTorch has no single function."""

from __future__ import annotations

import torch
from torch import Tensor

_SIGN = -(1 << 63)
"""The highest of 64 bits."""


def to_unsigned(x: Tensor) -> Tensor:
    """Return the bits of int64 as uint64."""
    return x.view(torch.uint64)


def to_signed_order(x: Tensor) -> Tensor:
    """Return int64 numbers that are ordered as x, of uint64, is; PyTorch cannot compare uint64."""
    return x.view(torch.int64) ^ _SIGN


def from_signed_order(x: Tensor) -> Tensor:
    """Return the uint64 numbers of which `to_signed_order` made x."""
    return (x ^ _SIGN).view(torch.uint64)


def shift_left(x: Tensor, by: Tensor, bits: int) -> Tensor:
    """Move the bits of integers of `bits` bits up; what leaves the type is lost."""
    inside = (by >= 0) & (by < bits)
    moved = torch.bitwise_left_shift(x, torch.where(inside, by, torch.zeros_like(by)))
    return torch.where(inside, moved, torch.zeros_like(moved))


def shift_right(x: Tensor, by: Tensor, bits: int) -> Tensor:
    """Move the bits of integers of `bits` bits down; the sign is repeated."""
    inside = (by >= 0) & (by < bits)
    return torch.bitwise_right_shift(x, torch.where(inside, by, torch.full_like(by, bits - 1)))


def shift_right_unsigned(x: Tensor, by: Tensor) -> Tensor:
    """Move the bits of 64-bit integers down; zeros follow."""
    inside = (by >= 0) & (by < 64)
    by = torch.where(inside, by, torch.zeros_like(by))
    lowest = torch.bitwise_left_shift(torch.ones_like(x), 64 - by) - 1
    moved = torch.where(by == 0, x, torch.bitwise_right_shift(x, by) & lowest)
    return torch.where(inside, moved, torch.zeros_like(moved))
