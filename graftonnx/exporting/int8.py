"""Make an 8-bit network of a float one: ONNX Runtime's static quantisation, where it does no harm.

    x ─ QuantizeLinear ─ DequantizeLinear ─ Conv(DequantizeLinear(W: int8)) ─ …

Values become uint8 by their range over the calibration images, weights int8 with a scale for each channel;
of their range one half is used, since processors without VNNI instructions add two products in 16 bits: so
the answers are the same on every processor.
The normalisation in front of the first weights and the last Softmax stay float. Where the answers change too
often, so do the layers that do the most harm: each is quantised alone, with what works on its output, and the
divergence of the probabilities from the float network's (Kullback-Leibler) is measured.

Source: onnxruntime.quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

from graftonnx.costs import WEIGHTED
from graftonnx.errors import UnsupportedOpError
from graftonnx.exporting.float16 import first_nodes
from graftonnx.exporting.ranges import Ranges
from graftonnx.graph import GraphView, sort_nodes
from graftonnx.normalise.constants import replace
from graftonnx.normalise.opset import declared_opset

OPSET = 13
"""Since then a tensor may have a scale for each channel."""

OPERATORS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool",
    "LeakyRelu", "MatMul", "MaxPool", "Mul", "Relu", "Reshape", "Resize", "Sigmoid", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
"""What ONNX Runtime's CPU provider computes in 8 bits, or moves."""

GOAL = 0.995
"""Share of the calibration images whose likeliest class has to stay; half of what export allows to change."""

RANKED = 32
"""Images on which layers are compared."""

Probabilities = NDArray[np.float32]
Classify = Callable[[onnx.ModelProto, int | None], Probabilities]
"""Gives the probabilities [N, K] of a network for the calibration images, or the first of them."""


def to_int8(
    model: onnx.ModelProto, ranges: Ranges, classify: Classify
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a network in 8 bits, and the names of the layers that stayed float since they matter.

    At most half of the layers stay float. Where that does not do, what comes nearest is returned.

    Args:
        model: The whole model, with the shapes of its values and a name for each node.
        ranges: Of its values, over the calibration images.
        classify: Runs a network on these.

    Raises:
        UnsupportedOpError: If the opset is older than 13.
    """
    if declared_opset(model) < OPSET:
        raise UnsupportedOpError(f"int8 needs opset {OPSET} or newer. Choose a newer --opset.")
    view = GraphView(model.graph)
    groups = _groups(view)
    first = {node.name for node in first_nodes(view)}
    expected = classify(model, None)
    best: tuple[float, onnx.ModelProto, tuple[str, ...]] = (-1.0, model, ())
    ranking: list[str] = []
    count = 0
    while count <= len(groups) // 2:
        if count == 1:
            ranking = _by_harm(model, ranges, groups, expected, classify)
        kept = tuple(ranking[:count])
        quantised = _quantised(model, ranges, excluded=first.union(*(groups[name] for name in kept)))
        agreement = _agreement(expected, classify(quantised, None))
        if agreement > best[0]:
            best = (agreement, quantised, kept)
        if agreement >= GOAL:
            break
        count = max(1, 2 * count)
    return best[1:]


def _groups(view: GraphView) -> dict[str, list[str]]:
    """Return for each node with weights itself and what works on its output, up to the next such nodes."""
    groups: dict[str, list[str]] = {}
    sources: dict[str, set[str]] = {}
    for node in view.nodes:
        if node.op_type in WEIGHTED and any(name in view.initializers for name in node.input[1:2]):
            groups[node.name] = []
            own = {node.name}
        else:
            own = set().union(*(sources.get(name, set()) for name in node.input))
        sources.update(dict.fromkeys(node.output, own))
        for name in own:
            groups[name].append(node.name)
    return groups


def _quantised(
    model: onnx.ModelProto, ranges: Ranges, *, excluded: Collection[str] = (), only: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return the model in 8 bits: without some nodes, or some nodes of it alone."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    quantizer = quantization.QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=True,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=list(only),
        nodes_to_exclude=sorted(excluded),
        op_types_to_quantize=list(OPERATORS),
        extra_options={},
    )
    quantizer.quantize_model()
    quantised: onnx.ModelProto = quantizer.model.model
    replace(quantised.graph.node, sort_nodes(quantised.graph.node))
    return quantised


def _by_harm(
    model: onnx.ModelProto,
    ranges: Ranges,
    groups: Mapping[str, Sequence[str]],
    expected: Probabilities,
    classify: Classify,
) -> list[str]:
    """Return the layers, the one that changes the probabilities most when it alone is quantised first."""
    harm = {}
    for name, group in groups.items():
        found = classify(_quantised(model, ranges, only=group), RANKED)
        harm[name] = _divergence(expected[: len(found)], found)
    return sorted(groups, key=lambda name: -harm[name])


def _agreement(expected: Probabilities, found: Probabilities) -> float:
    return float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())


def _divergence(expected: Probabilities, found: Probabilities) -> float:
    """Return the mean Kullback-Leibler divergence, in nats."""
    p, q = (np.maximum(values.astype(np.float64), 1e-12) for values in (expected, found))
    return float((p * np.log(p / q)).sum(axis=1).mean())
