"""Write a network in another opset: older for older runtimes, newer for newer tools.

onnx's version converter goes up well. Down it cannot take a Relu from 14 to 13, which differ in a type that
nobody uses here, and it leaves a ReduceMean the input that opset 17 does not know. So here each operator is
compared with its older schema: it stays where the older one can say the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, defs, helper, version_converter

from graftonnx.errors import UnsupportedOpError
from graftonnx.graph import GraphView, attribute, integer, ints, subgraphs
from graftonnx.normalise.constants import constants_to_initializers, drop_dead, fold, replace
from graftonnx.normalise.inference import add_shapes
from graftonnx.normalise.names import fresh, value_names
from graftonnx.normalise.opset import OLDEST, declared_opset, expand
from graftonnx.normalise.types import element_types
from graftonnx.weights import Weights, add_initializer

OLDEST_IR = 4
"""Before this IR version, weights are inputs of the graph."""

FLATTENING = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
"""Operators that before opset 13 took all axes from theirs on as one."""


def to_opset(model: onnx.ModelProto, weights: Weights, opset: int) -> onnx.ModelProto:
    """Return a network in another opset; the skeleton `model` is used up.

    Args:
        model: The skeleton, with the shapes of its values.
        weights: Its large tensors.
        opset: Of the default domain.

    Raises:
        UnsupportedOpError: If an operator cannot be said in that opset, naming its node.
    """
    current, newest = declared_opset(model), defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        raise UnsupportedOpError(
            f"opset {opset} is unknown here; {OLDEST} to {newest} are supported. Choose one of these."
        )
    if opset > current:
        model = _raised(model, opset)
    elif opset < current:
        model = _expanded(model, weights, current, opset)
        _Lowering(model, weights, current, opset).run()
        drop_dead(model, weights)
    else:
        return model
    model.ir_version = max(OLDEST_IR, helper.find_min_ir_version_for(model.opset_import))
    return add_shapes(model)


def resize_all_axes(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Return a network whose every Resize gives sizes for all axes; the skeleton `model` is used up.

    From opset 18 on it may name axes. ONNX Runtime 1.31 loses the sizes of these where it moves the channels
    of a network of 8 bits to the end.
    """
    opset = declared_opset(model)
    _Lowering(model, weights, opset, opset).resize_all_axes()
    return add_shapes(model)


def _raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, opset)
    except RuntimeError as error:
        raise UnsupportedOpError(f"it cannot be brought to opset {opset}: {error}") from error


def _expanded(model: onnx.ModelProto, weights: Weights, current: int, opset: int) -> onnx.ModelProto:
    """Return a network with the standard's definition in the place of operators that `opset` lacks."""
    kinds = {node.op_type for node in model.graph.node if not node.domain}
    lacking = {kind for kind in kinds if not defs.has(kind, opset, "")}
    if not lacking:
        return model
    model = expand(model, lacking, current)
    constants_to_initializers(model, weights)
    model = add_shapes(model)
    fold(model, weights)
    return add_shapes(model)


class _Lowering:
    """Rewrites nodes from one opset to an older one, in place."""

    def __init__(self, model: onnx.ModelProto, weights: Weights, current: int, opset: int) -> None:
        self._model, self._weights = model, weights
        self._current, self._opset = current, opset
        self._view = GraphView(model.graph)
        self._types = element_types(model.graph)
        self._taken = value_names(model.graph)
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, np.ndarray[Any, Any]] = {}

    def run(self) -> None:
        for node in self._view.nodes:
            reason = self._lower(node)
            if reason:
                raise UnsupportedOpError(
                    f"node '{node.name or node.output[0]}' ({node.op_type}) cannot be written in opset "
                    f"{self._opset}: {reason}. Choose a newer --opset."
                )
            self._nodes.append(node)
        replace(self._model.graph.node, self._nodes)
        for entry in self._model.opset_import:
            if not entry.domain:
                entry.version = self._opset

    def resize_all_axes(self) -> None:
        """Let every Resize give sizes for all axes; nothing else changes."""
        for node in self._view.nodes:
            if node.op_type == "Resize" and not node.domain:
                self._size_all_axes(node)
            self._nodes.append(node)
        replace(self._model.graph.node, self._nodes)

    def _lower(self, node: NodeProto) -> str | None:
        """Rewrite a node; return why that cannot be, without a full stop."""
        if node.domain:
            return None
        if subgraphs(node):
            return "it holds graphs"
        if not defs.has(node.op_type, self._opset, ""):
            return "that has no such operator"
        steps = {
            "Reshape": self._lower_reshape,
            "Resize": self._lower_resize,
            "Shape": self._lower_shape,
            "Split": self._lower_split,
        }
        if node.op_type in steps:
            steps[node.op_type](node)
        new, old = (defs.get_schema(node.op_type, opset, "") for opset in (self._current, self._opset))
        if new.since_version == old.since_version:
            return None
        if node.op_type in FLATTENING and old.since_version < 13 and not self._takes_last_axis(node):
            return "its axis is not the last one"
        return (
            self._inputs_to_attributes(node, new, old)
            or self._fit_attributes(node, new, old)
            or self._fit_inputs(node, old)
        )

    def _inputs_to_attributes(self, node: NodeProto, new: Any, old: Any) -> str | None:
        """Before: `ReduceMean(x, axes)`. After: `ReduceMean<axes>(x)`."""
        for index, name in list(enumerate(node.input))[:0:-1]:
            formal = new.inputs[min(index, len(new.inputs) - 1)].name
            key = formal if formal in old.attributes else formal.lower()
            if key not in old.attributes or formal in {entry.name for entry in old.inputs}:
                continue
            if name:
                constant = self._constants.get(name, self._view.constant(name))
                if constant is None:
                    return f"its input '{formal}' is not constant"
                node.attribute.append(helper.make_attribute(key, constant.tolist()))
            node.input[index] = ""
        while node.input and not node.input[-1]:
            node.input.pop()
        return None

    def _fit_attributes(self, node: NodeProto, new: Any, old: Any) -> str | None:
        """Drop attributes at their default that the older schema lacks; spell out defaults that differ."""
        given = {item.name for item in node.attribute}
        for item in list(node.attribute):
            if item.name in old.attributes:
                continue
            default = new.attributes[item.name].default_value
            is_unit = item.name == "dilations" and set(item.ints) == {1}
            if not is_unit and helper.get_attribute_value(item) != _value(default):
                return f"it has the attribute '{item.name}'"
            node.attribute.remove(item)
        for name, formal in old.attributes.items():
            later = new.attributes.get(name)
            if name in given or later is None or _value(later.default_value) == _value(formal.default_value):
                continue
            if _value(later.default_value) is None:
                return f"its attribute '{name}' would mean something else"
            node.attribute.append(helper.make_attribute(name, _value(later.default_value)))
        return None

    def _fit_inputs(self, node: NodeProto, old: Any) -> str | None:
        """Return why the inputs and their types do not fit the older schema, if they do not."""
        if not old.min_input <= len(node.input) <= old.max_input:
            return f"it has {len(node.input)} inputs"
        for index, name in enumerate(node.input):
            formal = old.inputs[min(index, len(old.inputs) - 1)]
            kind = self._types.get(name)
            word = f"tensor({TensorProto.DataType.Name(kind).lower()})" if kind else None
            if name and word is not None and word not in formal.types:
                return f"its input '{formal.name}' is {word}"
            if not name and index < old.min_input:
                return f"its input '{formal.name}' is missing"
        return None

    def _takes_last_axis(self, node: NodeProto) -> bool:
        shape = self._view.shapes.get(node.input[0])
        return shape is not None and attribute(node, "axis", -1) in (-1, len(shape) - 1)

    def _lower_split(self, node: NodeProto) -> None:
        """Drop `num_outputs` where all outputs are equally wide, as they are without it."""
        shapes = {self._view.shapes.get(name) for name in node.output}
        if self._opset < 18 and len(shapes) == 1 and None not in shapes:
            replace(node.attribute, [item for item in node.attribute if item.name != "num_outputs"])

    def _lower_shape(self, node: NodeProto) -> None:
        """Before: `Shape<start, end>(x)`. After: `Slice(Shape(x), start, end)`, with the Shape in front."""
        rank = len(self._view.shapes.get(node.input[0], ()))
        bounds = [integer(node, "start", 0), integer(node, "end", rank)]
        if self._opset >= 15 or not node.attribute or not rank:
            return
        shape = self._add("Shape", [node.input[0]], f"{node.output[0]}/whole")
        starts, ends = (np.array([bound % rank if bound < 0 else bound]) for bound in bounds)
        names = [self._constant(f"{shape}/{word}", v) for word, v in (("starts", starts), ("ends", ends))]
        node.op_type = "Slice"
        del node.attribute[:]
        replace(node.input, [shape, *names])

    def _lower_reshape(self, node: NodeProto) -> None:
        """Drop `allowzero` where no extent is zero."""
        target = self._view.constant(node.input[1])
        if self._opset < 14 and target is not None and 0 not in target:
            replace(node.attribute, [item for item in node.attribute if item.name != "allowzero"])

    def _lower_resize(self, node: NodeProto) -> None:
        """Give sizes for all axes in the place of the last ones; before opset 13, an empty roi and scales."""
        if self._opset >= 18:
            return
        self._size_all_axes(node)
        for index, name in enumerate(node.input[1:3] if self._opset < 13 else (), 1):
            node.input[index] = name or self._constant(f"{node.name}/none", np.zeros(0, np.float32))

    def _size_all_axes(self, node: NodeProto) -> None:
        axes, rank = ints(node, "axes"), len(self._view.shapes.get(node.input[0], ()))
        sizes = self._view.constant(node.input[3]) if len(node.input) > 3 else None
        if (
            axes
            and sizes is not None
            and rank
            and [axis % rank for axis in axes] == list(range(rank))[-len(axes) :]
        ):
            node.input[3] = self._all_sizes(node.input[0], node.input[3], rank - len(axes))
            replace(node.attribute, [item for item in node.attribute if item.name != "axes"])

    def _all_sizes(self, source: str, sizes: str, leading: int) -> str:
        """Return the value that holds the first extents of `source`, and `sizes` behind them."""
        first = self._constant(f"{source}/first", np.zeros(1, np.int64))
        end = self._constant(f"{source}/leading", np.full(1, leading, np.int64))
        shape = self._add("Shape", [source], f"{source}/shape")
        kept = self._add("Slice", [shape, first, end], f"{source}/kept")
        return self._add("Concat", [kept, sizes], f"{source}/sizes", axis=0)

    def _add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        name = fresh(name, self._taken)
        self._nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def _constant(self, name: str, values: np.ndarray[Any, Any]) -> str:
        name = fresh(name, self._taken)
        add_initializer(self._model, self._weights, name, values)
        self._constants[name] = values
        return name


def _value(default: onnx.AttributeProto) -> Any:
    """Return an attribute's default; None where it has none."""
    return helper.get_attribute_value(default) if default.type else None
