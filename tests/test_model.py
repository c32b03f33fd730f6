"""The door: what comes in, in which form it stands inside, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Builder, plain_cnn, residual_cnn, saved
from onnx import TensorProto, helper, numpy_helper

from graftonnx.errors import GraftError, ModelError, UnsupportedOpError
from graftonnx.fusion import fuse
from graftonnx.metadata import PRESETS, Preprocess
from graftonnx.model import from_proto, load, save
from graftonnx.normalise.extents import follow
from graftonnx.normalise.opset import OPSET
from graftonnx.runtime import open_session, with_outputs

RUNTIME_OPSET = 22
"""ONNX Runtime knows it; what the tests use of newer ones means the same."""


def run(model: onnx.ModelProto, image: np.ndarray, output: str | None = None) -> np.ndarray:
    session = open_session(model, provider="cpu", threads=1, optimise=False)
    return session.run(image, outputs=[output or session.output_names[0]])[0]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).random((1, 3, 16, 16), np.float32)


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_any_opset_gives_the_same_numbers_inside(opset: int, image: np.ndarray) -> None:
    model = plain_cnn(opset=opset)
    network = from_proto(model, "net")
    assert network.opset == opset
    assert network.proto.opset_import[0].version == OPSET
    known = plain_cnn(opset=min(opset, RUNTIME_OPSET))
    np.testing.assert_array_equal(run(network.proto, image), run(known, image))


@pytest.mark.parametrize("version", range(3, onnx.IR_VERSION + 1))
def test_any_ir_version_gives_the_same_numbers_inside(version: int, image: np.ndarray) -> None:
    model = plain_cnn(opset=9)
    expected = run(model, image)
    model.ir_version = version
    if version < 4:
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
        )
    network = from_proto(model, "net")
    assert (network.ir_version, network.proto.ir_version) == (version, 10)
    np.testing.assert_array_equal(run(network.proto, image), expected)


def test_a_baked_batch_becomes_dynamic(image: np.ndarray) -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    value = net.node("Reshape", [value, net.ints("split", 1, 2, 4, 16, 16)], "split_out")
    value = net.node("Transpose", [value], "turned", perm=[0, 2, 1, 3, 4])
    value = net.node("Reshape", [value, net.ints("join", 1, 8, 16, 16)], "shuffled")
    value = net.block(value, "r1", 8, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Reshape", [value, net.ints("flat_shape", 1, 8)], "flat")
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    model = net.model("scores", [1, 4], image=[1, 3, 16, 16])
    network = from_proto(model, "net")
    assert "batch made dynamic" in network.notes
    three = np.concatenate([image, image[:, :, ::-1], 1 - image])
    rows = np.concatenate([run(model, row[None]) for row in three])
    np.testing.assert_allclose(run(network.proto, three), rows, rtol=1e-5, atol=1e-6)


def test_batch_one_in_slices_resizes_and_states_is_freed() -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    ends = net.ints("starts", 0, 0), net.ints("ends", 1, 6), net.ints("axes", 0, 1)
    value = net.node("Slice", [value, *ends], "sliced")
    value = net.node("Resize", [value, "", "", net.ints("sizes", 1, 6, 4, 4)], "resized", mode="linear")
    value = net.node("Reshape", [value, net.ints("tokens", 1, 6, 16)], "columns")
    value = net.node("Transpose", [value], "steps", perm=[2, 0, 1])
    weights = net.weight("w", 1, 20, 6), net.weight("r", 1, 20, 5), net.weight("b", 1, 40)
    states = net.weight("h", 1, 1, 5), net.weight("c", 1, 1, 5)
    value = net.node("LSTM", [value, *weights, "", *states], "all_steps", hidden_size=5)
    value = net.node("Squeeze", [value, net.ints("direction", 1)], "squeezed")
    value = net.node("Gather", [value, net.ints("last", -1)], "taken", axis=0)
    value = net.node("Squeeze", [value, net.ints("zero", 0)], "row")
    net.node("Gemm", [value, net.weight("fc", 4, 5)], "scores", transB=1)
    model = net.model("scores", [1, 4], image=[1, 3, 16, 16])
    rows = np.random.default_rng(0).random((8, 3, 16, 16), np.float32)
    expected = np.concatenate([run(model, row[None]) for row in rows])
    np.testing.assert_allclose(run(from_proto(model, "net").proto, rows), expected, rtol=1e-5, atol=1e-6)


def test_batch_one_in_expands_tiles_and_fills_is_freed() -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    gate = net.node("GlobalAveragePool", [value], "gate")
    gate = net.node("Expand", [gate, net.ints("whole", 1, 8, 16, 16)], "wide_gate")
    value = net.node("Mul", [value, gate], "gated")
    filled = net.node("ConstantOfShape", [net.ints("map", 1, 2, 16, 16)], "filled")
    value = net.node("Concat", [filled, value], "padded", axis=1)
    value = net.node("Tile", [value, net.ints("repeats", 1, 1, 2, 1)], "tiled")
    value = net.block(value, "r1", 10, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Squeeze", [value, net.ints("extents", 2, 3)], "squeezed")
    value = net.node("Unsqueeze", [value, net.ints("leading", 0)], "raised")
    value = net.node("Reshape", [value, net.ints("flat_shape", 1, 8)], "flat")
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    model = net.model("scores", [1, 4], image=[1, 3, 16, 16])
    rows = np.random.default_rng(0).random((8, 3, 16, 16), np.float32)
    expected = np.concatenate([run(model, row[None]) for row in rows])
    np.testing.assert_allclose(run(from_proto(model, "net").proto, rows), expected, rtol=1e-5, atol=1e-6)


def test_a_batch_that_cannot_be_freed_is_refused() -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    value = net.node("Reshape", [value, net.ints("joined", 8, 256)], "merged")
    value = net.node("Reshape", [value, net.ints("parted", 1, 8, 16, 16)], "back")
    value = net.node("Mul", [net.weight("each", 2, 8, 16, 16), value], "twice")
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    value = net.node("Gemm", [value, net.weight("fc", 4, 8)], "rows", transB=1)
    net.node("ReduceMean", [value], "scores", axes=[0])
    with pytest.raises(
        ModelError, match="its batch is fixed to 1 and could not be freed: a batch of 2 gives"
    ):
        from_proto(net.model("scores", [1, 4], image=[1, 3, 16, 16]), "net")


def test_a_class_token_is_expanded_to_the_batch(image: np.ndarray) -> None:
    net = Builder()
    value = net.conv("image", "patches", 3, 8, kernel=3, stride=4)
    value = net.node("Reshape", [value, net.ints("tokens", 1, 8, 16)], "columns")
    value = net.node("Transpose", [value], "rows", perm=[0, 2, 1])
    value = net.node("Concat", [net.weight("class_token", 1, 1, 8), value], "all_tokens", axis=1)
    value = net.node("MatMul", [value, net.weight("mix", 8, 8)], "mixed")
    value = net.node("Gather", [value, net.ints("first", 0)], "taken", axis=1)
    value = net.node("Reshape", [value, net.ints("flat_shape", 1, 8)], "flat")
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    model = net.model("scores", [1, 4], image=[1, 3, 16, 16])
    network = from_proto(model, "net")
    three = np.concatenate([image, image[:, :, ::-1], 1 - image])
    rows = np.concatenate([run(model, row[None]) for row in three])
    np.testing.assert_allclose(run(network.proto, three), rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("opset", "op"), [(7, "Upsample"), (9, "Upsample"), (10, "Resize")])
def test_old_resizes_keep_their_coordinates(
    opset: int, op: str, mode: str, scale: float, image: np.ndarray
) -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    scales = [1.0, 1.0, scale, scale]
    if opset == 7:
        value = net.node(op, [value], "resized", mode=mode, scales=scales)
    else:
        net.initializers.append(numpy_helper.from_array(np.array(scales, np.float32), "scales"))
        value = net.node(op, [value, "scales"], "resized", mode=mode)
    value = net.block(value, "r1", 8, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8), net.weight("bias", 4)], "scores", transB=1)
    model = net.model("scores", ["batch", 4], opset=opset)
    network = from_proto(model, "net")
    np.testing.assert_allclose(run(network.proto, image), run(model, image), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("op", ["Gelu", "GroupNormalization", "AveragePool"])
def test_operators_newer_than_the_opset_inside_keep_their_meaning(op: str, image: np.ndarray) -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    if op == "Gelu":
        value = net.node(op, [value], "newer", approximate="tanh")
    elif op == "GroupNormalization":
        value = net.node(op, [value, net.weight("scale", 8), net.weight("shift", 8)], "newer", num_groups=2)
    else:
        value = net.node(op, [value], "newer", kernel_shape=[2, 2], strides=[2, 2], dilations=[1, 1])
    value = net.block(value, "r1", 8, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    model = net.model("scores", ["batch", 4], opset=22)
    model.ir_version = 10
    network = from_proto(model, "net")
    onnx.checker.check_model(network.proto, full_check=True)
    np.testing.assert_allclose(run(network.proto, image), run(model, image), rtol=1e-5, atol=1e-6)


def test_open_height_and_width_are_said(image: np.ndarray) -> None:
    model = plain_cnn()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    network = from_proto(model, "net")
    assert network.input_shape == (3, 224, 224)
    assert "height and width are open: taken as 224x224" in network.notes


def test_preprocessing_for_grey_images_is_refused_for_rgb() -> None:
    with pytest.raises(ModelError, match=r"its preprocessing is for grey images, its input has 3 channels"):
        from_proto(plain_cnn(), "net", preprocess=Preprocess(order="grey"))


@pytest.mark.parametrize("transposed", [True, False])
def test_a_channels_last_input_becomes_channels_first(transposed: bool, image: np.ndarray) -> None:
    net = Builder()
    if transposed:
        first = net.node("Transpose", ["image"], "nchw", perm=[0, 3, 1, 2])
    else:
        doubled = net.node("Mul", ["image", net.weight("two", 1)], "scaled")
        first = net.node("Transpose", [doubled], "nchw", perm=[0, 3, 1, 2])
    value = net.block(first, "r0", 3, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    model = net.model("scores", ["batch", 4], image=["batch", 16, 16, 3])
    network = from_proto(model, "net")
    assert network.input_shape == (3, 16, 16)
    expected = run(model, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(run(network.proto, image), expected)
    assert "Transpose" not in {node.op_type for node in network.view.nodes}


@pytest.mark.parametrize("kept", [False, True], ids=["all between Transposes", "one value read outside"])
def test_channels_last_regions_become_channels_first(kept: bool, image: np.ndarray) -> None:
    net = Builder()

    def last(source: str, name: str) -> str:
        return net.node("Transpose", [source], f"{name}.last", perm=[0, 2, 3, 1])

    def first(source: str, name: str) -> str:
        return net.node("Transpose", [source], f"{name}.first", perm=[0, 3, 1, 2])

    one = last(net.conv(first("image", "image"), "c0", 3, 8), "c0")
    one = net.node("Relu", [net.node("Add", [one, net.weight("bias", 8)], "biased")], "r0")
    two = last(net.conv(first(one, "r0"), "c1", 8, 8), "c1")
    two = net.node("Add", [net.node("Mul", [two, net.weight("scale", 1, 1, 8)], "scaled"), one], "sum")
    both = net.node("Concat", [one, net.node("Softmax", [two], "soft")], "both", axis=3)
    value = last(net.conv(first(both, "both"), "c2", 16, 8), "c2")
    value = net.node("Clip", [value, net.weight("low", 1)[:0]], "r2")
    if kept:
        value = net.node("MatMul", [value, net.weight("mix", 8, 8)], "mixed")
    net.initializers.append(numpy_helper.from_array(np.int64([1, 2]), "axes"))
    value = net.node("ReduceMean", [value, "axes"], "pooled", keepdims=0)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    model = net.model("scores", ["batch", 4], image=["batch", 16, 16, 3], opset=18)
    network = from_proto(model, "net")
    assert sum(node.op_type == "Transpose" for node in network.view.nodes) == int(kept)
    expected = run(model, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(run(network.proto, image), expected, rtol=1e-5, atol=1e-6)


def test_half_precision_weights_are_float32_inside() -> None:
    model = plain_cnn()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    network = from_proto(model, "net")
    assert "float16 weights are float32 inside" in network.notes
    assert {tensor.data_type for tensor in network.proto.graph.initializer} == {TensorProto.FLOAT}


def test_weights_listed_as_inputs_and_constant_nodes_become_initializers(image: np.ndarray) -> None:
    model = plain_cnn(opset=9)
    expected = run(model, image)
    graph = model.graph
    weight = graph.initializer.pop()
    graph.node.insert(0, helper.make_node("Constant", [], [weight.name], value=weight))
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in graph.initializer
    )
    model.ir_version = 3
    network = from_proto(model, "net")
    assert [value.name for value in network.proto.graph.input] == ["image"]
    assert "Constant" not in {node.op_type for node in network.view.nodes}
    np.testing.assert_array_equal(run(network.proto, image), expected)


def test_shape_arithmetic_is_folded_even_beside_a_dynamic_batch(image: np.ndarray) -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    shape = net.node("Shape", [value], "shape")
    batch = net.node("Gather", [shape, net.ints("zero", 0)], "batch_extent", axis=0)
    spatial = net.node("Gather", [shape, net.ints("two", 2, 3)], "hw", axis=0)
    target = net.node("Concat", [batch, net.ints("groups", 2, 4), spatial], "target", axis=0)
    value = net.node("Reshape", [value, target], "grouped")
    value = net.node("Reshape", [value, net.ints("back", 0, 8, 16, 16)], "joined")
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    model = net.model("scores", ["batch", 4])
    network = from_proto(model, "net")
    assert network.view.constant("hw") is not None
    np.testing.assert_array_equal(run(network.proto, image), run(model, image))


def test_a_local_function_is_inlined(image: np.ndarray) -> None:
    model = plain_cnn(opset=15)
    expected = run(model, image)
    relu = helper.make_function(
        "custom", "Act", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], model.opset_import
    )
    model.functions.append(relu)
    model.opset_import.append(helper.make_opsetid("custom", 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Act", "custom"
    np.testing.assert_array_equal(run(from_proto(model, "net").proto, image), expected)


def test_another_input_size_cuts_the_head_off() -> None:
    network = from_proto(plain_cnn(), "net", input_size=(20, 24))
    assert network.input_shape == (3, 20, 24)
    assert not network.complete
    assert network.view.shapes["r1"] == (None, 16, 10, 12)
    assert [value.name for value in network.proto.graph.output] == ["r1"]


def shuffle(size: int, *, batch: int | str = 1) -> onnx.ModelProto:
    """Channels are shuffled as ShuffleNet does, the batch and the size baked into both reshapes."""
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    value = net.node("Reshape", [value, net.ints("split", 1, 2, 4, size, size)], "split_out")
    value = net.node("Transpose", [value], "turned", perm=[0, 2, 1, 3, 4])
    value = net.node("Reshape", [value, net.ints("join", 1, 8, size, size)], "shuffled")
    value = net.block(value, "r1", 8, 8)
    value = net.node("Reshape", [value, net.ints("columns", 1, 8, size * size)], "tokens")
    value = net.node("Softmax", [value], "weighted", axis=2)
    value = net.node("ReduceMax", [value], "pooled", axes=[2], keepdims=0)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    return net.model("scores", [batch, 4], image=[batch, 3, size, size])


def test_an_input_size_whose_values_do_not_fit_into_memory_is_refused() -> None:
    message = r"^it cannot run at 16000x16000 pixels: the bytes of its value 'r0.conv' .* are 8,192,000,000;"
    with pytest.raises(ModelError, match=message):
        from_proto(plain_cnn(), "model.onnx", input_size=(16_000, 16_000))


def test_extents_baked_into_reshapes_follow_the_input_size() -> None:
    found = from_proto(shuffle(16), "net", input_size=(12, 12))
    expected = from_proto(shuffle(12), "net")
    image = np.random.default_rng(0).random((3, 3, 12, 12), np.float32)
    assert {node.op_type for node in found.view.nodes} <= {node.op_type for node in expected.view.nodes}
    value = found.head.feature
    wanted = with_outputs(expected.proto, [value])
    np.testing.assert_array_equal(run(found.proto, image), run(wanted, image, output=value))


def test_a_size_can_be_changed_again_after_a_fused_file_was_read(tmp_path: Path) -> None:
    parent = from_proto(shuffle(16), "net", input_size=(12, 12))
    save(fuse(parent, parent, classes=3), tmp_path / "fused.onnx")
    assert load(tmp_path / "fused.onnx", input_size=(24, 24)).input_shape == (3, 24, 24)


@pytest.mark.parametrize(
    ("source", "target", "recipe"),
    [
        ((None, 8, 4, 4), (None, 2, 4, 4, 4), [-1, 2, 4, (2,), (3,)]),
        ((None, 2, 4, 5, 5), (None, 8, 5, 5), [-1, (1, 2), (3,), (4,)]),
        ((None, 8, 3, 5), (None, 8, 15), [-1, (1,), (2, 3)]),
        ((None, 8, 15), (None, 8, 3, 5), [-1, (1,), 3, 5]),
        ((4, None, 6), (4, None, 2, 3), [(0,), -1, 2, 3]),
        ((None, 8, 1, 1), (None, 8), [-1, (1,)]),
        ((None, 3, 4), (None, 6), None),
        ((None, 3, 4), (None, None), None),
    ],
)
def test_the_extents_of_a_reshape_follow_from_its_source(
    source: tuple[int | None, ...], target: tuple[int | None, ...], recipe: list[object] | None
) -> None:
    assert follow(source, target) == recipe


def test_a_network_with_baked_extents_refuses_another_size_with_the_first_reason() -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    value = net.node("Add", [value, net.weight("position", 1, 8, 16, 16)], "sum")
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    with pytest.raises(ModelError) as caught:
        from_proto(net.model("scores", ["batch", 4]), "net", input_size=(20, 20))
    assert caught.value.message.startswith(
        "it cannot run at 20x20 pixels: its shapes do not fit together: Add node 'node_sum': "
    )
    assert len(caught.value.message) < 250


def test_the_parent_in_memory_is_not_modified() -> None:
    model = plain_cnn(opset=9, batch=1)
    before = model.SerializeToString()
    from_proto(model, "net", input_size=(32, 32))
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("head", "feature"),
    [("pool+fc", "r1"), ("conv", "r1"), ("flatten+fc", "r1"), ("softmax", "r1")],
)
def test_the_feature_is_the_last_map_before_the_head(head: str, feature: str) -> None:
    net = Builder()
    value = net.block(net.block("image", "r0", 3, 8), "r1", 8, 8, stride=2)
    if head == "conv":
        value = net.node("Identity", [value], "kept")
        value = net.node("Relu", [net.conv(value, "classify", 8, 4, kernel=1)], "maps")
        value = net.node("GlobalAveragePool", [value], "pooled")
        net.node("Flatten", [value], "scores", axis=1)
    elif head == "flatten+fc":
        value = net.node("Flatten", [value], "flat", axis=1)
        value = net.node("Gemm", [value, net.weight("fc1", 16, 512)], "hidden", transB=1)
        value = net.node("Relu", [value], "hidden_relu")
        net.node("Gemm", [value, net.weight("fc2", 4, 16)], "scores", transB=1)
    else:
        value = net.node("ReduceMean", [value], "pooled", axes=[2, 3], keepdims=0)
        value = net.node("MatMul", [value, net.weight("fc", 8, 4)], "logits")
        value = net.node("Add", [value, net.weight("bias", 4)], "scores" if head == "pool+fc" else "biased")
        if head == "softmax":
            net.node("Softmax", [value], "scores", axis=1)
    network = from_proto(net.model("scores", ["batch", 4]), "net")
    assert network.head.feature in (feature, "kept")
    assert network.head.classes == 4


@pytest.mark.parametrize(
    ("producer", "preset"),
    [("tf2onnx", "inception"), ("onnx-caffe2", "caffe"), ("pytorch", "imagenet"), ("", "imagenet")],
)
def test_preprocessing_is_guessed_with_a_reason(producer: str, preset: str) -> None:
    model = plain_cnn()
    model.producer_name = producer
    network = from_proto(model, "net")
    assert network.preprocess == PRESETS[preset]
    assert network.preprocess_reason == f"guessed '{preset}': made by {producer or 'an unknown exporter'}"


@pytest.mark.parametrize(
    ("steps", "preset", "reason"),
    [
        ([("Mul", [1 / 127.5]), ("Sub", [1.0])], "raw", "guessed 'raw': it scales 0..255 itself"),
        ([("Sub", [103.9, 116.8, 123.7])], "raw", "guessed 'raw': it scales 0..255 itself"),
        (
            [("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])],
            "unit",
            "guessed 'unit': it scales 0..1 itself",
        ),
        ([("Mul", [255.0]), ("Sub", [103.9, 116.8, 123.7])], "unit", "guessed 'unit': it scales 0..1 itself"),
    ],
)
def test_a_network_that_normalises_itself_is_given_what_it_normalises(
    steps: list[tuple[str, list[float]]], preset: str, reason: str
) -> None:
    net = Builder()
    value = "image"
    for index, (op, numbers) in enumerate(steps):
        constant = numpy_helper.from_array(np.float32(numbers).reshape(1, -1, 1, 1), f"k{index}")
        net.initializers.append(constant)
        value = net.node(op, [value, constant.name], f"s{index}")
    value = net.node("GlobalAveragePool", [net.block(value, "r0", 3, 8)], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    network = from_proto(net.model("scores", ["batch", 4], producer="tf2onnx"), "net")
    assert (network.preprocess, network.preprocess_reason) == (PRESETS[preset], reason)


def test_a_grey_network_expects_grey() -> None:
    network = from_proto(plain_cnn(channels=1), "net")
    assert network.preprocess == Preprocess(order="grey")


def test_given_preprocessing_wins() -> None:
    assert from_proto(plain_cnn(), "net", preprocess="raw").preprocess.scale == 255


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match=r"preprocess \(='vgg'\) is not one of imagenet, inception"):
        from_proto(plain_cnn(), "net", preprocess="vgg")


def two_outputs() -> onnx.ModelProto:
    model = residual_cnn()
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 8]))
    return model


def test_auxiliary_outputs_are_dropped_and_said_so() -> None:
    network = from_proto(two_outputs(), "net")
    assert network.head.output == "scores"
    assert "other outputs dropped: flat" in network.notes


def bad(name: str) -> onnx.ModelProto:
    model = plain_cnn()
    if name == "no opset":
        del model.opset_import[:]
    elif name == "old opset":
        model.opset_import[0].version = 6
    elif name == "unknown operator":
        model.graph.node[1].op_type = "Quant"
    elif name == "foreign domain":
        model.graph.node[1].domain = "ai.onnx.contrib"
    elif name == "optimised":
        model.graph.node[1].op_type, model.graph.node[1].domain = "FusedConv", "com.microsoft"
    elif name == "detector":
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["batch", 16, 8, 8])
        )
    elif name == "two inputs":
        model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    elif name == "no input":
        tensor = numpy_helper.from_array(np.zeros((1, 3, 16, 16), np.float32), "image")
        model.graph.initializer.append(tensor)
        del model.graph.input[:]
    elif name == "integer image":
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["float_image"], to=1))
        model.graph.node[1].input[0] = "float_image"
    elif name == "five channels":
        net = Builder()
        net.node("GlobalAveragePool", [net.block("image", "r", 5, 8)], "scores")
        return net.model("scores", ["batch", 8, 1, 1], image=["batch", 5, 16, 16])
    elif name == "table":
        net = Builder()
        net.node("Gemm", ["image", net.weight("w", 4, 8)], "scores", transB=1)
        return net.model("scores", ["batch", 4], image=["batch", 8])
    elif name == "only a head":
        net = Builder()
        flat = net.node("Flatten", ["image"], "flat", axis=1)
        net.node("Gemm", [flat, net.weight("w", 4, 768)], "scores", transB=1)
        return net.model("scores", ["batch", 4])
    return model


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("no opset", ModelError, "it has no opset_import for the default domain"),
        ("old opset", ModelError, "its opset is 6; supported are 7 to"),
        (
            "unknown operator",
            UnsupportedOpError,
            "is operator 'Quant', which ONNX does not define at opset 13",
        ),
        ("foreign domain", UnsupportedOpError, "of domain 'ai.onnx.contrib', which is not part of the ONNX"),
        (
            "optimised",
            UnsupportedOpError,
            "not part of the ONNX standard. Give the file from before ONNX Runtime optimised it.",
        ),
        (
            "detector",
            ModelError,
            "it is not a classifier: its outputs are 'r1' [N, 16, 8, 8]; expected one of shape [N, classes]",
        ),
        ("no input", ModelError, "its inputs are none; expected one image"),
        ("two inputs", ModelError, "its inputs are 'image', 'mask'; expected one image"),
        ("integer image", ModelError, "its input 'image' is uint8 [N, 3, 16, 16]; expected a float image"),
        ("five channels", ModelError, "has 5 channels; expected 1 (grey) or 3 (RGB)"),
        ("table", ModelError, "its input 'image' is float [N, 8]; expected a float image [N, C, H, W]"),
        ("only a head", ModelError, "nothing but a head stands between its input 'image' and its output"),
    ],
)
def test_what_is_no_image_classifier_is_refused_in_words(
    name: str, kind: type[GraftError], message: str, tmp_path: Path
) -> None:
    path = saved(bad(name), tmp_path / "bad.onnx")
    with pytest.raises(kind) as caught:
        load(path)
    assert caught.value.message.startswith(f"cannot use '{path}': ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is not an ONNX file, or it is truncated (0 bytes)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "it is not an ONNX file, or it is truncated (208 bytes)"),
        (b"just some text, nothing else", "it is not an ONNX file, or it is truncated (28 bytes)"),
    ],
)
def test_what_is_no_onnx_file_is_refused_in_words(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert message in caught.value.message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_in_words(share: float, tmp_path: Path) -> None:
    whole = plain_cnn((16, 32)).SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"cannot (read|use) '.*cut.onnx': "):
        load(path)


def test_a_missing_file_and_a_folder_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read '.*gone.onnx': there is no such file\."):
        load(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match=r"it is a folder; expected an \.onnx file\."):
        load(tmp_path)


def test_a_saved_network_loads_again(tmp_path: Path, image: np.ndarray) -> None:
    network = from_proto(plain_cnn(), "net")
    save(network, tmp_path / "out.onnx")
    np.testing.assert_array_equal(run(load(tmp_path / "out.onnx").proto, image), run(network.proto, image))
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_text("precious")
    network = from_proto(plain_cnn(), "net")
    with pytest.raises(GraftError, match=r"it exists\. Choose another -o, or pass --force\."):
        save(network, path)
    assert path.read_text() == "precious"
    save(network, path, force=True)
    assert load(path).head.classes == 4


def test_weights_beyond_the_limit_go_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: np.ndarray
) -> None:
    monkeypatch.setattr("graftonnx.weights.PROTOBUF_LIMIT", 10_000)
    network = from_proto(plain_cnn((16, 32)), "net")
    save(network, tmp_path / "big.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"big.onnx", "big.onnx.data"}
    np.testing.assert_array_equal(run(load(tmp_path / "big.onnx").proto, image), run(network.proto, image))
