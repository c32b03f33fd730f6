"""Attention, and what transformers and linear recurrences do beside it."""

from __future__ import annotations

import torch

from graftonnx.conversion import attending
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.constant import torch_type
from graftonnx.conversion.registry import op
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("Attention", since=23)
def attention_23(
    g: Builder,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Result:
    """Scaled dot-product attention, as :func:`attention` without windows."""
    return attention(
        g,
        q,
        k,
        v,
        attn_mask,
        past_key,
        past_value,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
    )


@op("Attention", since=24)
def attention_24(
    g: Builder,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    nonpad_kv_seqlen: Value = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Result:
    """Scaled dot-product attention, as :func:`attention` without windows."""
    return attention(
        g,
        q,
        k,
        v,
        attn_mask,
        past_key,
        past_value,
        nonpad_kv_seqlen,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
    )


@op("Attention", since=25)
def attention(
    g: Builder,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    nonpad_kv_seqlen: Value = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Result:
    """Scaled dot-product attention.

    q: [N, H, S, D] or [N, S, H * D], k, v: [N, G, T, D] or [N, T, G * D] -> [N, H, S, E] or [N, S, H * E],
    the keys and the values with those of the past before them, and the products.
    """
    packed = g.rank(q) == 3
    if packed and (q_num_heads is None or kv_num_heads is None):
        raise UnsupportedOpError("its inputs have three axes, so q_num_heads and kv_num_heads are needed.")
    if (past_key is None) != (past_value is None):
        raise UnsupportedOpError("past_key and past_value are needed together.")
    if past_key is not None and nonpad_kv_seqlen is not None:
        raise UnsupportedOpError("past_key and nonpad_kv_seqlen exclude each other.")
    if packed:
        q = g.call(attending.split_heads, q, q_num_heads)
        k, v = (g.call(attending.split_heads, x, kv_num_heads) for x in (k, v))
    if past_key is not None:
        k, v = (g.call(torch.cat, [past, x], dim=2) for past, x in ((past_key, k), (past_value, v)))
    optional = (attn_mask, past_key, nonpad_kv_seqlen, softmax_precision)
    windows = max(left_window_size, right_window_size) >= 0
    if all(x is None for x in optional) and not softcap and not windows and g.wanted < 4:
        y = g.call(attending.plain_attention, q, k, v, bool(is_causal), scale)
        return _joined(g, y, packed), k, v, None
    offset: object = 0
    if past_key is not None:
        offset = g.call(torch.Tensor.size, past_key, 2)
    elif nonpad_kv_seqlen is not None:
        offset = g.call(attending.offset_of_cache, nonpad_kv_seqlen, q)
    precision = None if softmax_precision is None else torch_type(dtype_name(softmax_precision))
    both = g.call(
        attending.attention,
        q,
        k,
        v,
        attn_mask,
        offset,
        nonpad_kv_seqlen,
        causal=bool(is_causal),
        scale=scale,
        softcap=softcap,
        precision=precision,
        left=left_window_size,
        right=right_window_size,
        products=qk_matmul_output_mode,
    )
    return _joined(g, g.item(both, 0), packed), k, v, g.item(both, 1)


@op("RotaryEmbedding", since=23)
def rotary_embedding(
    g: Builder,
    x: Value,
    cos_cache: Value,
    sin_cache: Value,
    position_ids: Value = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Result:
    """Pairs of features turned by angles of the position. x: [N, H, S, D] or [N, S, H * D] -> the same."""
    if g.rank(x) == 3 and not num_heads:
        raise UnsupportedOpError("its input has three axes, so num_heads is needed.")
    if not 0 <= rotary_embedding_dim < 1 << 31:
        raise UnsupportedOpError(
            f"rotary_embedding_dim is {rotary_embedding_dim}, expected a number of features."
        )
    how = (bool(interleaved), num_heads, rotary_embedding_dim)
    return g.call(attending.rotary_embedding, x, cos_cache, sin_cache, position_ids, *how)


@op("LinearAttention", since=27)
def linear_attention(
    g: Builder,
    query: Value,
    key: Value,
    value: Value,
    past_state: Value = None,
    decay: Value = None,
    beta: Value = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> Result:
    """Attention by a state that every token updates. query: [N, S, H * D] -> [N, S, H * E], and the state.

    `chunk_size` is about speed alone.
    """
    if update_rule not in ("linear", "gated", "delta", "gated_delta"):
        raise UnsupportedOpError(
            f"update_rule is '{update_rule}', expected linear, gated, delta or gated_delta."
        )
    if ("gated" in update_rule) != (decay is not None) or ("delta" in update_rule) != (beta is not None):
        raise UnsupportedOpError(f"the inputs decay and beta do not fit the update_rule '{update_rule}'.")
    heads = (q_num_heads, kv_num_heads, scale)
    both = g.call(attending.linear_attention, query, key, value, past_state, decay, beta, *heads)
    return g.item(both, 0), g.item(both, 1)


@op("CausalConvWithState", since=27)
def causal_conv_with_state(
    g: Builder,
    x: Value,
    weight: Value,
    bias: Value = None,
    past_state: Value = None,
    *,
    activation: str = "none",
) -> Result:
    """Each channel convolved with what came before. x: [N, C, L] -> [N, C, L], and the next state."""
    if activation not in ("none", "silu", "swish"):
        raise UnsupportedOpError(f"activation is '{activation}', expected none, silu or swish.")
    both = g.call(attending.causal_conv, x, weight, bias, past_state, activation != "none")
    return g.item(both, 0), g.item(both, 1)


def _joined(g: Builder, y: Value, packed: bool) -> Value:
    return g.call(attending.join_heads, y) if packed else y
