"""Random numbers.

They are drawn anew each time the module runs. PyTorch's generator is seeded for all of them together
(`torch.manual_seed`), so the attribute `seed` has no counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from graftonnx.conversion import draws
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.constant import torch_type
from graftonnx.conversion.registry import op
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("RandomNormal", since=1)
def random_normal(
    g: Builder,
    *,
    dtype: int = 1,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    shape: Sequence[int],
) -> Result:
    """Normal random numbers -> [*shape]."""
    like = g.tensor(np.zeros(1, np.float32))
    return g.call(draws.normal, list(shape), torch_type(dtype_name(dtype)), like, mean, scale)


@op("RandomUniform", since=1)
def random_uniform(
    g: Builder,
    *,
    dtype: int = 1,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
    shape: Sequence[int],
) -> Result:
    """Random numbers between `low` and `high` -> [*shape]."""
    like = g.tensor(np.zeros(1, np.float32))
    return g.call(draws.uniform, list(shape), torch_type(dtype_name(dtype)), like, low, high)


@op("RandomNormalLike", since=1)
def random_normal_like(
    g: Builder,
    x: Value,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Result:
    """Normal random numbers of x's shape."""
    return g.call(draws.normal_like, g.tensor(g.frozen(x)), _type(g, x, dtype), mean, scale)


@op("RandomUniformLike", since=1)
def random_uniform_like(
    g: Builder,
    x: Value,
    *,
    dtype: int | None = None,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
) -> Result:
    """Random numbers between `low` and `high`, of x's shape."""
    return g.call(draws.uniform_like, g.tensor(g.frozen(x)), _type(g, x, dtype), low, high)


@op("Bernoulli", since=15)
def bernoulli(g: Builder, x: Value, *, dtype: int | None = None, seed: float | None = None) -> Result:
    """1 with the probabilities in x, else 0 -> x's shape."""
    return g.call(draws.bernoulli, g.tensor(g.frozen(x)), _type(g, x, dtype))


@op("Multinomial", since=7)
def multinomial(
    g: Builder, x: Value, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None
) -> Result:
    """Classes drawn by unnormalised log-probabilities. x: [N, classes] -> [N, sample_size]."""
    name = dtype_name(dtype)
    if name not in ("int32", "int64"):
        raise UnsupportedOpError(f"dtype is {name}, expected int32 or int64.")
    return g.call(draws.multinomial, g.tensor(g.frozen(x)), sample_size, torch_type(name))


def _type(g: Builder, x: Value, dtype: int | None) -> torch.dtype:
    return torch_type(g.type(x).dtype if dtype is None else dtype_name(dtype))
