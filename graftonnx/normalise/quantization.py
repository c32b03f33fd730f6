"""Make a float network of a quantised one: `Q ─ DQ` pairs go, `QLinear…` operators get their float form.

    x ─ QuantizeLinear ─ DequantizeLinear ─ Conv     becomes     x ─ Conv
    x ─ QLinearConv(W, …)                            becomes     x ─ Conv(scale · (W - zero point), …)

Numbers stay within the rounding of the quantised file, but for values beyond its calibrated range, which no
longer saturate. Where the smallest number that a type can hold means 0, quantisers leave out the activation
in front, since saturation does its work: there a `Relu` (or a `Clip` to 6) comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import NodeProto

from graftonnx.errors import ModelError, UnsupportedOpError
from graftonnx.graph import GraphView, integer
from graftonnx.normalise.constants import drop_dead, fold, replace
from graftonnx.normalise.opset import DEFAULT_DOMAINS
from graftonnx.remarks import copy_remarks
from graftonnx.tensors import Array
from graftonnx.weights import Weights, add_initializer, array_of

MICROSOFT = "com.microsoft"

FLOAT_FORM = {
    "QLinearConv": "Conv",
    "QLinearMatMul": "MatMul",
    "QLinearAdd": "Add",
    "QLinearMul": "Mul",
    "QLinearConcat": "Concat",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearAveragePool": "AveragePool",
    "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSoftmax": "Softmax",
    "QGemm": "Gemm",
}
"""Operators on quantised numbers, and the operators on floats that they stand for."""

LEAST = {
    "QLinearConv": 8,
    "QLinearMatMul": 8,
    "QLinearAdd": 7,
    "QLinearMul": 7,
    "QLinearConcat": 5,
    "QGemm": 6,
}
"""Inputs of these at least; of the others 4."""

QUANTISED = frozenset(FLOAT_FORM) | {
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QAttention",
}

MOVING = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "Gather", "Slice"}
    | {"Split", "Dropout", "Concat"}
)
"""Operators that work on quantised numbers as on others, since they only choose and move them."""

FOLDED = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Reshape", "Transpose"})
"""What makes constant numbers and scales, and means the same in every opset."""

NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp"})
KEEPING = MOVING | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Add", "Mul"}
"""Operators that make nothing negative of what is not."""

SIX_TOLERANCE = 1e-3


def check_float(model: onnx.ModelProto, kinds: Collection[str] | None = None) -> None:
    """Refuse a network that computes with quantised numbers.

    Args:
        model: The network.
        kinds: The operators of its nodes, if they are known.

    Raises:
        UnsupportedOpError: Naming the first such node.
    """
    if kinds is not None and QUANTISED.isdisjoint(kinds):
        return
    node = first_quantised(model)
    if node is not None:
        raise UnsupportedOpError(
            f"it is quantised: node '{node.name or node.output[0]}' is operator '{node.op_type}', whose "
            "rounding cannot be trained. Give the network from before quantisation, or pass --dequantize."
        )


def first_quantised(model: onnx.ModelProto) -> NodeProto | None:
    """Return the first node that computes with quantised numbers; None if there is none."""
    domains = (*DEFAULT_DOMAINS, MICROSOFT)
    return next((n for n in model.graph.node if n.op_type in QUANTISED and n.domain in domains), None)


def dequantise(model: onnx.ModelProto, weights: Weights) -> int:
    """Make a float network of a quantised one, in place; a float network stays as it is.

    Args:
        model: A skeleton whose constants are initializers.
        weights: Its large tensors.

    Returns:
        The number of operators on quantised numbers that went away.

    Raises:
        ModelError: If an operator works on quantised numbers in a way that has no float form here.
    """
    for node in model.graph.node:
        if node.domain == MICROSOFT and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.ClearField("domain")
    fold(model, weights, FOLDED)
    rewriting = _Dequantising(model, weights)
    for node in rewriting.view.nodes:
        rewriting.take(node)
    replace(model.graph.node, rewriting.nodes)
    drop_dead(model, weights)
    return rewriting.count


class _Dequantising:
    """Walks through the nodes in order and collects those of the float network.

    Attributes:
        nodes: Of the float network.
        count: Operators on quantised numbers so far.
    """

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self.model = model
        self.weights = weights
        self.view = GraphView(model.graph)
        self.nodes: list[NodeProto] = []
        self.count = 0
        self._floats: dict[str, str] = {}
        self._quantised: set[str] = set()
        self._positive: set[str] = set()

    def take(self, node: NodeProto) -> None:
        """Enter the float form of a node."""
        if node.op_type == "QuantizeLinear":
            self._quantise(node)
        elif node.op_type == "DequantizeLinear" and node.input[0] in self._quantised:
            self._alias(node)
        elif node.op_type in FLOAT_FORM:
            self._operate(node)
        elif node.op_type in QUANTISED:
            raise ModelError(f"{_where(node)} quantises while it runs; it has no float form here. {_ADVICE}")
        else:
            self._copy(node)

    def _float(self, name: str) -> str:
        return self._floats.get(name, name)

    def _emit(self, node: NodeProto) -> None:
        self.nodes.append(node)
        sources = [name for name in node.input if name and not self.view.is_constant(name)]
        if node.op_type in NOT_NEGATIVE or (
            node.op_type in KEEPING and all(name in self._positive for name in sources)
        ):
            self._positive.update(node.output)
        if node.op_type == "Clip" and len(node.input) > 1:
            low = self.view.constant(node.input[1]) if node.input[1] else None
            if low is not None and low.size == 1 and float(low.item()) >= 0:
                self._positive.update(node.output)

    def _copy(self, node: NodeProto) -> None:
        """Enter a node of the float network, or one that only moves quantised numbers."""
        moved = any(name in self._quantised for name in node.input)
        if moved and node.op_type not in MOVING:
            raise ModelError(
                f"{_where(node)} works on quantised numbers; it has no float form here. {_ADVICE}"
            )
        replace(node.input, [self._float(name) for name in node.input])
        self._emit(node)
        if moved:
            self._quantised.update(node.output)

    def _alias(self, node: NodeProto) -> None:
        """Drop a node, and let its readers read what it stands for; a graph output keeps its name."""
        self.count += 1
        source, name = self._float(node.input[0]), node.output[0]
        if name in self.view.outputs:
            self._emit(onnx.helper.make_node("Identity", [source], [name], name=node.name or name))
        else:
            self._floats[name] = source

    def _quantise(self, node: NodeProto) -> None:
        self.count += 1
        scale, zero = self._scale(node.input[1]), node.input[2] if len(node.input) > 2 else ""
        source, name = self._float(node.input[0]), node.output[0]
        self._quantised.add(name)
        self._floats[name] = self._saturated(source, scale, zero, name)

    def _saturated(self, value: str, scale: Array, zero: str, name: str) -> str:
        """Return `value`, behind the activation that the quantised type stood for."""
        lowest, highest = self._range(scale, zero)
        if lowest != 0 or value in self._positive or value in self.view.inputs:
            return value
        output = f"{name}/saturated"
        if abs(highest - 6) < SIX_TOLERANCE:
            for bound, number in (("min", 0), ("max", 6)):
                add_initializer(self.model, self.weights, f"{output}/{bound}", np.array(number, np.float32))
            inputs = [value, f"{output}/min", f"{output}/max"]
            self._emit(onnx.helper.make_node("Clip", inputs, [output], name=output))
        else:
            self._emit(onnx.helper.make_node("Relu", [value], [output], name=output))
        self._positive.add(output)
        return output

    def _range(self, scale: Array, zero: str) -> tuple[float, float]:
        """Return the smallest and the largest number that a quantised type can hold."""
        point = self._scale(zero) if zero else np.array(0, np.uint8)
        limits = np.iinfo(point.dtype) if point.dtype.kind in "iu" else None
        if limits is None or point.size != 1 or scale.size != 1:
            return -np.inf, np.inf
        low, high = limits.min - int(point.item()), limits.max - int(point.item())
        return low * float(scale.item()), high * float(scale.item())

    def _scale(self, name: str) -> Array:
        tensor = self.view.initializers.get(name)
        if tensor is None:
            raise ModelError(f"the scale '{name}' is computed while it runs; it must be constant. {_ADVICE}")
        return array_of(tensor, self.weights)

    def _operand(self, names: Sequence[str], axis: int = 0) -> str:
        """Return the float form of an operand, of which the numbers, the scale and the zero point are named.

        A constant one is computed, with its scale along `axis`.
        """
        quantised, scale, zero = names
        tensor = self.view.initializers.get(quantised)
        if tensor is None:
            return self._float(quantised)
        name = f"{quantised}/float"
        if name not in self._floats:
            numbers = array_of(tensor, self.weights).astype(np.float32)
            point, step = self._scale(zero).astype(np.float32), self._scale(scale)
            shape = [1] * numbers.ndim
            if step.size > 1:
                shape[axis] = step.size
            point = point.reshape(shape) if point.size > 1 else point.reshape([1] * numbers.ndim)
            result = (numbers - point) * step.reshape(shape if step.size > 1 else [1] * numbers.ndim)
            add_initializer(self.model, self.weights, name, result.astype(np.float32))
            self._floats[name] = name
        return name

    def _bias(self, name: str, first: str, second: str) -> str:
        """Return the float form of a bias of int32, whose step is the product of two scales."""
        numbers = array_of(self.view.initializers[name], self.weights).astype(np.float64)
        step = self._scale(first).astype(np.float64) * self._scale(second).astype(np.float64).ravel()
        result = f"{name}/float"
        add_initializer(self.model, self.weights, result, (numbers * step).astype(np.float32))
        return result

    def _operate(self, node: NodeProto) -> None:
        """Enter the float form of an operator on quantised numbers."""
        self.count += 1
        if integer(node, "channels_last", 0):
            raise ModelError(f"{_where(node)} has channels last; it has no float form here. {_ADVICE}")
        inputs, scale, zero = self._operands(node, list(node.input))
        name = node.output[0]
        made = onnx.helper.make_node(FLOAT_FORM[node.op_type], inputs, [name], name=node.name)
        made.attribute.extend(item for item in node.attribute if item.name not in ("channels_last", "opset"))
        if node.op_type == "QLinearSoftmax" and integer(node, "opset", 13) < 13:
            raise ModelError(f"{_where(node)} flattens; it has no float form here. {_ADVICE}")
        copy_remarks(node, made)
        self._emit(made)
        if scale:
            self._quantised.add(name)
            self._floats[name] = self._saturated(name, self._scale(scale), zero, name)

    def _operands(self, node: NodeProto, given: list[str]) -> tuple[list[str], str, str]:
        """Return the inputs of the float form, and names of scale and zero point of the output."""
        kind = node.op_type
        if len(given) < LEAST.get(kind, 4) or (kind == "QLinearConcat" and len(given) % 3 != 2):
            raise ModelError(f"{_where(node)} has {len(given)} inputs, which are too few. Export it again.")
        if kind == "QLinearConcat":
            triples = [given[index : index + 3] for index in range(2, len(given), 3)]
            return [self._operand(triple) for triple in triples], given[0], given[1]
        if kind in ("QLinearConv", "QLinearMatMul"):
            axis = 0 if kind == "QLinearConv" else -1
            inputs = [self._operand(given[:3]), self._operand(given[3:6], axis)]
            inputs += [self._bias(name, given[1], given[4]) for name in given[8:9] if name]
            return inputs, given[6], given[7]
        if kind == "QGemm":
            axis = 0 if integer(node, "transB", 0) else -1
            inputs = [self._operand(given[:3]), self._operand(given[3:6], axis)]
            inputs += [self._bias(name, given[1], given[4]) for name in given[6:7] if name]
            scale, zero = (*given[7:9], "", "")[:2]
            return inputs, scale, zero
        if kind in ("QLinearAdd", "QLinearMul"):
            return [self._operand(given[i : i + 3]) for i in (0, 3)], given[6], (*given[7:8], "")[0]
        return [self._float(given[0])], given[3], (*given[4:5], "")[0]


_ADVICE = "Give the network from before quantisation."


def _where(node: NodeProto) -> str:
    return f"it cannot be dequantised: node '{node.name or node.output[0]}' ({node.op_type})"
