"""Read-only views of an ONNX graph: who makes a value, who reads it, in which order, of which shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, numpy_helper

from graftonnx.errors import ModelError
from graftonnx.shapes import Shape

WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""The standard's operators with graphs inside."""


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """Return the value of an attribute as Python objects (strings decoded), or `default`."""
    for item in node.attribute:
        if item.name == name:
            value = onnx.helper.get_attribute_value(item)
            if isinstance(value, bytes):
                return value.decode()
            if isinstance(value, list) and value and isinstance(value[0], bytes):
                return [part.decode() for part in value]
            return value
    return default


def ints(node: NodeProto, name: str, default: Iterable[int] = ()) -> tuple[int, ...]:
    """Return an attribute that is a list of integers."""
    value = attribute(node, name)
    return tuple(value) if isinstance(value, (list, tuple)) else tuple(default)


def integer(node: NodeProto, name: str, default: int) -> int:
    """Return an attribute that is one integer."""
    value = attribute(node, name, default)
    return value if isinstance(value, int) else default


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """Return the graphs inside an `If`, `Loop` or `Scan` node."""
    found: list[GraphProto] = []
    if node.op_type not in WITH_BODIES and not node.domain:
        return found
    for item in node.attribute:
        if item.type == AttributeProto.GRAPH:
            found.append(item.g)
        elif item.type == AttributeProto.GRAPHS:
            found.extend(item.graphs)
    return found


def reads(node: NodeProto) -> list[str]:
    """Return every value that a node reads, those of its subgraphs' outer scope included."""
    names: list[str] = list(node.input)
    if "" in names:
        names = [name for name in names if name]
    for graph in subgraphs(node):
        inner = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        for child in graph.node:
            names.extend(name for name in reads(child) if name not in inner)
            inner.update(child.output)
        names.extend(value.name for value in graph.output if value.name not in inner)
    return names


def value_shapes(graph: GraphProto) -> dict[str, Shape]:
    """Return the shape of every value that has one: inputs, outputs, inferred values, initializers."""
    shapes: dict[str, Shape] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            extents = [d.dim_value for d in kind.shape.dim]
            shapes[value.name] = tuple([extent if extent > 0 else None for extent in extents])
    for tensor in graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    return shapes


class GraphView:
    """An index over a graph that does not change while the view is in use.

    Args:
        graph: The graph.
        shapes: Of its values, if they are known.

    Attributes:
        nodes: In topological order.
        read: What each of them reads, those of its subgraphs' outer scope included.
        made: What each of them makes.
        producer: Value name -> the node that makes it.
        consumers: Value name -> the nodes that read it, in topological order.
        initializers: Initializer name -> tensor (large ones are stubs without data).
    """

    def __init__(self, graph: GraphProto, shapes: dict[str, Shape] | None = None) -> None:
        self.graph = graph
        self._shapes = shapes
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.initializers]
        self.outputs = [value.name for value in graph.output]
        listed = list(graph.node)
        read = [tuple(reads(node)) for node in listed]
        made = [tuple(node.output) for node in listed]
        order = topological_order(listed, read, made)
        self.nodes = [listed[index] for index in order]
        self.read = [read[index] for index in order]
        self.made = [made[index] for index in order]
        self._position: dict[str, int] = {}
        self.producer: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for position, node in enumerate(self.nodes):
            for name in self.made[position]:
                if name:
                    self.producer[name] = node
                    self._position[name] = position
            for name in self.read[position]:
                readers = self.consumers[name]
                if not readers or readers[-1] is not node:
                    readers.append(node)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Value name -> shape; read from the graph when first asked for."""
        if self._shapes is None:
            self._shapes = value_shapes(self.graph)
        return self._shapes

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return the data of a small initializer; None for anything else."""
        tensor = self.initializers.get(name)
        if tensor is None or is_stub(tensor):
            return None
        return numpy_helper.to_array(tensor)

    def is_constant(self, name: str) -> bool:
        """Return whether `name` is an initializer."""
        return name in self.initializers

    def dynamic_inputs(self, node: NodeProto) -> list[str]:
        """Return the inputs of a node that are not initializers."""
        return [name for name in node.input if name and name not in self.initializers]

    def ancestors(self, *values: str) -> list[NodeProto]:
        """Return the nodes that any of `values` depends on, in topological order."""
        return [self.nodes[position] for position in self.ancestry(*values)]

    def ancestry(self, *values: str) -> list[int]:
        """Return the positions in `nodes` of what any of `values` depends on, ascending."""
        needed = bytearray(len(self.nodes))
        position_of = self._position
        waiting = [position_of[value] for value in values if value in position_of]
        while waiting:
            position = waiting.pop()
            if not needed[position]:
                needed[position] = True
                waiting += [position_of[name] for name in self.read[position] if name in position_of]
        return [position for position, wanted in enumerate(needed) if wanted]


def is_stub(tensor: onnx.TensorProto) -> bool:
    """Return whether a tensor has a shape with elements, but no data beside it."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return True
    held = any(field.name.endswith("_data") for field, _ in tensor.ListFields())
    return not held and all(extent > 0 for extent in tensor.dims)


def sort_nodes(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Return the nodes in topological order, stable for nodes that are already in order.

    Iterative: depth is limited by memory only.

    Raises:
        ModelError: If the nodes form a cycle.
    """
    listed = list(nodes)
    order = topological_order(listed, [reads(node) for node in listed], [list(n.output) for n in listed])
    return [listed[index] for index in order]


def topological_order(
    nodes: Sequence[NodeProto], read: Sequence[Sequence[str]], made: Sequence[Sequence[str]]
) -> Sequence[int]:
    """Return the positions of nodes in topological order; see :func:`sort_nodes`.

    Args:
        nodes: In any order.
        read: What each of them reads.
        made: What each of them makes.

    Raises:
        ModelError: If the nodes form a cycle.
    """
    producer = {name: index for index, names in enumerate(made) for name in names if name}
    if all(producer.get(name, -1) < index for index, names in enumerate(read) for name in names):
        return range(len(nodes))
    order: list[int] = []
    placed, opened = bytearray(len(nodes)), bytearray(len(nodes))
    for first in range(len(nodes)):
        stack = [] if placed[first] else [first]
        while stack:
            index = stack[-1]
            sources = [producer[name] for name in read[index] if name in producer]
            missing = [source for source in sources if not placed[source]]
            if missing and opened[index]:
                node = nodes[index]
                raise ModelError(
                    f"its graph has a cycle through node '{node.name or node.output[0]}' ({node.op_type})."
                )
            opened[index] = True
            stack += reversed(missing)
            if not missing:
                stack.pop()
                if not placed[index]:
                    placed[index] = True
                    order.append(index)
    return order
