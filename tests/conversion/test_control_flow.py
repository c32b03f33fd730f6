"""Branches, loops and scans give ONNX Runtime's numbers, train, and come back."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from torch._higher_order_ops.scan import scan

from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.errors import ModelError, UnsupportedOpError
from graftonnx.parity import compare_module
from graftonnx.runtime import open_session


def put_inside(proto: onnx.ModelProto, node: int, attribute: str, **weights: NDArray[np.float32]) -> None:
    """Make arrays initializers of the graph that a node has as an attribute."""
    (graph,) = (item.g for item in proto.graph.node[node].attribute if item.name == attribute)
    for name, array in weights.items():
        graph.initializer.append(numpy_helper.from_array(array, name))


def branching() -> onnx.ModelProto:
    """Multiplies by a weight of one branch, or uses a constant of the other and an outer weight."""
    proto = model(
        "total = ReduceSum<keepdims=0>(x) cond = Greater(total, zero)"
        " y = If(cond) <"
        "then_branch = yes () => (float[N, 4] p) { p = MatMul(x, w) },"
        "else_branch = no () => (float[N, 4] q) {"
        " k = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>() a = Add(x, k) b = Relu(a) q = Mul(b, v) }>",
        {"zero": np.float32(0), "v": random(4, seed=1)},
        inputs="float[N, 4] x",
    )
    put_inside(proto, 2, "then_branch", w=random(4, 4))
    return proto


def names(module: torch.nn.Module) -> set[str]:
    return {onnx_name(key) for key, _ in module.named_parameters()}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_input_chooses_the_branch(sign: int, batch: int) -> None:
    proto = branching()
    compare_module(proto, to_torch(proto), np.abs(random(batch, 4)) * np.float32(sign))


def test_both_branches_train_and_come_back() -> None:
    proto = branching()
    expected = proto.SerializeToString(deterministic=True)
    module = to_torch(proto)
    assert names(module) == {"w", "v", "k"}
    assert write_back(module).SerializeToString(deterministic=True) == expected
    x = torch.from_numpy(np.abs(random(3, 4)))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module.train()
    (module(x).square().sum() + module(-x).square().sum()).backward()
    gradients = {onnx_name(key): p.grad for key, p in module.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in gradients.values())
    optimizer.step()
    written = write_back(module)
    onnx.checker.check_model(written)
    (held,) = (item.g.node[0] for item in written.graph.node[2].attribute if item.name == "else_branch")
    assert not np.array_equal(numpy_helper.to_array(held.attribute[0].t), [1, 2, 3, 4])
    compare_module(written, module, x.numpy())
    compare_module(written, module, -x.numpy())


def test_a_module_with_branches_is_copied_and_pickled() -> None:
    module = to_torch(branching())
    x = torch.from_numpy(random(3, 4))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    again, twin = torch.load(file, weights_only=False), copy.deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(again(x), twin(x))
    assert twin(x).any()
    assert write_back(again).SerializeToString() == branching().SerializeToString()


@pytest.mark.parametrize("sign", [1, -1])
def test_torch_export_and_compile_keep_both_branches(sign: int) -> None:
    module = to_torch(branching())
    x = torch.from_numpy(np.abs(random(3, 4)))
    program = torch.export.export(module, (x[:2],), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(program.module()(x * sign), module(x * sign))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x * sign), module(x * sign))


def test_a_condition_that_is_constant_leaves_one_branch_inline() -> None:
    proto = model(
        "y = If(c) <then_branch = yes () => (float[N, 5] p) { p = Gemm<transB=1>(x, w) },"
        " else_branch = no () => (float[N, 5] q) { q = Foo(x) }>",
        {"c": np.array(True)},
        inputs="float[N, 4] x",
    )
    put_inside(proto, 0, "then_branch", w=random(5, 4))
    module = to_torch(proto)
    assert [type(layer) for layer in module.children()] == [torch.nn.Linear]
    assert names(module) == {"w"}
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    expected = x_times(random(3, 4), random(5, 4).T)
    torch.testing.assert_close(module(torch.from_numpy(random(3, 4))), expected)


def x_times(x: NDArray[np.float32], w: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(x) @ torch.from_numpy(w)


def test_branches_may_use_a_name_twice() -> None:
    proto = model(
        "y = If(c) <then_branch = yes () => (float[N, 4] p) { p = MatMul(x, w) },"
        " else_branch = no () => (float[N, 4] q) { q = MatMul(x, w) }>",
        inputs="float[N, 4] x, bool c",
    )
    put_inside(proto, 0, "then_branch", w=random(4, 4))
    put_inside(proto, 0, "else_branch", w=random(4, 4, seed=1))
    module = to_torch(proto)
    assert names(module) == {"w", "w_1"}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    compare_module(write_back(module), module, random(2, 4), np.array(True))
    compare_module(write_back(module), module, random(2, 4), np.array(False))


def test_a_branch_may_return_its_weight() -> None:
    proto = model(
        "y = If(c) <then_branch = yes () => (float[4] w) { },"
        " else_branch = no () => (float[4] q) { q = ReduceMean<keepdims=0>(x, axes) }>",
        {"axes": np.array([0], np.int64)},
        inputs="float[N, 4] x, bool c",
    )
    put_inside(proto, 0, "then_branch", w=random(4))
    module = to_torch(proto)
    assert names(module) == {"w"}
    compare_module(proto, module, random(2, 4), np.array(True))
    compare_module(proto, module, random(2, 4), np.array(False))
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_running_statistics_inside_a_branch_are_no_parameters() -> None:
    proto = model(
        "y = If(c) <then_branch = yes () => (float[N, 3, 8, 8] p) { p = BatchNormalization(x, s, b, m, v) },"
        " else_branch = no () => (float[N, 3, 8, 8] q) { q = Relu(x) }>",
        {"s": random(3), "b": random(3), "m": random(3), "v": np.abs(random(3))},
        inputs="float[N, 3, 8, 8] x, bool c",
    )
    module = to_torch(proto)
    assert names(module) == {"s", "b"}
    compare_module(proto, module, random(2, 3, 8, 8), np.array(True))
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_a_weight_inside_that_has_another_shape_cannot_be_written_back() -> None:
    module = to_torch(branching())
    module.w = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(
        ModelError, match=r"^cannot write the module back: 'w' has shape \[1\], expected \[4, 4\]"
    ):
        write_back(module)


def looping(limit: str, cond: str, keep: str, *, inputs: str = "float[2, 3] x") -> onnx.ModelProto:
    """Adds a weight to what is carried, and collects its squares, as long as `keep` says."""
    return model(
        f"y, z = Loop({limit}, {cond}, x) <body = step (int64 i, bool c, float[2, 3] s)"
        " => (bool d, float[2, 3] t, float[2, 3] u) {"
        f" f = Cast<to=1>(i) w1 = Mul(w, f) t = Add(s, w1) u = Mul(t, t) {keep} }}>",
        {"w": np.abs(random(3)), "five": np.array(5, np.int64), "yes": np.array(True),
         "most": np.float32(9)},
        inputs=inputs,
        outputs="y z",
    )  # fmt: skip


SMALL = "n = ReduceMax<keepdims=0>(t) d = Less(n, most)"


@pytest.mark.parametrize(
    ("limit", "cond", "keep"),
    [
        ("five", "", "d = Identity(c)"),
        ("five", "yes", "d = Identity(yes)"),
        ("five", "yes", SMALL),
        ("", "yes", SMALL),
        ("", "", SMALL),
    ],
)
def test_a_loop_ends_at_its_limit_or_by_its_condition(limit: str, cond: str, keep: str) -> None:
    proto = looping(limit, cond, keep)
    module = to_torch(proto)
    compare_module(proto, module, np.abs(random(2, 3)))
    assert names(module) == {"w"}
    y, z = module.train()(torch.from_numpy(np.abs(random(2, 3))))
    (y.sum() + z.sum()).backward()
    assert module.w.grad.isfinite().all()
    assert module.w.grad.all()
    assert write_back(module).SerializeToString() == proto.SerializeToString()


@pytest.mark.parametrize("limit", [3, 1, 0])
@pytest.mark.parametrize("going", [True, False])
def test_limit_and_condition_may_be_inputs(limit: int, going: bool) -> None:
    proto = looping("m", "g", "d = Identity(c)", inputs="float[2, 3] x, int64 m, bool g")
    compare_module(proto, to_torch(proto), random(2, 3), np.array(limit, np.int64), np.array(going))


def test_a_loop_without_an_end_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"\(Loop, opset 18\): it never ends: it has no limit"):
        to_torch(looping("", "", "d = Identity(c)"))


def test_a_branch_inside_a_loop_reads_the_outermost_graph() -> None:
    proto = model(
        "h = Relu(x)"
        " y = Loop(m, , h) <body = step (int64 i, bool c, float[2, 3] s) => (bool d, float[2, 3] t) {"
        " d = Identity(c) e = Equal(i, two)"
        " t = If(e) <then_branch = yes () => (float[2, 3] p) { p = Mul(s, w) },"
        " else_branch = no () => (float[2, 3] q) { q = Add(s, x) }> }>",
        {"m": np.array(4, np.int64), "two": np.array(2, np.int64)},
        inputs="float[2, 3] x",
    )
    body = proto.graph.node[1].attribute[0].g
    branch = next(item.g for item in body.node[2].attribute if item.name == "then_branch")
    branch.initializer.append(numpy_helper.from_array(random(3), "w"))
    module = to_torch(proto)
    assert names(module) == {"w"}
    compare_module(proto, module, random(2, 3))
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    module(torch.from_numpy(random(2, 3))).sum().backward()
    assert module.w.grad.all()


def test_torch_export_takes_a_loop_of_a_known_length() -> None:
    module = to_torch(looping("five", "", "d = Identity(c)"))
    x = torch.from_numpy(random(2, 3))
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        ", scan_input_directions=[1]",
        ", scan_output_directions=[1]",
        ", scan_input_axes=[1], scan_output_axes=[1]",
        ", scan_input_axes=[-1], scan_output_axes=[-1], scan_input_directions=[1]",
    ],
)
def test_a_scan(attributes: str) -> None:
    extent = 4 if "axes" in attributes else 5
    row = 5 if "axes" in attributes else 4
    proto = model(
        f"h, z = Scan<num_scan_inputs=1{attributes}, body = step (float[{row}] s, float[{row}] e)"
        f" => (float[{row}] t, float[{row}] u) {{ a = Mul(s, w) t = Add(a, e) u = Tanh(t) }}>(first, x)",
        {"first": random(row, seed=1), "w": random(row, seed=2)},
        inputs="float[5, 4] x",
        outputs="h z",
    )
    module = to_torch(proto)
    assert names(module) == {"first", "w"}
    compare_module(proto, module, random(5, 4))
    x = torch.from_numpy(random(5, 4))
    assert module(x)[1].numel() == extent * row
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@pytest.mark.parametrize("directions", ["", ", directions=[1]"])
def test_a_scan_of_opset_8_stops_at_the_end_of_each_sequence(directions: str) -> None:
    proto = model(
        f"h, z = Scan<num_scan_inputs=1{directions}, body = step (float[4] s, float[4] e)"
        " => (float[4] t, float[4] u) { t = Add(s, e) u = Mul(t, t) }>(lengths, first, x)",
        {"first": random(3, 4, seed=1)},
        inputs="float[3, 5, 4] x, int64[3] lengths",
        outputs="h z",
        opset=8,
    )
    compare_module(proto, to_torch(proto), random(3, 5, 4), np.array([5, 2, 3], np.int64))


def test_a_sequence_is_taken_apart_and_joined() -> None:
    proto = model(
        "a = SplitToSequence<axis=1>(x, sizes) b = SequenceErase(a, one) c = SequenceInsert(b, x, zero)"
        " n = SequenceLength(c) f = Cast<to=1>(n) d = SequenceAt(c, minus) e = Mul(d, f)"
        " g = SequenceInsert(c, e) y = ConcatFromSequence<axis=1>(g)",
        {"sizes": np.array([1, 2, 3], np.int64), "one": np.array(1, np.int64),
         "zero": np.array(0, np.int64), "minus": np.array(-1, np.int64)},
        inputs="float[2, 6] x",
    )  # fmt: skip
    module = to_torch(proto)
    compare_module(proto, module, random(2, 6))
    x = torch.from_numpy(random(2, 6))
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


def test_an_optional_input_may_be_absent() -> None:
    graph = """<ir_version: 8, opset_import: ["" : 18]>
    g (optional(float[3]) x, float[3] other) => (float[3] y) {
        c = OptionalHasElement(x)
        y = If(c) <then_branch = yes () => (float[3] p) { p = OptionalGetElement(x) },
                   else_branch = no () => (float[3] q) { q = Neg(other) }>
    }"""
    module = to_torch(onnx.parser.parse_model(graph))
    ones = torch.ones(3)
    assert torch.equal(module(ones, ones), ones)
    assert torch.equal(module(None, ones), -ones)


def test_a_loop_without_a_step_stacks_nothing() -> None:
    proto = looping("m", "", "d = Identity(c)", inputs="float[2, 3] x, int64 m")
    _, stacked = to_torch(proto)(torch.ones(2, 3), torch.tensor(0))
    (_, expected) = open_session(proto, provider="cpu").run(
        np.ones((2, 3), np.float32), np.array(0, np.int64)
    )
    assert tuple(stacked.shape) == expected.shape == (0, 2, 3)


def test_bounds_inside_a_branch_are_numbers() -> None:
    proto = model(
        "y = If(c) <then_branch = yes () => (float[N, 4] p) { a = Mul(x, w) p = Clip(a, low, high) },"
        " else_branch = no () => (float[N, 4] q) { q = Mul(x, high) }>",
        {"high": np.float32(0.5)},
        inputs="float[N, 4] x, bool c",
    )
    put_inside(proto, 0, "then_branch", w=random(4), low=np.array(-0.5, np.float32))
    module = to_torch(proto)
    assert names(module) == {"w"}
    compare_module(proto, module, random(2, 4), np.array(True))
    compare_module(proto, module, random(2, 4), np.array(False))
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_layers_inside_a_branch() -> None:
    proto = model(
        "y = If(c) <then_branch = yes () => (float[N, 4] p) {"
        " a = Conv<pads=[1,1,1,1]>(x, w, b) d = Relu(a) e = GlobalAveragePool(d) f = Shape<end=1>(x)"
        " h = Concat<axis=0>(f, minus) p = Reshape(e, h) },"
        " else_branch = no () => (float[N, 4] q) { r = ReduceMean<keepdims=0>(x, axes) q = Gemm(r, u, b) }>",
        {"minus": np.array([-1], np.int64), "axes": np.array([2, 3], np.int64), "b": random(4)},
        inputs="float[N, 3, 8, 8] x, bool c",
    )
    put_inside(proto, 0, "then_branch", w=random(4, 3, 3, 3))
    put_inside(proto, 0, "else_branch", u=random(3, 4))
    module = to_torch(proto)
    assert names(module) == {"w", "u", "b"}
    compare_module(proto, module, random(2, 3, 8, 8), np.array(True))
    compare_module(proto, module, random(2, 3, 8, 8), np.array(False))


def test_a_refusal_inside_names_both_nodes() -> None:
    proto = model(
        "y = If(c) <then_branch = yes () => (float[N, 4] p) { p = Foo(x) },"
        " else_branch = no () => (float[N, 4] q) { q = Neg(x) }>",
        inputs="float[N, 4] x, bool c",
    )
    with pytest.raises(
        UnsupportedOpError,
        match=r"^cannot convert 'y' \(If, opset 18\): cannot convert 'p' \(Foo, opset 18\): there is no",
    ):
        to_torch(proto)


class Scripted(nn.Module):
    """A loop whose steps depend on the numbers, as TorchScript writes it down."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """Apply one of two layers n times. x: [N, 4] -> [N, 4]."""
        for _ in range(n):
            x = self.a(x) if x.sum() > 0 else self.b(x) * 2
        return x


class Chosen(nn.Module):
    """A layer that depends on the numbers, and a scan, as the new exporter writes them down."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply one of two layers, then sum up. x: [N, 4] -> [N, 4]."""
        chosen: torch.Tensor = torch.cond(
            x.sum() > 0, lambda x: self.a(x).relu(), lambda x: self.b(x[:, None])[:, 0], (x,)
        )
        _, sums = scan(lambda h, e: (h + e, torch.tanh(h * e)), torch.ones(4), chosen, dim=0)
        return sums


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # the exporters' own
def test_control_flow_that_pytorch_exported(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = Chosen().eval() if dynamo else torch.jit.script(Scripted())
    x, path = random(3, 4), tmp_path / "m.onnx"
    more = () if dynamo else (3,)
    names_of_inputs = ["x"] if dynamo else ["x", "n"]
    torch.onnx.export(
        original,
        (torch.from_numpy(x), *more),
        path,
        dynamo=dynamo,
        input_names=names_of_inputs,
        verbose=False,
    )
    proto = onnx.load(path)
    module = to_torch(proto)
    assert names(module) >= {"a.weight", "a.bias", "b.weight", "b.bias"}
    arrays = [np.array(number, np.int64) for number in more]
    compare_module(proto, module, x, *arrays)
    compare_module(proto, module, -x, *arrays)
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_a_graph_inside_a_node_that_reads_what_the_node_makes_is_refused() -> None:
    """Onnx's native code follows such a cycle until the process ends."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        net (seq(float[2]) xs) => (seq(float[2]) ys) {
          ys = SequenceMap <body = inner (float[2] x) => (float[2] y) { y = Identity(ys) }> (xs)
        }"""
    )
    with pytest.raises(ModelError, match=r"its graph has a cycle through node 'ys' \(SequenceMap\)"):
        to_torch(proto)
