"""Make 1x1 projections cheaper: the pool in front goes behind, the Conv behind takes them in."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto, TensorProto

from graftonnx.folding.affine import bias_of, pads, replace_conv
from graftonnx.folding.rewriting import Floats, Graph
from graftonnx.graph import GraphView, integer, ints
from graftonnx.shapes import Shape


def pool_last(graph: Graph) -> int:
    """Before: `AveragePool -> Conv 1x1` to fewer channels. After: the Conv, then the pool.

    A mean of weighted sums is the weighted sum of means; with a stride the Conv would see more positions, and
    where zeros of the padding count, they would lack its bias.
    """
    view = graph.view()
    moved: dict[str, Shape | None] = {}
    for conv in view.nodes:
        pool = view.producer.get(conv.input[0]) if is_pointwise(view, conv) else None
        if pool is None or not goes_behind(pool) or not has_one_reader(view, conv.input[0]):
            continue
        filters, channels = view.initializers[conv.input[1]].dims[:2]
        if filters >= channels:
            continue
        before, between, after = pool.input[0], pool.output[0], conv.output[0]
        conv.input[0], conv.output[0], pool.input[0], pool.output[0] = before, between, between, after
        shape = view.shapes.get(before)
        moved[between] = shape and (shape[0], filters, *shape[2:])
    graph.sort()
    graph.describe(moved)
    return len(moved)


def fold_pointwise(graph: Graph) -> int:
    """Before: `Conv(W, b) 1x1 -> Conv(V, c)`. After: `Conv(V W, c + V b)`, where that takes no more MACs.

    With `b` other than zero that holds only where the second Conv does not pad.
    """
    view = graph.view()
    removed: list[NodeProto] = []
    for conv in view.nodes:
        first = view.producer.get(conv.input[0]) if conv.op_type == "Conv" else None
        if first is None or first in removed or not is_pointwise(view, first):
            continue
        second = graph.array(view, conv.input[1])
        weight = graph.array(view, first.input[1])
        biases = bias_of(graph, view, first, weight), bias_of(graph, view, conv, second)
        if second is None or weight is None or biases[0] is None or biases[1] is None:
            continue
        if integer(conv, "group", 1) != 1 or not has_one_reader(view, conv.input[0]):
            continue
        if (biases[0].any() and pads(conv)) or not _is_cheaper(view, first, conv, weight, second):
            continue
        product: Floats = np.einsum("km...,mc->kc...", second, weight.reshape(weight.shape[:2]))
        added: Floats = np.einsum("kms,m->k", second.reshape(*second.shape[:2], -1), biases[0])
        if replace_conv(graph, view, conv, product, biases[1] + added):
            conv.input[0] = first.input[0]
            removed.append(first)
    graph.remove(view, removed)
    return len(removed)


def goes_behind(pool: NodeProto) -> bool:
    """Return whether a node is an average pool that may go behind a 1x1 Conv as cheaply as in front of it."""
    counts_padding = integer(pool, "count_include_pad", 0) == 1 and pads(pool)
    return pool.op_type == "AveragePool" and set(ints(pool, "strides", (1,))) == {1} and not counts_padding


def is_pointwise(view: GraphView, node: NodeProto) -> bool:
    """Return whether a node is a float32 Conv that takes each position by itself, all channels together."""
    weight = view.initializers.get(node.input[1]) if node.op_type == "Conv" else None
    if weight is None or weight.data_type != TensorProto.FLOAT or integer(node, "group", 1) != 1:
        return False
    return {*weight.dims[2:], *ints(node, "strides", (1,))} == {1} and not pads(node)


def has_one_reader(view: GraphView, name: str) -> bool:
    """Return whether one node alone reads a value, once or more often."""
    return len(view.consumers[name]) == 1 and name not in view.outputs


def _is_cheaper(view: GraphView, first: NodeProto, conv: NodeProto, weight: Floats, second: Floats) -> bool:
    before, after = (view.shapes.get(node.output[0]) for node in (first, conv))
    if before is None or after is None or None in (*before[2:], *after[2:]):
        return False
    positions = [math.prod(extent or 1 for extent in shape[2:]) for shape in (before, after)]
    now = weight.size * positions[0] + second.size * positions[1]
    then = second.size // second.shape[1] * weight.shape[1] * positions[1]
    return bool(then <= now)
