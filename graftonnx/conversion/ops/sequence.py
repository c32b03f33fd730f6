"""Sequences of tensors, and optional values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from graftonnx.conversion import sequences
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Size, Value
from graftonnx.errors import UnsupportedOpError


@op("SequenceConstruct", since=11)
def sequence_construct(g: Builder, *inputs: Value) -> Result:
    """A sequence of tensors."""
    return g.call(sequences.construct, [g.tensor(value) for value in inputs])


@op("SequenceEmpty", since=11)
def sequence_empty(g: Builder, *, dtype: int | None = None) -> Result:
    """A sequence of no tensors."""
    return g.call(sequences.construct, [])


@op("SequenceAt", since=11)
def sequence_at(g: Builder, input_sequence: Value, position: Value) -> Result:
    """The tensor at a place."""
    return g.call(sequences.at, input_sequence, _place(g, position))


@op("SequenceInsert", since=11)
def sequence_insert(g: Builder, input_sequence: Value, tensor: Value, position: Value = None) -> Result:
    """A sequence with one more tensor."""
    return g.call(sequences.insert, input_sequence, g.tensor(tensor), _place(g, position))


@op("SequenceErase", since=11)
def sequence_erase(g: Builder, input_sequence: Value, position: Value = None) -> Result:
    """A sequence with one tensor less."""
    return g.call(sequences.erase, input_sequence, _place(g, position))


@op("SequenceLength", since=11)
def sequence_length(g: Builder, input_sequence: Value) -> Result:
    """The number of tensors: []."""
    count = g.call(len, input_sequence)
    if not isinstance(count, fx.Node):
        raise UnsupportedOpError("its input is no sequence.")
    result = np.empty((), dtype=object)
    result[()] = Size(count)
    return result


@op("SplitToSequence", since=11)
def split_to_sequence(
    g: Builder, x: Value, split: Value = None, *, axis: int = 0, keepdims: int = 1
) -> Result:
    """Parts of x along `axis`; keepdims matters where `split` is absent."""
    if split is None:
        if keepdims:
            return g.call(sequences.split, g.tensor(x), 1, axis)
        return g.call(sequences.unbind, g.tensor(x), axis)
    sizes: Any = g.ints(split, "split")
    return g.call(sequences.split, g.tensor(x), sizes if g.rank(split) else sizes[0], axis)


@op("ConcatFromSequence", since=11)
def concat_from_sequence(g: Builder, input_sequence: Value, *, axis: int, new_axis: int = 0) -> Result:
    """The tensors of a sequence, joined along `axis`."""
    return g.call(sequences.concat, input_sequence, axis, bool(new_axis))


@op("Optional", since=15)
def optional(g: Builder, value: Value = None, *, type: Any = None) -> Result:
    """A value that may be absent."""
    return g.call(sequences.nothing) if value is None else value


@op("OptionalGetElement", since=15)
def optional_get_element(g: Builder, value: Value) -> Result:
    """The value, which must be present."""
    return value


@op("OptionalHasElement", since=15)
def optional_has_element(g: Builder, value: Value = None) -> Result:
    """Whether the value is present: []."""
    if not isinstance(value, fx.Node):
        return np.array(value is not None)
    return np.array(True) if g.type(value).dtype else g.call(sequences.has_element, value)


def _place(g: Builder, position: Value) -> Any:
    """Return a place in a sequence: a number, or a tensor that holds it."""
    if isinstance(position, np.ndarray):
        return g.ints(position, "position")[0]
    return position if position is None else g.call(torch.Tensor.long, position)
