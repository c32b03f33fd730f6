"""Grids of quantisation while a model is converted: step, zero, and the element type with its bounds."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from graftonnx.conversion import quantization
from graftonnx.conversion.builder import TYPE, Builder
from graftonnx.conversion.layers import Constant
from graftonnx.conversion.values import STAND_INS, Array, Type, Value, to_array
from graftonnx.errors import UnsupportedOpError

_BITS = {"int2": 2, "int4": 4, "int8": 8, "int16": 16, "int32": 32}
_BOUNDS: dict[str, tuple[int, int]] = {
    name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in _BITS.items()
} | {f"u{name}": (0, 2**bits - 1) for name, bits in _BITS.items()}


@dataclass(frozen=True)
class Grid:
    """Which numbers the integers of a tensor stand for.

    Attributes:
        scale: The step; broadcasts to the tensor.
        zero: The integer that stands for 0: a number where all agree, else broadcasts to the tensor.
        name: NumPy's name of the element type.
    """

    scale: Value
    zero: Any
    name: str

    @property
    def low(self) -> int:
        """The least integer.

        Raises:
            UnsupportedOpError: If the element type has no bounds.
        """
        return _bounds(self.name)[0]

    @property
    def high(self) -> int:
        """The largest integer."""
        return _bounds(self.name)[1]

    @property
    def storage(self) -> torch.dtype:
        """The type of the tensor that holds the integers."""
        return torch_storage(self.name)


def _bounds(name: str) -> tuple[int, int]:
    if name not in _BOUNDS:
        raise UnsupportedOpError(f"quantisation to elements of type {name} has no exact form.")
    return _BOUNDS[name]


def grid_of(
    g: Builder,
    scale: Value,
    zero_point: Value,
    name: str,
    *,
    like: Value,
    axis: int = 1,
    block: int = 0,
) -> Grid:
    """Return a grid; its scale becomes a setting.

    Args:
        g: The builder.
        scale: Of one element, or one for each index or block along `axis`.
        zero_point: Likewise; 0 if None.
        name: NumPy's name of the element type.
        like: The tensor to which step and zero are aligned; None if there is one grid only.
        axis: The axis with several grids.
        block: How many indices along the axis share a grid; 0 if each has one.
    """
    step = aligned(g, g.frozen(scale), like, axis, block)
    if zero_point is None or is_float8(name) or name.startswith("float"):
        return Grid(step, 0, name)
    if isinstance(zero_point, np.ndarray) and zero_point.size and (zero_point == zero_point.flat[0]).all():
        return Grid(step, int(zero_point.flat[0]), name)
    return Grid(step, aligned(g, zero_point, like, axis, block), name)


def aligned(g: Builder, value: Value, like: Value, axis: int, block: int) -> Value:
    """Return a grid's parameter in the shape that broadcasts to `like`."""
    widened = isinstance(value, fx.Node) and value.target is torch.Tensor.to
    shape = g.shape(value.args[0] if widened else value)  # type: ignore[union-attr, arg-type]
    if shape is not None and all(extent == 1 for extent in shape):
        return g.call(quantization.align, value, 0, 0, 0, None) if shape else value
    if like is None:
        return value
    extents = g.shape(like) or ()
    extent = extents[axis] if block and extents else None
    return g.call(quantization.align, value, g.rank(like), axis, block, extent)


def quantized(g: Builder, x: Value, grid: Grid) -> Value:
    """Emit the integers that stand for x."""
    y = g.call(quantization.quantize, x, grid.scale, grid.zero, grid.low, grid.high, grid.storage)
    return typed(y, grid.name, known_shape(g, x))


def dequantized(g: Builder, x: Value, grid: Grid) -> Value:
    """Emit the float32 numbers that x stands for."""
    y = g.call(quantization.dequantize, x, grid.scale, grid.zero, torch.float32)
    return typed(y, "float32", known_shape(g, x))


def known_shape(g: Builder, value: Value) -> tuple[int | None, ...] | None:
    """Return the shape of a value, after another try at inference if it is unknown."""
    if g.shape(value) is None and value is not None:
        with contextlib.suppress(UnsupportedOpError):
            g.rank(value)
    return g.shape(value)


def typed(value: Value, dtype: str | None, shape: tuple[int | None, ...] | None) -> Value:
    """Note the type of what was emitted, for operators whose types ONNX cannot infer."""
    if isinstance(value, fx.Node) and TYPE not in value.meta:
        value.meta[TYPE] = Type(dtype, shape)
    return value


def element_type(g: Builder, value: Value, index: int) -> str | None:
    """Return the element type that the file gives the node's input `index`; PyTorch may hold a wider one."""
    if value is None:
        return None
    known = g.source.types.get(g.node.input[index])
    return known.dtype if known is not None and known.dtype is not None else g.type(value).dtype


def numbers_of(g: Builder, argument: Any) -> Array | None:
    """Return the numbers of a constant that was emitted; None if it is none."""
    if not isinstance(argument, fx.Node) or argument.op != "call_module":
        return None
    module = g.root.get_submodule(str(argument.target))
    return to_array(module.value) if isinstance(module, Constant) else None


def narrowed(g: Builder, x: Value, name: str, saturate: bool, round_mode: str = "up") -> Value:
    """Emit x with an element type of 8 bits or less for which PyTorch has no arithmetic.

    Args:
        g: The builder.
        x: The tensor.
        name: NumPy's name of the type.
        saturate: Whether numbers too large for an 8-bit float become its largest.
        round_mode: How powers of two are rounded: `up`, `down` or `nearest`.

    Raises:
        UnsupportedOpError: If there is no exact way.
    """
    if name == "float8_e8m0fnu":
        return g.call(quantization.to_float8_e8m0, x, round_mode, saturate)
    if is_float8(name):
        if g.type(x).dtype == "float64":
            raise UnsupportedOpError("PyTorch rounds float64 to float32 on the way to 8-bit floats.")
        return g.call(quantization.to_float8, x, torch_storage(name), saturate)
    if name == "float4_e2m1fn":
        return g.call(quantization.to_float4, x)
    return g.call(quantization.to_narrow, x, *_bounds(name), torch_storage(name))


def is_float8(name: str) -> bool:
    """Return whether an element type is an 8-bit float."""
    return name.startswith("float8_")


def torch_storage(name: str) -> torch.dtype:
    """Return the type of PyTorch's tensors for elements of type `name`: wider where PyTorch has none.

    Raises:
        UnsupportedOpError: If there is none.
    """
    found = getattr(torch, STAND_INS.get(name, name), None)
    if not isinstance(found, torch.dtype):
        raise UnsupportedOpError(f"PyTorch has no tensors of element type {name}.")
    return found
