"""Edit a few nodes of large skeletons with onnx-graphsurgeon; all others stay protobuf messages.

Importing and exporting a node with onnx-graphsurgeon costs fifty times as much as copying it. So only a
window is imported: the nodes that make or read the values that are touched. What is cut out is put back by
name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from graftonnx.errors import ModelError
from graftonnx.graph import (
    WITH_BODIES,
    GraphView,
    reads,
    sort_nodes,
    stated_shape,
    subgraphs,
    topological_order,
)
from graftonnx.normalise.constants import replace
from graftonnx.normalise.inference import infer_shapes
from graftonnx.normalise.opset import IR_VERSION, OPSET
from graftonnx.remarks import copy_remarks, quantization_tensors
from graftonnx.tensors import Made
from graftonnx.weights import Weights
from graftonnx.wire import INLINE_BYTES

G_LOGGER.severity = G_LOGGER.CRITICAL  # it prints to stdout, which belongs to our results


class Part:
    """Nodes of a graph that take part in surgery under other names, with all that they read.

    Args:
        view: The graph; it is not modified.
        prefix: In front of every name.
        output: The value whose ancestors take part; all nodes do when omitted.

    Attributes:
        view: The graph.
        prefix: See above.
        positions: The nodes that take part, by their positions in the view.
    """

    def __init__(self, view: GraphView, prefix: str = "", output: str | None = None) -> None:
        self.view, self.prefix = view, prefix
        self.positions = range(len(view.nodes)) if output is None else view.ancestry(output)
        self._output = output
        self._inside = bytearray(len(view.nodes))
        for position in self.positions:
            self._inside[position] = True

    def makes(self, value: str) -> bool:
        """Return whether a node that takes part makes a value of the graph."""
        return value in self.view.position and bool(self._inside[self.view.position[value]])

    def around(self, value: str) -> list[NodeProto]:
        """Return copies of the nodes that make and read a value, all under the names of this part."""
        name = value.removeprefix(self.prefix)
        if not value.startswith(self.prefix):
            return []
        makers = [self.view.producer[name]] if name in self.view.producer else []
        nodes = (*makers, *self.view.consumers.get(name, ()))
        return [self._renamed(node) for node in nodes if self.makes(_key(node.output))]

    def _renamed(self, node: NodeProto) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node)
        inputs, outputs = _prefixed(node.input, self.prefix), _prefixed(node.output, self.prefix)
        _rename(copy, self.prefix, inputs, outputs, node.op_type)
        return copy

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """Name in the graph -> initializer, of those that the nodes read."""
        graph, held = self.view.graph, self.view.initializers
        if self._output is None:
            return held
        used = {self._output}.union(*(self.view.read[position] for position in self.positions))
        if graph.quantization_annotation:
            used |= quantization_tensors(graph, used | set(self._made()))
        return {name: tensor for name, tensor in held.items() if name in used}

    @cached_property
    def infos(self) -> dict[str, ValueInfoProto]:
        """Name in the graph -> what it says of the value, of those that the nodes make."""
        infos = {value.name: value for value in self.view.graph.value_info}
        if len(self.positions) == len(self.view.nodes):
            return infos
        made = set(self._made())
        return {name: value for name, value in infos.items() if name in made}

    def _made(self) -> Iterator[str]:
        return chain.from_iterable(self.view.made[position] for position in self.positions)


class Window:
    """The surroundings of some values in one or several graphs that share no names.

    Args:
        parts: The graphs; they are not modified.
        touched: The values whose makers and readers may be rewired.

    Attributes:
        values: Every variable near them by name; those touched know all their readers.
        nodes: The imported nodes.
    """

    def __init__(self, parts: Sequence[Part], touched: Iterable[str]) -> None:
        self._parts = parts
        self._near = {
            _key(node.output): node for name in touched for part in parts for node in part.around(name)
        }
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
            The skeleton of all graphs and `added`; and the large tensors of `added`. The types and shapes in
            it are those that inference over the whole would give: every node of the window and of `added` is
            inferred anew from what surrounds it, all others read values of the types they read before.

        Raises:
            ModelError: If types or shapes do not fit together, also where the window meets the rest, or there
                is a cycle.
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
        self._check_border(piece.graph)
        return self._joined(piece.graph, inputs), weights

    def _check_border(self, piece: GraphProto) -> None:
        """Check that nothing found out about the graphs' own values contradicts what they say of them."""
        found = {value.name: value.type for value in (*piece.input, *piece.output, *piece.value_info)}
        for part in self._parts:
            near = (name for name in found if name.startswith(part.prefix))
            for name, said in ((name, part.infos.get(name.removeprefix(part.prefix))) for name in near):
                if said is not None and _contradict(said.type, found[name]):
                    before, after = (onnx.helper.printable_type(kind) for kind in (said.type, found[name]))
                    raise ModelError(
                        f"the surgery changes the type of '{name}': it was {before} before, and would be "
                        f"{after}. Please report this."
                    )

    def _cut_out(self) -> ModelProto:
        """Return the nodes of the window as a model; what others make is an input."""
        nodes = list(self._near.values())
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in reads(node))
        graph = GraphProto(name="window", node=nodes)
        for part in self._parts:
            near = {name.removeprefix(part.prefix) for name in (*made, *read) if name.startswith(part.prefix)}
            for name in filter(near.__contains__, part.initializers):
                graph.initializer.add().CopyFrom(part.initializers[name])
                graph.initializer[-1].name = part.prefix + name
            inputs = ((value.name, value) for value in part.view.graph.input)
            for name, value in chain(inputs, part.infos.items()):
                if name in near and (part.prefix + name in made or name not in part.initializers):
                    values = graph.value_info if part.prefix + name in made else graph.input
                    values.add().CopyFrom(value)
                    values[-1].name = part.prefix + name
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])

    def _joined(self, piece: GraphProto, inputs: Sequence[gs.Variable]) -> ModelProto:
        """Return all graphs with `piece` in the place of the window."""
        model = onnx.helper.make_model(
            GraphProto(name="graftonnx", output=piece.output),
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="graftonnx",
        )
        graph = model.graph
        self._join_nodes(piece, graph)
        known = {value.name for value in piece.output}
        for part in self._parts:
            known |= _entered(part.initializers, graph.initializer, part.prefix)
            known |= _entered(part.infos, graph.value_info, part.prefix)
        wanted = {variable.name for variable in inputs}
        graph.input.extend(value for value in piece.input if value.name in wanted)
        graph.initializer.extend(tensor for tensor in piece.initializer if tensor.name not in known)
        graph.value_info.extend(self._new(piece, known | wanted))
        return model

    def _join_nodes(self, piece: GraphProto, graph: GraphProto) -> None:
        """Enter the nodes of all graphs and of `piece`, in topological order."""
        edited = {_key(node.output) for node in piece.node}
        nodes = list(piece.node)
        added = len(nodes)
        read, made = [reads(node) for node in nodes], [node.output[:] for node in nodes]
        names: list[tuple[str, list[str], list[str], str]] = []
        for part in self._parts:
            prefix, view = part.prefix, part.view
            for position in part.positions:
                outputs = _prefixed(view.made[position], prefix)
                if not edited.isdisjoint(outputs):
                    continue
                inputs = _prefixed(view.given[position], prefix)
                same = view.read[position] is view.given[position]
                nodes.append(view.nodes[position])
                made.append(outputs)
                read.append(inputs if same else _prefixed(view.read[position], prefix))
                names.append((prefix, inputs, outputs, view.kinds[position]))
        order = topological_order(nodes, read, made)
        graph.node.extend([nodes[index] for index in order])
        for node, index in zip(graph.node, order, strict=True):
            if index >= added:
                _rename(node, *names[index - added])

    @staticmethod
    def _new(piece: GraphProto, known: set[str]) -> list[ValueInfoProto]:
        """Return what shape inference found out about values outside of `known`."""
        return [value for value in (*piece.input, *piece.value_info) if value.name not in known]


def _contradict(one: onnx.TypeProto, two: onnx.TypeProto) -> bool:
    """Return whether no tensor can be of both types; an extent that is not stated contradicts none."""
    if one.tensor_type.elem_type != two.tensor_type.elem_type:
        return True
    first, second = stated_shape(one), stated_shape(two)
    if first is None or second is None:
        return False
    pairs = zip(first, second, strict=False)
    return len(first) != len(second) or any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _taken_out(nodes: Iterable[gs.Node]) -> Weights:
    """Put stubs in the place of the large constants that nodes read, and return what was there."""
    weights: Weights = {}
    for tensor in (tensor for node in nodes for tensor in node.inputs):
        if isinstance(tensor, gs.Constant) and tensor.values.nbytes > INLINE_BYTES:
            weights[tensor.name] = made = Made(tensor.values)
            stub = TensorProto(name=tensor.name, data_type=made.data_type, dims=made.dims)
            tensor.values = LazyValues(stub)
    return weights


def _entered(items: Mapping[str, Any], field: Any, prefix: str) -> set[str]:
    """Enter named items into a repeated field, with a prefix before their names; return these."""
    names = [prefix + name for name in items]
    field.extend(items.values())
    for item, name in zip(field[-len(names) :] if names else (), names, strict=True):
        item.name = name
    return set(names)


def _prefixed(names: Iterable[str], prefix: str) -> list[str]:
    return [prefix + name if name else "" for name in names]


def _rename(node: NodeProto, prefix: str, inputs: Sequence[str], outputs: Sequence[str], kind: str) -> None:
    """Give a node of some kind names with a prefix; inside its graphs, too."""
    node.name = prefix + node.name
    node.input[:], node.output[:] = inputs, outputs
    if kind in WITH_BODIES:
        for inner in subgraphs(node):
            _rename_graph(inner, prefix)


def _rename_graph(graph: GraphProto, prefix: str) -> None:
    for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.name = prefix + item.name
    for node in graph.node:
        inputs, outputs = _prefixed(node.input, prefix), _prefixed(node.output, prefix)
        _rename(node, prefix, inputs, outputs, node.op_type)


def _key(outputs: Iterable[str]) -> str:
    """Return the name by which a node is known: of its first output that has one."""
    return next(filter(None, outputs), "")
