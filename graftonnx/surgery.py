"""Edit a few nodes of large skeletons with onnx-graphsurgeon; all others stay protobuf messages.

Importing and exporting a node with onnx-graphsurgeon costs fifty times as much as copying it. So only a
window is imported: the nodes that make or read the values that are touched. What is cut out is put back by
name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from graftonnx.graph import GraphView, reads, sort_nodes, topological_order
from graftonnx.normalise.constants import replace
from graftonnx.normalise.inference import infer_shapes
from graftonnx.normalise.opset import IR_VERSION, OPSET
from graftonnx.remarks import copy_remarks
from graftonnx.tensors import Made
from graftonnx.weights import Weights
from graftonnx.wire import INLINE_BYTES

G_LOGGER.severity = G_LOGGER.CRITICAL  # it prints to stdout, which belongs to our results


class Window:
    """The surroundings of some values in one or several graphs that share no names.

    Args:
        views: The graphs; they are not modified.
        touched: The values whose makers and readers may be rewired.

    Attributes:
        values: Every variable near them by name; those touched know all their readers.
        nodes: The imported nodes.
    """

    def __init__(self, views: Sequence[GraphView], touched: Iterable[str]) -> None:
        self._views = views
        near: dict[str, NodeProto] = {}
        for name in touched:
            for view in views:
                makers = [view.producer[name]] if name in view.producer else []
                for node in (*makers, *view.consumers.get(name, ())):
                    near[_key(node.output)] = node
        self._near = near
        graph = gs.import_onnx(self._cut_out())
        self.nodes: list[gs.Node] = list(graph.nodes)
        self.values: dict[str, gs.Variable] = {
            name: tensor for name, tensor in graph.tensors().items() if isinstance(tensor, gs.Variable)
        }
        for name in touched:
            if name not in self.values:  # a graph input that nobody reads
                self.values[name] = gs.Variable(name)
        self._outside: list[gs.Variable] = list(graph.inputs)

    def close(
        self, added: Sequence[gs.Node], inputs: Sequence[gs.Variable], outputs: Sequence[gs.Variable]
    ) -> tuple[ModelProto, Weights]:
        """Put the window back, with more nodes.

        Args:
            added: Nodes between variables of the window, and new ones.
            inputs: Of the whole.
            outputs: Likewise.

        Returns:
            The skeleton of all graphs and `added`, its shapes inferred where something is new; and the large
            tensors of `added`.

        Raises:
            ModelError: If the shapes do not fit together, or there is a cycle.
        """
        made = {tensor.name for node in added for tensor in node.outputs}
        outside = [variable for variable in self._outside if variable.name not in made]
        weights = _taken_out(added)
        graph = gs.Graph([*self.nodes, *added], [*inputs, *outside], list(outputs), opset=OPSET)
        piece = gs.export_onnx(graph, ir_version=IR_VERSION)
        replace(piece.graph.node, sort_nodes(piece.graph.node))
        piece = infer_shapes(piece)
        for node in piece.graph.node:
            source = self._near.get(_key(node.output))
            if source is not None:
                copy_remarks(source, node)
        return self._joined(piece.graph, inputs), weights

    def _cut_out(self) -> ModelProto:
        """Return the nodes of the window as a model; what others make is an input."""
        nodes = list(self._near.values())
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in reads(node))
        graph = GraphProto(name="window", node=nodes)
        for view in self._views:
            graph.initializer.extend(view.initializers[name] for name in read if name in view.initializers)
            for value in (*view.graph.input, *view.graph.value_info):
                if value.name in made:
                    graph.value_info.append(value)
                elif value.name in read and value.name not in view.initializers:
                    graph.input.append(value)
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])

    def _joined(self, piece: GraphProto, inputs: Sequence[gs.Variable]) -> ModelProto:
        """Return all graphs with `piece` in the place of the window."""
        edited = {_key(node.output) for node in piece.node}
        nodes = list(piece.node)
        read, made = [tuple(reads(node)) for node in nodes], [tuple(node.output) for node in nodes]
        model = onnx.helper.make_model(
            GraphProto(name="graftonnx", output=piece.output),
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="graftonnx",
        )
        wanted = {variable.name for variable in inputs}
        model.graph.input.extend(value for value in piece.input if value.name in wanted)
        known: set[str] = {value.name for value in piece.output}
        for view in self._views:
            for position, node in enumerate(view.nodes):
                if _key(view.made[position]) not in edited:
                    nodes.append(node)
                    read.append(view.read[position])
                    made.append(view.made[position])
            model.graph.initializer.extend(view.graph.initializer)
            model.graph.value_info.extend(view.graph.value_info)
            known.update(view.initializers)
            known.update(value.name for value in view.graph.value_info)
        model.graph.node.extend(nodes[index] for index in topological_order(nodes, read, made))
        model.graph.initializer.extend(tensor for tensor in piece.initializer if tensor.name not in known)
        model.graph.value_info.extend(self._new(piece, known | wanted))
        return model

    @staticmethod
    def _new(piece: GraphProto, known: set[str]) -> list[ValueInfoProto]:
        """Return what shape inference found out about values outside of `known`."""
        return [value for value in (*piece.input, *piece.value_info) if value.name not in known]


def _taken_out(nodes: Iterable[gs.Node]) -> Weights:
    """Put stubs in the place of the large constants that nodes read, and return what was there."""
    weights: Weights = {}
    for tensor in (tensor for node in nodes for tensor in node.inputs):
        if isinstance(tensor, gs.Constant) and tensor.values.nbytes > INLINE_BYTES:
            weights[tensor.name] = made = Made(tensor.values)
            stub = TensorProto(name=tensor.name, data_type=made.data_type, dims=made.dims)
            tensor.values = LazyValues(stub)
    return weights


def _key(outputs: Iterable[str]) -> str:
    """Return the name by which a node is known: of its first output that has one."""
    return next(filter(None, outputs), "")
