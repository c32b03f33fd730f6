"""Divisions of integers: the smallest one divided by -1 does not fit, and ends the process in native code.

| divided | is taken where |
|---|---|
| by a constant | it holds no -1 |
| by, or of, extents | they are arranged, chosen or divided: no number below zero comes of that |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from graftonnx.declarations import shortened
from graftonnx.errors import ModelError
from graftonnx.graph import bodies
from graftonnx.normalise.whiles import constants

DIVIDING = frozenset({"Div", "Mod"})

INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})
"""Types that native code divides with the processor's own instruction."""

COUNTED = frozenset({"Shape", "Size", "SequenceLength"})
"""Operators that count what is there."""

PASSING: dict[str, int] = {
    **dict.fromkeys(("Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity"), 1),
    **dict.fromkeys(("Split", "ReduceMax", "ReduceMin", "Transpose", "Expand", "Tile"), 1),
    **dict.fromkeys(("Concat", "Min", "Max", "Div", "Mod"), 1 << 16),
}
"""Operators of whose results none is below zero if none of so many of their inputs is."""

LARGEST = (1 << 31) - 1
"""Of a constant that is no negative number in fewer bits either."""


@dataclass(frozen=True)
class _Scope:
    """What is known of the values of a graph, and of those around it."""

    kinds: Mapping[str, int]
    tensors: Mapping[str, TensorProto]
    makers: Mapping[str, NodeProto]


def divides(graph: GraphProto | onnx.FunctionProto) -> bool:
    """Return whether numbers are divided, here or in graphs inside."""
    return any(node.op_type in DIVIDING for node in graph.node) or any(map(divides, bodies(graph)))


def check_divisions(model: onnx.ModelProto) -> None:
    """Refuse divisions of integers that may end the process.

    Args:
        model: A model or a skeleton whose types are inferred, without functions that divide.

    Raises:
        ModelError: Naming the first such node.
    """
    if divides(model.graph):
        _check(model.graph, _Scope({}, {}, {}))


def _check(graph: GraphProto, outer: _Scope) -> None:
    scope = _Scope(
        {**outer.kinds, **_kinds(graph)},
        {**outer.tensors, **constants(graph)},
        {**outer.makers, **{name: node for node in graph.node for name in node.output if name}},
    )
    for node in graph.node:
        if node.op_type in DIVIDING and not node.domain and _may_overflow(node, scope):
            raise ModelError(
                f"its node '{shortened(node.name or node.output[0])}' ({node.op_type}) divides integers by "
                "what may be -1, which can end the process; expected a constant without -1, or extents. "
                "Divide by that, or divide floats."
            )
    for body in bodies(graph):
        if divides(body):
            _check(body, scope)


def _kinds(graph: GraphProto) -> dict[str, int]:
    """Return the element types that a graph tells."""
    values = (*graph.value_info, *graph.input, *graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _may_overflow(node: NodeProto, scope: _Scope) -> bool:
    names = (*node.input[:2], *node.output[:1])
    found = {
        scope.tensors[name].data_type if name in scope.tensors else scope.kinds.get(name) for name in names
    }
    if INTEGERS.isdisjoint(found) or len(node.input) < 2:
        return False
    divisor = scope.tensors.get(node.input[1])
    if divisor is not None:
        return bool((numpy_helper.to_array(divisor) == -1).any())
    return not (_is_extent(node.input[1], scope) or _is_extent(node.input[0], scope))


def _is_extent(name: str, scope: _Scope) -> bool:
    """Return whether no number of a value can be below zero."""
    waiting, seen = [name], {name}
    while waiting:
        name = waiting.pop()
        if name in scope.tensors:
            array = numpy_helper.to_array(scope.tensors[name])
            if array.dtype.kind not in "iu" or (
                array.size and not 0 <= array.min() <= array.max() <= LARGEST
            ):
                return False
            continue
        node = scope.makers.get(name)
        if node is None or node.domain:
            return False
        if node.op_type in COUNTED:
            continue
        given = 1 if _widens(node) else PASSING.get(node.op_type, 0)
        if not given:
            return False
        waiting += [item for item in node.input[:given] if item and item not in seen]
        seen.update(node.input[:given])
    return True


def _widens(node: NodeProto) -> bool:
    """Return whether a node makes integers of 32 or 64 bits of what it is given."""
    return node.op_type == "Cast" and any(item.name == "to" and item.i in INTEGERS for item in node.attribute)
