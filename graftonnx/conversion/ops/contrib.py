"""Float operators of the domain `com.microsoft`, as ONNX Runtime's optimizer writes them.

No schema of the onnx package describes them. Names, order and defaults are those that ONNX Runtime registers
(its file docs/ContribOperators.md); a test compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from graftonnx.conversion import contributed, formulas
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.grids import known_shape, typed
from graftonnx.conversion.ops import activation as activations
from graftonnx.conversion.ops.conv import conv
from graftonnx.conversion.ops.linear import gemm
from graftonnx.conversion.ops.norm import layer_normalization
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError

MICROSOFT = "com.microsoft"

_PARAMETERS = {
    "Relu": 0,
    "Sigmoid": 0,
    "Tanh": 0,
    "HardSwish": 0,
    "LeakyRelu": 1,
    "Clip": 2,
    "HardSigmoid": 2,
}
"""Activation -> how many parameters it has."""


@op("FusedConv", since=1, domain=MICROSOFT)
def fused_conv(
    g: Builder,
    x: Value,
    w: Value,
    b: Value = None,
    z: Value = None,
    *,
    activation: str | None = None,
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Result:
    """Convolution, plus z, then an activation. x: [N, C, ...], w: [M, C/group, ...], z: [N, M, ...]."""
    y = conv(
        g,
        x,
        w,
        b,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    shape = (known_shape(g, x) or (None,))[0], (known_shape(g, w) or (None,))[0], *(None,) * (g.rank(w) - 2)
    dtype = g.type(x).dtype or g.type(w).dtype
    y = typed(y, dtype, shape)
    if z is not None:
        y = typed(g.call(torch.add, y, z), dtype, shape)
    return typed(_activated(g, y, activation, activation_params or ()), dtype, shape)


def _activated(g: Builder, x: Value, name: str | None, parameters: Sequence[float]) -> Value:
    """Emit an activation with its parameters."""
    if name is None:
        return x
    if name not in _PARAMETERS or len(parameters) < _PARAMETERS[name]:
        raise UnsupportedOpError(
            f"activation is '{name}' with {len(parameters)} parameters, expected one of "
            f"{', '.join(sorted(_PARAMETERS))} with all of its own."
        )
    if name == "Relu":
        return g.call(F.relu, x)
    if name == "HardSwish":
        return g.call(F.hardswish, x)
    if name in ("Sigmoid", "Tanh"):
        return g.call(torch.sigmoid if name == "Sigmoid" else torch.tanh, x)
    if name == "LeakyRelu":
        return g.call(F.leaky_relu, x, parameters[0])
    if name == "Clip":
        return g.call(torch.clamp, x, parameters[0], parameters[1])
    return g.call(formulas.hard_sigmoid, x, parameters[0], parameters[1])


@op("FusedGemm", since=1, domain=MICROSOFT)
def fused_gemm(
    g: Builder,
    a: Value,
    b: Value,
    c: Value = None,
    *,
    activation: str | None = None,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # ONNX's spelling
    transB: int = 0,  # ONNX's spelling
) -> Result:
    """Alpha * A B + beta * C, then an activation. a: [M, K], b: [K, N] -> [M, N]."""
    y: Any = gemm(g, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    parameters = [p for p in (activation_alpha, activation_beta, activation_gamma) if p is not None]
    return typed(_activated(g, y, activation, parameters), g.type(a).dtype or g.type(b).dtype, (None, None))


@op("TransposeMatMul", since=1, domain=MICROSOFT)
@op("FusedMatMul", since=1, domain=MICROSOFT)
def fused_mat_mul(
    g: Builder,
    a: Value,
    b: Value,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # ONNX's spelling
    transB: int = 0,  # ONNX's spelling
    transBatchA: int = 0,  # ONNX's spelling
    transBatchB: int = 0,  # ONNX's spelling
) -> Result:
    """Alpha * A B; `trans` swaps the last two axes first. a: [..., M, K], b: [..., K, N] -> [..., M, N]."""
    if transBatchA or transBatchB:
        raise UnsupportedOpError("transBatchA and transBatchB have no exact form. Optimise the model less.")
    left, right, dtype = known_shape(g, a), known_shape(g, b), g.type(a).dtype or g.type(b).dtype
    a = g.call(torch.transpose, a, -1, -2) if transA else a
    b = g.call(torch.transpose, b, -1, -2) if transB else b
    y = g.call(torch.matmul, a, b)
    y = y if alpha == 1 else g.call(torch.mul, y, alpha)
    if left is None or right is None or min(len(left), len(right)) < 2:
        return y
    batch = left[:-2] if left[:-2] == right[:-2] else (None,) * (max(len(left), len(right)) - 2)
    return typed(y, dtype, (*batch, left[-1 if transA else -2], right[-2 if transB else -1]))


@op("Gelu", since=1, domain=MICROSOFT)
def gelu(g: Builder, x: Value) -> Result:
    """X times the normal distribution function."""
    return typed(activations.gelu(g, x), g.type(x).dtype, known_shape(g, x))  # type: ignore[arg-type]  # one value


@op("BiasGelu", since=1, domain=MICROSOFT)
def bias_gelu(g: Builder, a: Value, b: Value) -> Result:
    """Gelu of a + b. a: [..., C], b: [C] -> a's shape."""
    return typed(g.call(F.gelu, g.call(torch.add, a, b)), g.type(a).dtype, known_shape(g, a))


@op("FastGelu", since=1, domain=MICROSOFT)
def fast_gelu(g: Builder, x: Value, bias: Value = None) -> Result:
    """Gelu of x + bias, by tanh. x: [..., C], bias: [C] -> x's shape."""
    total = x if bias is None else g.call(torch.add, x, bias)
    return typed(g.call(F.gelu, total, approximate="tanh"), g.type(x).dtype, known_shape(g, x))


@op("QuickGelu", since=1, domain=MICROSOFT)
def quick_gelu(g: Builder, x: Value, *, alpha: float = 1.702) -> Result:
    """X * sigmoid(alpha * x)."""
    return typed(activations.swish(g, x, alpha=alpha), g.type(x).dtype, known_shape(g, x))  # type: ignore[arg-type]


@op("LayerNormalization", since=1)
def layer_normalization_1(
    g: Builder,
    x: Value,
    scale: Value,
    b: Value = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Result:
    """ONNX Runtime's own, in the default domain below opset 17. x: [...], scale, b: x's last axes."""
    result = layer_normalization(g, x, scale, b, axis=axis, epsilon=epsilon, stash_type=stash_type)
    first, *rest = result if isinstance(result, tuple) else (result,)
    return (typed(first, g.type(x).dtype, known_shape(g, x)), *rest)


@op("SimplifiedLayerNormalization", since=1)
def simplified_layer_normalization(
    g: Builder, x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Result:
    """ONNX Runtime's own, in the default domain: x over its root mean square. x: [...] -> x's shape."""
    if stash_type != 1:
        raise UnsupportedOpError(f"stash_type is {stash_type}, expected 1 (float32).")
    axis = axis + g.rank(x) if axis < 0 else axis
    y = g.call(formulas.rms_norm, g.tensor(x), axis, scale, epsilon)
    return typed(y, g.type(x).dtype, known_shape(g, x))


@op("SkipLayerNormalization", since=1, domain=MICROSOFT)
def skip_layer_normalization(
    g: Builder,
    x: Value,
    skip: Value,
    gamma: Value,
    beta: Value = None,
    bias: Value = None,
    *,
    epsilon: float = 1e-12,
) -> Result:
    """Layer norm of x + skip + bias. x, skip: [..., C], the others: [C] -> x's shape, fourth the sum."""
    total = _sum_of_skips(g, x, skip, bias)
    normal = layer_normalization(g, total, gamma, beta, epsilon=epsilon)
    return _with_sum(g, x, normal, total)


@op("SkipSimplifiedLayerNormalization", since=1, domain=MICROSOFT)
def skip_simplified_layer_normalization(
    g: Builder, x: Value, skip: Value, gamma: Value, bias: Value = None, *, epsilon: float = 1e-12
) -> Result:
    """X + skip + bias over its root mean square; like SkipLayerNormalization."""
    total = _sum_of_skips(g, x, skip, bias)
    normal = g.call(formulas.rms_norm, g.tensor(total), g.rank(total) - 1, gamma, epsilon)
    return _with_sum(g, x, normal, total)


def _sum_of_skips(g: Builder, x: Value, skip: Value, bias: Value) -> Value:
    total = g.call(torch.add, x, skip)
    total = total if bias is None else g.call(torch.add, total, bias)
    return typed(total, g.type(x).dtype, known_shape(g, x))


def _with_sum(g: Builder, x: Value, normal: Result, total: Value) -> Result:
    """Return the outputs of a normalisation of a sum; its statistics are for training inside the runtime.

    Raises:
        UnsupportedOpError: If somebody reads the statistics.
    """
    if any(name and g.consumers.get(name) for name in g.node.output[1:3]):
        raise UnsupportedOpError(
            "its mean or standard deviation is read, which only training inside ONNX does."
        )
    first = normal[0] if isinstance(normal, tuple) else normal
    return typed(first, g.type(x).dtype, known_shape(g, x)), None, None, total


@op("EmbedLayerNormalization", since=1, domain=MICROSOFT)
def embed_layer_normalization(
    g: Builder,
    input_ids: Value,
    segment_ids: Value,
    word_embedding: Value,
    position_embedding: Value,
    segment_embedding: Value = None,
    gamma: Value = None,
    beta: Value = None,
    mask: Value = None,
    position_ids: Value = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int | None = None,
) -> Result:
    """Layer norm of the sum of embeddings. ids: [N, T], tables: [V, C] -> [N, T, C], lengths, sum."""
    lengths = g.call(contributed.mask_lengths, g.tensor(input_ids), mask)
    total = g.call(
        contributed.embeddings,
        g.tensor(input_ids),
        segment_ids,
        position_ids,
        word_embedding,
        position_embedding,
        segment_embedding,
    )
    shape = (*(known_shape(g, input_ids) or (None, None)), (known_shape(g, gamma) or (None,))[0])
    total = typed(total, g.type(word_embedding).dtype, shape)
    normal = layer_normalization(g, total, gamma, beta, epsilon=epsilon)
    first = normal[0] if isinstance(normal, tuple) else normal
    return typed(first, g.type(word_embedding).dtype, shape), lengths, total


@op("BiasSoftmax", since=1, domain=MICROSOFT)
def bias_softmax(g: Builder, data: Value, bias: Value, *, axis: int = 1, is_inner_broadcast: int) -> Result:
    """Softmax of data + bias over the axes from `axis` on; bias has data's axes, of extent 1 where shared."""
    if g.rank(data) != g.rank(bias):
        raise UnsupportedOpError(
            "its bias has fewer axes than its data, so that it is unknown which it lacks."
        )
    total = typed(g.call(torch.add, data, bias), g.type(data).dtype, known_shape(g, data))
    return typed(activations.softmax_1(g, total, axis=axis), g.type(data).dtype, known_shape(g, data))  # type: ignore[arg-type]


@op("Attention", since=1, domain=MICROSOFT)
def attention(
    g: Builder,
    x: Value,
    weights: Value,
    bias: Value = None,
    mask_index: Value = None,
    past: Value = None,
    attention_bias: Value = None,
    past_sequence_length: Value = None,
    *,
    do_rotary: int | None = None,
    mask_filter_value: float | None = None,
    num_heads: int,
    past_present_share_buffer: int | None = None,
    qkv_hidden_sizes: Sequence[int] | None = None,
    rotary_embedding_dim: int | None = None,
    scale: float | None = None,
    unidirectional: int = 0,
) -> Result:
    """Attention of x with itself. x: [N, T, C], weights: [C, 3 D], bias: [3 D] -> [N, T, D].

    A mask of two axes [N, T] is 0 where a token is hidden; other masks, past tokens and rotary positions are
    refused.
    """
    _refuse(past=past, past_sequence_length=past_sequence_length, do_rotary=do_rotary)
    if mask_index is not None and g.rank(mask_index) != 2:
        raise UnsupportedOpError("mask_index is no mask of each token, [batch, tokens].")
    if qkv_hidden_sizes and len(set(qkv_hidden_sizes)) > 1:
        raise UnsupportedOpError(f"qkv_hidden_sizes are {list(qkv_hidden_sizes)}, expected equal ones.")
    projected = g.call(torch.matmul, x, weights)
    projected = projected if bias is None else g.call(torch.add, projected, bias)
    parts = g.call(torch.chunk, projected, 3, dim=-1)
    q, k, v = (g.item(parts, i) for i in range(3))
    filler = -10000.0 if mask_filter_value is None else mask_filter_value
    settings: tuple[Any, ...] = (num_heads, scale, bool(unidirectional), filler)
    y = g.call(contributed.attention, q, k, v, mask_index, attention_bias, *settings)
    width = (known_shape(g, weights) or (None, None))[1]
    shape = (*(known_shape(g, x) or (None, None, None))[:2], None if width is None else width // 3)
    return typed(y, g.type(x).dtype, shape)


@op("MultiHeadAttention", since=1, domain=MICROSOFT)
def multi_head_attention(
    g: Builder,
    query: Value,
    key: Value = None,
    value: Value = None,
    bias: Value = None,
    key_padding_mask: Value = None,
    attention_bias: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    past_sequence_length: Value = None,
    cache_indirection: Value = None,
    *,
    mask_filter_value: float | None = None,
    num_heads: int,
    scale: float | None = None,
    unidirectional: int = 0,
) -> Result:
    """Attention of query: [N, T, D] to key: [N, S, D] and value: [N, S, E] -> [N, T, E]; bias: [2 D + E].

    A padding mask of two axes [N, S] is 0 where a token is hidden; other masks, packed queries and past
    tokens are refused.
    """
    _refuse(
        past_key=past_key,
        past_value=past_value,
        past_sequence_length=past_sequence_length,
        cache_indirection=cache_indirection,
    )
    if key is None or value is None or any(g.rank(t) != 3 for t in (query, key, value)):
        raise UnsupportedOpError("query, key and value are packed, expected three tensors of three axes.")
    if key_padding_mask is not None and g.rank(key_padding_mask) != 2:
        raise UnsupportedOpError("key_padding_mask is no mask of each token, [batch, tokens].")
    if bias is not None:
        width, total = (known_shape(g, query) or (None,))[-1], (known_shape(g, bias) or (None,))[0]
        if width is None or total is None:
            raise UnsupportedOpError("the width of query or bias is unknown.")
        parts = g.call(torch.split, g.tensor(bias), [width, width, total - 2 * width])
        query, key, value = (
            g.call(torch.add, t, g.item(parts, i)) for i, t in enumerate((query, key, value))
        )
    filler = -10000.0 if mask_filter_value is None else mask_filter_value
    settings: tuple[Any, ...] = (num_heads, scale, bool(unidirectional), filler)
    y = g.call(contributed.attention, query, key, value, key_padding_mask, attention_bias, *settings)
    return typed(y, g.type(query).dtype, (None, None, (known_shape(g, value) or (None,))[-1]))


def _refuse(**inputs: Any) -> None:
    """Refuse what is present and true."""
    for name, value in inputs.items():
        if value is not None and not (isinstance(value, int) and value == 0):
            raise UnsupportedOpError(f"{name} has no exact form here.")
