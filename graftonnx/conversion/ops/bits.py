"""Bits of integers."""

from __future__ import annotations

import numpy as np
import torch

from graftonnx.conversion import bitwise
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.constant import torch_type
from graftonnx.conversion.registry import op
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("BitwiseAnd", since=18)
def bitwise_and(g: Builder, a: Value, b: Value) -> Result:
    """Bits that are set in both."""
    return g.call(torch.bitwise_and, g.tensor(a), b)


@op("BitwiseOr", since=18)
def bitwise_or(g: Builder, a: Value, b: Value) -> Result:
    """Bits that are set in one or both."""
    return g.call(torch.bitwise_or, g.tensor(a), b)


@op("BitwiseXor", since=18)
def bitwise_xor(g: Builder, a: Value, b: Value) -> Result:
    """Bits that are set in exactly one."""
    return g.call(torch.bitwise_xor, g.tensor(a), b)


@op("BitwiseNot", since=18)
def bitwise_not(g: Builder, x: Value) -> Result:
    """Bits that are not set."""
    return g.call(torch.bitwise_not, x)


@op("BitShift", since=11)
def bit_shift(g: Builder, x: Value, y: Value, *, direction: str) -> Result:
    """Bits of x moved by y places; of signed integers, the sign is repeated."""
    kind = g.source.types.get(g.node.input[0])
    dtype = None if kind is None else kind.dtype
    if dtype is None:
        raise UnsupportedOpError("the element type of its input is unknown.")
    bits = np.dtype(dtype).itemsize * 8
    if direction == "LEFT":
        return g.call(bitwise.shift_left, x, y, bits)
    if direction != "RIGHT":
        raise UnsupportedOpError(f"direction is '{direction}', expected LEFT or RIGHT.")
    if dtype == "uint64":
        return g.call(bitwise.shift_right_unsigned, x, y)
    return g.call(bitwise.shift_right, x, y, bits)


@op("BitCast", since=26)
def bit_cast(g: Builder, x: Value, *, to: int) -> Result:
    """The bits of x, read as another element type of the same size."""
    kind, target = g.type(x).dtype, dtype_name(to)
    if kind is None or target is None:
        raise UnsupportedOpError("the element type of its input is unknown.")
    dtype = getattr(torch, target) if target in ("uint16", "uint32", "uint64") else torch_type(target)
    if np.dtype(kind).itemsize != dtype.itemsize:
        raise UnsupportedOpError(f"elements of {kind} and {target} differ in size.")
    return g.call(torch.Tensor.view, g.frozen(x), dtype)
