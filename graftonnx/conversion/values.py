"""What a value of an ONNX graph is while it is converted.

| kind | is |
|---|---|
| :class:`torch.fx.Node` | a tensor that the module computes |
| :class:`Weight` | a float tensor that the file holds; a parameter as soon as an operator computes with it |
| NumPy array | a constant: integers, booleans, strings, and float numbers that are settings |
| NumPy array of objects | integers of which some are a :class:`Size`, known when the module runs |
| None | an optional input that is absent |
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

Array: TypeAlias = NDArray[Any]

FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
"""Names of the element types that calculus can train."""

STAND_INS = {"int2": "int8", "int4": "int8", "uint2": "uint8", "uint4": "uint8", "float4_e2m1fn": "float32"}
"""Element types without tensors -> the type of the tensors that hold their elements, decoded."""

_VIEWED = frozenset(
    {
        "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    }
)  # fmt: skip
"""Element types that NumPy and PyTorch both have, but do not exchange."""

NARROW = _VIEWED - FLOATS | STAND_INS.keys()
"""Element types of 8 bits or less that are stored only: PyTorch has no arithmetic for them."""


@dataclass(frozen=True)
class Type:
    """What shape inference knows about a tensor.

    Attributes:
        dtype: NumPy's name of the element type; None if unknown.
        shape: Extents, None where unknown; None if not even their number is known.
    """

    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None


@dataclass(eq=False)
class Weight:
    """A float tensor that the file holds.

    Attributes:
        name: The initializer, or the constant node's output.
        array: The numbers.
        uses: How many inputs of nodes read it.
        trainable: Whether it becomes a parameter; else a buffer.
    """

    name: str
    array: Array
    uses: int = 1
    trainable: bool = True


class Size:
    """An integer that is known when the module runs, such as the extent of an axis: arithmetic emits code.

    Attributes:
        node: Computes the integer.
        natural: Whether it cannot be negative.
    """

    def __init__(self, node: fx.Node, *, natural: bool = True) -> None:
        self.node = node
        self.natural = natural

    def __add__(self, other: int | Size) -> Size:
        return self if _is(other, 0) else self._emit(operator.add, self, other)

    def __radd__(self, other: int | Size) -> Size:
        return self if _is(other, 0) else self._emit(operator.add, other, self)

    def __sub__(self, other: int | Size) -> Size:
        return self if _is(other, 0) else self._emit(operator.sub, self, other, natural=False)

    def __rsub__(self, other: int | Size) -> Size:
        return self._emit(operator.sub, other, self, natural=False)

    def __mul__(self, other: int | Size) -> Size:
        return self if _is(other, 1) else self._emit(operator.mul, self, other)

    def __rmul__(self, other: int | Size) -> Size:
        return self if _is(other, 1) else self._emit(operator.mul, other, self)

    def __floordiv__(self, other: int | Size) -> Size:
        return self if _is(other, 1) else self._emit(operator.floordiv, self, other)

    def __rfloordiv__(self, other: int | Size) -> Size:
        return self._emit(operator.floordiv, other, self)

    def __mod__(self, other: int | Size) -> Size:
        return self._emit(operator.mod, self, other)

    def __rmod__(self, other: int | Size) -> Size:
        return self._emit(operator.mod, other, self)

    def __neg__(self) -> Size:
        return self._emit(operator.neg, self, natural=False)

    def _emit(self, function: Callable[..., Any], *operands: int | Size, natural: bool = True) -> Size:
        args = tuple(o.node if isinstance(o, Size) else int(o) for o in operands)
        positive = all(is_natural(o) for o in operands)
        return Size(self.node.graph.call_function(function, args), natural=natural and positive)


def is_natural(value: Any) -> bool:
    """Return whether an integer, or a :class:`Size`, is surely not negative."""
    return value.natural if isinstance(value, Size) else bool(value >= 0)


def _is(value: Any, number: int) -> bool:
    return not isinstance(value, Size) and bool(value == number)


Value: TypeAlias = fx.Node | Weight | Array | None
"""The table of the module's docstring."""

Result: TypeAlias = Value | tuple[Value, ...]
"""What a converter returns: a value for each output; one alone needs no tuple."""


def is_symbolic(value: Value) -> bool:
    """Return whether `value` is a constant array in which some integers are a :class:`Size`."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == object
        and any(isinstance(item, Size) for item in value.flat)
    )


def is_float(value: Array) -> bool:
    """Return whether an array has an element type that calculus can train."""
    return value.dtype.name in FLOATS


def to_tensor(array: Array) -> torch.Tensor:
    """Return a tensor that owns a copy of the numbers.

    Elements narrower than a byte are held in whole ones, as `STAND_INS` says.

    Raises:
        TypeError: If PyTorch has no such element type.
    """
    name = array.dtype.name
    if name in STAND_INS:
        return torch.from_numpy(array.astype(STAND_INS[name]))
    if name in _VIEWED:
        bits = np.array(array.view(f"int{8 * array.itemsize}"))
        viewed: torch.dtype = getattr(torch, name)
        return torch.from_numpy(bits).view(viewed)
    return torch.from_numpy(np.array(array))


def to_array(tensor: torch.Tensor) -> Array:
    """Return the numbers of a tensor, without a copy where the tensor is on the CPU."""
    tensor = tensor.detach().cpu().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if name in _VIEWED:
        bits = torch.int8 if tensor.itemsize == 1 else torch.int16
        return tensor.view(bits).numpy().view(getattr(ml_dtypes, name))
    return tensor.numpy()
