"""Constants become initializers, and what depends on constants alone is computed once, here.

Shape arithmetic counts as constant where the extents are known: `Shape -> Gather -> Concat` chains that old
exporters wrote become plain initializers, even when the batch extent beside them is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from graftonnx.declarations import dense_size, shortened
from graftonnx.errors import ModelError
from graftonnx.graph import GraphView, integer, subgraphs, value_shapes
from graftonnx.limits import bounded, check, limits
from graftonnx.normalise.computing import Operand, Work, compute
from graftonnx.remarks import copy_remarks, quantization_tensors
from graftonnx.shapes import Shape
from graftonnx.tensors import SHARED_BYTES, Computed, Spread
from graftonnx.weights import Weights, add_initializer, array_of
from graftonnx.wire import INLINE_BYTES

IR_OF_WEIGHTS_ALONE = 4
"""The first IR version in which an initializer need not be an input as well."""

MOST_EXTENTS = 1 << 10
"""Of a vector of extents of which some are unknown."""

Array = NDArray[np.generic]


def constants_to_initializers(
    model: onnx.ModelProto, weights: Weights, kinds: Collection[str] | None = None
) -> bool:
    """Replace `Constant` nodes by initializers, and drop initializers from the inputs.

    A file of an older IR version becomes one of version 4, which allows the latter.

    Args:
        model: A skeleton.
        weights: Its large tensors.
        kinds: The operators of its nodes, if they are known.

    Returns:
        Whether there were such nodes.
    """
    graph = model.graph
    nodes = list(graph.node) if kinds is None or "Constant" in kinds else []
    constants = [node for node in nodes if node.op_type == "Constant"]
    spreading = _Spreading(model, weights)
    for node in constants:
        sparse = next((item.sparse_tensor for item in node.attribute if item.name == "sparse_value"), None)
        if sparse is None:
            add_initializer(model, weights, node.output[0], _constant_value(node))
        else:
            spreading.add(node.output[0], sparse)
        copy_remarks(node, graph.initializer[-1])
    if constants:
        replace(graph.node, [node for node in nodes if node.op_type != "Constant"])
    held = {tensor.name for tensor in graph.initializer}
    replace(graph.input, [value for value in graph.input if value.name not in held])
    model.ir_version = max(model.ir_version, IR_OF_WEIGHTS_ALONE)
    for sparse in graph.sparse_initializer:
        spreading.add(sparse.values.name, sparse)
    del graph.sparse_initializer[:]
    return bool(constants)


def fold(
    model: onnx.ModelProto,
    weights: Weights,
    kinds: frozenset[str] | None = None,
    budget: int | None = None,
    work: Work | None = None,
) -> int:
    """Compute every node whose inputs are constant, in place, then drop what nobody reads.

    Args:
        model: A skeleton at the opset inside; at any other if `kinds` mean the same there.
        weights: Its large tensors.
        kinds: The operators that are computed; all of them if None.
        budget: Bytes that what is computed may take; what the limits leave if None.
        work: What may still be computed, in this call and others; as much as a file may ask for if None.

    Returns:
        The number of nodes that went away.

    Raises:
        ModelError: If that takes far more memory than what is computed.
    """
    graph = model.graph
    view = GraphView(graph)
    if not may_fold(view):
        return 0
    before = len(graph.node)
    folding = _Folding(model, weights, budget, work)
    with bounded("computing its constants", 4 * max(folding.budget, 0)):
        kept = [
            node
            for node in view.nodes
            if (kinds is not None and node.op_type not in kinds) or not folding.take(node)
        ]
    if len(kept) == before:
        return 0
    replace(graph.node, kept)
    drop_dead(model, weights)
    return before - len(graph.node)


def may_fold(view: GraphView) -> bool:
    """Return whether there may be work for :func:`fold`: a node that reads only constants, or an extent."""
    known = {"", *view.initializers}
    return "Shape" in view.kinds or "Size" in view.kinds or any(map(known.issuperset, view.given))


def drop_dead(model: onnx.ModelProto, weights: Weights, view: GraphView | None = None) -> bool:
    """Remove nodes, initializers and value infos that no output depends on, in place.

    Args:
        model: A skeleton.
        weights: Its large tensors.
        view: An index over its nodes, if there is one.

    Returns:
        Whether there were any.
    """
    graph = model.graph
    view = view or GraphView(graph)
    outputs = [value.name for value in graph.output]
    alive = view.ancestry(*outputs)
    used = set(outputs).union(*(view.read[position] for position in alive))
    made = {name for position in alive for name in view.made[position]}
    used |= quantization_tensors(graph, used | made)
    if len(alive) < len(view.nodes):
        replace(graph.node, [view.nodes[position] for position in alive])
        replace(graph.value_info, [value for value in graph.value_info if value.name in made])
    if not used.issuperset(view.initializers):
        replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    for name in [name for name in weights if name not in used]:
        del weights[name]
    if graph.quantization_annotation:
        kept = [item for item in graph.quantization_annotation if item.tensor_name in used | made]
        replace(graph.quantization_annotation, kept)
    return len(alive) < len(view.nodes) or not used.issuperset(view.initializers)


class _Spreading:
    """Makes sparse tensors dense; zeros that nobody touches take no memory."""

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self.model = model
        self.weights = weights
        self.budget: int | None = None

    def add(self, name: str, sparse: onnx.SparseTensorProto) -> None:
        """Add an initializer.

        Raises:
            ModelError: If its indices do not fit its shape, or too much was computed already.
        """
        self.budget = _budget(self.weights) if self.budget is None else self.budget
        self.budget -= dense_size(sparse)
        if self.budget < 0:
            spent = limits().folded - self.budget
            check(
                "folded", spent, f"the bytes of '{shortened(name)}', made dense, and of other constants are"
            )
        array = _dense(sparse)
        if array.nbytes <= INLINE_BYTES or array.dtype.hasobject or array.dtype.name in SHARED_BYTES:
            add_initializer(self.model, self.weights, name, array)
            return
        self.weights[name] = made = Spread(array)
        self.model.graph.initializer.add(name=name, data_type=made.data_type, dims=made.dims)


class _Folding:
    """What is known of the values of a graph while its nodes are visited in order."""

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Weights,
        budget: int | None = None,
        work: Work | None = None,
    ) -> None:
        self.model = model
        self.weights = weights
        self.work = work or Work()
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.shapes = value_shapes(model.graph)
        self.partial: dict[str, Shape] = {}
        self.outputs = {value.name for value in model.graph.output}
        self.opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
        self.budget = _budget(weights) if budget is None else budget

    def take(self, node: NodeProto) -> bool:
        """Compute the node if it is constant; return whether its outputs are initializers now."""
        if node.domain or subgraphs(node) or self.outputs & set(node.output):
            return False
        values = self._shape_arithmetic(node)
        if values is None:
            values = self._evaluate(node)
        if values is None:
            return False
        for name, value in zip(node.output, values, strict=False):
            if name:
                add_initializer(self.model, self.weights, name, value)
                self.tensors[name] = self.model.graph.initializer[-1]
                self.shapes[name] = value.shape
        return True

    def _operand(self, name: str) -> Operand:
        tensor = self.tensors[name]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return Operand(dtype, tuple(tensor.dims), lambda: array_of(tensor, self.weights))

    def _evaluate(self, node: NodeProto) -> list[Array] | None:
        if any(name and name not in self.tensors for name in node.input):
            return None
        if not any(node.input) and node.op_type not in ("Constant",):
            return None
        inputs = {name: self._operand(name) for name in node.input if name}
        found = compute(node, inputs, self.opset, self.budget, self.work)
        if found is not None:
            self.budget -= sum(value.nbytes for value in found)
        return found

    def _shape_arithmetic(self, node: NodeProto) -> list[Array] | None:
        """Follow vectors of extents of which some are unknown; return the vector once all are known."""
        vector = self._partial_vector(node)
        if vector is None:
            return None
        if None not in vector:
            value = np.array(vector, dtype=np.int64)
            is_scalar = node.op_type == "Size" or self.shapes.get(node.output[0]) == ()
            return [value.reshape(()) if is_scalar else value]
        self.partial[node.output[0]] = vector
        return None

    def _partial_vector(self, node: NodeProto) -> Shape | None:
        if node.op_type == "Shape":
            shape = self.shapes.get(node.input[0])
            if shape is None:
                return None
            start, end = integer(node, "start", 0), integer(node, "end", len(shape))
            return shape[start:end]
        if node.op_type == "Size":
            shape = self.shapes.get(node.input[0], (None,))
            return None if None in shape else (math.prod(extent for extent in shape if extent is not None),)
        if node.op_type == "Concat":
            parts = [self._vector(name) for name in node.input]
            if any(part is None for part in parts) or sum(map(len, filter(None, parts))) > MOST_EXTENTS:
                return None
            return tuple(extent for part in parts if part is not None for extent in part)
        if not node.input or node.input[0] not in self.partial:
            return None
        vector = self.partial[node.input[0]]
        operands = [self._vector(name) for name in node.input[1:] if name]
        if any(operand is None or None in operand for operand in operands):
            return None
        known = [[int(item) for item in operand if item is not None] for operand in operands if operand]
        if node.op_type == "Cast" and integer(node, "to", 0) != onnx.TensorProto.INT64:
            return None
        if node.op_type in ("Cast", "Unsqueeze", "Squeeze", "Identity"):
            return vector
        if node.op_type == "Gather" and len(known) == 1:
            if any(not -len(vector) <= index < len(vector) for index in known[0]):
                return None
            return tuple(vector[index] for index in known[0])
        if node.op_type == "Slice" and len(known) in (2, 3) and len(known[0]) == 1:
            return vector[known[0][0] : known[1][0]]
        return None

    def _vector(self, name: str) -> Shape | None:
        if name in self.partial:
            return self.partial[name]
        tensor = self.tensors.get(name)
        if tensor is None or name in self.weights:
            return None
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind != "i" or array.ndim > 1:
            return None
        return tuple(int(item) for item in array.ravel())


def _budget(weights: Weights) -> int:
    """Return how many bytes of constants may still be computed."""
    computed = sum(tensor.nbytes for tensor in weights.values() if isinstance(tensor, (Computed, Spread)))
    return limits().folded - computed


def _constant_value(node: NodeProto) -> Array:
    """Return what a `Constant` holds.

    Raises:
        ModelError: If it holds nothing that is a tensor.
    """
    for item in node.attribute:
        if item.name == "value":
            return numpy_helper.to_array(item.t)
    try:
        outputs: Any = ReferenceEvaluator(node).run(None, {})
        return np.asarray(outputs[0])
    except Exception as error:  # the reference raises anything where attributes contradict each other
        raise ModelError(f"its node '{node.name or node.output[0]}' (Constant) holds no value.") from error


def _dense(sparse: onnx.SparseTensorProto) -> Array:
    """Return the dense form of a sparse tensor.

    Raises:
        ModelError: If its indices do not fit its shape.
    """
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(math.prod(sparse.dims), dtype=values.dtype)
    try:
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims))
        dense[flat] = values
    except (ValueError, IndexError, TypeError) as error:
        raise ModelError(
            f"the sparse tensor '{sparse.values.name}' has indices that do not fit its shape: {error}."
        ) from error
    return dense.reshape(tuple(sparse.dims))


def replace(field: Any, items: Iterable[Any]) -> None:
    """Make a repeated protobuf field hold `items`, which may be elements of that same field."""
    copies = list(items)
    del field[:]
    field.extend(copies)
