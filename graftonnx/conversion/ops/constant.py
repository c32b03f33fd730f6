"""Constants, and changes of element type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from graftonnx.conversion import formulas
from graftonnx.conversion.arguments import check_size
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.grids import narrowed
from graftonnx.conversion.registry import op
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import FLOATS, NARROW, Result, Value, Weight, is_symbolic
from graftonnx.errors import UnsupportedOpError

_TORCH_TYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "bool": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
}


@op("Constant", since=1)
def constant_1(g: Builder, *, value: TensorProto) -> Result:
    """A tensor that the node holds."""
    return constant(g, value=value)


@op("Constant", since=11)
def constant(
    g: Builder,
    *,
    sparse_value: Any = None,
    value: TensorProto | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
    value_string: str | None = None,
    value_strings: Sequence[str] | None = None,
) -> Result:
    """A tensor that the node holds; a float tensor of several elements is a weight."""
    if sparse_value is not None:
        raise UnsupportedOpError("its value is sparse. Store it as a dense tensor.")
    if value is not None:
        return _weight_or_number(g, numpy_helper.to_array(value))
    if value_float is not None or value_floats is not None:
        return np.array(value_float if value_float is not None else value_floats, dtype=np.float32)
    if value_int is not None or value_ints is not None:
        return np.array(value_int if value_int is not None else value_ints, dtype=np.int64)
    if value_string is None and value_strings is None:
        raise UnsupportedOpError("it has no value.")
    return np.array(value_string if value_string is not None else value_strings, dtype=object)


@op("ConstantOfShape", since=9)
def constant_of_shape(g: Builder, shape: Value, *, value: TensorProto | None = None) -> Result:
    """A tensor of equal elements; a float tensor of a known shape is a weight."""
    element = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    if isinstance(shape, np.ndarray) and not is_symbolic(shape):
        check_size(element.itemsize * math.prod(map(int, shape)))
        return _weight_or_number(g, np.full([int(e) for e in shape], element.item(), element.dtype))
    extents = g.ints(shape, "shape")
    torch_type(element.dtype.name)
    # The module holds the element, so that the result is where the module is, and of its type.
    return g.call(torch.Tensor.new_full, g.tensor(element.reshape(())), extents, element.item())


@op("Identity", since=1)
def identity(g: Builder, x: Value) -> Result:
    """X itself."""
    return x


@op("Cast", since=6)
def cast_6(g: Builder, x: Value, *, to: int) -> Result:
    """X with another element type."""
    return _cast(g, x, to)


@op("Cast", since=19)
def cast_19(g: Builder, x: Value, *, saturate: int = 1, to: int) -> Result:
    """X with another element type."""
    return _cast(g, x, to, bool(saturate))


@op("Cast", since=24)
def cast(g: Builder, x: Value, *, round_mode: str = "up", saturate: int = 1, to: int) -> Result:
    """X with another element type; elements narrower than a byte are held in whole ones."""
    return _cast(g, x, to, bool(saturate), round_mode)


@op("CastLike", since=15)
def cast_like_15(g: Builder, x: Value, target: Value) -> Result:
    """X with the element type of `target`."""
    return _cast_like(g, x, target)


@op("CastLike", since=19)
def cast_like_19(g: Builder, x: Value, target: Value, *, saturate: int = 1) -> Result:
    """X with the element type of `target`."""
    return _cast_like(g, x, target, bool(saturate))


@op("CastLike", since=24)
def cast_like(g: Builder, x: Value, target: Value, *, round_mode: str = "up", saturate: int = 1) -> Result:
    """X with the element type of `target`; elements narrower than a byte are held in whole ones."""
    return _cast_like(g, x, target, bool(saturate), round_mode)


def torch_type(name: str | None) -> torch.dtype:
    """Return PyTorch's element type.

    Raises:
        UnsupportedOpError: If it has none of that name.
    """
    if name not in _TORCH_TYPES:
        raise UnsupportedOpError(f"PyTorch has no arithmetic for elements of type {name}.")
    return _TORCH_TYPES[name]


def _weight_or_number(g: Builder, array: Any) -> Value:
    name = g.node.output[0]
    weight = array.dtype.name in FLOATS and array.size > 1 and name not in g.frozen_names
    if weight and g.source.can_write(name):
        return Weight(name, array, g.uses[name], g.trainable(name))
    return np.asarray(array)


def _cast(g: Builder, x: Value, to: int, saturate: bool = True, round_mode: str = "up") -> Result:
    name = dtype_name(to)
    if isinstance(x, np.ndarray) and x.dtype == object:
        if any(isinstance(item, (str, bytes)) for item in x.flat):
            raise UnsupportedOpError("PyTorch has no strings.")
        if not is_symbolic(x):
            x = x.astype(np.int64)
        if name in ("int64", "int32"):
            return x
    known = g.type(x).dtype
    if known not in (None, *_TORCH_TYPES, *NARROW):
        raise UnsupportedOpError(f"PyTorch has no arithmetic for elements of type {known}.")
    if known == name:
        return x
    if name in NARROW:
        return narrowed(g, x, name, saturate, round_mode)
    return g.call(formulas.cast, x, torch_type(name))


def _cast_like(g: Builder, x: Value, target: Value, saturate: bool = True, round_mode: str = "up") -> Result:
    name = g.type(target).dtype
    if name is None:
        raise UnsupportedOpError("the element type of `target_type` is unknown.")
    return _cast(g, x, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)), saturate, round_mode)
