"""Real files after ONNX Runtime's optimizer convert, agree with ONNX Runtime, and come back unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graftonnx.conversion import to_torch, write_back
from graftonnx.errors import UnsupportedOpError
from graftonnx.parity import compare_module

FILES = {
    "mnist_cntk_opset8": {"FusedConv"},
    "mobilenet_v2_person_tf2onnx_opset15": {"FusedConv"},
    "resnet8_cifar10_keras_tf2onnx_opset13": {"FusedConv"},
    "vit_cifar10_pytorch1.12_opset9": {"FusedMatMul"},
}
"""File -> the operators of ONNX Runtime that its extended level writes."""


def optimised(source: Path, target: Path, level: str) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4  # it warns that the file is for this machine
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return onnx.load(target)


@pytest.mark.shared
@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
@pytest.mark.parametrize("name", FILES)
def test_an_optimised_file_equals_onnx_runtime(shared: Path, tmp_path: Path, name: str, level: str) -> None:
    proto = optimised(shared / "models" / f"{name}.onnx", tmp_path / "optimised.onnx", level)
    found = {node.op_type for node in proto.graph.node if node.domain == "com.microsoft"}
    assert found == (FILES[name] if level == "EXTENDED" else set())
    module = to_torch(proto)
    held = {tensor.name for tensor in proto.graph.initializer}
    (value,) = (value for value in proto.graph.input if value.name not in held)
    shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
    assert compare_module(proto, module, np.random.default_rng(0).random(shape, np.float32)) < 1e-4
    assert write_back(module).SerializeToString() == proto.SerializeToString()


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize(
    "name", ["squeezenet", "inception_v1", pytest.param("zfnet512", marks=pytest.mark.slow)]
)
def test_an_optimised_topology_keeps_its_inputs_and_converts(tmp_path: Path, name: str) -> None:
    """The optimizer computes the weights, and leaves their shapes as inputs that nobody reads."""
    proto = optimised(LIGHT / f"light_{name}.onnx", tmp_path / "optimised.onnx", "EXTENDED")
    held = {tensor.name for tensor in proto.graph.initializer}
    image, *shapes = (value for value in proto.graph.input if value.name not in held)
    read = {name for node in proto.graph.node for name in node.input}
    assert shapes
    assert not read & {value.name for value in shapes}
    rng = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        if len(tensor.dims) > 1 and tensor.data_type == onnx.TensorProto.FLOAT:
            array = rng.standard_normal(tensor.dims, np.float32) / np.sqrt(np.prod(tensor.dims[1:]))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
    module = to_torch(proto)
    x = rng.random([dim.dim_value for dim in image.type.tensor_type.shape.dim], np.float32)
    unread = [np.zeros([dim.dim_value for dim in v.type.tensor_type.shape.dim], np.int64) for v in shapes]
    assert compare_module(proto, module, x, *unread) < 1e-4
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_a_layout_of_one_machine_is_refused_in_a_sentence(tmp_path: Path) -> None:
    proto = optimised(LIGHT / "light_squeezenet.onnx", tmp_path / "optimised.onnx", "ALL")
    if not any(node.domain == "com.microsoft.nchwc" for node in proto.graph.node):
        pytest.skip("ONNX Runtime has no layout of its own here")
    with pytest.raises(UnsupportedOpError, match=r"layout of channels .* at the extended level"):
        to_torch(proto)
