"""Compute one node whose inputs are constant, if it is known beforehand to be cheap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, defs, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from graftonnx.graph import attribute, integer
from graftonnx.limits import limits
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

BOUNDED = frozenset(
    {"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan", "IsInf", "IsNaN", "Xor"}
    | {"BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BitCast", "Cast", "CastLike"}
    | {"Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Selu", "Shrink"}
    | {"Softplus", "Softsign", "Swish", "ThresholdedRelu", "Hardmax", "LogSoftmax", "Softmax"}
    | {"ArgMax", "ArgMin", "CumProd", "CumSum", "Mean", "ReduceL1", "ReduceL2", "ReduceLogSum"}
    | {"ReduceLogSumExp", "ReduceSumSquare", "TopK", "Unique", "NonZero", "Compress", "Constant", "Einsum"}
    | {"DepthToSpace", "SpaceToDepth", "GatherElements", "GatherND", "Scatter", "ScatterElements"}
    | {"ScatterND", "OneHot", "EyeLike", "Pad", "ReverseSequence", "BlackmanWindow", "HammingWindow"}
    | {"HannWindow", "MelWeightMatrix", "BatchNormalization", "GroupNormalization", "InstanceNormalization"}
    | {"LayerNormalization", "LpNormalization", "MeanVarianceNormalization", "RMSNormalization"}
    | {"DynamicQuantizeLinear", "GlobalAveragePool", "GlobalMaxPool", "MatMulInteger", "Det"}
)
"""Other operators whose cost the sizes of inputs and outputs bound, in steps of Python: no attribute makes a
window, a grid or a transform of any size."""

SHRINKING = (VECTORISED | {"NonZero", "Compress", "Unique"}) - {"Range", "Tile", "Expand", "ConstantOfShape"}
"""Operators that are computed although the shape of the output does not follow from shapes."""

FEW = 1 << 14
"""Elements that an operator in :data:`BOUNDED` may read and make."""

COSTS = {
    "Div": 2,
    "Exp": 8,
    "Gather": 8,
    "Log": 8,
    "Pow": 16,
    "Tanh": 16,
    "Sigmoid": 32,
    "Cos": 64,
    "Sin": 64,
}
"""How often an element counts because NumPy works so much longer on it than on a sum."""

COSTS_IN_PYTHON = {"Erf": 128, "Mod": 1 << 12}
"""Likewise, where it is computed in Python, or in as many steps as the exponents of two floats differ."""

FEW_COST = 1 << 9
"""Likewise, of operators in :data:`BOUNDED`."""

UNWIDENED = frozenset(
    {"Cast", "CastLike", "Concat", "ConstantOfShape", "DequantizeLinear", "Expand", "Flatten", "Identity"}
    | {"QuantizeLinear", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose"}
    | {"Unsqueeze", "Where"}
)
"""Operators that do not calculate with narrow floats, each step of which NumPy does in wider ones."""

MOST_TERMS = 1 << 20
"""Products of an `Einsum`: intermediate results are not larger."""

_SMALL = 1 << 10
"""Elements of an input whose numbers may decide about the shape of the output."""


class Operand(NamedTuple):
    """An input of a node, which is read only if it is worth it.

    Attributes:
        dtype: Of its elements.
        shape: Likewise.
        read: Returns the elements.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    read: Callable[[], Array]

    @property
    def size(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


def operand(array: Array) -> Operand:
    """Return an array as an input of a node."""
    return Operand(array.dtype, array.shape, lambda: array)


class Work:
    """What may still be computed, in elements that are read or made: NumPy adds about one in a nanosecond.

    Attributes:
        left: So many.
    """

    def __init__(self, left: int | None = None) -> None:
        self.left = limits().folded if left is None else left

    def spend(self, cost: int) -> bool:
        """Take a cost from what is left; return whether there was enough."""
        if cost > self.left:
            return False
        self.left -= cost
        return True


_REFUSALS = (
    defs.SchemaError, onnx.checker.ValidationError, shape_inference.InferenceError, RuntimeError, ValueError,
    LookupError, AssertionError, TypeError,
)  # fmt: skip
"""What onnx raises for a node that is none."""


def compute(
    node: NodeProto, inputs: Mapping[str, Operand], opset: int, budget: int, work: Work | None = None
) -> list[Array] | None:
    """Return the outputs of a node; None if they are not computed here.

    Args:
        node: Of the standard's domain.
        inputs: By the name of the value.
        opset: Of the node.
        budget: Bytes that the outputs may take.
        work: What may still be computed; it is less afterwards.

    Raises:
        MemoryError: If the memory does not suffice.
    """
    if node.op_type in NOT_COMPUTED or any(item.dtype.hasobject for item in inputs.values()):
        return None
    shapes = _shapes(node, inputs, opset)
    cost = None if shapes is None else _cost(node, inputs, shapes, budget)
    reading = sum(item.size for item in inputs.values())
    if shapes is None or cost is None or not (work or Work()).spend(reading + cost):
        return None
    if node.op_type == "ConstantOfShape":
        return _filled(node, shapes[0])
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(node).run(None, {name: item.read() for name, item in inputs.items()})
    except MemoryError:
        raise
    except Exception:  # the reference raises anything where operands do not fit; the node stays
        return None
    if any(not isinstance(value, (np.ndarray, np.generic)) for value in found):
        return None
    return [np.asarray(value) for value in found]


def _shapes(node: NodeProto, inputs: Mapping[str, Operand], opset: int) -> list[Shape] | None:
    """Return the shapes of the outputs, as far as onnx knows them; None if it refuses the node."""
    types, data = {}, {}
    for name, item in inputs.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(item.dtype)
        types[name] = onnx.helper.make_tensor_type_proto(element, item.shape)
        if item.size <= _SMALL:
            data[name] = numpy_helper.from_array(np.ascontiguousarray(item.read()).reshape(item.shape), name)
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


def _cost(node: NodeProto, inputs: Mapping[str, Operand], shapes: Sequence[Shape], budget: int) -> int | None:
    """Return how much work a node is; None if that is not known beforehand, or its outputs are too large."""
    kind, given = node.op_type, sum(item.size for item in inputs.values())
    if any(None in shape for shape in shapes):
        return FEW_COST * given if given <= FEW and kind in SHRINKING else None
    made = sum(math.prod(int(extent or 0) for extent in shape) for shape in shapes)
    if 8 * made > budget:
        return None
    if kind in PRODUCTS:
        depth = max((max(item.shape, default=1) for item in inputs.values()), default=1)
        in_blas = all(item.dtype.char in "fd" for item in inputs.values())
        return given + (made * depth // 16 if in_blas else 8 * made * depth)
    if kind in VECTORISED and not _makes_text(node):
        return (given + made) * _factor(kind, inputs)
    if kind not in BOUNDED or given + made > FEW or (kind == "Einsum" and _terms(node, inputs) > MOST_TERMS):
        return None
    return FEW_COST * (given + made)


def _factor(kind: str, inputs: Mapping[str, Operand]) -> int:
    """Return how often each element counts."""
    is_whole = all(item.dtype.kind in "biu" for item in inputs.values())
    if kind in COSTS_IN_PYTHON and (kind != "Mod" or not is_whole):
        return COSTS_IN_PYTHON[kind]
    is_narrow = any(item.dtype.kind not in "biu" and item.dtype.itemsize < 4 for item in inputs.values())
    return COSTS.get(kind, 1) * (8 if is_narrow and kind not in UNWIDENED else 1)


def _makes_text(node: NodeProto) -> bool:
    return node.op_type == "Cast" and integer(node, "to", 0) == onnx.TensorProto.STRING


def _terms(node: NodeProto, inputs: Mapping[str, Operand]) -> float:
    """Return how many products an `Einsum` sums up; infinite where its equation does not name the axes."""
    terms = str(attribute(node, "equation", "")).replace(" ", "").partition("->")[0].split(",")
    extents: dict[str, int] = {}
    for name, term in zip(node.input, terms, strict=False):
        if name not in inputs or len(term) != len(inputs[name].shape) or "." in term:
            return math.inf
        extents.update(zip(term, inputs[name].shape, strict=True))
    return math.prod(extents.values())


def _filled(node: NodeProto, shape: Shape) -> list[Array] | None:
    given = attribute(node, "value")
    fill = numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.zeros(1, np.float32)
    if fill.size != 1:
        return None
    return [np.full([int(extent or 0) for extent in shape], fill.ravel()[0], dtype=fill.dtype)]
