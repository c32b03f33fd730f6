"""What a network costs: parameters, multiply-accumulates (MACs) and time, one image at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
from onnx import NodeProto

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


def node_macs(view: GraphView, node: NodeProto) -> int:
    """Return the multiply-accumulates of a node for one image; 0 for nodes without a weight matrix."""
    shapes = view.shapes
    if node.op_type == "Conv":
        weight, output = shapes.get(node.input[1]), shapes.get(node.output[0])
        return _size(output) * _size(weight, first=1) if weight and output else 0
    if node.op_type == "ConvTranspose":
        weight, source = shapes.get(node.input[1]), shapes.get(node.input[0])
        return _size(source) * _size(weight, first=1) if weight and source else 0
    if node.op_type in ("Gemm", "MatMul"):
        source, output = shapes.get(node.input[0]), shapes.get(node.output[0])
        if not source or not output:
            return 0
        inner = source[0] if node.op_type == "Gemm" and integer(node, "transA", 0) else source[-1]
        return _size(output) * (inner or 1)
    return 0


def macs(view: GraphView, nodes: Iterable[NodeProto]) -> int:
    """Return the multiply-accumulates of these nodes for one image."""
    return sum(node_macs(view, node) for node in nodes)


def price(view: GraphView, nodes: Iterable[NodeProto]) -> int:
    """Return the time that these nodes take for one image, in MACs: to compute, and to write the results.

    Nodes without a weight matrix do not count; most of them run as a part of others.
    """
    found = [(node, node_macs(view, node)) for node in nodes]
    return sum(work + MOVED * _size(view.shapes.get(node.output[0])) for node, work in found if work)


def parameters(view: GraphView, nodes: Iterable[NodeProto]) -> int:
    """Return the number of float elements in the initializers that these nodes read."""
    names = {name for node in nodes for name in node.input if name in view.initializers}
    return sum(
        math.prod(view.initializers[name].dims)
        for name in names
        if view.initializers[name].data_type in FLOATS
    )


def _size(shape: Shape | None, first: int = 0) -> int:
    return math.prod(1 if extent is None else extent for extent in (shape or ())[first:])
