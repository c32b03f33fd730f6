"""Real files after ONNX Runtime's optimizer convert, agree with ONNX Runtime, and come back unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graftonnx.conversion import to_torch, write_back
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
