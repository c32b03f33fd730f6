"""Quantised networks: numbers exactly as ONNX Runtime, gradients straight through, weights that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import quantization as ort_quantization

from graftonnx.conversion import quantization, to_torch, write_back
from graftonnx.conversion.evaluation import run_module
from graftonnx.conversion.values import to_array
from graftonnx.parity import compare_module
from graftonnx.runtime import open_session

Array = NDArray[Any]
PAIR = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
HALVES = np.array([[-200.0, -129, -128.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5, 300]], np.float32)


def pair(scale: float, zero: int, kind: type[np.generic]) -> onnx.ModelProto:
    weights = {"s": np.array(scale, np.float32), "z": np.array(zero, kind)}
    return model(PAIR, weights, inputs="float[1, 12] x", opset=21)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize(("scale", "zero"), [(1.0, 0), (0.5, 3), (0.37, 100)])
def test_rounding_is_half_to_even_and_saturates(scale: float, zero: int, kind: type[np.generic]) -> None:
    proto = pair(scale, zero, kind)
    (expected,) = open_session(proto, provider="cpu", optimise=False).run(HALVES)
    assert np.array_equal(run_module(to_torch(proto), HALVES)[0], expected)


def test_gradients_pass_straight_through_between_the_bounds() -> None:
    module = to_torch(pair(1.0, 0, np.int8))
    x = torch.from_numpy(HALVES).requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.ravel().tolist() == [0.0] * 3 + [1.0] * 7 + [0.0] * 2


def test_a_float_weight_behind_a_pair_trains() -> None:
    weights = {"w": random(4, 3, 3, 3), "s": np.array(0.02, np.float32), "z": np.array(0, np.int8)}
    proto = model("q = QuantizeLinear(w, s, z) d = DequantizeLinear(q, s, z) y = Conv(x, d)", weights)
    module = to_torch(proto)
    module(torch.from_numpy(random(2, 3, 8, 8))).square().sum().backward()
    ((name, weight),) = module.named_parameters()
    assert name == "w"
    assert weight.grad is not None
    assert weight.grad.abs().min() > 0


STORED = {
    "q": np.arange(-54, 54, dtype=np.int8).reshape(4, 3, 3, 3),
    "s": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    "z": np.array([0, 1, -1, 2], np.int8),
}


def test_integers_of_the_file_train_as_numbers_and_come_back_as_floats() -> None:
    proto = model("w = DequantizeLinear<axis=0>(q, s, z) y = Conv(x, w)", STORED)
    module = to_torch(proto)
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    with torch.no_grad():
        next(iter(module.parameters())).mul_(1.5)
    trained = write_back(module)
    assert [node.op_type for node in trained.graph.node] == ["Conv"]
    assert "w" in {tensor.name for tensor in trained.graph.initializer}
    compare_module(trained, module, random(2, 3, 8, 8))


def test_blocks_along_an_axis_have_grids_of_their_own() -> None:
    weights = {"s": np.abs(random(1, 3)) + 0.1, "z": np.array([[3, 0, -7]], np.int8)}
    proto = model(PAIR.replace("(", "<axis=1, block_size=4>("), weights, inputs="float[1, 12] x", opset=21)
    (expected,) = open_session(proto, provider="cpu", optimise=False).run(HALVES)
    assert np.array_equal(run_module(to_torch(proto), HALVES)[0], expected)


@pytest.mark.parametrize("channels", [400, 600])
@pytest.mark.parametrize("text", ["ConvInteger(x, w, xz)", "MatMulInteger(t, m, xz)"])
def test_sums_of_products_are_exact_at_any_length(text: str, channels: int) -> None:
    """Of 400 they fit into float32; of 600 they do not."""
    proto = model(
        f"t = Transpose<perm=[0,2,3,1]>(x) y = {text}",
        {
            "w": np.full((2, channels, 1, 1), -127, np.int8),
            "m": np.full((channels, 2), -127, np.int8),
            "xz": np.uint8(0),
        },
        inputs=f"uint8[1, {channels}, 2, 2] x",
    )
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    x = np.full((1, channels, 2, 2), 255, np.uint8)
    x[:, 0, 0, 0] = 254
    module = to_torch(proto)
    (found,) = run_module(module, x)
    assert set(found.ravel().tolist()) == {-127 * 255 * channels, -127 * (255 * channels - 1)}
    assert (torch.float32 in {node.args[2] for node in module.graph.nodes if len(node.args) > 2}) == (
        channels == 400
    )


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_eight_bit_floats_round_as_the_tables_say(name: str) -> None:
    x = np.random.default_rng(0).normal(0, 30, 20_000).astype(np.float32)
    found = to_array(quantization.to_float8(torch.from_numpy(x), getattr(torch, name), False))
    assert found.tobytes() == x.astype(getattr(ml_dtypes, name)).tobytes()


class Calibration(ort_quantization.CalibrationDataReader):  # type: ignore[misc]  # ships no types
    def __init__(self, name: str, shape: list[int]) -> None:
        generator = np.random.default_rng(0)
        self._batches = iter([{name: generator.random(shape, dtype=np.float32)} for _ in range(3)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def quantised(source: Path, target: Path, how: str) -> list[int]:
    """Quantise a file as ONNX Runtime does; return the shape of its input, with a batch of one."""
    value = onnx.load(source).graph.input[0]
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    if how == "dynamic":
        ort_quantization.quantize_dynamic(source, target, weight_type=ort_quantization.QuantType.QUInt8)
    else:
        ort_quantization.quantize_static(
            source,
            target,
            Calibration(value.name, shape),
            quant_format=getattr(ort_quantization.QuantFormat, how),
            per_channel=how == "QDQ",
        )
    return shape


@pytest.mark.shared
@pytest.mark.parametrize("how", ["QDQ", "QOperator", "dynamic"])
@pytest.mark.parametrize(
    "name", ["resnet8_cifar10_keras_tf2onnx_opset13", "mobilenet_v2_person_tf2onnx_opset15"]
)
@pytest.mark.filterwarnings("ignore")  # the quantizer's own
def test_a_network_that_onnx_runtime_quantised_equals_onnx_runtime(
    shared: Path, tmp_path: Path, name: str, how: str
) -> None:
    """Without its optimizer: that one merges pairs into integer kernels, which may round to another step."""
    path = tmp_path / "quantised.onnx"
    x = np.random.default_rng(1).random(quantised(shared / "models" / f"{name}.onnx", path, how), np.float32)
    proto = onnx.load(path)
    module = to_torch(proto)
    (expected,) = open_session(proto, provider="cpu", optimise=False).run(x)
    np.testing.assert_allclose(run_module(module, x)[0], expected, atol=1e-5)  # float sums, other order
    assert write_back(module).SerializeToString() == proto.SerializeToString()


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_a_module_has_the_element_type_of_its_weights(kind: type[np.generic]) -> None:
    name = {"float16": "float16", "float64": "double", "bfloat16": "bfloat16"}[np.dtype(kind).name]
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    g ({name}[N, 6] x) => ({name}[N, 4] y) {{ h = MatMul(x, w) i = Add(h, b) y = Relu(i) }}"""
    proto = onnx.parser.parse_model(text)
    for key, array in (("w", random(6, 4)), ("b", random(4))):
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(kind), key))
    module = to_torch(proto)
    x = random(3, 6).astype(kind)
    (found,) = run_module(module, x)
    assert {str(p.dtype) for p in module.parameters()} == {f"torch.{np.dtype(kind).name}"}
    assert found.dtype == kind
    wide = np.maximum(x.astype(float) @ random(6, 4).astype(kind).astype(float) + random(4).astype(kind), 0)
    step = float(ml_dtypes.finfo(kind).eps)
    np.testing.assert_allclose(found.astype(float), wide, rtol=4 * step, atol=8 * step)  # a few roundings
    assert write_back(module).SerializeToString() == proto.SerializeToString()
