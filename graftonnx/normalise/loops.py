"""Shapes behind a `Loop`: onnx says nothing of its states, since a step may change their shapes.

Where the body, given states of some shapes, returns them in the same shapes, every step does, by induction.
"""

from __future__ import annotations

import onnx
from onnx import GraphProto, NodeProto, ValueInfoProto, shape_inference

from graftonnx.graph import reads, subgraphs


def loop_states(model: onnx.ModelProto) -> list[ValueInfoProto]:
    """Return the states behind the loops of a graph whose shapes do not change in the loop.

    Args:
        model: A skeleton, after shape inference.

    Returns:
        Those of loops whose outputs have no shape yet; with them, inference may reach the next loops.
    """
    graph = model.graph
    loops = [node for node in graph.node if node.op_type == "Loop"]
    known = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    known |= {
        tensor.name: onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
    }
    return [state for node in loops for state in _kept_states(model, node, known)]


def _kept_states(
    model: onnx.ModelProto, node: NodeProto, known: dict[str, ValueInfoProto]
) -> list[ValueInfoProto]:
    (body,) = subgraphs(node)
    sources, outputs = list(node.input[2:]), list(node.output[: len(node.input) - 2])
    if all(_has_shape(known.get(name)) for name in outputs if name):
        return []
    if not all(_has_shape(known.get(name)) for name in sources):
        return []
    given = [known[name] for name in sources]
    returned = _inferred(model, body, given, known)
    for value, source in zip(returned, given, strict=True):
        if value is None or value.type != source.type:
            return []
    return [
        ValueInfoProto(name=name, type=source.type)
        for name, source in zip(outputs, given, strict=True)
        if name
    ]


def _inferred(
    model: onnx.ModelProto,
    body: GraphProto,
    given: list[ValueInfoProto],
    known: dict[str, ValueInfoProto],
) -> list[ValueInfoProto | None]:
    """Return the states that the body gives for states like `given`, with the shapes that follow."""
    step = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    step.graph.CopyFrom(body)
    for state, source in zip(step.graph.input[2:], given, strict=True):
        state.type.CopyFrom(source.type)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in outer_values(body):
        if name in tensors:
            step.graph.initializer.add().CopyFrom(tensors[name])
        elif name in known:
            step.graph.input.add().CopyFrom(known[name])
    found = {value.name: value for value in shape_inference.infer_shapes(step, data_prop=True).graph.output}
    return [found.get(value.name) for value in body.output[1 : 1 + len(given)]]


def outer_values(body: GraphProto) -> list[str]:
    """Return the values that a body reads from the graph around it."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {name for node in body.node for name in node.output}
    read = [name for node in body.node for name in reads(node)] + [value.name for value in body.output]
    return [name for name in dict.fromkeys(read) if name not in own]


def _has_shape(value: ValueInfoProto | None) -> bool:
    return value is not None and value.type.tensor_type.HasField("shape")
