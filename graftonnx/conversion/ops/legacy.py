"""Operators as they were before opset 7, when an attribute said how the second operand is broadcast."""

from __future__ import annotations

from graftonnx.conversion import indexing
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops import activation, linear, logic, math, norm
from graftonnx.conversion.registry import Converter, op
from graftonnx.conversion.values import Result, Value


def _binary(op_type: str, since: int, convert: Converter) -> None:
    """Register the old form of an operator of two operands."""

    def convert_old(g: Builder, a: Value, b: Value, *, axis: int | None = None, broadcast: int = 0) -> Result:
        result: Result = convert(g, a, _aligned(g, a, b, axis) if broadcast else b)
        return result

    convert_old.__name__ = f"{op_type.lower()}_{since}"
    convert_old.__doc__ = convert.__doc__
    op(op_type, since=since)(convert_old)


for _op_type, _since, _convert in (
    ("Add", 6, math.add),
    ("Sub", 6, math.sub),
    ("Mul", 6, math.mul),
    ("Div", 6, math.div),
    ("Pow", 1, math.power),
    ("Equal", 1, logic.equal),
    ("Greater", 1, logic.greater),
    ("Less", 1, logic.less),
    ("And", 1, logic.and_),
    ("Or", 1, logic.or_),
    ("Xor", 1, logic.xor),
):
    _binary(_op_type, _since, _convert)


@op("PRelu", since=6)
def prelu_6(g: Builder, x: Value, slope: Value) -> Result:
    """X where positive, slope * x elsewhere. x: [N, C, ...], slope: [C] or [1] -> x's shape."""
    by_channel = g.rank(slope) == 1 and g.rank(x) > 2
    return activation.prelu(g, x, _aligned(g, x, slope, 1) if by_channel else slope)


@op("Gemm", since=6)
def gemm_6(
    g: Builder,
    a: Value,
    b: Value,
    c: Value,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,  # ONNX's spelling
    transB: int = 0,  # ONNX's spelling
) -> Result:
    """Alpha * A B + beta * C. a: [M, K], b: [K, N], c: [M, N], or broadcast to it -> [M, N]."""
    return linear.gemm(g, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@op("BatchNormalization", since=6)
def batch_normalization_6(
    g: Builder,
    x: Value,
    scale: Value,
    b: Value,
    mean: Value,
    var: Value,
    *,
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Result:
    """Normalise each channel; the module follows `train()` and `eval()`, whatever `is_test` says."""
    settings = {"epsilon": epsilon, "momentum": momentum}
    return norm.batch_normalization_7(g, x, scale, b, mean, var, **settings, spatial=spatial)


@op("Dropout", since=6)
def dropout_6(g: Builder, x: Value, *, is_test: int = 0, ratio: float = 0.5) -> Result:
    """Drop elements; the module follows `train()` and `eval()`, whatever `is_test` says."""
    return norm.dropout_7(g, x, ratio=ratio)


def _aligned(g: Builder, a: Value, b: Value, axis: int | None) -> Value:
    """Return b with axes of extent 1 at the end, so that it lies along the axes of a from `axis` on."""
    if axis is None:
        return b
    rank = g.rank(b)
    missing = g.rank(a) - (axis % g.rank(a)) - rank
    return g.call(indexing.unsqueeze, b, list(range(rank, rank + missing))) if missing > 0 else b
