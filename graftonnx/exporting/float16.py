"""Make a float16 network of a float32 one.

Every float value becomes float16 where the operator's schema lets it, and a Cast stands where the two meet:

    x: float32 ─ (Cast) ─ Conv ─ Relu ─ … ─ Gemm ─ (Cast) ─ Softmax ─ y: float32

What stays in float32:

- the inputs and outputs of the graph, the normalisation in front of the first weights, the last Softmax;
- inputs that the standard wants so (the scales of a Resize), and operators that know no float16;
- nodes with a constant that float16 cannot hold: beyond 65504, or one number below 6.1e-5. The bounds of a
  Clip and their like are cut off at 65504 instead, which is as good as infinity there;
- BatchNormalization, whose variances may be smaller than anything in float16, and what does not run in it;
- the nodes named by the caller, for instance since their values leave the range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, defs, helper

from graftonnx.costs import WEIGHTED
from graftonnx.errors import UnsupportedOpError
from graftonnx.graph import GraphView, subgraphs
from graftonnx.normalise.constants import replace
from graftonnx.normalise.dtypes import TYPED
from graftonnx.normalise.inference import add_shapes
from graftonnx.normalise.names import fresh, value_names
from graftonnx.normalise.opset import declared_opset
from graftonnx.normalise.types import element_types
from graftonnx.weights import Weights, add_initializer, array_of

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
HALF_WORD = "tensor(float16)"

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).tiny)

SATURATING = frozenset({"Clip", "Max", "Min", "Pad", "Where"})
"""Operators whose constants may be cut off at the end of the range."""

KEPT = frozenset(
    {"BatchNormalization", "MeanVarianceNormalization", "ScatterElements", "ScatterND"}
    | (TYPED - {"Cast", "Constant"})
)
"""Operators that stay in float32. ONNX Runtime loads the scatters in float16, but fails when it runs them;
where its CPU provider has no float16 kernel at all, it casts by itself."""


def to_float16(model: onnx.ModelProto, weights: Weights, kept: Collection[str] = ()) -> onnx.ModelProto:
    """Return a network in float16; the skeleton `model` and `weights` are used up.

    Args:
        model: The skeleton, with the types of its values.
        weights: Its large tensors.
        kept: Nodes that stay in float32 as well, by their first output.

    Raises:
        UnsupportedOpError: If a node holds graphs.
    """
    _Halving(model, weights, kept).run()
    return add_shapes(model)


def first_nodes(view: GraphView) -> list[NodeProto]:
    """Return the nodes in front of the first weights on every path from the inputs: the normalisation."""
    early, found = set(view.inputs), []
    for node in view.nodes:
        data = view.dynamic_inputs(node)
        if node.op_type not in WEIGHTED and data and early.issuperset(data):
            early.update(node.output)
            found.append(node)
    return found


class _Halving:
    """Decides the type of every value, then rewrites the nodes in order, in place."""

    def __init__(self, model: onnx.ModelProto, weights: Weights, kept: Collection[str]) -> None:
        self._model, self._weights = model, weights
        self._view = GraphView(model.graph)
        self._opset = declared_opset(model)
        self._floats = {name for name, kind in element_types(model.graph).items() if kind == FLOAT}
        last = (self._view.producer.get(name) for name in self._view.outputs)
        softmaxes = {node.output[0] for node in last if node is not None and node.op_type == "Softmax"}
        self._kept = {*kept, *softmaxes, *(node.output[0] for node in first_nodes(self._view))}
        self._taken = value_names(model.graph)
        self._made = dict.fromkeys(self._view.inputs, FLOAT)
        self._wanted: defaultdict[str, set[int]] = defaultdict(set)
        self._names: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        view, graph = self._view, self._model.graph
        plans = [self._plan(node) for node in view.nodes]
        for name in view.outputs:
            self._wanted[name].add(FLOAT)
        self._set_names()
        nodes = [self._cast(name) for name in view.inputs if len(self._both(name)) > 1]
        self._convert_initializers()
        for node, (reads, made) in zip(view.nodes, plans, strict=True):
            outputs = list(node.output)
            for index, kind in reads.items():
                node.input[index] = self._names[node.input[index], kind]
            for index, kind in made.items():
                node.output[index] = self._names[outputs[index], kind]
            if node.op_type == "Cast" and made.get(0) == HALF:
                next(item for item in node.attribute if item.name == "to").i = HALF
            nodes.append(node)
            nodes += [self._cast(outputs[index]) for index in made if len(self._both(outputs[index])) > 1]
        replace(graph.node, nodes)
        for value in graph.value_info:
            if value.name in self._floats and self._names[value.name, HALF] == value.name:
                value.type.tensor_type.elem_type = HALF

    def _plan(self, node: NodeProto) -> tuple[dict[int, int], dict[int, int]]:
        """Return the type of every float input and output of a node, by position."""
        if subgraphs(node):
            raise UnsupportedOpError(
                f"node '{node.name or node.output[0]}' ({node.op_type}) holds graphs, which stay in float32. "
                "Choose another --precision."
            )
        stays = node.domain or node.op_type in KEPT or node.output[0] in self._kept
        schema = None if stays else defs.get_schema(node.op_type, self._opset, "")
        reads = {
            index: FLOAT if schema is None else _half_or_float(schema.inputs, index)
            for index, name in enumerate(node.input)
            if name in self._floats
        }
        made = {
            index: FLOAT if schema is None else _half_or_float(schema.outputs, index)
            for index, name in enumerate(node.output)
            if name in self._floats
        }
        halves = HALF in reads.values() or node.op_type == "Cast"
        if not halves or FLOAT in made.values() or not self._fits(node, reads):
            reads, made = dict.fromkeys(reads, FLOAT), dict.fromkeys(made, FLOAT)
        for index, kind in reads.items():
            self._wanted[node.input[index]].add(kind)
        self._made.update({node.output[index]: kind for index, kind in made.items()})
        return reads, made

    def _fits(self, node: NodeProto, reads: dict[int, int]) -> bool:
        """Return whether float16 holds the constants that a node would read."""
        names = [node.input[index] for index, kind in reads.items() if kind == HALF]
        arrays = [self._array(name) for name in names if name in self._view.initializers]
        return all(_fits(array, saturating=node.op_type in SATURATING) for array in arrays)

    def _array(self, name: str) -> NDArray[Any]:
        return array_of(self._view.initializers[name], self._weights)

    def _both(self, name: str) -> set[int]:
        """Return the types in which a value that a node makes, or an input, is there."""
        return self._wanted[name] | {self._made[name]}

    def _set_names(self) -> None:
        """Name both forms of every value; the graph's inputs and outputs keep their names in float32."""
        outside = {*self._view.inputs, *self._view.outputs}
        for name in self._floats:
            own = FLOAT if name in outside else self._made.get(name, HALF)
            other = FLOAT + HALF - own
            self._names[name, own] = name
            suffix = "float16" if other == HALF else "float32"
            self._names[name, other] = fresh(f"{name}/{suffix}", self._taken)

    def _cast(self, name: str) -> NodeProto:
        """Return the node that makes the other form of a value."""
        kind = self._made[name]
        source, target = self._names[name, kind], self._names[name, FLOAT + HALF - kind]
        return helper.make_node("Cast", [source], [target], f"{target}/cast", to=FLOAT + HALF - kind)

    def _convert_initializers(self) -> None:
        """Replace constants by their float16 form where that is read; keep the other where that is."""
        graph = self._model.graph
        for name in [tensor.name for tensor in graph.initializer if tensor.name in self._floats]:
            if HALF not in self._wanted[name]:
                self._names[name, FLOAT] = name
                continue
            array = self._array(name)
            replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name != name])
            self._weights.pop(name, None)
            bounded = np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), array)
            add_initializer(self._model, self._weights, name, bounded.astype(np.float16))
            if FLOAT in self._wanted[name]:
                add_initializer(self._model, self._weights, self._names[name, FLOAT], array)


def _half_or_float(formals: Any, index: int) -> int:
    return HALF if HALF_WORD in formals[min(index, len(formals) - 1)].types else FLOAT


def _fits(array: NDArray[Any], *, saturating: bool) -> bool:
    """Return whether float16 holds an array: nothing is too large, nor a single number too small."""
    sizes = np.abs(array[np.isfinite(array)]) if array.ndim else np.abs(array).reshape(1)
    if not saturating and (sizes > LARGEST).any():
        return False
    return array.size > 1 or not sizes.any() or bool((sizes >= SMALLEST).all())
