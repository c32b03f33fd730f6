from __future__ import annotations

from pathlib import Path

import pytest
from builders import Builder, fire_cnn, plain_cnn, residual_cnn

from graftonnx.model import from_proto, load
from graftonnx.taps import find_taps


def names(model: object) -> list[str]:
    return [tap.name for tap in find_taps(from_proto(model, "net"))]  # type: ignore[arg-type] # a ModelProto


def test_a_plain_network_has_a_tap_after_every_block_but_the_last() -> None:
    assert names(plain_cnn((8, 16, 32))) == ["r0", "r1"]


def test_a_residual_connection_is_tapped_after_its_activation_only() -> None:
    assert names(residual_cnn(depth=2)) == ["stem", "s0.inner", "s0", "s1.inner"]


def test_parallel_blocks_and_their_concat_are_taps_and_only_the_concat_ends_a_block() -> None:
    taps = {tap.name: tap for tap in find_taps(from_proto(fire_cnn(), "net"))}
    assert list(taps) == ["stem", "left", "right", "joined"]
    assert [tap.spine for tap in taps.values()] == [True, False, False, True]


def test_stride_and_depth_are_relative_to_the_image_and_the_feature() -> None:
    first, second = find_taps(from_proto(plain_cnn((8, 16, 32)), "net"))
    assert (first.shape, first.stride, first.depth) == ((8, 16, 16), (1, 1), pytest.approx(1 / 3))
    assert (second.shape, second.stride, second.depth) == ((16, 8, 8), (2, 2), pytest.approx(2 / 3))


@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
def test_a_gated_activation_is_tapped_where_it_is_whole(gate: str) -> None:
    net = Builder()
    value = net.conv("image", "conv", 3, 8)
    gated = net.node(gate, [value], "gate")
    value = net.node("Mul", [value, gated], "silu")
    value = net.block(value, "last", 8, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    assert names(net.model("scores", ["batch", 4])) == ["silu"]


def test_squeeze_and_excitation_leaves_no_tap_on_its_vectors() -> None:
    net = Builder()
    value = net.block("image", "stem", 3, 8)
    squeezed = net.node("GlobalAveragePool", [value], "squeezed")
    squeezed = net.node("Relu", [net.conv(squeezed, "reduce", 8, 4, kernel=1)], "reduced")
    excited = net.node("Sigmoid", [net.conv(squeezed, "expand", 4, 8, kernel=1)], "excited")
    value = net.node("Mul", [value, excited], "scaled")
    value = net.block(value, "last", 8, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    assert "reduced" not in names(net.model("scores", ["batch", 4]))


def test_a_linear_bottleneck_is_tapped_before_the_next_convolution() -> None:
    net = Builder()
    value = net.conv(net.block("image", "stem", 3, 16), "bottleneck", 16, 4, kernel=1)
    value = net.block(value, "last", 4, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    assert names(net.model("scores", ["batch", 4])) == ["stem", "bottleneck"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "taps", "feature", "channels"),
    [
        ("squeezenet1.1_caffe2_opset7.onnx", 32, "fire9/concat_1", 512),
        ("resnet20_cifar10_torch_dynamo_opset20.onnx", 18, "relu_18", 64),
        ("resnet8_cifar10_keras_tf2onnx_opset13.onnx", 6, "model/activation_6/Relu:0", 64),
        ("mobilenet_v2_1.0_tflite_tf2onnx_opset13.onnx", 51, "Relu6__90:0", 1280),
        ("inception_v3_2015_to_mixed8_torchscript_opset13.onnx", 84, "/mixed_8/Concat_output_0", 1280),
    ],
)
def test_real_networks_have_their_taps_and_feature(
    shared_models: Path, file: str, taps: int, feature: str, channels: int
) -> None:
    network = load(shared_models / file)
    assert network.head.feature == feature
    assert network.view.shapes[feature][1] == channels
    assert len(find_taps(network)) == taps


def test_of_many_taps_those_on_the_spine_come_first_evenly_spread() -> None:
    network = from_proto(residual_cnn(depth=6), "net")
    spine = [tap.name for tap in find_taps(network) if tap.spine]
    others = [tap.name for tap in find_taps(network) if not tap.spine]
    assert len(spine) == len(others) == 6
    few = [tap.name for tap in find_taps(network, 3)]
    assert few == [spine[0], spine[2], spine[4]]
    most = [tap.name for tap in find_taps(network, 8)]
    assert set(most) == {*spine, others[0], others[3]}
    assert [tap for tap in find_taps(network) if tap.name in most] == find_taps(network, 8)
    assert find_taps(network, 12) == find_taps(network)
