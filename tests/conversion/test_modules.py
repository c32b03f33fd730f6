"""What is a parameter, what train() and eval() mean, and what comes back."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from onnx import numpy_helper
from torch import nn

from graftonnx.conversion import onnx_name, to_torch, unsupported, write_back
from graftonnx.errors import ModelError, UnsupportedOpError
from graftonnx.metadata import Metadata, Parent, Preprocess, write_metadata
from graftonnx.parity import compare_module

BN = {
    "s": np.full(4, 1.5, np.float32),
    "b": random(4, seed=1),
    "m": random(4, seed=2),
    "v": np.abs(random(4, seed=3)) + 0.5,
}
CONV = {"w": random(4, 3, 3, 3), "c": random(4)}


def names(module: nn.Module) -> set[str]:
    return {onnx_name(key) for key, _ in module.named_parameters()}


def test_layers_are_real_pytorch_layers() -> None:
    proto = model(
        "h = Conv<pads=[1,1,1,1]>(x, w, c) i = BatchNormalization(h, s, b, m, v) j = Relu(i)"
        " k = MaxPool<kernel_shape=[2,2], strides=[2,2]>(j) l = GlobalAveragePool(k) n = Flatten(l)"
        " o = Dropout(n) y = Gemm<transB=1>(o, u, z)",
        {**CONV, **BN, "u": random(5, 4), "z": random(5)},
    )
    kinds = [type(layer) for layer in to_torch(proto).modules() if not list(layer.children())]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.Dropout, nn.Linear]


def test_the_code_is_straight_and_named_after_the_graph() -> None:
    proto = model("h = Conv(x, w, c) y = Relu(h)", CONV)
    for index, name in enumerate(["stem.weight", "stem.bias"]):
        proto.graph.initializer[index].name = name
        proto.graph.node[0].input[index + 1] = name
    lines = [line.strip().split(";")[0] for line in to_torch(proto).code.strip().splitlines()]
    assert lines == [
        "def forward(self, x):",
        "h = self.stem(x)",
        "y = torch.nn.functional.relu(h, inplace = True)",
        "return y",
    ]


def test_every_float_weight_is_a_parameter_and_nothing_else_is() -> None:
    proto = model(
        "h = Conv(x, w, c) i = BatchNormalization(h, s, b, m, v) j = Mul(i, scale)"
        " k = Add(j, shift) l = Reshape(k, shape) n = MatMul(l, matrix) o = Clip(n, low, high)"
        " p = Pow(o, two) y = Add(p, gate)",
        {
            **CONV,
            **BN,
            "scale": random(4, 1, 1),
            "shift": random(1),
            "shape": np.array([0, -1], np.int64),
            "matrix": random(144, 2),
            "low": np.float32(-100),
            "high": np.float32(100),
            "two": np.float32(2),
            "gate": np.array(0.5, np.float32),
        },
    )
    module = to_torch(proto)
    assert names(module) == {"w", "c", "s", "b", "scale", "shift", "matrix", "gate"}
    assert {onnx_name(key) for key in module.state_dict()} - names(module) == {"m", "v"}
    module.train()(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("guarded", ["Sqrt", "Reciprocal", "Log"])
def test_a_number_that_guards_from_zero_does_not_train(guarded: str) -> None:
    proto = model(f"h = Add(x, eps) y = {guarded}(h)", {"eps": np.array([1e-5], np.float32)})
    assert names(to_torch(proto)) == set()


def test_a_number_that_is_a_bound_somewhere_is_one_everywhere() -> None:
    proto = model("h = Clip(x, low) y = Mul(h, low)", {"low": np.float32(0.5)})
    assert names(to_torch(proto)) == set()


def test_a_weight_used_twice_is_one_parameter() -> None:
    proto = model(
        "h = Conv<pads=[1,1,1,1]>(x, w) i = Conv<pads=[1,1,1,1]>(h, w) y = Add(h, i)",
        {"w": random(3, 3, 3, 3)},
    )
    module = to_torch(proto)
    assert len(list(module.parameters())) == 1
    compare_module(proto, module, random(2, 3, 8, 8))


def test_a_weight_behind_an_identity_is_the_same_parameter() -> None:
    proto = model(
        "v = Identity(w) h = Conv<pads=[1,1,1,1]>(x, w) y = Conv<pads=[1,1,1,1]>(h, v)",
        {"w": random(3, 3, 3, 3)},
    )
    module = to_torch(proto)
    assert [onnx_name(key) for key in module.state_dict()] == ["w"]


def test_preprocessing_of_a_fused_file_is_no_parameter() -> None:
    nodes = [
        onnx.helper.make_node("Sub", ["x", "preprocess/a/mean"], ["h"]),
        onnx.helper.make_node("Conv", ["h", "a/w"], ["y"]),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [info("x", 1, ["N", 3, 8, 8])],
        [info("y", 1, None)],
        [
            numpy_helper.from_array(random(3, 1, 1), "preprocess/a/mean"),
            numpy_helper.from_array(CONV["w"], "a/w"),
        ],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    parent = Parent(
        branch="a", name="n", sha256="0", parameters=1, input_size=(8, 8), input_value="h", feature="y",
        features=4, preprocess=Preprocess(),
    )  # fmt: skip
    write_metadata(proto, Metadata(parents=(parent,)))
    module = to_torch(proto)
    assert names(module) == {"a/w"}
    assert {onnx_name(key) for key, _ in module.named_buffers()} == {"preprocess/a/mean"}


def test_batch_norm_left_in_inference_mode_trains() -> None:
    proto = model("h = Conv(x, w, c) y = BatchNormalization<momentum=0.8>(h, s, b, m, v)", {**CONV, **BN})
    module = to_torch(proto)
    x = torch.randn(4, 3, 8, 8)
    (layer,) = (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    assert layer.momentum == pytest.approx(0.2)
    before = layer.running_mean.clone()
    batch = module.train()(x)
    assert torch.allclose(batch.mean((0, 2, 3)), layer.bias, atol=1e-5)  # float32 sums over 144 elements
    assert not torch.equal(layer.running_mean, before)
    after = {t.name: numpy_helper.to_array(t) for t in write_back(module).graph.initializer}
    assert np.array_equal(after["m"], layer.running_mean.numpy())


def test_running_statistics_that_exporters_merged_are_separated() -> None:
    shared = {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)}
    proto = model(
        "h = Conv(x, w) y = BatchNormalization(h, ones, zeros, zeros, ones)", {"w": CONV["w"], **shared}
    )
    module = to_torch(proto)
    assert names(module) == {"w", "ones", "zeros"}
    module.train()(torch.randn(4, 3, 8, 8))
    written = write_back(module)
    arrays = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    assert np.array_equal(arrays["zeros"], shared["zeros"])
    assert not np.array_equal(arrays["zeros/running_mean"], shared["zeros"])
    compare_module(written, module, random(2, 3, 8, 8))


def test_running_statistics_that_were_merged_behind_identities_are_separated() -> None:
    """As PyTorch's older exporter writes an untrained network."""
    text = (
        "m = Identity(zeros) v = Identity(ones) b = Identity(zeros) h = Conv(x, w)"
        "i = BatchNormalization(h, ones, b, m, v) y = BatchNormalization(i, ones, zeros, m, v)"
    )
    arrays = {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)}
    proto = model(text, {"w": CONV["w"], **arrays})
    module = to_torch(proto)
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    module.train()(torch.randn(4, 3, 8, 8))
    means = [layer.running_mean for layer in module.modules() if hasattr(layer, "running_mean")]
    assert len(means) == 2
    assert not torch.equal(*means)
    compare_module(write_back(module), module, random(2, 3, 8, 8))


@pytest.mark.parametrize(("opset", "text"), [(11, "Dropout<ratio=0.5>(x)"), (13, "Dropout(x, r)")])
def test_dropout_drops_in_training_alone(opset: int, text: str) -> None:
    proto = model(f"y = {text}", {"r": np.float32(0.5)} if opset == 13 else {}, opset=opset)
    module, x = to_torch(proto), torch.ones(2, 3, 8, 8)
    assert torch.equal(module(x), x)
    assert set(module.train()(x).unique().tolist()) == {0.0, 2.0}


def test_untouched_weights_come_back_byte_for_byte() -> None:
    proto = model("h = Conv(x, w, c) y = BatchNormalization(h, s, b, m, v)", {**CONV, **BN})
    old = proto.graph.initializer[0]
    old.float_data.extend(numpy_helper.to_array(old).ravel().tolist())
    old.ClearField("raw_data")
    expected = proto.SerializeToString(deterministic=True)
    module = to_torch(proto)
    assert write_back(module).SerializeToString(deterministic=True) == expected
    assert proto.SerializeToString(deterministic=True) == expected


def test_trained_weights_come_back_under_their_names() -> None:
    proto = model("h = Conv(x, w, c) y = Relu(h)", CONV)
    module = to_torch(proto)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    written = write_back(module)
    assert np.array_equal(numpy_helper.to_array(written.graph.initializer[0]), CONV["w"] * 2)
    compare_module(written, module, random(1, 3, 8, 8))


@pytest.mark.parametrize(
    "text",
    [
        "w = Constant<value = float[2] {1.0, 2.0}>()",
        "s = Constant<value = int64[1] {2}>() w = ConstantOfShape(s)",
    ],
)
def test_weights_that_nodes_hold_train_and_come_back(text: str) -> None:
    proto = model(f"{text} y = Mul(x, w)", inputs="float[N, 2] x")
    module = to_torch(proto)
    assert names(module) == {"w"}
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    with torch.no_grad():
        next(iter(module.parameters())).add_(1)
    compare_module(write_back(module), module, random(3, 2))


def test_a_copy_is_independent_and_writes_itself_back() -> None:
    proto = model("y = Conv(x, w, c)", CONV)
    module = to_torch(proto)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        next(iter(twin.parameters())).zero_()
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    assert not numpy_helper.to_array(write_back(twin).graph.initializer[0]).any()


def test_a_module_from_elsewhere_cannot_be_written_back() -> None:
    with pytest.raises(ModelError, match=r"^cannot write the module back: to_torch did not make it"):
        write_back(nn.Linear(1, 1))


def test_a_weight_of_another_shape_cannot_be_written_back() -> None:
    module = to_torch(model("y = Conv(x, w, c)", CONV))
    module.get_submodule("{w,c}").weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(
        ModelError, match=r"^cannot write the module back: 'w' has shape \[1\], expected \[4, 3, 3, 3\]"
    ):
        write_back(module)


def test_local_functions_are_converted_and_stay_in_the_file() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "my" : 1]>
    g (float[N, 2] x) => (float[N, 2] y) { y = my.twice(x, w) }
    <opset_import: ["" : 18], domain: "my"> twice (a, b) => (c) { d = Mul(a, b) c = Add(d, d) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(random(2), "w"))
    module = to_torch(proto)
    assert names(module) == {"w"}
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    compare_module(proto, module, random(3, 2))


def test_several_inputs_and_outputs_keep_their_order() -> None:
    proto = model("p = Add(a, b) q = Sub(a, b)", inputs="float[2] a, float[2] b", outputs="q p")
    q, p = to_torch(proto)(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0]))
    assert (q.tolist(), p.tolist()) == ([2.0, 3.0], [4.0, 5.0])


def test_every_unsupported_node_is_named_at_once() -> None:
    proto = model(
        'h = Foo(x) i = Relu(h) j = Resize<mode="linear", nearest_mode="odd">(i, , s) y = Bar(j)',
        {"s": np.ones(4, np.float32)},
    )
    assert [error.message.split(":")[0] for error in unsupported(proto)] == [
        "cannot convert 'h' (Foo, opset 18)",
        "cannot convert 'j' (Resize, opset 18)",
        "cannot convert 'y' (Bar, opset 18)",
    ]


def test_every_unsupported_node_inside_of_nodes_is_named() -> None:
    proto = model(
        "c = ReduceSum<keepdims=0>(x) cond = Greater(c, zero) limit = Constant<value = int64 {2}>()"
        "always = Constant<value = bool {1}>()"
        "h = If(cond) <then_branch = yes () => (float[N, 4] p) { a = Foo(x) p = Bar(a) },"
        "else_branch = no () => (float[N, 4] q) { r = Relu(x) q = Baz(r) }>"
        "i = Loop(limit, , h) <body = step (int64 i, bool k, float[N, 4] s) => (bool go, float[N, 4] t) {"
        " go = Identity(k) b = Foo(s) t = Bar(b) }>"
        "j = If(always) <then_branch = yes () => (float[N, 4] u) { u = Foo(i) },"
        "else_branch = no () => (float[N, 4] w) { w = Identity(i) }> y = Bar(j)",
        {"zero": np.float32(0)},
        inputs="float[N, 4] x",
    )
    found = [error.refusal for error in unsupported(proto)]
    assert sorted(refusal.node for refusal in found if refusal) == ["a", "b", "p", "q", "t", "u", "y"]
    assert len(found) == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_tensors_made_while_running_follow_the_module(dtype: torch.dtype) -> None:
    """A fill of a free extent, integers up to it, and a table that they index."""
    proto = model(
        "s = Shape(x) f = ConstantOfShape<value = float[1] {1.5}>(s) h = Add(x, f) n = Gather(s, zero)"
        " p = Range(zero, n, one) t = Gather(table, p) y = Add(h, t)",
        {"zero": np.int64(0), "one": np.int64(1), "table": random(5, 1)},
        inputs="float[N, 4] x",
    )
    module = to_torch(proto).to(dtype)
    x = torch.from_numpy(random(3, 4)).to(dtype)
    expected = x + 1.5 + torch.from_numpy(random(5, 1)).to(dtype)[:3]
    assert module(x).dtype == dtype
    torch.testing.assert_close(module(x), expected)
    elsewhere = module.to("meta")(x.to("meta"))
    assert (elsewhere.device.type, elsewhere.dtype, elsewhere.shape) == ("meta", dtype, x.shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y = Foo(x)", r"^cannot convert 'y' \(Foo, opset 18\): there is no converter for this operator\.$"),
        ("y = Relu<alpha=1.0>(x)", r"Relu, opset 18\): the attribute 'alpha' has no counterpart\.$"),
        ('y = Pad<mode="odd">(x, p)', r"mode is 'odd', expected constant, reflect, edge or wrap\.$"),
        ("y = DepthToSpace(x)", r"its attribute 'blocksize' is missing\.$"),
    ],
)
def test_a_refusal_names_node_operator_opset_and_cause(text: str, message: str) -> None:
    with pytest.raises(UnsupportedOpError, match=message):
        to_torch(model(text, {"p": np.array([0, 0, 1, 1] * 2, np.int64)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^cannot read '.*': there is no such file\."),
        (b"\x00nothing", r"^cannot read '.*': it is not an ONNX file, or it is truncated"),
        (b"\x08\x07", r"^cannot read '.*': it is not an ONNX network \(no graph in it\)\."),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        to_torch(path)


def test_an_operator_of_an_old_opset_is_refused() -> None:
    message = r"^cannot convert 'y' \(Relu, opset 5\): the meaning of version 1 of this operator has no conv"
    with pytest.raises(UnsupportedOpError, match=message):
        to_torch(model("y = Relu(x)", opset=5))
