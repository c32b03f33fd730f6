"""Pairs of real pretrained files from six exporters: fused, proven against the original files, trainable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders import assert_fully_checked
from torch.nn import functional as F

from graftonnx.conversion import onnx_name, to_torch
from graftonnx.errors import ParityError
from graftonnx.fusion import fuse
from graftonnx.model import load
from graftonnx.network import Network
from graftonnx.runtime import open_session, with_outputs

pytestmark = pytest.mark.shared

SQUEEZENET = "squeezenet1.1_caffe2_opset7.onnx"
RESNET8 = "resnet8_cifar10_keras_tf2onnx_opset13.onnx"
PAIRS = [
    ("squeezenet1.0_torch_dynamo_opset18.onnx", SQUEEZENET),
    (SQUEEZENET, "mobilenet_v1_0.25_keras_tf2onnx_opset15.onnx"),
    (SQUEEZENET, "mobilenet_v2_1.0_tflite_tf2onnx_opset13.onnx"),
    (SQUEEZENET, "inception_v3_2015_to_mixed8_torchscript_opset13.onnx"),
    (SQUEEZENET, "light_shufflenet_caffe2_opset9.onnx"),
    ("resnet20_cifar10_torch_dynamo_opset20.onnx", RESNET8),
    ("resnet32_cifar10_torchscript_bn_opset13.onnx", RESNET8),
    ("mnist_cntk_opset8.onnx", RESNET8),
    ("textangle_cls_paddle_opset10.onnx", SQUEEZENET),
    ("mobilenet_v2_person_tf2onnx_opset15.onnx", SQUEEZENET),
    ("vit_cifar10_pytorch1.12_opset9.onnx", RESNET8),
]
IDS = [f"{one.split('_')[0]}-{two.split('_')[0]}" for one, two in PAIRS]


def original_feature(path: Path, network: Network, image: np.ndarray) -> np.ndarray:
    """Run the file as it was found, one image at a time, and return the network's feature tensor."""
    session = open_session(
        with_outputs(onnx.load(path), [network.head.feature]), provider="cpu", threads=1, optimise=False
    )
    channels_last = session.input_shape[-1] in (1, 3)
    rows = np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if channels_last else image
    features = [session.run(row[None], outputs=[network.head.feature])[0] for row in rows]
    return np.concatenate(features)


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=IDS)
def test_branches_of_real_pairs_equal_the_original_files_and_every_parameter_trains(
    shared_models: Path, one: str, two: str
) -> None:
    paths = shared_models / one, shared_models / two
    networks = [load(path) for path in paths]
    fused = fuse(*networks, classes=8)
    assert_fully_checked(fused.proto)

    names = [name for parent in fused.metadata.parents for name in (parent.input_value, parent.feature)]
    session = open_session(with_outputs(fused.proto, names), provider="cpu", threads=1, optimise=False)
    image = np.random.default_rng(0).random((2, *fused.input_shape), np.float32)
    rows = [session.run(row[None], outputs=names) for row in image]
    values = [np.concatenate(column) for column in zip(*rows, strict=True)]
    for index, (path, network) in enumerate(zip(paths, networks, strict=True)):
        branch_image, feature = values[2 * index], values[2 * index + 1]
        np.testing.assert_array_equal(feature, original_feature(path, network, branch_image))

    module = to_torch(fused).train()
    F.cross_entropy(module(torch.from_numpy(image)), torch.tensor([0, 1])).backward()
    parameters = {onnx_name(key): parameter for key, parameter in module.named_parameters()}
    groups = {name.split("/")[0] for name in parameters}
    assert groups == {"a", "b", "head"} | ({"skips"} if '"source"' in (fused.metadata.plan or "") else set())
    assert not any(name.startswith("preprocess/") for name in parameters)
    without = [n for n, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_a_network_whose_own_numbers_overflow_is_refused_by_name(shared_models: Path) -> None:
    parents = (
        load(shared_models / SQUEEZENET),
        load(shared_models / "light_inception_v1_caffe2_opset9.onnx"),
    )
    with pytest.raises(ParityError, match=r"branch 'b' is not from 'b/r137' on\. Check its weights"):
        fuse(*parents, classes=8)


def test_half_precision_weights_become_the_same_numbers_in_float32(shared_models: Path) -> None:
    half, whole = (
        {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in load(shared_models / file).proto.graph.initializer
        }
        for file in ("squeezenet1.1_caffe2_opset7_fp16.onnx", SQUEEZENET)
    )
    assert half.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(half[name], array)
