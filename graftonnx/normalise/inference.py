"""Shapes of every value, by onnx's shape inference with data propagation, on a skeleton."""

from __future__ import annotations

import onnx
from onnx import shape_inference

from graftonnx.errors import ModelError


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the shapes that follow from its input shapes; what stood there before is dropped.

    Raises:
        ModelError: If an operator cannot work on the shapes it gets.
    """
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"its shapes do not fit together: {reason}") from error


def set_extents(model: onnx.ModelProto, name: str, extents: tuple[int | str, ...]) -> None:
    """Give the graph input `name` this shape; a word stands for an extent known at run time."""
    value = next(item for item in model.graph.input if item.name == name)
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for extent in extents:
        if isinstance(extent, str):
            shape.dim.add(dim_param=extent)
        else:
            shape.dim.add(dim_value=extent)
