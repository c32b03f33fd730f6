"""Read-only views of an ONNX graph: who makes a value, who reads it, in which order, of which shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

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
                return value.decode(errors="replace")
            if isinstance(value, list) and value and isinstance(value[0], bytes):
                return [part.decode(errors="replace") for part in value]
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


def bodies(graph: GraphProto | onnx.FunctionProto, kinds: Collection[str] | None = None) -> list[GraphProto]:
    """Return the graphs inside the standard's operators in a graph.

    Args:
        graph: The graph.
        kinds: The operators of its nodes, if they are known: to read them takes time.
    """
    if kinds is not None and WITH_BODIES.isdisjoint(kinds):
        return []
    holders = [node for node in graph.node if node.op_type in WITH_BODIES]
    return [body for node in holders for body in subgraphs(node)]


def reads(node: NodeProto) -> list[str]:
    """Return every value that a node reads, those of its subgraphs' outer scope included."""
    return _reads(node, node.input[:])


def _reads(node: NodeProto, names: list[str]) -> list[str]:
    if "" in names:
        names = [name for name in names if name]
    for graph in subgraphs(node):
        names = list(names)
        inner = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        for child in graph.node:
            names.extend(name for name in reads(child) if name not in inner)
            inner.update(child.output)
        names.extend(value.name for value in graph.output if value.name not in inner)
    return names


def value_shapes(graph: GraphProto) -> dict[str, Shape]:
    """Return the shape of every value that has one: inputs, outputs, inferred values, initializers."""
    shapes: dict[str, Shape] = {}
    known: dict[bytes, Shape | None] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type
        encoded = kind.SerializeToString()  # few types occur, and reading one field by field takes longer
        if encoded not in known:
            known[encoded] = stated_shape(kind)
        shape = known[encoded]
        if shape is not None:
            shapes[value.name] = shape
    for tensor in graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims[:])
    return shapes


def stated_shape(kind: onnx.TypeProto) -> Shape | None:
    """Return the shape in a type; None if it states none."""
    if not kind.tensor_type.HasField("shape"):
        return None
    extents = [d.dim_value for d in kind.tensor_type.shape.dim]
    return tuple([extent if extent > 0 else None for extent in extents])


class GraphView:
    """An index over a graph that does not change while the view is in use.

    Args:
        graph: The graph.
        like: A view of a graph with the same nodes in the same order, wired alike, if there is one.

    Attributes:
        nodes: In topological order.
        kinds: The operator of each of them.
        given: Its inputs.
        read: What each of them reads, those of its subgraphs' outer scope included.
        made: What each of them makes.
        position: Value name -> the position of the node that makes it.
        sources: The positions of the nodes that make what each of them reads.
        initializers: Initializer name -> tensor (large ones are stubs without data).
    """

    nodes: list[NodeProto]
    kinds: list[str]
    given: list[list[str]]
    read: list[list[str]]
    made: list[list[str]]
    position: dict[str, int]
    sources: list[list[int]]

    def __init__(self, graph: GraphProto, like: GraphView | None = None) -> None:
        self.graph = graph
        self._ancestry: dict[tuple[str, ...], Sequence[int]] = {}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.initializers]
        self.outputs = [value.name for value in graph.output]
        if like is None:
            self._list(list(graph.node))
        else:
            self.nodes = list(graph.node)
            self.kinds, self.given, self.read, self.made = like.kinds, like.given, like.read, like.made
            self.position, self.sources = like.position, like.sources

    def _list(self, nodes: list[NodeProto]) -> None:
        """List the nodes and how they are wired."""
        given, made = [node.input[:] for node in nodes], [node.output[:] for node in nodes]
        kinds = [node.op_type for node in nodes]
        read = [
            _reads(node, names) if "" in names or kind in WITH_BODIES or node.domain else names
            for node, kind, names in zip(nodes, kinds, given, strict=True)
        ]
        position = _makers(made)
        sources = _sources(read, position)
        order = _order(nodes, sources)
        if not isinstance(order, range):
            nodes, kinds = [nodes[index] for index in order], [kinds[index] for index in order]
            given, read, made = ([names[index] for index in order] for names in (given, read, made))
            position = _makers(made)
            sources = _sources(read, position)
        self.nodes, self.kinds, self.given, self.read, self.made = nodes, kinds, given, read, made
        self.position, self.sources = position, sources

    @cached_property
    def producer(self) -> dict[str, NodeProto]:
        """Value name -> the node that makes it."""
        return {name: self.nodes[position] for name, position in self.position.items()}

    @cached_property
    def consumers(self) -> defaultdict[str, list[NodeProto]]:
        """Value name -> the nodes that read it, in topological order."""
        consumers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node, names in zip(self.nodes, self.read, strict=True):
            for name in names:
                readers = consumers[name]
                if not readers or readers[-1] is not node:
                    readers.append(node)
        return consumers

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Value name -> shape; read from the graph when first asked for."""
        return value_shapes(self.graph)

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

    def ancestry(self, *values: str) -> Sequence[int]:
        """Return the positions in `nodes` of what any of `values` depends on, ascending."""
        if values not in self._ancestry:
            self._ancestry[values] = self._ancestors(values)
        return self._ancestry[values]

    def _ancestors(self, values: Iterable[str]) -> list[int]:
        needed = bytearray(len(self.nodes))
        for value in values:
            if value in self.position:
                needed[self.position[value]] = True
        found = []
        for position in range(len(self.nodes) - 1, -1, -1):
            if needed[position]:
                found.append(position)
                for source in self.sources[position]:
                    needed[source] = True
        return found[::-1]


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
    order = topological_order(listed, [reads(node) for node in listed], [node.output[:] for node in listed])
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
    return _order(nodes, _sources(read, _makers(made)))


def _order(nodes: Sequence[NodeProto], sources: Sequence[Sequence[int]]) -> Sequence[int]:
    if all(not found or max(found) < index for index, found in enumerate(sources)):
        return range(len(nodes))
    order: list[int] = []
    placed, opened = bytearray(len(nodes)), bytearray(len(nodes))
    waiting = list(range(len(nodes) - 1, -1, -1))
    while waiting:
        index = waiting.pop()
        if index < 0:  # the complement of a node whose sources are all placed now
            index = ~index
        elif placed[index]:
            continue
        elif missing := [source for source in sources[index] if not placed[source]]:
            if opened[index]:
                node = nodes[index]
                raise ModelError(
                    f"its graph has a cycle through node '{node.name or node.output[0]}' ({node.op_type})."
                )
            opened[index] = True
            waiting.append(~index)
            waiting += reversed(missing)
            continue
        placed[index] = True
        order.append(index)
    return order


def _makers(made: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return the position of the node that makes each value."""
    return {name: position for position, names in enumerate(made) for name in names if name}


def _sources(read: Sequence[Sequence[str]], maker: Mapping[str, int]) -> list[list[int]]:
    """Return the positions of the nodes that make what each node reads."""
    return [[maker[name] for name in names if name in maker] for names in read]
