"""A skeleton with its weights, while it is rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from graftonnx.graph import GraphView, subgraphs
from graftonnx.normalise.constants import replace
from graftonnx.shapes import Shape
from graftonnx.weights import Weights, add_initializer, array_of

Floats: TypeAlias = NDArray[np.float64]


class Graph:
    """A skeleton with its weights, while it is rewritten."""

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self.model = model
        self.weights = weights

    def view(self) -> GraphView:
        """Return an index over it as it is now."""
        return GraphView(self.model.graph)

    def array(self, view: GraphView, name: str) -> Floats | None:
        """Return an initializer of float32 as float64; None for anything else."""
        tensor = view.initializers.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        with np.errstate(invalid="ignore"):  # a signalling NaN
            return array_of(tensor, self.weights).astype(np.float64)

    def set_input(self, view: GraphView, node: NodeProto, index: int, name: str, values: Floats) -> None:
        """Make input `index` of `node` an initializer with these values, called `name` if that is free.

        An initializer that nobody else reads is replaced and keeps its name.
        """
        while len(node.input) <= index:
            node.input.append("")
        old = node.input[index]
        if old and len(view.consumers[old]) == 1 and old not in view.outputs:
            name = old
            replace(self.model.graph.initializer, [t for t in self.model.graph.initializer if t.name != name])
            self.weights.pop(name, None)
        name = self.fresh(view, name)
        add_initializer(self.model, self.weights, name, values.astype(np.float32))
        node.input[index] = name

    def fresh(self, view: GraphView, name: str) -> str:
        """Return a name that no value and no node has: this one, or one like it."""
        graph = self.model.graph
        named = {t.name for t in graph.initializer} | {node.name for node in graph.node}
        taken = named | set(view.producer) | set(view.inputs)
        while name in taken:
            name += "_"
        return name

    def add(self, nodes: Iterable[NodeProto], shapes: Mapping[str, Shape | None]) -> None:
        """Put nodes in, and all into topological order; `shapes` are of the float32 values they make."""
        self.model.graph.node.extend(nodes)
        self.sort()
        self.describe(shapes)

    def sort(self) -> None:
        """Bring the nodes into topological order again."""
        replace(self.model.graph.node, self.view().nodes)

    def describe(self, shapes: Mapping[str, Shape | None]) -> None:
        """Give float32 values that are new, or hold something else now, their shapes; None: unknown."""
        infos = self.model.graph.value_info
        replace(infos, [value for value in infos if value.name not in shapes])
        infos.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
            if shape is not None
        )

    def remove(self, view: GraphView, nodes: list[NodeProto]) -> None:
        """Take nodes out."""
        gone = {id(node) for node in nodes}
        replace(self.model.graph.node, [node for node in view.nodes if id(node) not in gone])


def bypass(graph: Graph, view: GraphView, nodes: dict[str, NodeProto]) -> int:
    """Let the readers of each key read its node's first input instead; remove the nodes.

    A graph output keeps its name: what made the first input makes it now; where that cannot be, the node
    stays.
    """
    renamed: dict[str, str] = {}
    removed: list[NodeProto] = []
    for name, node in nodes.items():
        source = node.input[0]
        source = renamed.get(source, source)
        if name in view.outputs:
            maker = view.producer.get(source)
            if maker is None or source in view.outputs or source in renamed.values():
                continue
            renamed[source] = name
        else:
            renamed[name] = source
        removed.append(node)
    for node in view.nodes:
        _rename(node, renamed)
    graph.remove(view, removed)
    return len(removed)


def _rename(node: NodeProto, names: dict[str, str]) -> None:
    """Rename the values that a node reads and makes; in its subgraphs those that they read from outside."""
    for field in (node.input, node.output):
        for index, name in enumerate(field):
            if name in names:
                field[index] = names[name]
    for inner in subgraphs(node):
        for child in inner.node:
            _rename(child, names)
        for output in inner.output:
            output.name = names.get(output.name, output.name)
