"""Store the weights of a network in bfloat16: half the file, the same speed and memory.

    weight: bfloat16 ─ Cast ─ weight: float32 ─ Conv

ONNX Runtime computes the Casts once, when it loads the file: its CPU kernels are float32, but for a few.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from graftonnx.errors import UnsupportedOpError
from graftonnx.normalise.constants import replace
from graftonnx.normalise.inference import add_shapes
from graftonnx.normalise.names import fresh, value_names
from graftonnx.normalise.opset import declared_opset
from graftonnx.weights import Weights, add_initializer, array_of

OPSET = 13
"""Since then a Cast knows bfloat16."""


def store_bfloat16(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Return a network whose large float32 tensors lie in the file as bfloat16, rounded to nearest even.

    Args:
        model: The skeleton, which is used up.
        weights: Its large tensors; smaller ones stay as they are.

    Raises:
        UnsupportedOpError: If the opset is older than 13.
    """
    if declared_opset(model) < OPSET:
        raise UnsupportedOpError(f"bfloat16 needs opset {OPSET} or newer. Choose a newer --opset.")
    graph = model.graph
    taken = value_names(graph)
    casts = []
    for tensor in [item for item in graph.initializer if item.name in weights]:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        name = tensor.name
        stored = array_of(tensor, weights).astype(ml_dtypes.bfloat16)
        if not np.isfinite(stored).all():
            continue
        replace(graph.initializer, [item for item in graph.initializer if item.name != name])
        del weights[name]
        source = fresh(f"{name}/bfloat16", taken)
        add_initializer(model, weights, source, stored)
        casts.append(helper.make_node("Cast", [source], [name], f"{name}/cast", to=TensorProto.FLOAT))
    replace(graph.node, [*casts, *graph.node])
    return add_shapes(model)
