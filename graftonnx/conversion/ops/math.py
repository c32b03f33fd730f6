"""Elementwise arithmetic. Integers that describe shapes stay plain integers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from onnx import NodeProto

from graftonnx.conversion import formulas, reductions
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Array, Result, Value, Weight, is_natural, is_symbolic
from graftonnx.errors import UnsupportedOpError

_GUARDED = frozenset({"Sqrt", "Log", "Reciprocal", "Pow", "Div"})
"""Operators that a small number keeps away from zero; such a number must not train."""


@op("Add", since=7)
def add(g: Builder, a: Value, b: Value) -> Result:
    """A + b."""
    readers = g.consumers.get(g.node.output[0], [])
    if readers and all(_is_guarded(reader, g.node.output[0]) for reader in readers):
        a, b = _number(g, a), _number(g, b)
    return _arithmetic(g, operator.add, a, b)


@op("Sub", since=7)
def sub(g: Builder, a: Value, b: Value) -> Result:
    """A - b."""
    return _arithmetic(g, operator.sub, a, b)


@op("Mul", since=7)
def mul(g: Builder, a: Value, b: Value) -> Result:
    """A * b."""
    return _arithmetic(g, operator.mul, a, b)


@op("Div", since=7)
def div(g: Builder, a: Value, b: Value) -> Result:
    """A / b; of integers, the quotient towards zero."""
    if _shapes(a, b):
        if all(is_natural(item) for v in (a, b) if isinstance(v, np.ndarray) for item in v.flat):
            return _on_sizes(operator.floordiv, a, b)
        return g.call(torch.div, g.tensor(a), g.tensor(b), rounding_mode="trunc")
    if not g.is_float(a):
        return g.call(torch.div, a, b, rounding_mode="trunc")
    return _arithmetic(g, operator.truediv, a, b)


@op("Mod", since=10)
def mod(g: Builder, a: Value, b: Value, *, fmod: int = 0) -> Result:
    """Remainder: of the divisor's sign, or of the dividend's if fmod is 1."""
    if _shapes(a, b) and not fmod:
        return _on_sizes(operator.mod, a, b)
    return g.call(torch.fmod if fmod else torch.remainder, a, b)


@op("Pow", since=7)
def power(g: Builder, x: Value, y: Value) -> Result:
    """X to the power of y, of x's element type."""
    exponent = g.operand(g.frozen(y))
    result = g.call(torch.pow, x, exponent)
    kind, other = g.type(x).dtype, g.type(y).dtype
    if kind is None or kind == other:
        return result
    return (
        g.call(formulas.cast_to_type_of, result, x)
        if not isinstance(result, np.ndarray)
        else result.astype(kind)
    )


@op("Neg", since=6)
def neg(g: Builder, x: Value) -> Result:
    """-x."""
    if is_symbolic(x):
        return -x  # type: ignore[operator]  # an array of objects
    return g.call(operator.neg, x)


@op("Sum", since=6)
def sum_(g: Builder, *inputs: Value) -> Result:
    """Sum of the inputs, with broadcasting."""
    return reduce(lambda a, b: _arithmetic(g, operator.add, a, b), inputs)


@op("Mean", since=6)
def mean(g: Builder, *inputs: Value) -> Result:
    """Mean of the inputs, with broadcasting."""
    return g.call(
        operator.truediv, reduce(lambda a, b: _arithmetic(g, operator.add, a, b), inputs), len(inputs)
    )


@op("Max", since=6)
def max_(g: Builder, *inputs: Value) -> Result:
    """Largest of the inputs, with broadcasting."""
    return reduce(lambda a, b: g.call(torch.maximum, g.tensor(a), g.tensor(b)), inputs)


@op("Min", since=6)
def min_(g: Builder, *inputs: Value) -> Result:
    """Smallest of the inputs, with broadcasting."""
    return reduce(lambda a, b: g.call(torch.minimum, g.tensor(a), g.tensor(b)), inputs)


def _unary(op_type: str, since: int, function: Callable[..., Any], says: str) -> None:
    """Register an operator that is one PyTorch function of one tensor."""

    def convert(g: Builder, x: Value) -> Result:
        return g.call(function, x)

    convert.__name__ = op_type.lower()
    convert.__doc__ = says
    op(op_type, since=since)(convert)


for _op_type, _since, _function in (
    ("Abs", 6, torch.abs),
    ("Acos", 7, torch.acos),
    ("Acosh", 9, torch.acosh),
    ("Asin", 7, torch.asin),
    ("Asinh", 9, torch.asinh),
    ("Atan", 7, torch.atan),
    ("Atanh", 9, torch.atanh),
    ("Ceil", 6, torch.ceil),
    ("Cos", 7, torch.cos),
    ("Cosh", 9, torch.cosh),
    ("Det", 11, torch.linalg.det),
    ("Erf", 9, torch.erf),
    ("Exp", 6, torch.exp),
    ("Floor", 6, torch.floor),
    ("Log", 6, torch.log),
    ("Reciprocal", 6, torch.reciprocal),
    ("Round", 11, torch.round),
    ("Sign", 9, torch.sign),
    ("Sin", 7, torch.sin),
    ("Sinh", 9, torch.sinh),
    ("Sqrt", 6, torch.sqrt),
    ("Tan", 7, torch.tan),
):
    _unary(_op_type, _since, _function, f"{_op_type} of each element.")


@op("CumSum", since=11)
def cum_sum(g: Builder, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Result:
    """Running sum along an axis."""
    return g.call(reductions.cum_sum, g.tensor(x), g.numbers(axis), bool(exclusive), bool(reverse))


@op("CumProd", since=26)
def cum_prod(g: Builder, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Result:
    """Running product along an axis."""
    return g.call(reductions.cum_prod, g.tensor(x), g.numbers(axis), bool(exclusive), bool(reverse))


def _arithmetic(g: Builder, function: Callable[..., Any], a: Value, b: Value) -> Value:
    if _shapes(a, b):
        return _on_sizes(function, a, b)
    if g.source.fused:
        a, b = _number(g, a), _number(g, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return g.call(function, a, b)
    left, right = g.operand(a), g.operand(b)
    return g.call(function, left, right)


def _is_guarded(reader: NodeProto, name: str) -> bool:
    """Return whether zero in the value `name` would break an operator."""
    return reader.op_type in _GUARDED and not (reader.op_type == "Div" and reader.input[1] != name)


def _number(g: Builder, value: Value) -> Value:
    """Return a weight of a single element as a constant without dimensions; anything else as it is."""
    if isinstance(value, Weight) and value.array.ndim == 0:
        return g.frozen(value)
    if isinstance(value, Weight) and value.array.size == 1 and value.trainable:
        return g.frozen(value)
    return value


def _shapes(a: Value, b: Value) -> bool:
    """Return whether both are constants, and one holds integers that are known when the module runs."""
    both = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return both and (is_symbolic(a) or is_symbolic(b))


def _on_sizes(function: Callable[..., Any], a: Value, b: Value) -> Array:
    assert isinstance(a, np.ndarray)
    assert isinstance(b, np.ndarray)
    if "f" in (a.dtype.kind, b.dtype.kind):
        raise UnsupportedOpError("arithmetic of extents with float numbers has no exact form.")
    return np.asarray(function(a.astype(object), b.astype(object)), dtype=object)
