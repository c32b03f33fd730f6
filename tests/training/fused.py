"""A small network by the rules of the fused file, and images that it can learn to tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper
from PIL import Image

from graftonnx.metadata import InputConvention, Metadata, write_metadata

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}

GRAPH = """
<ir_version: 10, opset_import: ["": 20]>
fused (float[batch, 3, 16, 16] input) => (float[batch, 2] logits) {
    centred = Sub (input, "preprocess/a/mean")
    scaled = Div (centred, "preprocess/a/std")
    "a/c1" = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (scaled, "a/conv1.weight")
    "a/n1" = BatchNormalization (
        "a/c1", "a/bn1.weight", "a/bn1.bias", "a/bn1.running_mean", "a/bn1.running_var"
    )
    "a/r1" = Relu ("a/n1")
    "b/c1" = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (input, "b/conv:0", "b/conv:0;bias")
    "b/r1" = Relu ("b/c1")
    "skips/0/a/out" = Conv ("b/r1", "skips/0/a/weight")
    "skips/0/b/out" = Conv ("a/r1", "skips/0/b/weight")
    "a/sum" = Add ("a/r1", "skips/0/a/out")
    "b/sum" = Add ("b/r1", "skips/0/b/out")
    "a/pool" = GlobalAveragePool ("a/sum")
    "b/pool" = GlobalAveragePool ("b/sum")
    joined = Concat <axis = 1> ("a/pool", "b/pool")
    features = Flatten (joined)
    hidden = Gemm <transB = 1> (features, "head/hidden/weight", "head/hidden/bias")
    active = Relu (hidden)
    dropped = Dropout (active, "head/dropout/ratio")
    logits = Gemm <transB = 1> (dropped, "head/logits/weight", "head/logits/bias")
}
"""

TRAINABLE = {
    "a/conv1.weight", "a/bn1.weight", "a/bn1.bias", "b/conv:0", "b/conv:0;bias", "skips/0/a/weight",
    "skips/0/b/weight", "head/hidden/weight", "head/hidden/bias", "head/logits/weight", "head/logits/bias",
}  # fmt: skip
"""The initializers that training moves."""


def fused_model(classes: int = 2, labels: tuple[str, ...] = (), seed: int = 0) -> onnx.ModelProto:
    """Return a model of two branches, one exchange and a head, with random weights."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.3) -> np.ndarray:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    weights = {
        "preprocess/a/mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        "preprocess/a/std": np.full((1, 3, 1, 1), 0.25, np.float32),
        "a/conv1.weight": normal(8, 3, 3, 3),
        "a/bn1.weight": ones,
        "a/bn1.bias": zeros,
        "a/bn1.running_mean": zeros,
        "a/bn1.running_var": ones,
        "b/conv:0": normal(8, 3, 3, 3),
        "b/conv:0;bias": zeros,
        "skips/0/a/weight": normal(8, 8, 1, 1, scale=0.1),
        "skips/0/b/weight": normal(8, 8, 1, 1, scale=0.1),
        "head/hidden/weight": normal(12, 16),
        "head/hidden/bias": np.zeros(12, np.float32),
        "head/dropout/ratio": np.array(0.1, np.float32),
        "head/logits/weight": normal(classes, 12),
        "head/logits/bias": np.zeros(classes, np.float32),
    }
    model = onnx.parser.parse_model(GRAPH)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    write_metadata(model, Metadata(input=InputConvention(), labels=labels))
    onnx.checker.check_model(model, full_check=True)
    return model


def save_fused(path: Path, classes: int = 2, labels: tuple[str, ...] = (), seed: int = 0) -> Path:
    """Write :func:`fused_model` to `path`."""
    path.write_bytes(fused_model(classes, labels, seed).SerializeToString())
    return path


def save_images(folder: Path, classes: int = 2, count: int = 20) -> Path:
    """Write noisy images, each class of its own colour; the folder has one folder per class."""
    random = np.random.default_rng(0)
    for name in sorted(COLOURS)[:classes]:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.array(COLOURS[name]) + random.integers(-40, 41, (20, 20, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return all initializers."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
