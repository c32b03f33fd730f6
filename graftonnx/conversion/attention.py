"""Attention that exporters spell out becomes `scaled_dot_product_attention`."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from graftonnx.conversion.builder import TYPE
from graftonnx.conversion.constants import Numbers, is_close
from graftonnx.conversion.values import Type

_ASSUMED = (16.0, 64.0)
"""Head sizes on which a scale that is computed when the module runs is tried."""

_SEARCHED = 64
"""Nodes above a mask that are looked at for an infinity."""


def attention_arguments(
    node: fx.Node, numbers: Numbers
) -> tuple[tuple[Any, ...], dict[str, Any], set[fx.Node]] | None:
    """softmax(scale q kᵀ + mask) v. q: [..., L, E], k: [..., S, E], v: [..., S, D], mask: to [..., L, S].

    The scale may stand at q, at kᵀ, or behind their product. Does not apply where ranks are unknown or
    below 3, where leading extents broadcast, where the mask may hold an infinity (a row that it masks
    whole is NaN here and zero in PyTorch), or where a scale that the file holds as a tensor is not
    1 / sqrt(E) and so may be meant to train.

    Returns:
        Arguments, options, and the nodes in between; None where it does not apply.
    """
    if node.target is not torch.matmul:
        return None
    weights: Any
    v: Any
    weights, v = node.args
    inner: set[fx.Node] = {weights}
    weights, cleaned = _without_nan(weights, inner)
    if weights.target is not F.softmax or len(weights.args) != 1:
        return None
    scores: Any = weights.args[0]
    rank = len(_shape(v) or ())
    if rank < 3 or weights.kwargs.get("dim") not in (-1, rank - 1):
        return None
    mask = None
    if scores.target is operator.add:
        inner.add(scores)
        scores, mask = _parted(scores)
        if scores is None or not _is_mask(mask, rank, cleaned, numbers):
            return None
    factors: list[Any] = []
    product = _unscaled(scores, factors, numbers, inner)
    if product.target is not torch.matmul:
        return None
    inner |= {product}
    q = _unscaled(product.args[0], factors, numbers, inner)
    turned = _unscaled(product.args[1], factors, numbers, inner)
    k = _transposed(turned, inner)
    if (
        not _fits(q, v, rank)
        or (k is not None and not _fits(k, v, rank))
        or len(_shape(turned) or ()) != rank
    ):
        return None
    scale = _scale(q, factors, numbers)
    if scale is None:
        return None
    if k is None:
        with node.graph.inserting_before(node):
            k = node.graph.call_function(torch.transpose, (turned, -2, -1))
    options: dict[str, Any] = {} if mask is None else {"attn_mask": mask}
    if scale != "default":
        options["scale"] = scale
    return (q, k, v), options, inner


def _without_nan(node: Any, inner: set[fx.Node]) -> tuple[Any, bool]:
    """Return the weights in front of `where(isnan(weights), 0, weights)`, and whether that was there."""
    if node.target is torch.where:
        test, _, weights = node.args
        if isinstance(test, fx.Node) and test.target is torch.isnan and test.args == (weights,):
            inner |= {test, weights}
            return weights, True
    return node, False


def _parted(scores: fx.Node) -> tuple[Any, Any]:
    """Return the product of an addition, and the mask."""
    for product, mask in (scores.args, scores.args[::-1]):
        step: Any = product
        while isinstance(step, fx.Node) and step.target in (operator.mul, operator.truediv):
            step = step.args[0]
        if isinstance(step, fx.Node) and step.target is torch.matmul:
            return product, mask
    return None, None


def _unscaled(node: Any, factors: list[Any], numbers: Numbers, inner: set[fx.Node]) -> Any:
    """Return what a number multiplies or divides; append (number, whether it divides) to `factors`."""
    divides = node.target is operator.truediv
    if node.target is not operator.mul and not divides:
        return node
    for tensor, number in [node.args] if divides else [node.args, node.args[::-1]]:
        assumed = _Everything(_ASSUMED[0])
        if isinstance(tensor, fx.Node) and numbers.value(number, assumed) is not None:
            inner.add(node)
            factors.append((number, divides))
            return tensor
    return node


class _Everything(dict[tuple[fx.Node, int], float]):
    """Assumes the same extent everywhere."""

    def __init__(self, extent: float) -> None:
        super().__init__()
        self._extent = extent

    def get(self, key: Any, default: Any = None) -> Any:
        return self._extent


def _scale(q: fx.Node, factors: list[Any], numbers: Numbers) -> float | str | None:
    """Return the product of the factors; "default" if it is 1 / sqrt(E), None if it is not known."""
    size = (_shape(q) or (None,))[-1]
    rank = len(_shape(q) or ())
    if size is not None:
        total = _total(factors, numbers, {})
        if total is not None and is_close(total, 1 / math.sqrt(size)):
            return "default"
        held = any(isinstance(n, fx.Node) and n.op == "get_attr" for n, _ in factors)
        return None if held else total
    for extent in _ASSUMED:
        total = _total(factors, numbers, {(q, rank - 1): extent, (q, -1): extent})
        if total is None or not is_close(total, 1 / math.sqrt(extent)):
            return None
    return "default"


def _total(factors: list[Any], numbers: Numbers, assumed: dict[tuple[fx.Node, int], float]) -> float | None:
    total = 1.0
    for factor, divides in factors:
        number = numbers.value(factor, assumed)
        if not number:
            return None
        total = total / number if divides else total * number
    return total


def _transposed(node: fx.Node, inner: set[fx.Node]) -> fx.Node | None:
    """Return k if `node` is kᵀ: a permutation of its last axes, alone or between two reshapes."""
    if node.target is torch.permute:
        order = list(node.args[1])  # type: ignore[arg-type]
        n = len(order)
        swaps = order == [*range(n - 2), n - 1, n - 2]
        return node.args[0] if swaps else None  # type: ignore[return-value]
    middle: Any = node.args[0] if node.args else None
    if not _is_reshape(node) or not isinstance(middle, fx.Node) or middle.target is not torch.permute:
        return None
    flat: Any = middle.args[0]
    if list(middle.args[1]) != [0, 2, 1] or not _is_reshape(flat):  # type: ignore[arg-type]
        return None
    k, target, shape = flat.args[0], list(node.args[1]), _shape(flat.args[0])  # type: ignore[arg-type]
    if shape is None or len(target) != len(shape) or len(flat.args[1]) != 3:
        return None
    rank = len(shape)
    last = [_same(target[-2], k, rank - 1), _same(target[-1], k, rank - 2)]
    flattened = [_same(flat.args[1][-2], k, rank - 2), _same(flat.args[1][-1], k, rank - 1)]
    leading = [_same(extent, k, axis) or extent == -1 for axis, extent in enumerate(target[:-2])]
    if not all((*last, *flattened, *leading)):
        return None
    return k  # type: ignore[no-any-return]


def _is_reshape(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in (torch.reshape, torch.Tensor.reshape)


def _same(extent: Any, tensor: fx.Node, axis: int) -> bool:
    """Return whether an extent is that of an axis of a tensor."""
    if isinstance(extent, fx.Node):
        return extent.op == "call_method" and extent.target == "size" and extent.args == (tensor, axis)
    return bool(extent == (_shape(tensor) or ())[axis])


def _fits(node: Any, v: Any, rank: int) -> bool:
    """Return whether a tensor has the leading extents of v."""
    shape, like = _shape(node), _shape(v)
    if shape is None or like is None or len(shape) != rank:
        return False
    return all(a is None or b is None or a == b for a, b in zip(shape[:-2], like[:-2], strict=True))


def _is_mask(mask: Any, rank: int, cleaned: bool, numbers: Numbers) -> bool:
    """Return whether an added tensor can be `attn_mask`."""
    shape = _shape(mask)
    if shape is None or not 2 <= len(shape) <= rank:
        return False
    return cleaned or not _may_be_infinite(mask, numbers)


def _may_be_infinite(mask: fx.Node, numbers: Numbers) -> bool:
    """Return whether an infinity stands in the formula of a mask, or the formula is too long to tell."""
    waiting, seen = [mask], set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if len(seen) > _SEARCHED:
            return True
        constants = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, float)]
        tensor = numbers.tensor(node)
        if any(math.isinf(c) for c in constants) or (tensor is not None and bool(torch.isinf(tensor).any())):
            return True
        waiting.extend(node.all_input_nodes)
    return False


def _shape(node: Any) -> tuple[int | None, ...] | None:
    known = node.meta.get(TYPE) if isinstance(node, fx.Node) else None
    return known.shape if isinstance(known, Type) else None
