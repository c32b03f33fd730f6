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
    """Before: `x + P(z)` with a zero `P`. After: `x`; what made `P(z)` is dead and goes too.

    Of a Sum the parts that are zero go, and it stays where two or more are left.

    Returns:
        How many zeros were added.
    """
    view = graph.view()
    zeros = _zeros(graph, view)
    found: dict[str, NodeProto] = {}
    count = 0
    for node in view.nodes:
        kept = [name for name in node.input if name not in zeros]
        gone = [name for name in node.input if name in zeros]
        shape = view.shapes.get(node.output[0])
        if node.op_type not in ("Add", "Sum") or not kept or not gone or shape is None:
            continue
        if shape not in [view.shapes.get(name) for name in kept]:
            continue
        del node.input[:]
        if len(kept) == 1:
            node.input.extend([*kept, *gone])
            found[node.output[0]] = node
            count += (len(gone) - 1) * (node.output[0] not in view.outputs)
        else:
            node.input.extend(kept)
            count += len(gone)
    return count + bypass(graph, view, found)


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
