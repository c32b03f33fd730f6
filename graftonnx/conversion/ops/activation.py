"""Activations: elementwise, and normalised exponentials."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from graftonnx.conversion import formulas
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("Relu", since=6)
def relu(g: Builder, x: Value) -> Result:
    """max(x, 0)."""
    return g.call(F.relu, x)


@op("Sigmoid", since=6)
def sigmoid(g: Builder, x: Value) -> Result:
    """1 / (1 + exp(-x))."""
    return g.call(torch.sigmoid, x)


@op("Tanh", since=6)
def tanh(g: Builder, x: Value) -> Result:
    """Hyperbolic tangent."""
    return g.call(torch.tanh, x)


@op("LeakyRelu", since=6)
def leaky_relu(g: Builder, x: Value, *, alpha: float = 0.01) -> Result:
    """Return x where positive, alpha * x elsewhere."""
    return g.call(F.leaky_relu, x, alpha)


@op("PRelu", since=7)
def prelu(g: Builder, x: Value, slope: Value) -> Result:
    """Return x where positive, slope * x elsewhere; slope broadcasts to x."""
    return g.call(formulas.prelu, g.tensor(x), slope)


@op("Elu", since=6)
def elu(g: Builder, x: Value, *, alpha: float = 1.0) -> Result:
    """Return x where positive, alpha * (exp(x) - 1) elsewhere."""
    return g.call(F.elu, x, alpha)


@op("Celu", since=12)
def celu(g: Builder, x: Value, *, alpha: float = 1.0) -> Result:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return g.call(F.celu, x, alpha)


@op("Selu", since=6)
def selu(
    g: Builder,
    x: Value,
    *,
    alpha: float = 1.67326319217681884765625,
    gamma: float = 1.05070102214813232421875,
) -> Result:
    """Return gamma * x where positive, gamma * alpha * (exp(x) - 1) elsewhere."""
    return g.call(formulas.selu, g.tensor(x), alpha, gamma)


@op("HardSigmoid", since=6)
def hard_sigmoid(g: Builder, x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Result:
    """Clamp alpha * x + beta to 0..1."""
    if round(alpha * 6, 6) == 1 and beta == 0.5:
        return g.call(F.hardsigmoid, x)
    return g.call(formulas.hard_sigmoid, g.tensor(x), alpha, beta)


@op("HardSwish", since=14)
def hard_swish(g: Builder, x: Value) -> Result:
    """X * clamp(x / 6 + 0.5, 0, 1)."""
    return g.call(F.hardswish, x)


@op("Gelu", since=20)
def gelu(g: Builder, x: Value, *, approximate: str = "none") -> Result:
    """X times the normal distribution function, exactly or by tanh."""
    if approximate not in ("none", "tanh"):
        raise UnsupportedOpError(f"approximate is '{approximate}', expected none or tanh.")
    return g.call(F.gelu, x, approximate=approximate)


@op("Mish", since=18)
def mish(g: Builder, x: Value) -> Result:
    """X * tanh(softplus(x))."""
    return g.call(F.mish, x)


@op("Swish", since=24)
def swish(g: Builder, x: Value, *, alpha: float = 1.0) -> Result:
    """X * sigmoid(alpha * x)."""
    if alpha == 1.0:
        return g.call(F.silu, x)
    return g.call(formulas.swish, g.tensor(x), alpha)


@op("Softplus", since=1)
def softplus(g: Builder, x: Value) -> Result:
    """log(1 + exp(x))."""
    return g.call(F.softplus, x)


@op("Softsign", since=1)
def softsign(g: Builder, x: Value) -> Result:
    """X / (1 + |x|)."""
    return g.call(F.softsign, x)


@op("ThresholdedRelu", since=10)
def thresholded_relu(g: Builder, x: Value, *, alpha: float = 1.0) -> Result:
    """Return x where larger than alpha, 0 elsewhere."""
    return g.call(F.threshold, x, alpha, 0.0)


@op("Shrink", since=9)
def shrink(g: Builder, x: Value, *, bias: float = 0.0, lambd: float = 0.5) -> Result:
    """Return x + bias below -lambd, x - bias above lambd, 0 between."""
    return g.call(formulas.shrink, g.tensor(x), bias, lambd)


@op("Clip", since=6)
def clip_6(
    g: Builder, x: Value, *, max: float = 3.4028234663852886e38, min: float = -3.4028234663852886e38
) -> Result:
    """Clamp to min..max."""
    if (min, max) == (0.0, 6.0):
        return g.call(F.relu6, x)
    return g.call(torch.clamp, x, min, max)


@op("Clip", since=11)
def clip(g: Builder, x: Value, min: Value = None, max: Value = None) -> Result:
    """Clamp to min..max; a bound that is absent does not bound."""
    low, high = g.operand(g.frozen(min)), g.operand(g.frozen(max))
    if (low, high) == (0.0, 6.0) and g.is_float(x):
        return g.call(F.relu6, x)
    if low is None and high is None:
        return x
    if (
        low is not None
        and high is not None
        and isinstance(low, (int, float)) != isinstance(high, (int, float))
    ):
        return g.call(torch.clamp, g.call(torch.clamp, x, min=low), max=high)
    return g.call(torch.clamp, x, low, high)


@op("Softmax", since=1)
def softmax_1(g: Builder, x: Value, *, axis: int = 1) -> Result:
    """Normalised exponentials over all axes from `axis` on together."""
    rank = g.rank(x)
    axis = axis + rank if axis < 0 else axis
    if axis == rank - 1:
        return g.call(F.softmax, x, dim=-1)
    return g.call(formulas.softmax_from, g.tensor(x), axis, False)


@op("Softmax", since=13)
def softmax(g: Builder, x: Value, *, axis: int = -1) -> Result:
    """Normalised exponentials along `axis`."""
    return g.call(F.softmax, x, dim=axis)


@op("LogSoftmax", since=1)
def log_softmax_1(g: Builder, x: Value, *, axis: int = 1) -> Result:
    """Logarithm of the normalised exponentials over all axes from `axis` on together."""
    rank = g.rank(x)
    axis = axis + rank if axis < 0 else axis
    if axis == rank - 1:
        return g.call(F.log_softmax, x, dim=-1)
    return g.call(formulas.softmax_from, g.tensor(x), axis, True)


@op("LogSoftmax", since=13)
def log_softmax(g: Builder, x: Value, *, axis: int = -1) -> Result:
    """Logarithm of the normalised exponentials along `axis`."""
    return g.call(F.log_softmax, x, dim=axis)


@op("Hardmax", since=1)
def hardmax_1(g: Builder, x: Value, *, axis: int = 1) -> Result:
    """1 at the first largest element over all axes from `axis` on together, 0 elsewhere."""
    return g.call(formulas.hardmax_from, g.tensor(x), axis)


@op("Hardmax", since=13)
def hardmax(g: Builder, x: Value, *, axis: int = -1) -> Result:
    """1 at the first largest element along `axis`, 0 elsewhere."""
    return g.call(formulas.hardmax, g.tensor(x), axis)
