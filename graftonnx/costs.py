"""What a network costs: parameters, multiply-accumulates (MACs) and time, one image at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import onnx

from graftonnx.graph import GraphView, integer
from graftonnx.shapes import Shape

MOVED = 16
"""MACs of a Conv that take as long as to read or write an element; in ONNX Runtime, one core with AVX-512."""

FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)


WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The operators whose multiply-accumulates are counted."""


def macs(view: GraphView, positions: Iterable[int] | None = None) -> int:
    """Return the multiply-accumulates of the nodes at these positions, or of all, for one image."""
    chosen = range(len(view.nodes)) if positions is None else positions
    kinds = view.kinds
    return sum([_macs(view, index) for index in chosen if kinds[index] in WEIGHTED])


def _macs(view: GraphView, position: int) -> int:
    kind, operands, shapes = view.kinds[position], view.read[position], view.shapes
    source, weight = shapes.get(operands[0]), shapes.get(operands[1])
    output = shapes.get(view.made[position][0])
    if kind == "Conv":
        return _size(output) * _size(weight, first=1) if weight and output else 0
    if kind == "ConvTranspose":
        return _size(source) * _size(weight, first=1) if weight and source else 0
    if not source or not output:
        return 0
    inner = source[0] if kind == "Gemm" and integer(view.nodes[position], "transA", 0) else source[-1]
    return _size(output) * (inner or 1)


def parameters(view: GraphView, positions: Iterable[int] | None = None) -> int:
    """Return the number of float elements in the initializers that nodes (see :func:`macs`) read."""
    chosen = range(len(view.nodes)) if positions is None else positions
    names = {name for index in chosen for name in view.given[index]}
    floats = [name for name, tensor in view.initializers.items() if tensor.data_type in FLOATS]
    return sum([_size(view.shapes[name]) for name in floats if name in names])


def price(view: GraphView, positions: Iterable[int] | None = None) -> int:
    """Return the time that nodes (see :func:`macs`) take for one image, in MACs: to compute, and to write.

    Nodes without a weight matrix do not count; most of them run as a part of others.
    """
    chosen = range(len(view.nodes)) if positions is None else positions
    found = [(index, _macs(view, index)) for index in chosen if view.kinds[index] in WEIGHTED]
    return sum([work + MOVED * _size(view.shapes.get(view.made[index][0])) for index, work in found if work])


@lru_cache(1 << 12)
def _size(shape: Shape | None, first: int = 0) -> int:
    return math.prod([1 if extent is None else extent for extent in (shape or ())[first:]])
