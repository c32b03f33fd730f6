"""Take out what adds nothing: identities, dropouts, and the skips whose projection stayed zero."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto

from graftonnx.folding.rewriting import Graph, bypass
from graftonnx.graph import GraphView, attribute
from graftonnx.weights import array_of

ZERO_KEEPING = frozenset(
    {"AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Relu", "Reshape"}
    | {"Resize", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that turn a first input of zeros into zeros."""


def drop_identities(graph: Graph) -> int:
    """Before: `x -> Dropout -> y`. After: whoever read `y` reads `x`."""
    view = graph.view()
    return bypass(graph, view, {n.output[0]: n for n in view.nodes if _is_identity(view, n)})


def _is_identity(view: GraphView, node: NodeProto) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout":
        return False
    mask_read = len(node.output) > 1 and (node.output[1] in view.consumers or node.output[1] in view.outputs)
    training = view.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else False
    return not mask_read and training is not None and not np.any(training)


def drop_zero_additions(graph: Graph) -> int:
    """Before: `x + P(z)` with a zero `P`. After: `x`; what made `P(z)` is dead and goes too."""
    view = graph.view()
    zeros = _zeros(graph, view)
    found: dict[str, NodeProto] = {}
    for node in view.nodes:
        if node.op_type != "Add" or sum(name in zeros for name in node.input) != 1:
            continue
        if node.input[0] in zeros:
            node.input.reverse()
        shape = view.shapes.get(node.input[0])
        if shape is not None and shape == view.shapes.get(node.output[0]):
            found[node.output[0]] = node
    return bypass(graph, view, found)


def _zeros(graph: Graph, view: GraphView) -> set[str]:
    """Return the values that are zero whatever the input is."""
    zeros = {
        name
        for name, tensor in view.initializers.items()
        if tensor.data_type == onnx.TensorProto.FLOAT
        and not np.count_nonzero(array_of(tensor, graph.weights))
    }
    for node in view.nodes:
        of = [not name or name in zeros for name in node.input]
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            zero = (of[0] or of[1]) and all(of[2:])
        elif node.op_type == "Mul":
            zero = any(of)
        elif node.op_type in ("Add", "Sum", "Concat"):
            zero = all(of)
        else:
            zero = node.op_type in ZERO_KEEPING and of[0] and not attribute(node, "extrapolation_value")
        if zero:
            zeros.update(node.output)
    return zeros
