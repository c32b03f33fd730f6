"""What generated code calls for random numbers; they come from PyTorch's generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normal(shape: Sequence[int], dtype: torch.dtype, like: Tensor, mean: float, scale: float) -> Tensor:
    """Return normal random numbers, on the device of `like`."""
    return torch.randn(list(shape), device=like.device).mul(scale).add(mean).to(dtype)


def uniform(shape: Sequence[int], dtype: torch.dtype, like: Tensor, low: float, high: float) -> Tensor:
    """Return random numbers between `low` and `high`, on the device of `like`."""
    return torch.rand(list(shape), device=like.device).mul(high - low).add(low).to(dtype)


def normal_like(x: Tensor, dtype: torch.dtype, mean: float, scale: float) -> Tensor:
    """Return normal random numbers of the shape of x."""
    return normal(x.shape, dtype, x, mean, scale)


def uniform_like(x: Tensor, dtype: torch.dtype, low: float, high: float) -> Tensor:
    """Return random numbers between `low` and `high`, of the shape of x."""
    return uniform(x.shape, dtype, x, low, high)


def bernoulli(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 with the probabilities in x, else 0."""
    return torch.bernoulli(x).to(dtype)


def multinomial(x: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Draw classes by their unnormalised log-probabilities. x: [N, classes] -> [N, count]."""
    return torch.multinomial(torch.softmax(x.float(), 1), count, replacement=True).to(dtype)
