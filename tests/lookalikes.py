"""Small networks that follow the contract of fused files, and small images, for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from graftonnx.metadata import InputConvention, Metadata, Parent, Preprocess, write_metadata

COLOURS = ("red", "green", "blue")
UNIT = Metadata(input=InputConvention(), labels=COLOURS)


def model(text: str, weights: dict[str, NDArray[np.generic]], metadata: Metadata) -> onnx.ModelProto:
    """Build a model from ONNX text, initializers of any name, and metadata."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    write_metadata(proto, metadata)
    return proto


def colour_network(metadata: Metadata = UNIT, size: int = 8, batch: str = "batch") -> onnx.ModelProto:
    """Return a network whose logits are ten times the mean of red, green and blue."""
    return model(
        f"""colours (float[{batch}, 3, {size}, {size}] input) => (float[{batch}, 3] logits)
        {{ p = GlobalAveragePool(input)  f = Flatten(p)  logits = Mul(f, ten) }}""",
        {"ten": np.float32(10)},
        metadata,
    )


def two_branches(*, classes: int = 4, skip: float = 0.0, seed: int = 0) -> onnx.ModelProto:
    """Return a network as `graftonnx fuse` makes them: preprocessing, two branches, an exchange, a head.

    Args:
        classes: Number of logits.
        skip: Deviation of the projections' weights; at 0 the branches exchange nothing.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int, deviation: float = 0.5) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * deviation).astype(np.float32)

    weights: dict[str, NDArray[np.generic]] = {
        "preprocess/a/scale": np.float32([1 / 0.229, 1 / 0.224, 1 / 0.225]).reshape(1, 3, 1, 1),
        "preprocess/a/offset": np.float32([-2.1, -2.0, -1.8]).reshape(1, 3, 1, 1),
        "a/conv1.weight": normal(4, 3, 3, 3),
        "a/conv1.bias": normal(4),
        "preprocess/b/sizes": np.int64([10, 10]),
        "preprocess/b/bgr": np.int64([2, 1, 0]),
        "preprocess/b/scale": np.full((1, 1, 1, 1), 255, np.float32),
        "b/conv:0;w": normal(4, 3, 3, 3, deviation=0.002),
        "b/gamma": normal(4) + np.float32(2),
        "b/beta": normal(4),
        "b/mean": normal(4),
        "b/var": rng.uniform(0.5, 2, 4).astype(np.float32),
        "skips/0/a/weight": normal(4, 4, 1, 1, deviation=skip),
        "skips/0/b/weight": normal(4, 4, 1, 1, deviation=skip),
        "skips/0/a/sizes": np.int64([10, 10]),
        "skips/0/b/sizes": np.int64([10, 10]),
        "head/hidden/weight": normal(8, 8),
        "head/hidden/bias": normal(8),
        "head/dropout_ratio": np.float32(0.5),
        "head/logits/weight": normal(classes, 8),
        "head/logits/bias": normal(classes),
    }
    names = {name: f"v{k}" for k, name in enumerate(weights)}
    text = f"""
        fused (float[batch, 3, 12, 12] input) => (float[batch, {classes}] logits) {{
        am = Mul(input, {names["preprocess/a/scale"]})
        ax = Add(am, {names["preprocess/a/offset"]})
        ac = Conv(ax, {names["a/conv1.weight"]}, {names["a/conv1.bias"]})
        ar = Relu(ac)
        bz = Resize<axes=[2,3], mode="linear", coordinate_transformation_mode="half_pixel">
            (input, , , {names["preprocess/b/sizes"]})
        bo = Gather<axis=1>(bz, {names["preprocess/b/bgr"]})
        bx = Mul(bo, {names["preprocess/b/scale"]})
        bc = Conv<pads=[1,1,1,1]>(bx, {names["b/conv:0;w"]})
        bn = BatchNormalization(bc, {names["b/gamma"]}, {names["b/beta"]}, {names["b/mean"]},
            {names["b/var"]})
        br = Relu(bn)
        sa = Conv(br, {names["skips/0/a/weight"]})
        sb = Conv(ar, {names["skips/0/b/weight"]})
        sr = Resize<axes=[2,3], mode="linear">(sb, , , {names["skips/0/b/sizes"]})
        a2 = Add(ar, sa)
        b2 = Add(br, sr)
        ap = GlobalAveragePool(a2)  af = Flatten<axis=1>(ap)
        bp = GlobalAveragePool(b2)  bf = Flatten<axis=1>(bp)
        hc = Concat<axis=1>(af, bf)
        hg = Gemm<transB=1>(hc, {names["head/hidden/weight"]}, {names["head/hidden/bias"]})
        hr = Relu(hg)
        hd = Dropout(hr, {names["head/dropout_ratio"]})
        logits = Gemm<transB=1>(hd, {names["head/logits/weight"]}, {names["head/logits/bias"]})
        }}"""
    proto = model(text, {names[name]: value for name, value in weights.items()}, fused_metadata(classes))
    given = {short: name for name, short in names.items()}
    for tensor in proto.graph.initializer:
        tensor.name = given[tensor.name]
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = given.get(name, name)
        node.doc_string = "made by somebody in /home/somebody"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def fused_metadata(classes: int) -> Metadata:
    """Return metadata as `graftonnx fuse` writes it."""
    parents = tuple(
        Parent(
            branch=branch,
            name=f"{branch}.onnx",
            sha256="0" * 64,
            parameters=100,
            input_size=(12, 12),
            input_value=f"{branch}x",
            feature=f"{branch}2",
            features=4,
            preprocess=Preprocess(),
        )
        for branch in ("a", "b")
    )
    labels = tuple(f"class {k}" for k in range(classes))
    return Metadata(input=InputConvention(), labels=labels, parents=parents, plan="skips: []\n")


def write_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    """Write a PNG of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


RGB = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def colour_folder(root: Path, counts: dict[str, int], wrong: dict[str, int] | None = None) -> Path:
    """Write a data folder of colour images, one folder a class.

    Args:
        root: The folder.
        counts: Images of each class.
        wrong: How many of them have the colour of another class: they look like the next one in `RGB`.
    """
    names = list(RGB)
    for name, count in counts.items():
        for k in range(count):
            looks = name if k >= (wrong or {}).get(name, 0) else names[(names.index(name) + 1) % 3]
            write_image(root / name / f"{k}.png", RGB[looks])
    return root
