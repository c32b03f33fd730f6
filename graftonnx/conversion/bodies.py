"""Graphs inside nodes become modules of their own; what they read from outside becomes their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto
from torch import fx

from graftonnx.conversion.arguments import identifier
from graftonnx.conversion.builder import TYPE, VALUE, Builder
from graftonnx.conversion.source import infer
from graftonnx.conversion.values import Size, Type, Value, Weight, is_symbolic


@dataclass(frozen=True, eq=False)
class Body:
    """A converted graph.

    Attributes:
        module: Called with the graph's inputs, then with `captured`; returns a tuple.
        captured: What the graph reads from outside, as values of the graph around it.
        inputs: What the graph's own inputs are inside.
        outputs: What its outputs are inside.
    """

    module: fx.GraphModule
    captured: tuple[Any, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[Value, ...]


class BodyBuilder(Builder):
    """Emits the code of a graph inside a node. Weights stay with the outermost module.

    Attributes:
        captured: Values of the graph around, in the order of the placeholders that stand for them.
        inferred: Types that follow from what is captured.
    """

    def __init__(self, outer: Builder, body: GraphProto, statistics: frozenset[str]) -> None:
        super().__init__(outer.source, outer.frozen_names, outer.uses)
        self.inferred: dict[str, Type] = {}
        self._body = body
        self._seen: dict[str, Value] = {}
        self._known: dict[str, Type] = {}
        self.settings = outer.settings
        self.captured: list[Any] = []
        self._statistics = statistics
        self._outside: dict[int, tuple[Weight, Weight]] = {}
        self._standins: dict[Any, fx.Node] = {}

    def input(self, name: str) -> fx.Node:
        """Add an input to the module, under a name that no other input has."""
        node = self.graph.placeholder(name)
        node.target = node.name
        return node

    def capture(self, name: str, value: Value) -> Value:
        """Return what stands inside for the value `name` of the graph around."""
        inside = self._seen[name] = self._captured(value)
        return inside

    def _captured(self, value: Value) -> Value:
        if isinstance(value, fx.Node):
            return self._placeholder(value, value.name)
        if isinstance(value, Weight):
            # Several uses: then operators call functions with it, instead of making a layer that owns it.
            inside = Weight(value.name, value.array, max(2, value.uses), value.trainable)
            self._outside[id(inside)] = (inside, value)
            return self._parameter(inside) if value.name in self._statistics else inside
        if isinstance(value, np.ndarray) and is_symbolic(value):
            items = [self._size(item) if isinstance(item, Size) else item for item in value.flat]
            inner = np.empty(value.shape, dtype=object)
            inner.flat[:] = items
            return inner
        return value

    def _size(self, size: Size) -> Size:
        return Size(self._placeholder(size.node, size.node.name), natural=size.natural)

    def _parameter(self, weight: Weight) -> fx.Node:
        known = self._outside.get(id(weight))
        if known is None:
            return super()._parameter(weight)
        node = self._placeholder(known[1], identifier(weight.name))
        node.meta[TYPE] = self.type(weight)
        return node

    def _placeholder(self, outer: Any, name: str) -> fx.Node:
        known = self._standins.get(outer)
        if known is None:
            known = self._standins[outer] = self.input(name)
            self.captured.append(outer)
            if isinstance(outer, fx.Node) and TYPE in outer.meta:
                known.meta[TYPE] = outer.meta[TYPE]
        return known

    def _learn(self) -> None:
        """Infer the types inside again, with the captured values and with what conversion has found out."""
        noted = {node.meta[VALUE]: node for node in self.graph.nodes if VALUE in node.meta}
        facts = {name: self.type(value) for name, value in self._seen.items()}
        facts.update((name, node.meta[TYPE]) for name, node in noted.items() if TYPE in node.meta)
        facts = {name: fact for name, fact in facts.items() if fact.dtype and fact.shape is not None}
        if facts == self._known:
            return
        self._known = facts
        self.inferred = infer_body(self._body, self.source.opsets, facts, self._seen)
        for name, node in noted.items():
            if self.inferred.get(name, Type()).shape is not None:
                node.meta[TYPE] = self.inferred[name]


def infer_body(
    body: GraphProto, opsets: dict[str, int], facts: dict[str, Type], seen: dict[str, Value]
) -> dict[str, Type]:
    """Return the types in a body, as far as ONNX infers them.

    Args:
        body: Not changed.
        opsets: Domain -> version.
        facts: Value name -> what is known about it.
        seen: The values of the graph around that the body reads.
    """
    model = onnx.helper.make_model(
        GraphProto(), opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]
    )
    model.graph.CopyFrom(body)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in facts:
            _state(value, facts[value.name])
    for name, inside in seen.items():
        if isinstance(inside, np.ndarray) and not is_symbolic(inside) and inside.dtype != object:
            model.graph.initializer.append(onnx.numpy_helper.from_array(inside, name))
        elif name in facts:
            _state(model.graph.input.add(name=name), facts[name])
    inner = facts.keys() - seen.keys() - {value.name for value in model.graph.input}
    for name in inner - {value.name for value in model.graph.output}:
        _state(model.graph.value_info.add(name=name), facts[name])
    return infer(model)[1]


def _state(value: onnx.ValueInfoProto, fact: Type) -> None:
    """Write a type into a declaration."""
    kind = value.type.tensor_type
    kind.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(fact.dtype))
    kind.shape.ClearField("dim")
    kind.shape.SetInParent()
    for extent in fact.shape or ():
        dim = kind.shape.dim.add()
        if extent is not None:
            dim.dim_value = extent
