"""Shapes behind a `Loop`: onnx says nothing of its states, since a step may change their shapes.

Where the body, given states of some shapes, returns them in the same shapes, every step does, by induction.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, defs, shape_inference

from graftonnx.graph import WITH_BODIES, is_stub, reads, subgraphs

_REFUSALS = (defs.SchemaError, shape_inference.InferenceError, RuntimeError, ValueError)
"""What onnx raises for a node whose inputs do not fit."""


class _Known(NamedTuple):
    """What is known around the loops of a graph.

    Attributes:
        model: Its model.
        values: Every value with a type.
        tensors: The initializers.
        opset: Of the standard's operators.
    """

    model: onnx.ModelProto
    values: dict[str, ValueInfoProto]
    tensors: dict[str, TensorProto]
    opset: int


def loop_states(model: onnx.ModelProto) -> list[ValueInfoProto]:
    """Return the states behind the loops of a graph whose shapes do not change in the loop.

    Args:
        model: A skeleton, after shape inference, with its nodes in topological order.

    Returns:
        Those of loops whose outputs have no shape yet. What follows from them up to the next loops is
        inferred on the way, node by node, as far as it depends on shapes alone.
    """
    graph = model.graph
    values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    values |= {
        tensor.name: onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
    }
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    known = _Known(model, values, {tensor.name: tensor for tensor in graph.initializer}, opset)
    states: list[ValueInfoProto] = []
    told: set[str] = set()
    for node in graph.node:
        if node.op_type == "Loop":
            found = _kept_states(node, known)
            states += found
        else:
            found = [] if told.isdisjoint(node.input) else _followed(node, known)
        told.update(value.name for value in found)
        values.update((value.name, value) for value in found)
    return states


def _kept_states(node: NodeProto, known: _Known) -> list[ValueInfoProto]:
    (body,) = subgraphs(node)
    sources, outputs = list(node.input[2:]), list(node.output[: len(node.input) - 2])
    if all(_has_shape(known.values.get(name)) for name in outputs if name):
        return []
    if not all(_has_shape(known.values.get(name)) for name in sources):
        return []
    given = [known.values[name] for name in sources]
    returned = _inferred(body, given, known)
    for value, source in zip(returned, given, strict=True):
        if value is None or value.type != source.type:
            return []
    return [
        ValueInfoProto(name=name, type=source.type)
        for name, source in zip(outputs, given, strict=True)
        if name
    ]


def _followed(node: NodeProto, known: _Known) -> list[ValueInfoProto]:
    """Return the outputs of a node with the shapes that follow from those of its inputs."""
    names = [name for name in node.input if name]
    if node.domain or node.op_type in WITH_BODIES or not all(_has_shape(known.values.get(n)) for n in names):
        return []
    types = {name: known.values[name].type for name in names}
    data = {n: known.tensors[n] for n in names if n in known.tensors and not is_stub(known.tensors[n])}
    imports = [onnx.helper.make_opsetid("", known.opset)]
    try:
        schema = defs.get_schema(node.op_type, known.opset, "")
        found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except _REFUSALS:
        return []
    values = [ValueInfoProto(name=name, type=kind) for name, kind in found.items()]
    return [value for value in values if _has_shape(value)]


def _inferred(body: GraphProto, given: list[ValueInfoProto], known: _Known) -> list[ValueInfoProto | None]:
    """Return the states that the body gives for states like `given`, with the shapes that follow."""
    model = known.model
    step = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    step.graph.CopyFrom(body)
    for state, source in zip(step.graph.input[2:], given, strict=True):
        state.type.CopyFrom(source.type)
    for name in outer_values(body):
        if name in known.tensors:
            step.graph.initializer.add().CopyFrom(known.tensors[name])
        elif name in known.values:
            step.graph.input.add().CopyFrom(known.values[name])
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
