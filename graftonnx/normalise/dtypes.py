"""Training needs 32-bit floats: 16-bit weights, inputs and casts become float32, so do narrower weights."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from graftonnx.graph import bodies
from graftonnx.normalise.constants import fold
from graftonnx.remarks import copy_remarks
from graftonnx.tensors import Held
from graftonnx.weights import Weights, array_of

HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


TYPED = frozenset(
    {"Bernoulli", "BitCast", "Cast", "Constant", "ConstantOfShape", "EyeLike", "Multinomial", "RandomNormal"}
    | {"RandomNormalLike", "RandomUniform", "RandomUniformLike", "SequenceEmpty"}
)
"""The standard's operators with an attribute that names a type (`to`, `dtype`) or holds a tensor."""

NARROW = frozenset(
    number
    for name, number in TensorProto.DataType.items()
    if name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2"))
)
"""Types that opset 18 does not know; files hold weights in them, which nodes turn into floats."""


def fold_narrow(model: onnx.ModelProto, weights: Weights) -> str | None:
    """Compute what depends on constants of a type in :data:`NARROW`, in place.

    Returns:
        The name of the type that was found; None if there was nothing to do.
    """
    found = {tensor.data_type for tensor in model.graph.initializer} & NARROW
    if not found:
        return None
    fold(model, weights)
    return str(TensorProto.DataType.Name(min(found))).lower()


def widen(model: onnx.ModelProto, weights: Weights, kinds: Collection[str] | None = None) -> str | None:
    """Make every 16-bit float of the skeleton a 32-bit one, in place.

    Args:
        model: A skeleton.
        weights: Its large tensors.
        kinds: The operators of its nodes, if they are known and all of them the standard's.

    Returns:
        The name of the type that was found (`float16` or `bfloat16`); None if there was nothing to do.
    """
    found = _widen(model.graph, weights, kinds)
    return TensorProto.DataType.Name(min(found)).lower() if found else None


def _widen(graph: onnx.GraphProto, weights: Weights, kinds: Collection[str] | None = None) -> set[int]:
    """Widen a graph and the graphs inside it, whose tensors are whole; return the types that were found."""
    found: set[int] = set()
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type in HALF:
            found.add(kind.elem_type)
            kind.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in HALF:
            found.add(tensor.data_type)
            wide = numpy_helper.from_array(array_of(tensor, weights).astype(np.float32), tensor.name)
            if tensor.name in weights:
                weights[tensor.name] = Held(wide)
                tensor.data_type = TensorProto.FLOAT
            else:
                copy_remarks(tensor, wide)
                tensor.CopyFrom(wide)
    typed = kinds is None or not TYPED.isdisjoint(kinds)
    for node in graph.node if typed else ():
        for item in node.attribute if node.op_type in TYPED or node.domain else ():
            if item.name in ("to", "dtype") and item.i in HALF:
                found.add(item.i)
                item.i = TensorProto.FLOAT
            elif item.type == onnx.AttributeProto.TENSOR and item.t.data_type in HALF:
                found.add(item.t.data_type)
                array = numpy_helper.to_array(item.t).astype(np.float32)
                item.t.CopyFrom(numpy_helper.from_array(array, item.t.name))
    return found.union(*(_widen(body, {}) for body in bodies(graph, kinds)))
