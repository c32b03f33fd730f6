"""Matrix products."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from graftonnx.conversion import formulas
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.conv import own_weights
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value


@op("MatMul", since=1)
def mat_mul(g: Builder, a: Value, b: Value) -> Result:
    """Matrix product of the last two axes. a: [..., M, K], b: [..., K, N] -> [..., M, N]."""
    return g.call(torch.matmul, a, b)


@op("Gemm", since=7)
def gemm(
    g: Builder,
    a: Value,
    b: Value,
    c: Value = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # ONNX's spelling
    transB: int = 0,  # ONNX's spelling
) -> Result:
    """Alpha * A B + beta * C. a: [M, K], b: [K, N], c: broadcast to [M, N] -> [M, N]."""
    if transA:
        a = g.call(torch.t, a)
    vector = c is None or len(g.shape(c) or (1, 1)) == 1
    if transB and vector and alpha == 1 and (c is None or beta == 1):
        own = own_weights(b, c)
        if own is not None and (c is None or own[1].array.size == own[0].array.shape[0]):
            n, k = own[0].array.shape
            return g.layer(nn.Linear(k, n, bias=c is not None, device="meta"), a, weights=own)
        if c is None or g.shape(c) == (g.shape(b) or ("",))[:1]:
            return g.call(F.linear, a, b, c)
    if transB:
        b = g.call(torch.t, b)
    if c is None or beta == 0:
        product = g.call(torch.mm, a, b)
        return product if alpha == 1 else g.call(torch.mul, product, alpha)
    if alpha == 1 and beta == 1:
        return g.call(torch.addmm, c, a, b)
    return g.call(formulas.gemm, g.tensor(a), b, c, alpha, beta)


@op("Einsum", since=12)
def einsum(g: Builder, *inputs: Value, equation: str) -> Result:
    """Sum of products, as the equation says."""
    return g.call(torch.einsum, equation, *inputs)
