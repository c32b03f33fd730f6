"""Files of many exporters convert, agree with ONNX Runtime, train and come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders import with_random_weights
from numpy.typing import NDArray
from torch.nn import functional as F

from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import FLOATS
from graftonnx.errors import ModelError, UnsupportedOpError
from graftonnx.parity import compare_module

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

FREE_BATCH = [
    "inception_v3_2015_to_mixed8_torchscript_opset13",
    "mobilenet_v1_0.25_keras_tf2onnx_opset15",
    "mobilenet_v2_1.0_tflite_tf2onnx_opset13",
    "mobilenet_v2_person_tf2onnx_opset15",
    "refuse_iris_mlp_pytorch1.7_opset11",
    "resnet20_cifar10_torch_dynamo_opset20",
    "resnet32_cifar10_torchscript_bn_opset13",
    "resnet8_cifar10_keras_tf2onnx_opset13",
    "squeezenet1.0_torch_dynamo_opset18",
    "textangle_cls_paddle_opset10",
]
BATCH_OF_ONE = [
    "light_shufflenet_caffe2_opset9",
    "mnist_cntk_opset8",
    "refuse_face_detection_pytorch1.2_opset9",
    "squeezenet1.1_caffe2_opset7",
    "vit_cifar10_pytorch1.12_opset9",
]
LIGHT_ONES = ["light_densenet121", "light_inception_v1", "light_shufflenet", "light_squeezenet"]
HEAVY_LIGHT_ONES = [
    "light_bvlc_alexnet",
    "light_inception_v2",
    "light_resnet50",
    "light_vgg19",
    "light_zfnet512",
]
"""Small files that unfold to up to 575 MB of weights, or take seconds to train."""

REFUSED = {
    "refuse_mnist_brevitas_quant_opset9": r"'Quant_13' \(Quant, opset 9\): there is no converter",
    "refuse_mnist_no_opset_import": r"no opset_import",
    "refuse_super_resolution_customops_opset11": r"\(SuperResolutionPreProcess, domain ai\.onnx\.contrib",
}


def images(model: onnx.ModelProto, batch: int) -> NDArray[np.float32]:
    """Random inputs: [batch, ...]; free extents are those of a line of text, 3 x 48 x 192."""
    held = {tensor.name for tensor in model.graph.initializer}
    (value,) = (value for value in model.graph.input if value.name not in held)
    extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    shape = [batch, *(e if e > 0 else (batch, 3, 48, 192)[i] for i, e in enumerate(extents) if i)]
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def train_one_step(module: torch.nn.Module, x: NDArray[np.float32]) -> None:
    """Take one step of SGD on random labels; every parameter must get a finite gradient."""
    module.train()
    output = module(torch.from_numpy(x))
    losses = [
        F.cross_entropy(logits.flatten(1), torch.arange(len(x)) % logits[0].numel())
        for logits in (output if isinstance(output, tuple) else (output,))
    ]
    torch.stack(losses).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    torch.optim.SGD(module.parameters(), lr=1e-3).step()


def float_weights(model: onnx.ModelProto) -> Iterator[str]:
    """The float initializers of several elements that a living operator computes with."""
    settings = {
        name for node in model.graph.node if node.op_type in ("Clip", "Pad") for name in node.input[1:]
    }
    statistics = {
        name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:]
    }
    for tensor in model.graph.initializer:
        if dtype_name(tensor.data_type) in FLOATS and tensor.name not in settings | statistics:
            yield tensor.name


def check(path: Path, batches: tuple[int, ...]) -> None:
    """Prove what every file has to give."""
    model = onnx.load(path)
    module = to_torch(path)
    for batch in batches:
        compare_module(model, module, images(model, batch))
    assert write_back(module).SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )
    assert {onnx_name(key) for key, _ in module.named_parameters()} >= set(float_weights(model))
    train_one_step(module, images(model, batches[-1]))
    compare_module(write_back(module), module, images(model, batches[-1]))


@pytest.mark.shared
@pytest.mark.parametrize("name", FREE_BATCH)
def test_a_file_with_a_free_batch(name: str, shared_models: Path) -> None:
    check(shared_models / f"{name}.onnx", (1, 3))


@pytest.mark.shared
@pytest.mark.parametrize("name", BATCH_OF_ONE)
def test_a_file_with_a_batch_of_one(name: str, shared_models: Path) -> None:
    check(shared_models / f"{name}.onnx", (1,))


@pytest.mark.shared
def test_a_file_of_half_precision(shared_models: Path) -> None:
    model = onnx.load(shared_models / "squeezenet1.1_caffe2_opset7_fp16.onnx")
    module = to_torch(model)
    # Half precision has three digits, and ONNX Runtime rounds after other steps.
    compare_module(model, module, images(model, 1).astype(np.float16), rtol=1e-2)
    assert {p.dtype for p in module.parameters()} == {torch.float16}
    assert write_back(module).SerializeToString() == model.SerializeToString()


@pytest.mark.shared
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_converted_is_refused(name: str, shared_models: Path) -> None:
    with pytest.raises((ModelError, UnsupportedOpError), match=REFUSED[name]):
        to_torch(shared_models / f"{name}.onnx")


@pytest.mark.parametrize(
    "name", [*LIGHT_ONES, *(pytest.param(n, marks=pytest.mark.slow) for n in HEAVY_LIGHT_ONES)]
)
def test_a_topology_of_the_onnx_package(name: str) -> None:
    model = with_random_weights(onnx.load(LIGHT / f"{name}.onnx"))
    module = to_torch(model)
    x = images(model, 1)
    compare_module(model, module, x)
    train_one_step(module, x)


def test_weights_that_nodes_compute_are_parameters() -> None:
    path = LIGHT / "light_squeezenet.onnx"
    module = to_torch(path)
    assert sum(p.numel() for p in module.parameters()) == 1_235_496
    assert write_back(module).SerializeToString() == path.read_bytes()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    written = write_back(module)
    onnx.checker.check_model(written)
    compare_module(written, module, images(written, 1))
