"""Weights that a file keeps in the graphs inside its nodes: branches of If, bodies of Loop and Scan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from graftonnx.conversion.origin import Origin, constant_tensor, fill
from graftonnx.conversion.values import FLOATS, Array
from graftonnx.errors import ModelError
from graftonnx.graph import subgraphs
from graftonnx.tensors import data_field


@dataclass(frozen=True, eq=False)
class DeepOrigin(Origin):
    """An origin that has weights in inner graphs, too.

    Attributes:
        places: Name of each such weight in the module -> its place in the order of :func:`inner_weights`.
    """

    places: dict[str, int]

    def restore(self, arrays: dict[str, Array]) -> ModelProto:
        """Return the model with these arrays in the place of its weights, as :meth:`Origin.restore` does."""
        model = super().restore({name: arrays[name] for name in arrays.keys() - self.places.keys()})
        tensors = [tensor for _, _, tensor in inner_weights(model.graph)]
        for name in self.places.keys() & arrays.keys():
            tensor, array = tensors[self.places[name]], arrays[name]
            if array.shape != tuple(tensor.dims):
                raise ModelError(f"'{name}' has shape {list(array.shape)}, expected {list(tensor.dims)}.")
            fill(tensor, array, data_field(tensor))
        return model


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph and of all graphs inside them."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def inner_weights(graph: GraphProto) -> Iterator[tuple[GraphProto, NodeProto | None, TensorProto]]:
    """Yield every float tensor of the graphs inside a graph's nodes, always in the same order.

    Yields:
        The graph that has it, the `Constant` node that holds it (None for an initializer), and the tensor.
    """
    for node in graph.node:
        for inner in subgraphs(node):
            for tensor in inner.initializer:
                if _is_float(tensor):
                    yield inner, None, tensor
            for child in inner.node:
                held = constant_tensor(child)
                if held is not None and _is_float(held) and math.prod(held.dims) > 1:
                    yield inner, child, held
            yield from inner_weights(inner)


def lifted(model: ModelProto) -> tuple[ModelProto, dict[str, int]]:
    """Return the model with the weights of inner graphs among those of the outermost.

    Before: `y = If(c) <then_branch: a = MatMul(x, w), w: [3, 4]>`.
    After: `w: [3, 4]; y = If(c) <then_branch: a = MatMul(x, w)>`.

    Returns:
        The model (the same one if it has no such weights), and for each new initializer its place in the
        order of :func:`inner_weights`.
    """
    if next(inner_weights(model.graph), None) is None:
        return model, {}
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    taken = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    taken.update(name for node in graph.node for name in node.output)
    places: dict[str, int] = {}
    for index, (inner, node, tensor) in enumerate(list(inner_weights(graph))):
        name = node.output[0] if node is not None else tensor.name
        free = next(_spelled(name, n) for n in range(len(taken) + 1) if _spelled(name, n) not in taken)
        taken.add(free)
        places[free] = index
        whole = TensorProto()
        whole.CopyFrom(tensor)
        whole.name = free
        graph.initializer.append(whole)
        if node is not None:
            inner.node.remove(node)
        else:
            inner.initializer.remove(tensor)
        _reconnect(inner, name, free)
    return copy, places


def inner_statistics(graph: GraphProto) -> frozenset[str]:
    """Return the names of the running statistics that batch norms in inner graphs read."""
    names: set[str] = set()
    for node in graph.node:
        for inner in subgraphs(node):
            names.update(
                name for n in inner.node if n.op_type == "BatchNormalization" for name in n.input[3:5]
            )
            names |= inner_statistics(inner)
    return frozenset(names)


def _spelled(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _is_float(tensor: TensorProto) -> bool:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name in FLOATS
    except KeyError:
        return False


def _reconnect(graph: GraphProto, name: str, outer: str) -> None:
    """Let a graph that had the weight `name` read it as the value `outer` of the graph around it."""
    if outer != name:
        graph.node.insert(0, onnx.helper.make_node("Identity", [outer], [name]))
        return
    outputs = [value for value in graph.output if value.name == name]
    if outputs:
        graph.node.append(onnx.helper.make_node("Identity", [name], [f"{name}/output"]))
    for value in outputs:
        value.name = f"{name}/output"
