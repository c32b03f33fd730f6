"""Quantised files: refused in words, or made float networks whose numbers agree within their rounding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Builder, saved
from click.testing import CliRunner
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from graftonnx.cli import graftonnx
from graftonnx.errors import ModelError, UnsupportedOpError
from graftonnx.fusion import fuse
from graftonnx.model import load
from graftonnx.runtime import open_session

NARROW = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32)
IMAGES = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)


class Calibration(CalibrationDataReader):
    """Gives the images one by one."""

    def __init__(self) -> None:
        self._images: Iterator[np.ndarray] = iter(IMAGES)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image, None behind the last."""
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def residual() -> onnx.ModelProto:
    """Convolutions with bias, Relu, a Relu6, a residual sum, a concatenation, pools and a dense layer."""
    net = Builder()

    def conv(source: str, name: str, inner: int, outer: int, stride: int = 1) -> str:
        weights = [net.weight(f"{name}.w", outer, inner, 3, 3), net.weight(f"{name}.b", outer)]
        return net.node("Conv", [source, *weights], name, pads=[1] * 4, strides=[stride] * 2)

    net.initializers += [numpy_helper.from_array(np.float32(bound), f"at{bound}") for bound in (0, 6)]
    stem = net.node("Clip", [conv("image", "stem.conv", 3, 8), "at0", "at6"], "stem")
    inner = net.node("Relu", [conv(stem, "inner.conv", 8, 8)], "inner")
    total = net.node("Add", [conv(inner, "outer.conv", 8, 8), stem], "total")
    value = net.node("Concat", [net.node("Relu", [total], "out"), stem], "both", axis=1)
    value = net.node("MaxPool", [value], "halved", kernel_shape=[2, 2], strides=[2, 2])
    value = net.node("Relu", [conv(value, "last.conv", 16, 16)], "last")
    value = net.node("Flatten", [net.node("GlobalAveragePool", [value], "pooled")], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc.w", 5, 16), net.weight("fc.b", 5)], "scores", transB=1)
    return net.model("scores", ["batch", 5])


KINDS = {
    "QDQ of uint8": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8},
    "QDQ of int8": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8},
    "QDQ by channels": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "QLinear of uint8": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QUInt8,
    },
    "QLinear by channels": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        "per_channel": True,
    },
}


def quantised(folder: Path, kind: str) -> Path:
    target = folder / "int8.onnx"
    quantize_static(saved(residual(), folder / "float.onnx"), target, Calibration(), **KINDS[kind])
    return target


def run(model: onnx.ModelProto | Path, output: str = "scores") -> np.ndarray:
    return open_session(model, provider="cpu", threads=1, optimise=False).run(IMAGES, outputs=[output])[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_network_becomes_floats_within_its_rounding(kind: str, tmp_path: Path) -> None:
    path = quantised(tmp_path, kind)
    network = load(path, dequantize=True)
    assert any(note.startswith("dequantised: ") for note in network.notes)
    kinds = {node.op_type for node in network.view.nodes}
    assert not [name for name in kinds if "Linear" in name or name.startswith("Q")]
    assert network.view.shapes[network.head.feature] == (None, 16, 8, 8)
    original, rounded, found = run(residual()), run(path), run(network.proto)
    error = float(np.abs(original - rounded).max())
    assert 0 < error < 0.1 * float(np.abs(original).max())
    assert float(np.abs(found - rounded).max()) < 2 * error
    assert float(np.abs(found - original).max()) < 2 * error


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_dequantised_network_can_be_fused(kind: str, tmp_path: Path) -> None:
    network = load(quantised(tmp_path, kind), dequantize=True)
    fused = fuse(network, load(saved(residual(), tmp_path / "other.onnx")), classes=3)
    assert "branch a equals int8.onnx as it was loaded, bit for bit" in fused.notes
    assert "branch b equals other.onnx bit for bit" in fused.notes
    assert [name for name in fused.view.producer if name.startswith("skips/") and name.endswith("/a/sum")]
    kinds = {node.op_type for node in fused.view.nodes}
    assert not [name for name in kinds if "Linear" in name or name.startswith("Q")]
    assert not [t.name for t in fused.skeleton.graph.initializer if t.data_type in NARROW]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("QDQ of uint8", "'image_QuantizeLinear' is operator 'QuantizeLinear'"),
        ("QLinear of uint8", "'image_QuantizeLinear' is operator 'QuantizeLinear'"),
    ],
)
def test_without_the_option_the_first_quantised_node_is_named(kind: str, first: str, tmp_path: Path) -> None:
    path = quantised(tmp_path, kind)
    with pytest.raises(UnsupportedOpError) as caught:
        load(path)
    assert f"it is quantised: node {first}" in caught.value.message
    assert caught.value.message.endswith("or pass --dequantize.")
    result = CliRunner().invoke(graftonnx, ["inspect", str(path)])
    assert (result.exit_code, "--dequantize" in result.stderr) == (1, True)
    result = CliRunner().invoke(graftonnx, ["inspect", "--dequantize", str(path)])
    assert result.exit_code == 0, result.output


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numbers_quantised_while_it_runs_have_no_float_form(tmp_path: Path) -> None:
    quantize_dynamic(saved(residual(), tmp_path / "float.onnx"), tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match=r"it cannot be dequantised: node .* quantises while it runs"):
        load(tmp_path / "int8.onnx", dequantize=True)


def test_weights_alone_in_int8_need_no_option(tmp_path: Path) -> None:
    model = residual()
    for tensor in list(model.graph.initializer):
        if tensor.name.endswith(".w"):
            array = numpy_helper.to_array(tensor)
            whole = np.round(array / np.abs(array).max() * 127).astype(np.int8)
            scale = np.full(array.shape[0], np.abs(array).max() / 127, np.float32)
            inputs = [f"{tensor.name}_int8", f"{tensor.name}_scale"]
            model.graph.initializer.append(numpy_helper.from_array(scale, inputs[1]))
            node = helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=0)
            tensor.CopyFrom(numpy_helper.from_array(whole, inputs[0]))
            model.graph.node.insert(0, node)
    network = load(saved(model, tmp_path / "weights.onnx"))
    np.testing.assert_array_equal(run(network.proto), run(model))


def test_a_float_network_whose_weights_are_inputs_stays_as_it_is(tmp_path: Path) -> None:
    model = residual()
    model.ir_version = 3
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 11))
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    path = saved(model, tmp_path / "old.onnx")
    network = load(path, dequantize=True)
    assert network.ir_version == 3
    assert not [note for note in network.notes if note.startswith("dequantised")]
    assert np.array_equal(run(network.proto), run(load(path).proto))
