"""Bring whole regions of a graph to channels-first, so that the Transposes around them go.

    x ─ Transpose(0,2,3,1) ─ Relu ─ Add(c) ─ Transpose(0,3,1,2) ─ y     becomes     x ─ Relu ─ Add(c') ─ y

A region is what lies between Transposes to channels-last and Transposes back: elementwise operators, and
others that name their axes. It is rewritten if fewer Transposes are left than there were; constants are
transposed, and values get new names: `r` becomes `r/channels_first`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto

from graftonnx.graph import GraphView, bodies, integer, ints, sort_nodes
from graftonnx.normalise.constants import replace
from graftonnx.normalise.layout import to_first, to_last
from graftonnx.normalise.names import fresh, value_names
from graftonnx.tensors import Array
from graftonnx.weights import Weights, add_initializer, array_of

UNARY = frozenset(
    {"Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus"}
    | {"Mish", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Identity", "Cast", "Clip"}
    | {"Dropout"}
)  # fmt: skip
"""Elementwise operators of which the first input alone is data."""

BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "PRelu"})
NAMING = frozenset({"Concat", "Softmax", "LogSoftmax"})
"""Operators with an attribute `axis`."""


def drop_transposes(model: onnx.ModelProto, weights: Weights) -> int:
    """Rewrite the channels-last regions of a graph, in place.

    Args:
        model: A skeleton whose shapes are known.
        weights: Its large tensors.

    Returns:
        The number of Transposes that went away, less those that were added.
    """
    kinds = {node.op_type for node in model.graph.node}
    if "Transpose" not in kinds or bodies(model.graph):
        return 0
    dropped = 0
    while region := _worthwhile(GraphView(model.graph)):
        region.rewrite(model, weights)
        dropped += region.gain
    return dropped


def _worthwhile(view: GraphView) -> _Region | None:
    """Return the first region that is worth rewriting."""
    seen: set[str] = set()
    for node in view.nodes:
        if _leads_to_last(view, node) and node.output[0] not in seen:
            region = _Region(view, node.output[0])
            if region.gain > 0:
                return region
            seen |= region.values
    return None


def _leads_to_last(view: GraphView, node: NodeProto) -> bool:
    if node.op_type != "Transpose":
        return False
    rank = len(view.shapes.get(node.output[0]) or ())
    return rank in (4, 5) and ints(node, "perm") == to_last(rank)


class _Region:
    """The channels-last values that are connected with one of them.

    Attributes:
        values: Their names.
        gain: Transposes that go away if it is rewritten, less those that have to be added.
    """

    def __init__(self, view: GraphView, start: str) -> None:
        self._view = view
        self.values = {start}
        self._rank = len(view.shapes[start])
        self._inner: dict[int, NodeProto] = {}
        queue = [start]
        while queue:
            value = queue.pop()
            maker = view.producer.get(value)
            for node in (*([maker] if maker else []), *view.consumers[value]):
                if id(node) in self._inner or not self._fits(node):
                    continue
                self._inner[id(node)] = node
                found = {*self._data(node), node.output[0]} - self.values
                self.values |= found
                queue += found
        self._entries = [view.producer[name] for name in sorted(self.values) if self._enters(name)]
        self._open = [name for name in sorted(self.values) if self._is_open(name)]
        readers = [node for name in sorted(self.values) for node in view.consumers[name]]
        self._exits = [node for node in readers if self._leaves(node)]
        self._pools = [node for node in readers if self._pools_extents(node)]
        self._outside = [name for name in sorted(self.values) if self._is_read_outside(name)]
        self.gain = len(self._entries) + len(self._exits) - len(self._open) - len(self._outside)

    def _fits(self, node: NodeProto) -> bool:
        """Return whether a node can work on channels-first values as well."""
        shapes = [self._view.shapes.get(name) for name in (*self._data(node), node.output[0])]
        if any(shape is None or len(shape) != self._rank for shape in shapes) or any(node.output[1:]):
            return False
        if node.op_type in BROADCAST:
            constants = [name for name in node.input if self._view.is_constant(name)]
            return all(len(self._view.shapes[name]) <= self._rank for name in constants)
        return node.op_type in UNARY | NAMING

    def _data(self, node: NodeProto) -> list[str]:
        """Return the inputs of a node that are in its output's layout."""
        given = [node.input[0]] if node.op_type in UNARY else list(node.input)
        return [name for name in given if name and not self._view.is_constant(name)]

    def _enters(self, value: str) -> bool:
        maker = self._view.producer.get(value)
        return maker is not None and id(maker) not in self._inner and _leads_to_last(self._view, maker)

    def _is_open(self, value: str) -> bool:
        """Return whether a value comes into the region as it is, channels-last."""
        maker = self._view.producer.get(value)
        return (maker is None or id(maker) not in self._inner) and not self._enters(value)

    def _leaves(self, node: NodeProto) -> bool:
        return node.op_type == "Transpose" and ints(node, "perm") == to_first(self._rank)

    def _pools_extents(self, node: NodeProto) -> bool:
        """Return whether a node reduces all extents, so that nothing but batch and channels is left."""
        if not node.op_type.startswith("Reduce") or integer(node, "keepdims", 1) or len(node.input) < 2:
            return False
        axes = self._view.constant(node.input[1])
        extents = set(range(1, self._rank - 1))
        return axes is not None and {int(axis) % self._rank for axis in axes.ravel()} == extents

    def _is_read_outside(self, value: str) -> bool:
        """Return whether somebody needs a value channels-last."""
        readers = [node for node in self._view.consumers[value] if id(node) not in self._inner]
        outside = [node for node in readers if not self._leaves(node) and not self._pools_extents(node)]
        return bool(outside) or value in self._view.outputs

    def rewrite(self, model: onnx.ModelProto, weights: Weights) -> None:
        """Bring the region to channels-first, in place."""
        taken = value_names(model.graph)
        first = {name: fresh(f"{name}/channels_first", taken) for name in sorted(self.values)}
        first |= {node.output[0]: node.input[0] for node in self._entries}
        dropped = {id(node) for node in (*self._entries, *self._exits)}
        aliases = {node.output[0]: first[node.input[0]] for node in self._exits}
        for node in self._inner.values():
            self._turn(node, first, model, weights, taken)
        for node in self._pools:
            axes = fresh(f"{node.output[0]}/axes", taken)
            add_initializer(model, weights, axes, np.arange(2, self._rank))
            replace(node.input, [first[node.input[0]], axes])
        added = [_transpose(name, first[name], to_first(self._rank)) for name in self._open]
        needed = [name for name in self._outside if name not in self._open]
        added += [_transpose(first[name], name, to_last(self._rank)) for name in needed]
        kept = [node for node in self._view.nodes if id(node) not in dropped]
        _rename(kept, aliases)
        outputs = [value.name for value in model.graph.output if value.name in aliases]
        added += [onnx.helper.make_node("Identity", [aliases[name]], [name], name=name) for name in outputs]
        known = [value for value in model.graph.value_info if value.name not in self.values]
        replace(model.graph.value_info, known)
        replace(model.graph.node, sort_nodes([*kept, *added]))

    def _turn(
        self,
        node: NodeProto,
        first: dict[str, str],
        model: onnx.ModelProto,
        weights: Weights,
        taken: Counter[str],
    ) -> None:
        """Make a node of the region work on channels-first values."""
        data = set(self._data(node))
        for index, name in enumerate(node.input):
            if name in data:
                node.input[index] = first[name]
            elif name and node.op_type in BROADCAST | {"Concat"}:
                tensor = self._view.initializers[name]
                turned = self._turned(array_of(tensor, weights))
                node.input[index] = fresh(f"{name}/channels_first", taken)
                add_initializer(model, weights, node.input[index], turned)
        node.output[0] = first[node.output[0]]
        for item in node.attribute:
            if item.name == "axis" and node.op_type in NAMING:
                item.i = to_last(self._rank)[item.i % self._rank]
        if node.op_type in ("Softmax", "LogSoftmax") and integer(node, "axis", -1) == -1:
            node.attribute.append(onnx.helper.make_attribute("axis", 1))

    def _turned(self, constant: Array) -> Array:
        """Return a constant that broadcasts with channels-first values."""
        full = constant.reshape((1,) * (self._rank - constant.ndim) + constant.shape)
        return np.ascontiguousarray(full.transpose(to_first(self._rank)))


def _transpose(source: str, target: str, axes: tuple[int, ...]) -> NodeProto:
    return onnx.helper.make_node("Transpose", [source], [target], name=target, perm=axes)


def _rename(nodes: Iterable[NodeProto], aliases: dict[str, str]) -> None:
    for node in nodes:
        for index, name in enumerate(node.input):
            while name in aliases:
                name = node.input[index] = aliases[name]
