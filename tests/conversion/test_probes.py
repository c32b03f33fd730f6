"""Yes or no: what a person may expect of a converted module, one question each."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn
from torch.nn import functional as F

from graftonnx.conversion import freeze_bn, onnx_name, to_torch, write_back
from graftonnx.parity import compare_module

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Other kernels sum float32 in another order."""

NORM = {
    "s": random(4, seed=1) + 1,
    "b": random(4, seed=2),
    "m": random(4, seed=3),
    "v": np.abs(random(4, seed=4)) + 0.5,
}
NETWORK = model(
    "h = Conv<pads=[1,1,1,1]>(x, w, c) i = BatchNormalization<momentum=0.7>(h, s, b, m, v) j = Relu(i)"
    " k = GlobalAveragePool(j) l = Flatten(k) y = Gemm<transB=1>(l, u, z)",
    {"w": random(4, 3, 3, 3), "c": random(4), **NORM, "u": random(5, 4), "z": random(5)},
)


def renamed(proto: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Return a copy in which initializers have other names."""
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    for tensor in other.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in other.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return other


def keys(module: nn.Module) -> set[str]:
    return {onnx_name(key) for key, _ in module.named_parameters()}


def gradients(module: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    module.train()(*inputs).square().sum().backward()
    return {onnx_name(key): p.grad for key, p in module.named_parameters() if p.grad is not None}


@pytest.fixture
def module() -> fx.GraphModule:
    return to_torch(NETWORK)


@pytest.fixture
def x() -> Tensor:
    return torch.from_numpy(random(4, 3, 8, 8, seed=9))


def test_is_a_tied_weight_one_parameter() -> None:
    proto = model(
        "h = MatMul(x, w) t = Transpose(w) y = MatMul(h, t)", {"w": random(8, 4)}, inputs="float[N, 8] x"
    )
    module = to_torch(proto)
    assert [p.shape for p in module.parameters()] == [(8, 4)]
    compare_module(proto, module, random(2, 8))


def test_do_two_equal_weights_stay_two() -> None:
    proto = model("h = Mul(x, p) y = Mul(h, q)", {"p": random(8), "q": random(8)})
    assert keys(to_torch(proto)) == {"p", "q"}


def test_do_similar_names_stay_apart() -> None:
    names = {"w": "a.b", "c": "a_b", "s": "a/b", "b": "a..b", "u": "A.b", "z": "a.b.weight"}
    proto = renamed(NETWORK, names)
    module = to_torch(proto)
    assert keys(module) == set(names.values())
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_do_names_outside_ascii_survive() -> None:
    names = {"w": "größe", "c": "重み", "u": "вес", "z": "poids d'entrée"}
    proto = renamed(NETWORK, names)
    module = to_torch(proto)
    assert keys(module) >= set(names.values())
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_are_local_functions_converted() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "my" : 1]>
    g (float[N, 2] x) => (float[N, 2] y) { y = my.twice(x, w) }
    <opset_import: ["" : 18], domain: "my"> twice (a, b) => (c) { d = Mul(a, b) c = Add(d, d) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(random(2), "w"))
    assert set(gradients(to_torch(proto), torch.ones(3, 2))) == {"w"}


def branching() -> onnx.ModelProto:
    """`y = sum(x) > 0 ? x * p : x * q`, the weights outside the branches."""
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["x", name], [f"{name}_out"])],
            name, [], [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
        )
        for name in ("p", "q")
    ]  # fmt: skip
    proto = model("t = ReduceSum<keepdims=0>(x) k = Greater(t, zero) y = Neg(x)", {"zero": np.float32(0)})
    proto.graph.initializer.extend(
        [numpy_helper.from_array(random(8, seed=i), n) for i, n in enumerate("pq")]
    )
    del proto.graph.node[-1]
    proto.graph.node.append(
        helper.make_node("If", ["k"], ["y"], then_branch=branches[0], else_branch=branches[1])
    )
    return proto


@pytest.mark.parametrize(("sign", "name"), [(1.0, "p"), (-1.0, "q")])
def test_do_weights_inside_a_branch_train(sign: float, name: str) -> None:
    module = to_torch(branching())
    assert keys(module) >= {"p", "q"}
    found = gradients(module, torch.full((2, 3, 8, 8), sign))
    assert found[name].abs().sum() > 0


def test_do_weights_inside_a_loop_train() -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Mul", ["a", "w"], ["a_out"]), helper.make_node("Identity", ["k"], ["k_out"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("k", TensorProto.BOOL, []),
            value("a", TensorProto.FLOAT, [2]),
        ],
        [value("k_out", TensorProto.BOOL, []), value("a_out", TensorProto.FLOAT, [2])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], "g",
        [value("x", TensorProto.FLOAT, [2])], [value("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array(3), "n"),
         numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "w")],
    )  # fmt: skip
    module = to_torch(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    assert module(torch.ones(2)).tolist() == [1.0, 8.0]
    assert set(gradients(module, torch.ones(2))) == {"w"}


def test_do_quantised_values_pass_gradients() -> None:
    proto = model(
        "h = Mul(x, w) q = QuantizeLinear(h, scale, point) d = DequantizeLinear(q, scale, point)"
        " y = Mul(d, u)",
        {"w": random(8), "u": random(8), "scale": np.float32(0.05), "point": np.array(0, np.int8)},
    )
    found = gradients(to_torch(proto), torch.ones(1, 3, 8, 8))
    assert found["w"].abs().sum() > 0


def test_are_negative_bytes_negative() -> None:
    proto = model(
        "d = DequantizeLinear(q, scale, point) y = Mul(x, d)",
        {"q": np.array([-128, -1, 0, 127, 1, -7, 5, -3], np.int8), "scale": np.float32(0.5),
         "point": np.array(-2, np.int8)},
    )  # fmt: skip
    compare_module(proto, to_torch(proto), random(2, 3, 8, 8))


RESHAPING = model(
    "n = Shape(x) b = Gather<axis=0>(n, zero) u = Unsqueeze(b, zeros) t = Concat<axis=0>(u, minus)"
    " j = Reshape(x, t) y = MatMul(j, w)",
    {"w": random(192, 2), "zero": np.array(0), "zeros": np.array([0]), "minus": np.array([-1])},
)


def test_does_a_dynamic_reshape_follow_the_batch() -> None:
    module = to_torch(RESHAPING)
    assert [module(torch.ones(n, 3, 8, 8)).shape[0] for n in (1, 5)] == [1, 5]


def test_are_shapes_integers_in_the_code() -> None:
    assert "reshape(x, [x_size0, -1])" in to_torch(RESHAPING).code


def test_is_external_data_read(tmp_path: Path, x: Tensor) -> None:
    expected = to_torch(NETWORK)(x)
    other = onnx.ModelProto()
    other.CopyFrom(NETWORK)
    onnx.save(other, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="weights")
    assert torch.equal(to_torch(tmp_path / "m.onnx")(x), expected)


def test_is_momentum_that_of_the_file(module: fx.GraphModule) -> None:
    (norm,) = (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    assert norm.momentum == pytest.approx(0.3)


def test_does_batch_norm_follow_the_mode(module: fx.GraphModule, x: Tensor) -> None:
    before = {key: value.clone() for key, value in module.named_buffers()}
    module.eval()(x)
    assert all(torch.equal(value, before[key]) for key, value in module.named_buffers())
    module.train()(x)
    assert not any(torch.equal(value, before[key]) for key, value in module.named_buffers())


def test_can_batch_norm_be_frozen(module: fx.GraphModule, x: Tensor) -> None:
    expected = module(x)
    freeze_bn(module)
    assert torch.equal(module.train()(x), expected)


def test_does_dropout_follow_the_mode() -> None:
    module = to_torch(model("y = Dropout(x)"))
    ones = torch.ones(1, 3, 8, 8)
    assert torch.equal(module(ones), ones)
    assert (module.train()(ones) == 0).any()


def test_does_a_pickle_need_only_torch_onnx_and_numpy(
    module: fx.GraphModule, tmp_path: Path, x: Tensor
) -> None:
    torch.save((module, x, module(x)), tmp_path / "m.pt")
    code = (
        "import sys, torch\n"
        f"module, x, expected = torch.load({str(tmp_path / 'm.pt')!r}, weights_only=False)\n"
        "assert torch.equal(module(x), expected)\n"
        "print({'onnxruntime', 'lightning', 'pydantic', 'click', 'onnx_graphsurgeon'} & sys.modules.keys())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "set()\n"


def test_is_a_deep_copy_independent(module: fx.GraphModule, x: Tensor) -> None:
    expected = module(x)
    for parameter in copy.deepcopy(module).parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(module(x), expected)


def test_does_the_state_load_into_a_fresh_module(module: fx.GraphModule, x: Tensor) -> None:
    module.train()(x)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = to_torch(NETWORK)
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(fresh(x), module.eval()(x))


def test_does_it_compile_as_one_graph(module: fx.GraphModule, x: Tensor) -> None:
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x), **CLOSE)
    torch._dynamo.reset()


def test_does_torch_export_take_it(module: fx.GraphModule, x: Tensor) -> None:
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(program.module()(x[:3]), module(x[:3]), **CLOSE)


def test_does_channels_last_work(module: fx.GraphModule, x: Tensor) -> None:
    expected = module(x)
    last = module.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, **CLOSE)


def test_does_autocast_work(module: fx.GraphModule, x: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = module.train()(x)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_are_the_keys_those_that_data_parallel_training_wants(module: fx.GraphModule) -> None:
    class Wrapper(nn.Module):
        """Holds a module as `DistributedDataParallel` does."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    wrapped = Wrapper(module).state_dict()
    fresh = to_torch(NETWORK)
    fresh.load_state_dict({key.removeprefix("module."): value for key, value in wrapped.items()}, strict=True)
    assert len({id(p) for p in module.parameters()}) == len(list(module.named_parameters()))


def test_do_hooks_find_a_block_by_its_name(x: Tensor) -> None:
    proto = renamed(NETWORK, {"w": "stem.conv.weight", "c": "stem.conv.bias"})
    seen: list[Any] = []
    module = to_torch(proto)
    layer = module.get_submodule("stem.conv")
    layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    module(x)
    assert seen == [(4, 4, 8, 8)]


def test_do_several_inputs_and_outputs_keep_their_order() -> None:
    module = to_torch(model("p = Add(a, b) q = Sub(a, b)", inputs="float[2] a, float[2] b", outputs="q p"))
    q, p = module(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0]))
    assert (q.tolist(), p.tolist()) == ([2.0, 3.0], [4.0, 5.0])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_does_the_module_have_the_element_type_of_the_file(dtype: Any) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", kind, ["N", 4])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(random(4, 2).astype(dtype), "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    module = to_torch(proto)
    (weight,) = module.parameters()
    assert str(weight.dtype) == f"torch.{np.dtype(dtype).name}"
    assert module(torch.ones(3, 4, dtype=weight.dtype)).dtype == weight.dtype
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_may_an_optional_input_be_empty() -> None:
    proto = model("y = Clip(x, , top)", {"top": np.float32(0.5)})
    compare_module(proto, to_torch(proto), random(2, 3, 8, 8))


def test_are_untouched_weights_byte_identical(module: fx.GraphModule) -> None:
    assert write_back(module).SerializeToString() == NETWORK.SerializeToString()


def test_are_trained_weights_in_the_file(module: fx.GraphModule, x: Tensor) -> None:
    gradients(module, x)
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    compare_module(write_back(module), module, x.numpy())


def test_are_weights_in_constant_nodes_parameters() -> None:
    proto = model("w = Constant<value = float[8] {1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0}>() y = Mul(x, w)")
    assert keys(to_torch(proto)) == {"w"}


def test_are_weights_of_a_matrix_product_parameters() -> None:
    proto = model("h = MatMul(x, w) y = Add(h, b)", {"w": random(8, 4), "b": random(4)})
    assert set(gradients(to_torch(proto), torch.ones(1, 3, 8, 8))) == {"w", "b"}


def test_are_integers_no_parameters() -> None:
    module = to_torch(model("y = Gather<axis=3>(x, i)", {"i": np.array([1, 0])}))
    assert list(module.parameters()) == []


def test_can_the_generated_code_be_read(module: fx.GraphModule) -> None:
    lines = [line.split(";")[0].strip() for line in module.code.strip().splitlines()[1:]]
    assert lines[2] == "j = torch.nn.functional.relu(i, inplace = True)"
    assert lines[-1] == "return y"


def test_is_the_source_left_as_it_was(x: Tensor) -> None:
    before = NETWORK.SerializeToString()
    gradients(to_torch(NETWORK), x)
    assert NETWORK.SerializeToString() == before


def test_is_a_recurrent_layer_trainable() -> None:
    proto = model(
        "h, last = GRU<hidden_size=4>(x, w, r) y = Squeeze(last, zero)",
        {"w": random(1, 12, 3), "r": random(1, 12, 4), "zero": np.array([0])}, inputs="float[5, N, 3] x",
    )  # fmt: skip
    module = to_torch(proto)
    compare_module(proto, module, random(5, 2, 3))
    assert set(gradients(module, torch.ones(5, 2, 3))) == {"w", "r"}


def test_does_attention_use_the_fused_function() -> None:
    proto = model(
        "t = Transpose<perm=[0,1,3,2]>(x) s = MatMul(x, t) p = Softmax<axis=-1>(s) y = MatMul(p, x)"
    )
    assert F.scaled_dot_product_attention in {node.target for node in to_torch(proto).graph.nodes}
