"""What generated code calls for ONNX Runtime's own operators of transformers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def embeddings(
    ids: Tensor,
    segments: Tensor | None,
    positions: Tensor | None,
    words: Tensor,
    places: Tensor,
    kinds: Tensor | None,
) -> Tensor:
    """Return the sum of the embeddings of tokens, of their positions and of their segments.

    Args:
        ids: [N, T].
        segments: [N, T].
        positions: [N, T] or [1, T]; counted from 0 if None.
        words: [V, C].
        places: [P, C].
        kinds: [S, C].
    """
    where = places[: ids.shape[1]] if positions is None else F.embedding(positions, places)
    total = F.embedding(ids, words) + where
    return total if segments is None or kinds is None else total + F.embedding(segments, kinds)


def mask_lengths(ids: Tensor, mask: Tensor | None) -> Tensor:
    """Return how many tokens of each sequence a mask [N, T] shows, as int32 [N]; 0 without a mask."""
    if mask is None:
        return torch.zeros_like(ids[:, 0], dtype=torch.int32)
    return mask.sum(1).to(torch.int32)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    heads: int,
    scale: float | None,
    causal: bool,
    filler: float,
) -> Tensor:
    """Return attention of several heads.

    Args:
        query: [N, T, D].
        key: [N, S, D].
        value: [N, S, E].
        mask: [N, S], 0 where a token is hidden; None if all are visible.
        bias: Added to the scores, broadcast to [N, heads, T, S].
        heads: D and E hold so many heads.
        scale: Of the scores; 1 / square root of a head's width if None.
        causal: Whether a token sees only those before it, and itself.
        filler: Added to the scores of hidden tokens.

    Returns:
        [N, T, E].
    """
    q, k, v = (t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (query, key, value))
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores + (mask == 0)[:, None, None, :].to(scores.dtype) * filler
    if causal:
        hidden = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    y: Tensor = scores.softmax(-1) @ v
    return y.transpose(1, 2).flatten(2)
