"""Take out of a trained network what inference does not need, without changing what it computes.

- `Identity`, and `Dropout` that is not training, disappear.
- A per-channel `x * s + t` behind a Conv (batch normalisation, or a constant Mul, Div, Add, Sub) goes into
  it: `s * (W x + b) + t = (s W) x + (s b + t)`.
- A per-channel `x * s + t` in front of a Conv (preprocessing) goes into it: `W (s x + t) = (W s) x + W t`.
  With `t` other than zero that holds only where the Conv does not pad: padding adds zeros behind `t`.
- An Add of something that is zero for every input (a skip whose projection stayed zero) disappears.

New weights are computed in float64 and rounded to float32 once. A rewriting that does not fit exactly is not
done: the nodes stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from graftonnx.graph import GraphView, attribute, integer, ints, subgraphs
from graftonnx.normalise.constants import constants_to_initializers, drop_dead, fold, replace
from graftonnx.normalise.inference import infer_shapes
from graftonnx.weights import Weights, add_initializer, array_of, split, whole

Floats: TypeAlias = NDArray[np.float64]

ZERO_KEEPING = frozenset(
    {"AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Relu", "Reshape"}
    | {"Resize", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that turn a first input of zeros into zeros."""


@dataclass(frozen=True)
class Folded:
    """How many of each were taken out.

    Attributes:
        identities: Identity and Dropout nodes.
        constants: Nodes that depended on constants alone.
        scales: Batch normalisations and other per-channel nodes that went into the Conv before them.
        preprocessing: Per-channel nodes that went into the Conv behind them.
        skips: Additions of zero.
    """

    identities: int = 0
    constants: int = 0
    scales: int = 0
    preprocessing: int = 0
    skips: int = 0


def fold_operators(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Folded]:
    """Return a lighter model that computes the same, and what was taken out.

    Before: `x -> Conv -> BatchNormalization -> Relu -> Dropout -> y`. After: `x -> Conv -> Relu -> y`.

    Args:
        model: What `train` or `load` gives. It stays as it is.
    """
    copy, weights = split(model)
    constants_to_initializers(copy, weights)
    copy = infer_shapes(copy)
    constants = fold(copy, weights)
    graph = _Graph(copy, weights)
    steps: dict[str, Callable[[_Graph], int]] = {
        "identities": _drop_identities,
        "skips": _drop_zero_additions,
        "scales": _fold_behind,
        "preprocessing": _fold_in_front,
    }
    counts = dict.fromkeys(steps, 0)
    changed = True
    while changed:
        changed = False
        for name, step in steps.items():
            done = step(graph)
            counts[name] += done
            changed = changed or bool(done)
            drop_dead(copy, weights)
    copy = infer_shapes(copy)
    return whole(copy, weights), Folded(constants=constants, **counts)


class _Graph:
    """A skeleton with its weights, while it is rewritten."""

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self.model = model
        self.weights = weights

    def view(self) -> GraphView:
        return GraphView(self.model.graph)

    def array(self, view: GraphView, name: str) -> Floats | None:
        """Return an initializer of float32 as float64; None for anything else."""
        tensor = view.initializers.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        return array_of(tensor, self.weights).astype(np.float64)

    def set_input(self, view: GraphView, node: NodeProto, index: int, name: str, values: Floats) -> None:
        """Make input `index` of `node` an initializer with these values, called `name` if that is free.

        An initializer that nobody else reads is replaced and keeps its name.
        """
        while len(node.input) <= index:
            node.input.append("")
        old = node.input[index]
        if old and len(view.consumers[old]) == 1 and old not in view.outputs:
            name = old
            replace(self.model.graph.initializer, [t for t in self.model.graph.initializer if t.name != name])
            self.weights.pop(name, None)
        taken = {t.name for t in self.model.graph.initializer} | set(view.producer) | set(view.inputs)
        while name in taken:
            name += "_"
        add_initializer(self.model, self.weights, name, values.astype(np.float32))
        node.input[index] = name

    def remove(self, view: GraphView, nodes: list[NodeProto]) -> None:
        gone = {id(node) for node in nodes}
        replace(self.model.graph.node, [node for node in view.nodes if id(node) not in gone])


def _drop_identities(graph: _Graph) -> int:
    """Before: `x -> Dropout -> y`. After: whoever read `y` reads `x`."""
    view = graph.view()
    return _bypass(graph, view, {n.output[0]: n for n in view.nodes if _is_identity(view, n)})


def _is_identity(view: GraphView, node: NodeProto) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout":
        return False
    mask_read = len(node.output) > 1 and (node.output[1] in view.consumers or node.output[1] in view.outputs)
    training = view.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else False
    return not mask_read and training is not None and not np.any(training)


def _drop_zero_additions(graph: _Graph) -> int:
    """Before: `x + P(z)` with a zero `P`. After: `x`; what made `P(z)` is dead and goes too."""
    view = graph.view()
    zeros = _zeros(graph, view)
    found: dict[str, NodeProto] = {}
    for node in view.nodes:
        if node.op_type != "Add" or sum(name in zeros for name in node.input) != 1:
            continue
        if node.input[0] in zeros:
            node.input.reverse()
        shape = view.shapes.get(node.input[0])
        if shape is not None and shape == view.shapes.get(node.output[0]):
            found[node.output[0]] = node
    return _bypass(graph, view, found)


def _zeros(graph: _Graph, view: GraphView) -> set[str]:
    """Return the values that are zero whatever the input is."""
    zeros = {
        name
        for name, tensor in view.initializers.items()
        if tensor.data_type == onnx.TensorProto.FLOAT and not array_of(tensor, graph.weights).any()
    }
    for node in view.nodes:
        of = [not name or name in zeros for name in node.input]
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            zero = (of[0] or of[1]) and all(of[2:])
        elif node.op_type == "Mul":
            zero = any(of)
        elif node.op_type in ("Add", "Sum", "Concat"):
            zero = all(of)
        else:
            zero = node.op_type in ZERO_KEEPING and of[0] and not attribute(node, "extrapolation_value")
        if zero:
            zeros.update(node.output)
    return zeros


def _bypass(graph: _Graph, view: GraphView, nodes: dict[str, NodeProto]) -> int:
    """Let the readers of each key read its node's first input instead; remove the nodes.

    A graph output keeps its name: what made the first input makes it now; where that cannot be, the node
    stays.
    """
    renamed: dict[str, str] = {}
    removed: list[NodeProto] = []
    for name, node in nodes.items():
        source = node.input[0]
        source = renamed.get(source, source)
        if name in view.outputs:
            maker = view.producer.get(source)
            if maker is None or source in view.outputs or source in renamed.values():
                continue
            renamed[source] = name
        else:
            renamed[name] = source
        removed.append(node)
    for node in view.nodes:
        _rename(node, renamed)
    graph.remove(view, removed)
    return len(removed)


def _rename(node: NodeProto, names: dict[str, str]) -> None:
    """Rename the values that a node reads and makes; in its subgraphs those that they read from outside."""
    for field in (node.input, node.output):
        for index, name in enumerate(field):
            if name in names:
                field[index] = names[name]
    for inner in subgraphs(node):
        for child in inner.node:
            _rename(child, names)
        for output in inner.output:
            output.name = names.get(output.name, output.name)


def _fold_behind(graph: _Graph) -> int:
    """Before: `Conv(W, b) -> x * s + t`. After: `Conv(s W, s b + t)`."""
    view = graph.view()
    removed: list[NodeProto] = []
    for conv in view.nodes:
        after = view.consumers[conv.output[0]]
        if conv.op_type != "Conv" or len(after) != 1 or conv.output[0] in view.outputs:
            continue
        weight = graph.array(view, conv.input[1])
        bias = _bias(graph, view, conv, weight)
        if weight is None or bias is None:
            continue
        affine = _affine(graph, view, after[0], conv.output[0], len(weight), weight.ndim)
        if affine is None:
            continue
        scale, shift = affine
        folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        if not _replace_conv(graph, view, conv, folded, bias * scale + shift):
            continue
        conv.output[0] = after[0].output[0]
        removed.append(after[0])
    graph.remove(view, removed)
    return len(removed)


def _fold_in_front(graph: _Graph) -> int:
    """Before: `x * s + t -> Conv(W, b)`. After: `Conv(W s, b + W t)`, if `t` is zero or nothing is padded."""
    view = graph.view()
    removed: list[NodeProto] = []
    for conv in view.nodes:
        before = view.producer.get(conv.input[0]) if conv.op_type == "Conv" else None
        if before is None or len(view.consumers[conv.input[0]]) != 1 or conv.input[0] in view.outputs:
            continue
        weight = graph.array(view, conv.input[1])
        bias = _bias(graph, view, conv, weight)
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
            if affine is None or (affine[1].any() and _pads(conv)):
                continue
            scale, shift = (_per_filter(values, len(weight), groups) for values in affine)
            spread = (*weight.shape[:2], *[1] * (weight.ndim - 2))
            folded = weight * scale.reshape(spread)
            added = (weight * shift.reshape(spread)).reshape(len(weight), -1).sum(axis=1)
        if not _replace_conv(graph, view, conv, folded, bias + added):
            continue
        conv.input[0] = data
        removed.append(before)
    graph.remove(view, removed)
    return len(removed)


def _per_filter(values: Floats, filters: int, groups: int) -> Floats:
    """Spread one number each input channel [C] over the weight's first two axes [M, C / groups]."""
    return np.repeat(values.reshape(groups, -1), filters // groups, axis=0)


def _channel_order(view: GraphView, node: NodeProto, channels: int) -> NDArray[np.int64] | None:
    """Return the channels that a Gather along axis 1 picks, if it gives one each input of the Conv."""
    indices = view.constant(node.input[1])
    if indices is None or indices.shape != (channels,) or integer(node, "axis", 0) != 1:
        return None
    return indices.astype(np.int64)


def _bias(graph: _Graph, view: GraphView, conv: NodeProto, weight: Floats | None) -> Floats | None:
    if weight is None:
        return None
    if len(conv.input) < 3 or not conv.input[2]:
        return np.zeros(len(weight))
    return graph.array(view, conv.input[2])


def _pads(conv: NodeProto) -> bool:
    return any(ints(conv, "pads")) or attribute(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _replace_conv(graph: _Graph, view: GraphView, conv: NodeProto, weight: Floats, bias: Floats) -> bool:
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
    graph: _Graph, view: GraphView, node: NodeProto, data: str, channels: int, rank: int
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


def _batch_norm(graph: _Graph, view: GraphView, node: NodeProto, data: str) -> tuple[Floats, Floats] | None:
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
