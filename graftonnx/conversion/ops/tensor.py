"""Picking, joining and padding elements."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from graftonnx.conversion import indexing
from graftonnx.conversion.arguments import check_size
from graftonnx.conversion.builder import TYPE, Builder
from graftonnx.conversion.ops.constant import torch_type
from graftonnx.conversion.ops.conv import pad_widths
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Array, Result, Size, Type, Value, is_symbolic
from graftonnx.errors import UnsupportedOpError


@op("Concat", since=4)
def concat(g: Builder, *inputs: Value, axis: int) -> Result:
    """Join along `axis`."""
    arrays = [value for value in inputs if isinstance(value, np.ndarray)]
    if len(arrays) == len(inputs):
        if any(is_symbolic(array) for array in arrays):
            arrays = [array.astype(object) for array in arrays]
        return np.concatenate(arrays, axis)
    if len(inputs) == 1:
        return inputs[0]
    return g.call(torch.cat, list(inputs), dim=axis)


@op("Gather", since=1)
def gather(g: Builder, data: Value, indices: Value, *, axis: int = 0) -> Result:
    """Slices of `data` along `axis`, at the places that `indices` name."""
    if isinstance(indices, np.ndarray) and not is_symbolic(indices):
        if isinstance(data, np.ndarray):
            return np.asarray(np.take(data, indices.astype(np.int64), axis))
        if indices.ndim == 0:
            return g.call(torch.select, data, axis, int(indices))
        if indices.ndim == 1 and indices.size and indices.min() >= 0:
            return g.call(torch.index_select, data, axis, indices.astype(np.int64))
    return g.call(indexing.gather, g.tensor(data), indices, axis)


@op("GatherElements", since=11)
def gather_elements(g: Builder, data: Value, indices: Value, *, axis: int = 0) -> Result:
    """Elements of `data`, at the places along `axis` that `indices` name."""
    return g.call(indexing.gather_elements, g.tensor(data), indices, axis)


@op("Slice", since=1)
def slice_1(
    g: Builder, data: Value, *, axes: Sequence[int] | None = None, ends: Sequence[int], starts: Sequence[int]
) -> Result:
    """The part of `data` between starts and ends."""
    return _slice(g, data, list(starts), list(ends), axes, [1] * len(starts))


@op("Slice", since=10)
def slice_(
    g: Builder, data: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None
) -> Result:
    """The part of `data` between starts and ends, every step-th element."""
    first, last = g.ints(starts, "starts"), g.ints(ends, "ends")
    if isinstance(axes, fx.Node) or isinstance(steps, fx.Node):
        lists = [None if v is None else g.numbers(v) for v in (starts, ends, axes, steps)]
        return g.call(indexing.slice_, g.tensor(data), *lists)
    along = None if axes is None else [int(a) for a in g.host(axes, "axes")]
    step = [1] * len(first) if steps is None else [int(s) for s in g.host(steps, "steps")]
    return _slice(g, data, first, last, along, step)


@op("Split", since=2)
def split_2(g: Builder, x: Value, *, axis: int = 0, split: Sequence[int] | None = None) -> Result:
    """Parts of x along `axis`."""
    return _split(g, x, axis, None if split is None else list(split), len(g.node.output))


@op("Split", since=13)
def split_13(g: Builder, x: Value, split: Value = None, *, axis: int = 0) -> Result:
    """Parts of x along `axis`."""
    return _split(g, x, axis, None if split is None else g.ints(split, "split"), len(g.node.output))


@op("Split", since=18)
def split(
    g: Builder, x: Value, split: Value = None, *, axis: int = 0, num_outputs: int | None = None
) -> Result:
    """Parts of x along `axis`."""
    extents = None if split is None else g.ints(split, "split")
    return _split(g, x, axis, extents, num_outputs or len(g.node.output))


@op("Pad", since=2)
def pad_2(g: Builder, x: Value, *, mode: str = "constant", pads: Sequence[int], value: float = 0.0) -> Result:
    """X with elements added (or, for negative pads, removed) at the ends of its axes."""
    return _pad(g, x, list(pads), value, mode)


@op("Pad", since=11)
def pad_11(g: Builder, x: Value, pads: Value, value: Value = None, *, mode: str = "constant") -> Result:
    """X with elements added (or, for negative pads, removed) at the ends of its axes."""
    return pad(g, x, pads, value, mode=mode)


@op("Pad", since=18)
def pad(
    g: Builder, x: Value, pads: Value, value: Value = None, axes: Value = None, *, mode: str = "constant"
) -> Result:
    """X with elements added (or, for negative pads, removed) at the ends of its axes."""
    if isinstance(axes, fx.Node) or isinstance(value, fx.Node):
        number = 0.0 if value is None else g.item(g.numbers(value), 0)
        along = None if axes is None else g.numbers(axes)
        return g.call(indexing.pad, g.tensor(x), g.numbers(pads), along, number, mode)
    widths = g.ints(pads, "pads")
    if axes is not None:
        rank, along = g.rank(x), g.numbers(axes)
        whole: list[Any] = [0] * 2 * rank
        for i, axis in enumerate(along):
            whole[axis % rank], whole[axis % rank + rank] = widths[i], widths[i + len(along)]
        widths = whole
    number = 0.0 if value is None else g.host(value, "constant_value").item()
    return _pad(g, x, widths, number, mode)


@op("Range", since=11)
def range_11(g: Builder, start: Value, limit: Value, delta: Value) -> Result:
    """Numbers from start to limit, exclusive, in steps of delta."""
    return range_(g, start, limit, delta)


@op("Range", since=27)
def range_(g: Builder, start: Value, limit: Value, delta: Value, *, stash_type: int = 1) -> Result:
    """Numbers from start to limit, exclusive, in steps of delta; computed in float64 or int64."""
    bounds = [start, limit, delta]
    if all(isinstance(b, np.ndarray) and not is_symbolic(b) for b in bounds):
        first, last, step = (b for b in bounds if isinstance(b, np.ndarray))
        if not step.item():
            raise UnsupportedOpError("its step is zero.")
        count = max(0.0, (float(last.item()) - float(first.item())) / float(step.item()))
        check_size(8 * int(min(count, 1e18)))
        return np.arange(first.item(), last.item(), step.item()).astype(first.dtype)
    kind = g.type(start).dtype
    # A tensor that the module holds tells where the module is.
    like = g.tensor(np.zeros((), np.int64))
    if kind == "int64" and all(isinstance(b, np.ndarray) for b in bounds):
        return g.call(indexing.count_up, like, *(g.ints(b, "a bound")[0] for b in bounds))
    return g.call(indexing.arange, like, *(g.numbers(b) for b in bounds), torch_type(kind))


@op("Trilu", since=14)
def trilu(g: Builder, x: Value, k: Value = None, *, upper: int = 1) -> Result:
    """The upper or lower triangle of the last two axes, zeros elsewhere."""
    if isinstance(k, fx.Node):
        return g.call(indexing.trilu, g.tensor(x), g.numbers(k), bool(upper))
    diagonal = 0 if k is None else int(g.host(k, "k").item())
    return g.call(torch.triu if upper else torch.tril, x, diagonal)


def _slice(
    g: Builder,
    data: Value,
    starts: list[Any],
    ends: list[Any],
    axes: Sequence[int] | None,
    steps: Sequence[int],
) -> Result:
    axes = list(range(len(starts))) if axes is None else list(axes)
    if isinstance(data, np.ndarray) and not any(isinstance(v, Size) for v in (*starts, *ends)):
        part: Array = data
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            extent = data.shape[axis]
            forwards = range(extent)[start:end:step]
            places = indexing.places_backwards(start, end, step, extent) if step < 0 else forwards
            part = part.take(np.array(places, np.int64), axis)
        return part
    if min(axes, default=0) < 0:
        axes = [axis % g.rank(data) for axis in axes]
    if min(steps, default=1) < 1:
        return g.call(indexing.slice_backwards, g.tensor(data), starts, ends, axes, list(steps))
    where: list[Any] = [slice(None)] * (max(axes, default=-1) + 1)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        first, last = (max(v, indexing.LEAST) if isinstance(v, int) else v for v in (start, end))
        where[axis] = (first, last, step)
    return _part(g, g.get(data, where), data, axes)


def _part(g: Builder, part: Value, whole: Value, axes: Sequence[int]) -> Value:
    """Note the shape of a part, which inference may not know: it is the whole's, but for `axes`."""
    shape = g.shape(whole)
    if isinstance(part, fx.Node) and shape is not None:
        cut = {axis % len(shape) for axis in axes}
        extents = tuple(None if i in cut else extent for i, extent in enumerate(shape))
        part.meta[TYPE] = Type(g.type(whole).dtype, extents)
    return part


def _split(g: Builder, x: Value, axis: int, extents: list[Any] | None, count: int) -> Result:
    if extents is None:
        extent = g.size(x, axis)
        each = -(-extent // count) if isinstance(extent, int) else (extent + (count - 1)) // count
        sections: Any = each
    else:
        sections = extents
    if isinstance(x, np.ndarray):
        cuts = [sections] * (count - 1) if isinstance(sections, int) else sections[:-1]
        return tuple(np.split(x, list(itertools.accumulate(cuts)), axis))
    parts = g.call(torch.split, g.tensor(x), sections, dim=axis)
    return tuple(_part(g, g.item(parts, i), x, [axis]) for i in range(count))


def _pad(g: Builder, x: Value, pads: list[Any], value: float, mode: str) -> Result:
    widths = pad_widths(pads)
    while len(widths) > 2 and all(isinstance(w, int) and w == 0 for w in widths[-2:]):
        widths = widths[:-2]
    if all(isinstance(w, int) and w == 0 for w in widths):
        return x
    if mode == "constant":
        return g.call(F.pad, x, widths, value=value)
    if mode in ("reflect", "edge", "wrap"):
        return g.call(indexing.pad_by_index, g.tensor(x), widths, mode)
    raise UnsupportedOpError(f"mode is '{mode}', expected constant, reflect, edge or wrap.")
