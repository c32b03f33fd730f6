"""What generated code calls for the attention operators of ONNX, and for rotary positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Style:
    """The attributes of an attention operator.

    Attributes:
        causal: Whether a query sees no key behind its own position.
        scale: Of the products; None for 1 / sqrt(head size).
        softcap: Bound of the products; 0 for none.
        precision: Element type in which the softmax is computed; None for the queries'.
        left: How many keys before its position a query sees; -1 for all.
        right: How many after; -1 for all.
        products: Which products are returned: 0 raw, 1 after the bound, 2 with the mask, 3 probabilities.
    """

    causal: bool
    scale: float | None
    softcap: float
    precision: torch.dtype | None
    left: int = -1
    right: int = -1
    products: int = 0


def split_heads(x: Tensor, heads: int | None) -> Tensor:
    """Return x: [N, S, heads * D] as [N, heads, S, D]; what has four axes already is left alone."""
    if x.ndim == 4 or heads is None:
        return x
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Return x: [N, heads, S, D] as [N, S, heads * D]."""
    return x.transpose(1, 2).flatten(2)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None) -> Tensor:
    """Attend without a mask. q: [N, H, S, D], k, v: [N, G, T, D] with H a multiple of G -> q's shape."""
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)


def learned_mask_attention(
    q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor, scale: float | None = None
) -> Tensor:
    """Attend with a mask that trains. q: [..., L, E], k: [..., S, E], v: [..., S, D] -> [..., L, D].

    On the CPU, PyTorch's function takes this formula for such a mask, but a kernel that leaves other strides
    where gradients are off; its ONNX exporter meets both and fails.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale)
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return F.softmax((q * factor) @ k.transpose(-2, -1) + attn_mask, -1) @ v


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    offset: Tensor | int,
    valid: Tensor | None,
    **how: object,
) -> tuple[Tensor, Tensor]:
    """Attend with a mask; a query that sees no key gets zeros.

    Args:
        q: [N, H, S, D].
        k: [N, G, T, D], with H a multiple of G.
        v: [N, G, T, E].
        mask: Broadcast to [N, H, S, T], true where a key is seen, or added to the products; T may be shorter.
        offset: How many keys come before the first query, of all samples or of each: [N].
        valid: [N], how many keys count.
        how: The fields of :class:`Style`.

    Returns:
        [N, H, S, E], and the products: [N, H, S, T].
    """
    style = Style(**how)  # type: ignore[arg-type]
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    root = math.sqrt(1 / math.sqrt(q.shape[3]) if style.scale is None else style.scale)
    factor = torch.tensor(root, dtype=torch.float64).to(q.dtype).to(q.device)
    products = torch.matmul(q * factor, k.transpose(2, 3) * factor)
    shown = products
    if style.softcap > 0:
        products = torch.tanh(products / style.softcap) * style.softcap
    if style.products == 1:
        shown = products
    bias = _bias(q, k.shape[2], mask, offset, valid, style)
    if bias is not None:
        products = products + bias
    if style.products == 2:
        shown = products
    shares = F.softmax(products if style.precision is None else products.to(style.precision), -1)
    if bias is not None:
        blind = bias.amax(-1, keepdim=True).isneginf()
        shares = torch.where(blind, torch.zeros_like(shares), shares)
    shares = shares.to(q.dtype)
    return torch.matmul(shares, v), shares if style.products == 3 else shown


def _bias(
    q: Tensor, keys: int, mask: Tensor | None, offset: Tensor | int, valid: Tensor | None, style: Style
) -> Tensor | None:
    """Return what is added to the products, minus infinity where a key is not seen; None for nothing."""
    lowest = float("-inf")
    bias = None
    if mask is not None:
        missing = keys - mask.shape[-1]
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, lowest)
        bias = F.pad(mask, (0, missing), value=lowest) if missing > 0 else mask
    seen = _seen(q, keys, offset, valid, style)
    if seen is None:
        return bias
    hidden = torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, lowest)
    return hidden if bias is None else bias + hidden


def _seen(q: Tensor, keys: int, offset: Tensor | int, valid: Tensor | None, style: Style) -> Tensor | None:
    """Return which key which query sees by its position: broadcast to [N, H, S, T]; None for all."""
    key = torch.arange(keys, device=q.device)
    position = torch.arange(q.shape[2], device=q.device).reshape(-1, 1)
    position = position + (offset if isinstance(offset, int) else offset.reshape(-1, 1, 1, 1))
    rules = []
    if style.causal:
        rules.append(key <= position)
    if style.left >= 0:
        rules.append(key >= position - style.left)
    if style.right >= 0:
        rules.append(key <= position + style.right)
    if valid is not None:
        rules.append(key < valid.reshape(-1, 1, 1, 1))
    seen = None
    for rule in rules:
        seen = rule if seen is None else seen & rule
    return seen


def offset_of_cache(valid: Tensor, q: Tensor) -> Tensor:
    """Return how many keys come before the queries at the end of a cache. valid: [N] -> [N]."""
    return valid.reshape(-1) - q.shape[2]


def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor | None,
    interleaved: bool,
    heads: int | None,
    rotated: int,
) -> Tensor:
    """Turn pairs of features by angles that depend on the position.

    Args:
        x: [N, H, S, D] or [N, S, H * D].
        cosines: [P, R / 2] by position, or [N, S, R / 2] without `positions`.
        sines: The same shape.
        positions: [N, S].
        interleaved: Whether a pair are neighbours; else they are half of the features apart.
        heads: H, for three axes.
        rotated: How many features are turned; 0 for all.
    """
    by_head = split_heads(x, heads).transpose(1, 2)
    if positions is not None:
        cosines, sines = cosines[positions.long()], sines[positions.long()]
    cosines, sines = cosines.unsqueeze(2), sines.unsqueeze(2)
    width = rotated or by_head.shape[3]
    turned, rest = by_head[..., :width], by_head[..., width:]
    first, second = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    real = cosines * first - sines * second
    imaginary = sines * first + cosines * second
    turned = (
        torch.stack([real, imaginary], -1).flatten(3) if interleaved else torch.cat([real, imaginary], -1)
    )
    y = torch.cat([turned, rest], -1)
    return y.transpose(1, 2) if x.ndim == 4 else y.flatten(2)


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    state: Tensor | None,
    decay: Tensor | None,
    beta: Tensor | None,
    heads: int,
    groups: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attend by a state that every token updates, in float32 or wider, one token after the other.

    Args:
        query: [N, S, heads * D].
        key: [N, S, groups * D].
        value: [N, S, groups * E].
        state: [N, groups, D, E]; None for zeros.
        decay: [N, S, groups] or [N, S, groups * D], the logarithm of how much of the state stays.
        beta: [N, S, groups or 1], how much of what the state does not yet know is written.
        heads: Of the queries.
        groups: Heads of keys and values; each serves heads / groups queries.
        scale: Of the result; 0 for 1 / sqrt(D).

    Returns:
        [N, S, heads * E], and the last state.
    """
    q, k, v = (_wide(split_heads(t, h)) for t, h in ((query, heads), (key, groups), (value, groups)))
    n, size = query.shape[0], q.shape[3]
    kept = None if decay is None else _wide(split_heads(decay, groups)).exp()
    rate = None if beta is None else _wide(split_heads(beta, beta.shape[2]))
    memory = q.new_zeros(n, groups, size, v.shape[3]) if state is None else _wide(state)
    results = []
    for i in range(query.shape[1]):
        token, content = k[:, :, i], v[:, :, i]
        if kept is not None:
            memory = memory * kept[:, :, i].unsqueeze(-1)
        if rate is not None:
            content = rate[:, :, i] * (content - torch.einsum("nhde,nhd->nhe", memory, token))
        memory = memory + token.unsqueeze(-1) * content.unsqueeze(-2)
        read = memory.repeat_interleave(heads // groups, 1)
        results.append(torch.einsum("nhd,nhde->nhe", q[:, :, i], read))
    y = torch.stack(results, 1).flatten(2) * (scale or 1 / math.sqrt(size))
    return y.to(query.dtype), memory.to(query.dtype if state is None else state.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor]:
    """Convolve each channel with what came before.

    Args:
        x: [N, C, L].
        weight: [C, 1, K].
        bias: [C].
        state: [N, C, K - 1], what came before x; None for zeros.
        silu: Whether x * sigmoid(x) is taken of the result.

    Returns:
        [N, C, L], and the next state.
    """
    before = weight.shape[2] - 1
    whole = F.pad(x, (before, 0)) if state is None else torch.cat([state, x], 2)
    y = F.conv1d(whole, weight, bias, groups=x.shape[1])
    return F.silu(y) if silu else y, whole[:, :, whole.shape[2] - before :]
