"""Put batch normalisation back where an exporter folded it into the Conv in front of it.

Exporters fold `s (W x + b) + t` into one Conv. What was lost is not the function but the way it trains: the
statistics that follow the data, and gradients that do not depend on the scale of the weights. A batch norm
whose statistics are those of the Conv's output on some images, and whose scale and shift undo it, changes
nothing until training begins.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from graftonnx.classifier import same_picture
from graftonnx.errors import ModelError
from graftonnx.graph import GraphView
from graftonnx.images import Pixels, to_input
from graftonnx.normalise.constants import replace
from graftonnx.runtime import open_session

EPSILON = 1e-5
BATCH = 16
OURS = ("skips", "head", "preprocess")
"""First parts of the names that belong to no branch."""

Floats = NDArray[np.float64]


def restore_norms(model: ModelProto, pixels: Pixels) -> tuple[ModelProto, int]:
    """Return a model with a BatchNormalization behind each Conv of the branches that has none.

    Its running statistics are those of the Conv's output on the images, its scale the standard deviation and
    its shift the mean: as long as nothing is trained, the model computes the same up to rounding.

    Args:
        model: A fused model. It stays as it is.
        pixels: Images, uint8 [n, H, W, 3] at the size of the input, of several at the largest.

    Returns:
        The model, and the number of norms that were added.

    Raises:
        ModelError: If a Conv's output on the images is not finite.
    """
    found = folded_convolutions(model)
    if not found:
        return model, 0
    statistics = _statistics(model, [node.output[0] for node in found], pixels)
    restored = ModelProto()
    restored.CopyFrom(model)
    nodes: list[NodeProto] = []
    for node in restored.graph.node:
        nodes.append(node)
        if node.output and node.output[0] in statistics:
            mean, variance = statistics[node.output[0]]
            nodes.append(_norm(restored, node, mean, variance))
    replace(restored.graph.node, nodes)
    return restored, len(found)


def folded_convolutions(model: ModelProto) -> list[NodeProto]:
    """Return the Conv nodes of the branches that have a bias and whose output goes into no norm."""
    view = GraphView(model.graph)
    outputs = {value.name for value in model.graph.output}
    return [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and len(node.input) == 3
        and node.input[1].split("/", 1)[0] not in OURS
        and node.output[0] not in outputs
        and not any("Normalization" in user.op_type for user in view.consumers.get(node.output[0], ()))
    ]


def _norm(model: ModelProto, conv: NodeProto, mean: Floats, variance: Floats) -> NodeProto:
    """Move a Conv's output into a norm that keeps its name, and return the norm."""
    output = conv.output[0]
    conv.output[0] = f"{output}/convolved"
    values = {"scale": np.sqrt(variance + EPSILON), "shift": mean, "mean": mean, "variance": variance}
    names = [f"{output}/norm/{name}" for name in values]
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in zip(names, values.values(), strict=True)
    )
    return helper.make_node(
        "BatchNormalization", [conv.output[0], *names], [output], f"{output}/norm", epsilon=EPSILON
    )


def _statistics(model: ModelProto, names: list[str], pixels: Pixels) -> dict[str, tuple[Floats, Floats]]:
    """Return mean and variance, per channel, of values on images.

    Each image's own mean and variance come from ONNX Runtime; nothing larger leaves it.
    """
    session = open_session(_with_moments(model, names))
    outputs = [f"{name}/moment/{kind}" for name in names for kind in ("mean", "variance")]
    parts: list[list[NDArray[np.generic]]] = [[] for _ in outputs]
    for start in range(0, len(pixels), BATCH):
        images = same_picture(session, to_input(pixels[start : start + BATCH]))
        found = session.run(*images, outputs=outputs)
        for part, value in zip(parts, found, strict=True):
            part.append(value.reshape(value.shape[:2]))
    moments = [np.concatenate(part).astype(np.float64) for part in parts]
    statistics = {}
    for name, means, variances in zip(names, moments[::2], moments[1::2], strict=True):
        with np.errstate(invalid="ignore"):
            mean, variance = means.mean(0), variances.mean(0) + means.var(0)
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            raise ModelError(
                f"cannot restore the norms: '{name}' is not finite on the images. "
                "Check the preprocessing, or train without --restore-norm."
            )
        statistics[name] = mean, variance
    return statistics


def _with_moments(model: ModelProto, names: list[str]) -> ModelProto:
    """Return a model whose outputs are each image's mean and variance of values [N, C, ...]."""
    probe = ModelProto()
    probe.CopyFrom(model)
    ranks = {name: len(shape) for name, shape in GraphView(probe.graph).shapes.items() if shape is not None}
    nodes, outputs = [], []
    for name in names:
        axes = f"{name}/moment/axes"
        rank = ranks.get(name, 4)
        probe.graph.initializer.append(numpy_helper.from_array(np.arange(2, rank), axes))
        mean, centred, square, variance = (
            f"{name}/moment/{kind}" for kind in ("mean", "centred", "square", "variance")
        )
        nodes += [
            helper.make_node("ReduceMean", [name, axes], [mean]),
            helper.make_node("Sub", [name, mean], [centred]),
            helper.make_node("Mul", [centred, centred], [square]),
            helper.make_node("ReduceMean", [square, axes], [variance]),
        ]
        outputs += [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, None) for x in (mean, variance)]
    probe.graph.node.extend(nodes)
    replace(probe.graph.output, outputs)
    return probe
