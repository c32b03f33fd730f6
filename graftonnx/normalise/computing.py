"""Compute one node whose inputs are constant, if it is known beforehand to be cheap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, defs, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from graftonnx.graph import attribute
from graftonnx.shapes import Shape

Array = NDArray[np.generic]

NOT_COMPUTED = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
    | {"Dropout", "RegexFullMatch", "StringSplit", "StringConcat", "StringNormalizer", "TfIdfVectorizer"}
    | {"ImageDecoder", "SequenceMap"}
)
"""Operators whose results are drawn, or that read texts and encoded files."""

VECTORISED = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "ConstantOfShape",
        "Cos",
        "DequantizeLinear",
        "Div",
    }
    | {"Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity"}
    | {"Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range"}
    | {
        "Reciprocal",
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "Relu",
        "Reshape",
        "Round",
    }
    | {"Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh"}
    | {"Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "QuantizeLinear", "CastLike"}
)
"""Operators that the reference computes with a few calls of NumPy."""

PRODUCTS = frozenset({"MatMul", "Gemm"})
MOST_PRODUCTS = 1 << 33
"""Multiplications of a matrix product: a second or two."""

FEW = 1 << 14
"""Elements that any other operator may read and make: many loop over them in Python."""

_SMALL = 1 << 10
"""Elements of an input whose numbers may decide about the shape of the output."""


_REFUSALS = (
    defs.SchemaError, onnx.checker.ValidationError, shape_inference.InferenceError, RuntimeError, ValueError,
    LookupError, AssertionError, TypeError,
)  # fmt: skip
"""What onnx raises for a node that is none."""


def compute(node: NodeProto, inputs: Mapping[str, Array], opset: int, budget: int) -> list[Array] | None:
    """Return the outputs of a node; None if they are not computed here.

    Args:
        node: Of the standard's domain.
        inputs: Value name -> its elements.
        opset: Of the node.
        budget: Bytes that the outputs may take.
    """
    if node.op_type in NOT_COMPUTED or any(array.dtype.hasobject for array in inputs.values()):
        return None
    shapes = _shapes(node, inputs, opset)
    if shapes is None or not _is_cheap(node, inputs, shapes, budget):
        return None
    if node.op_type == "ConstantOfShape":
        return _filled(node, shapes[0])
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(node).run(None, dict(inputs))
    except Exception:  # the reference raises anything where operands do not fit; the node stays
        return None
    if any(not isinstance(value, (np.ndarray, np.generic)) for value in found):
        return None
    return [np.asarray(value) for value in found]


def _shapes(node: NodeProto, inputs: Mapping[str, Array], opset: int) -> list[Shape] | None:
    """Return the shapes of the outputs, as far as onnx knows them; None if it refuses the node."""
    types, data = {}, {}
    for name, array in inputs.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        types[name] = onnx.helper.make_tensor_type_proto(element, array.shape)
        if array.size <= _SMALL:
            data[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    try:
        schema = defs.get_schema(node.op_type, opset, "")
        imports = [onnx.helper.make_opsetid("", opset)]
        found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except _REFUSALS:
        return None
    return [_shape(found.get(name)) for name in node.output if name]


def _shape(kind: Any) -> Shape:
    """Return the shape in a type; one open extent where it states none."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return (None,)
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.tensor_type.shape.dim)


def _is_cheap(node: NodeProto, inputs: Mapping[str, Array], shapes: Sequence[Shape], budget: int) -> bool:
    given = sum(array.size for array in inputs.values())
    if any(None in shape for shape in shapes):
        return given <= FEW and node.op_type not in (
            "Range",
            "Tile",
            "Expand",
            "ConstantOfShape",
            "Pad",
            "Resize",
        )
    made = sum(math.prod(int(extent or 0) for extent in shape) for shape in shapes)
    if 8 * made > budget:
        return False
    if node.op_type in PRODUCTS:
        depth = max((max(array.shape, default=1) for array in inputs.values()), default=1)
        return made * depth <= MOST_PRODUCTS
    return node.op_type in VECTORISED or given + made <= FEW


def _filled(node: NodeProto, shape: Shape) -> list[Array] | None:
    given = attribute(node, "value")
    fill = numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.zeros(1, np.float32)
    if fill.size != 1:
        return None
    return [np.full([int(extent or 0) for extent in shape], fill.ravel()[0], dtype=fill.dtype)]
