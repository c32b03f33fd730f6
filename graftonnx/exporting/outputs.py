"""What an exported file gives: one number each class, probabilities or logits."""

from __future__ import annotations

import onnx
from onnx import helper

from graftonnx.errors import ModelError
from graftonnx.graph import GraphView
from graftonnx.normalise.constants import replace
from graftonnx.shapes import spelled
from graftonnx.spine import final_softmax

PROBABILITIES, LOGITS = "probabilities", "logits"


def single_output(model: onnx.ModelProto, *, with_softmax: bool) -> tuple[str, bool]:
    """Leave one output [N, K] in place: probabilities or logits.

    Returns:
        The name of the logits (of the probabilities, where the network keeps a softmax of its own), and
        whether a softmax was taken off.
    """
    graph = model.graph
    view = GraphView(graph)
    output = graph.output[0]
    name, shape = str(output.name), view.shapes.get(output.name)
    if shape is None or len(shape) < 2 or shape[1] is None or any(extent != 1 for extent in shape[2:]):
        raise ModelError(
            f"its output '{name}' is {spelled(shape)}; expected one number each class. Only "
            "classifiers can be exported."
        )
    own = final_softmax(view, name)
    if own is not None and not with_softmax:
        source = own.input[0]
        for node in graph.node:
            for index, read_name in enumerate(node.input):
                if read_name == own.output[0]:
                    node.input[index] = source
        replace(graph.node, [node for node in view.nodes if node is not own])
        name = source if name == own.output[0] else name
    if len(shape) > 2:
        graph.node.append(helper.make_node("Flatten", [name], [f"{name}/flat"], f"{name}/flatten", axis=1))
        name = f"{name}/flat"
    logits = name
    if with_softmax and own is None:
        graph.node.append(helper.make_node("Softmax", [name], [PROBABILITIES], PROBABILITIES, axis=1))
        name = PROBABILITIES
    else:
        logits = name = _renamed(model, name, PROBABILITIES if with_softmax else LOGITS)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    extent = batch.dim_param or batch.dim_value or "batch"
    value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [extent, shape[1]])
    replace(graph.output, [value])
    return logits, own is not None and not with_softmax


def _renamed(model: onnx.ModelProto, old: str, new: str) -> str:
    """Rename a value that a node makes, unless the name is taken; return the name it has then."""
    nodes = model.graph.node
    taken = {name for node in nodes for name in (*node.input, *node.output)}
    if new in taken:
        return old
    for node in nodes:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name == old:
                    field[index] = new
    return new
