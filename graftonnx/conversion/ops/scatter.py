"""Picking and writing elements at places that are tensors."""

from __future__ import annotations

from graftonnx.conversion import scattering
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.constant import torch_type
from graftonnx.conversion.registry import op
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("GatherND", since=11)
def gather_nd_11(g: Builder, data: Value, indices: Value) -> Result:
    """Slices of `data` at the places that the last axis of `indices` names."""
    return g.call(scattering.gather_nd, data, indices, 0)


@op("GatherND", since=12)
def gather_nd(g: Builder, data: Value, indices: Value, *, batch_dims: int = 0) -> Result:
    """Slices of `data` at the places that the last axis of `indices` names."""
    return g.call(scattering.gather_nd, data, indices, batch_dims)


@op("ScatterND", since=11)
def scatter_nd_11(g: Builder, data: Value, indices: Value, updates: Value) -> Result:
    """`data` with `updates` written at the places that the last axis of `indices` names."""
    return g.call(scattering.scatter_nd, data, indices, updates, "none")


@op("ScatterND", since=16)
def scatter_nd(g: Builder, data: Value, indices: Value, updates: Value, *, reduction: str = "none") -> Result:
    """`data` with `updates` written at the places that the last axis of `indices` names."""
    return g.call(scattering.scatter_nd, data, indices, updates, _reduction(reduction))


@op("Scatter", since=9)
@op("ScatterElements", since=11)
def scatter_elements_11(g: Builder, data: Value, indices: Value, updates: Value, *, axis: int = 0) -> Result:
    """`data` with each of `updates` written at the place along `axis` that `indices` names."""
    return g.call(scattering.scatter_elements, data, indices, updates, axis, "none")


@op("ScatterElements", since=16)
def scatter_elements(
    g: Builder, data: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none"
) -> Result:
    """`data` with each of `updates` written at the place along `axis` that `indices` names."""
    return g.call(scattering.scatter_elements, data, indices, updates, axis, _reduction(reduction))


@op("TensorScatter", since=24)
def tensor_scatter(
    g: Builder,
    past_cache: Value,
    update: Value,
    write_indices: Value = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Result:
    """A cache with `update` written along `axis`. past_cache: [N, ..., S, ...] -> the same shape."""
    if mode not in ("linear", "circular"):
        raise UnsupportedOpError(f"mode is '{mode}', expected linear or circular.")
    return g.call(scattering.tensor_scatter, past_cache, update, write_indices, axis, mode == "circular")


@op("Compress", since=9)
def compress(g: Builder, x: Value, condition: Value, *, axis: int | None = None) -> Result:
    """The slices of x along `axis` whose condition is true; without an axis, elements of flat x."""
    return g.call(scattering.compress, x, condition, axis)


@op("OneHot", since=9)
def one_hot(g: Builder, indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Result:
    """values[1] where an index names the place along a new axis, values[0] elsewhere."""
    return g.call(scattering.one_hot, g.tensor(indices), g.numbers(depth), values, axis)


@op("ReverseSequence", since=10)
def reverse_sequence(
    g: Builder, x: Value, sequence_lens: Value, *, batch_axis: int = 1, time_axis: int = 0
) -> Result:
    """X with the first steps of each sample reversed. sequence_lens: [N] -> x's shape."""
    return g.call(scattering.reverse_sequence, x, sequence_lens, batch_axis, time_axis)


@op("EyeLike", since=9)
def eye_like(g: Builder, x: Value, *, dtype: int | None = None, k: int = 0) -> Result:
    """Ones on the k-th diagonal. x: [M, N] -> the same shape."""
    kind = g.type(x).dtype if dtype is None else dtype_name(dtype)
    return g.call(scattering.eye_like, x, torch_type(kind), k)


def _reduction(name: str) -> str:
    if name != "none" and name not in scattering.REDUCTIONS:
        choices = ", ".join(["none", *scattering.REDUCTIONS])
        raise UnsupportedOpError(f"reduction is '{name}', expected one of {choices}.")
    return name
