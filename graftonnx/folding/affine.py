"""Fold what is per-channel `x * s + t` into the Conv behind or in front of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from graftonnx.folding.rewriting import Floats, Graph
from graftonnx.graph import GraphView, attribute, integer, ints

LARGEST_SHIFT = 256
"""A shift may become this large in front of its scale: as large as a pixel. Numbers of order one lose digits
beside larger ones."""


def fold_behind(graph: Graph) -> int:
    """Before: `Conv(W, b) -> x * s + t`. After: `Conv(s W, s b + t)`."""
    view = graph.view()
    removed: list[NodeProto] = []
    for conv in view.nodes:
        after = view.consumers[conv.output[0]]
        if conv.op_type != "Conv" or len(after) != 1 or conv.output[0] in view.outputs:
            continue
        weight = graph.array(view, conv.input[1])
        bias = bias_of(graph, view, conv, weight)
        if weight is None or bias is None:
            continue
        affine = _affine(graph, view, after[0], conv.output[0], len(weight), weight.ndim)
        if affine is None:
            continue
        scale, shift = affine
        folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        if not replace_conv(graph, view, conv, folded, bias * scale + shift):
            continue
        conv.output[0] = after[0].output[0]
        removed.append(after[0])
    graph.remove(view, removed)
    return len(removed)


def fold_in_front(graph: Graph) -> int:
    """Before: `x * s + t -> Conv(W, b)`. After: `Conv(W s, b + W t)`, if `t` is zero or nothing is padded."""
    _shift_first(graph)
    view = graph.view()
    removed: list[NodeProto] = []
    for conv in view.nodes:
        before = view.producer.get(conv.input[0]) if conv.op_type == "Conv" else None
        if before is None or len(view.consumers[conv.input[0]]) != 1 or conv.input[0] in view.outputs:
            continue
        weight = graph.array(view, conv.input[1])
        bias = bias_of(graph, view, conv, weight)
        groups = integer(conv, "group", 1)
        if weight is None or bias is None:
            continue
        channels = weight.shape[1] * groups
        data = next((name for name in before.input if name not in view.initializers), "")
        shape = view.shapes.get(data)
        if shape is None or len(shape) != weight.ndim or shape[1] != channels:
            continue
        if before.op_type == "Gather" and groups == 1:
            order = _channel_order(view, before, channels)
            if order is None:
                continue
            folded, added = np.zeros_like(weight), np.zeros(len(weight))
            np.add.at(folded.swapaxes(0, 1), order, weight.swapaxes(0, 1))
        else:
            affine = _affine(graph, view, before, data, channels, weight.ndim)
            if affine is None or (affine[1].any() and pads(conv)):
                continue
            scale, shift = (_per_filter(values, len(weight), groups) for values in affine)
            spread = (*weight.shape[:2], *[1] * (weight.ndim - 2))
            folded = weight * scale.reshape(spread)
            added = (weight * shift.reshape(spread)).reshape(len(weight), -1).sum(axis=1)
        if not replace_conv(graph, view, conv, folded, bias + added):
            continue
        conv.input[0] = data
        removed.append(before)
    graph.remove(view, removed)
    return len(removed)


def _shift_first(graph: Graph) -> None:
    """Before: `x * s -> + t -> Conv`. After: `x + t / s -> * s -> Conv`: a Conv that pads takes the scale."""
    view = graph.view()
    for shift in view.nodes:
        readers = view.consumers[shift.output[0]]
        data = next((name for name in shift.input if name not in view.initializers), "")
        scale = view.producer.get(data)
        if [node.op_type for node in readers] != ["Conv"] or scale is None or len(view.consumers[data]) != 1:
            continue
        shape = view.shapes.get(data)
        source = next((name for name in scale.input if name not in view.initializers), "")
        if shape is None or len(shape) < 3 or shape[1] is None or shape != view.shapes.get(source):
            continue
        added = _affine(graph, view, shift, data, shape[1], len(shape))
        if added is None or (added[0] != 1).any() or {data, shift.output[0]} & set(view.outputs):
            continue
        moved = _before(graph, view, scale, source, added[1])
        if moved is None:
            continue
        graph.set_input(view, shift, 1, shift.input[1], moved.reshape(1, -1, *[1] * (len(shape) - 2)))
        shift.op_type, shift.input[0] = "Add", source
        scale.input[list(scale.input).index(source)] = data
        shift.output[0], scale.output[0] = data, shift.output[0]
    graph.sort()


def _before(graph: Graph, view: GraphView, node: NodeProto, data: str, shift: Floats) -> Floats | None:
    """Return the shift [C] in front of a node that does what `shift` does behind it, if it is a scale."""
    if node.op_type == "Gather":
        order = _channel_order(view, node, len(shift))
        if order is None or len(set(order)) != len(order):
            return None
        moved = np.empty_like(shift)
        moved[order] = shift
        return moved
    affine = _affine(graph, view, node, data, len(shift), len(view.shapes[data]))
    if affine is None or affine[1].any() or not affine[0].all():
        return None
    scaled: Floats = shift / affine[0]
    return scaled if (np.abs(scaled) <= LARGEST_SHIFT).all() else None


def _per_filter(values: Floats, filters: int, groups: int) -> Floats:
    """Spread one number each input channel [C] over the weight's first two axes [M, C / groups]."""
    return np.repeat(values.reshape(groups, -1), filters // groups, axis=0)


def _channel_order(view: GraphView, node: NodeProto, channels: int) -> NDArray[np.int64] | None:
    """Return the channels that a Gather along axis 1 picks, if it gives one each input of the Conv."""
    indices = view.constant(node.input[1])
    if indices is None or indices.shape != (channels,) or integer(node, "axis", 0) != 1:
        return None
    return indices.astype(np.int64)


def bias_of(graph: Graph, view: GraphView, conv: NodeProto, weight: Floats | None) -> Floats | None:
    """Return the bias of a Conv, zeros where it has none; None if it or the weight is no such constant."""
    if weight is None:
        return None
    if len(conv.input) < 3 or not conv.input[2]:
        return np.zeros(len(weight))
    bias = graph.array(view, conv.input[2])
    return bias if bias is not None and bias.shape == (len(weight),) else None


def pads(node: NodeProto) -> bool:
    """Return whether a Conv or a pool pads."""
    return any(ints(node, "pads")) or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def replace_conv(graph: Graph, view: GraphView, conv: NodeProto, weight: Floats, bias: Floats) -> bool:
    """Give a Conv new parameters; refuse those that float32 cannot hold."""
    with np.errstate(over="ignore"):
        if not all(np.isfinite(values.astype(np.float32)).all() for values in (weight, bias)):
            return False
    name = conv.input[1]
    graph.set_input(view, conv, 1, f"{name}/folded", weight)
    if bias.any() or len(conv.input) > 2:
        graph.set_input(view, conv, 2, f"{name}/bias", bias)
    return True


def _affine(
    graph: Graph, view: GraphView, node: NodeProto, data: str, channels: int, rank: int
) -> tuple[Floats, Floats] | None:
    """Read a node as `data * scale + shift` each channel, or return None if it is something else.

    Returns:
        `scale` and `shift`, each [C].
    """
    if node.op_type == "BatchNormalization":
        return _batch_norm(graph, view, node, data)
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or data not in node.input:
        return None
    first = node.input[0] == data
    constant = graph.array(view, node.input[1 if first else 0])
    values = None if constant is None else _per_channel(constant, channels, rank)
    if values is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Add":
        return one, values
    if node.op_type == "Sub":
        return (one, -values) if first else (-one, values)
    if node.op_type == "Mul":
        return values, zero
    return (1 / values, zero) if first and values.all() else None


def _batch_norm(graph: Graph, view: GraphView, node: NodeProto, data: str) -> tuple[Floats, Floats] | None:
    if node.input[0] != data or integer(node, "training_mode", 0) or sum(map(bool, node.output)) != 1:
        return None
    parameters = [graph.array(view, name) for name in node.input[1:5]]
    epsilon = attribute(node, "epsilon", 1e-5)
    if any(values is None for values in parameters) or not isinstance(epsilon, float):
        return None
    gamma, beta, mean, variance = (values for values in parameters if values is not None)
    if (variance + epsilon <= 0).any():
        return None
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _per_channel(constant: Floats, channels: int, rank: int) -> Floats | None:
    """Return a constant that broadcasts along the channels of a [N, C, ...] value as [C]."""
    if constant.ndim > rank:
        return None
    if constant.size == 1:
        return np.full(channels, constant.reshape(()))
    shape = (1,) * (rank - constant.ndim) + constant.shape
    return constant.reshape(-1) if shape == (1, channels, *[1] * (rank - 2)) else None
