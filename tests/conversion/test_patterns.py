"""Formulas that exporters spell out become one PyTorch function; what only resembles one stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from torch import fx, nn
from torch.nn import functional as F

from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.conversion.attending import learned_mask_attention
from graftonnx.conversion.formulas import rms_norm_of
from graftonnx.parity import compare_module

TOKENS = "float[N, 6, 8] x"
LAYER_NORM = (
    "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) q = Pow(d, two) v = ReduceMean<axes=[-1]>(q)"
    " e = Add(v, eps) r = Sqrt(e) n = Div(d, r)"
)
AFFINE = " s = Mul(n, norm.weight) y = Add(s, norm.bias)"
RMS = "q = Mul(x, x) v = ReduceMean<axes=[2]>(q) e = Add(v, eps) r = Sqrt(e)"
NUMBERS: dict[str, Any] = {
    "two": np.float32(2),
    "three": np.float32(3),
    "eps": np.float32(1e-5),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "six": np.float32(6),
    "zero": np.float32(0),
    "root2": np.float32(np.sqrt(2)),
    "inverse": np.array([np.sqrt(0.5)], np.float32),
    "cubic": np.float32(0.044715),
    "root2pi": np.float32(np.sqrt(2 / np.pi)),
    "sixth": np.float32(1 / 6),
    "scale": np.array([8**-0.5], np.float32),
    "fourth": np.float32(8**-0.25),
    "root8": np.float32(np.sqrt(8)),
    "other": np.array([0.3], np.float32),
}
WEIGHTS = {"norm_weight": random(8, seed=1) + 1, "norm_bias": random(8, seed=2)}


def build(body: str, inputs: str = TOKENS, outputs: str = "y", **weights: Any) -> onnx.ModelProto:
    """Parse a graph at opset 13; dots in names are spelled `_`, as the parser wants."""
    body = body.replace("norm.", "norm_")
    held = {**NUMBERS, **WEIGHTS, **weights}
    read = {word.strip("(),") for word in body.replace("(", " ").replace(",", " ").split()}
    used = {name: array for name, array in held.items() if name in read}
    return model(body, used, inputs=inputs, outputs=outputs, opset=13)


def functions(module: fx.GraphModule) -> list[Any]:
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


FOUND = {
    "layer norm": (LAYER_NORM + AFFINE, [F.layer_norm]),
    "layer norm by a product": (LAYER_NORM.replace("Pow(d, two)", "Mul(d, d)") + AFFINE, [F.layer_norm]),
    "layer norm by a reciprocal": (
        LAYER_NORM.replace("n = Div(d, r)", "i = Reciprocal(r) n = Mul(d, i)") + AFFINE,
        [F.layer_norm],
    ),
    "layer norm, operands turned": (
        LAYER_NORM.replace("Add(v, eps)", "Add(eps, v)")
        + " s = Mul(norm.weight, n) y = Add(norm.bias, s)",
        [F.layer_norm],
    ),
    "layer norm without weights": (LAYER_NORM.replace("n = Div", "y = Div"), [F.layer_norm]),
    "layer norm without a bias": (LAYER_NORM + " y = Mul(n, norm.weight)", [F.layer_norm]),
    "rms norm": (RMS + " n = Div(x, r) y = Mul(norm.weight, n)", [rms_norm_of]),
    "rms norm by a reciprocal": (
        RMS + " i = Reciprocal(r) n = Mul(x, i) y = Mul(n, norm.weight)", [rms_norm_of],
    ),
    "rms norm by a quotient of one": (RMS + " i = Div(one, r) y = Mul(x, i)", [rms_norm_of]),
    "gelu": ("d = Div(x, root2) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)", [F.gelu]),
    "gelu, grouped otherwise": (
        "d = Mul(x, inverse) e = Erf(d) a = Add(one, e) h = Mul(half, x) y = Mul(h, a)", [F.gelu],
    ),
    "gelu by tanh": (
        "q = Mul(x, x) c = Mul(x, q) k = Mul(cubic, c) s = Add(x, k) i = Mul(root2pi, s) t = Tanh(i)"
        " a = Add(one, t) m = Mul(x, a) y = Mul(half, m)", [F.gelu],
    ),
    "gelu by tanh of a power": (
        "c = Pow(x, three) k = Mul(c, cubic) s = Add(x, k) i = Mul(s, root2pi) t = Tanh(i)"
        " a = Add(t, one) h = Mul(half, x) y = Mul(h, a)", [F.gelu],
    ),
    "gelu by tanh, factored": (
        "q = Mul(x, x) k = Mul(cubic, q) s = Add(one, k) u = Mul(x, root2pi) i = Mul(u, s) t = Tanh(i)"
        " a = Add(t, one) h = Mul(half, x) y = Mul(h, a)", [F.gelu],
    ),
    "silu": ("s = Sigmoid(x) y = Mul(x, s)", [F.silu]),
    "hard swish": ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", [F.hardswish]),
    "hard swish, quotient first": (
        "a = Add(x, three) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(d, x)", [F.hardswish],
    ),
    "hard swish by hard sigmoid": (
        "s = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, s)", [F.hardswish],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_formula_becomes_one_function(name: str) -> None:
    body, expected = FOUND[name]
    proto = build(body)
    module = to_torch(proto)
    assert functions(module) == expected
    compare_module(proto, module, random(3, 6, 8), rtol=1e-5)  # rounding of float32
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    held = {name for name, _ in WEIGHTS.items() if any(name in node.input for node in proto.graph.node)}
    assert {onnx_name(key) for key, _ in module.named_parameters()} == held


LEFT = {
    "layer norm of another axis": (LAYER_NORM.replace("[-1]", "[1]").replace("n = Div", "y = Div"), "y"),
    "layer norm whose deviation is read": (LAYER_NORM + AFFINE, "y r"),
    "layer norm with two axes": (
        LAYER_NORM.replace("<axes=[-1]>(q)", "<axes=[1]>(q)").replace("n = Div", "y = Div"), "y",
    ),
    "rms norm of something else": (RMS.replace("Mul(x, x)", "Mul(x, norm.weight)") + " y = Div(x, r)", "y"),
    "gelu with another number": (
        "d = Div(x, two) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)", "y",
    ),
    "gelu of two tensors": (
        "n = Neg(x) d = Div(n, root2) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)", "y",
    ),
    "gelu by tanh with another number": (
        "c = Pow(x, three) k = Mul(c, half) s = Add(x, k) i = Mul(s, root2pi) t = Tanh(i)"
        " a = Add(t, one) h = Mul(half, x) y = Mul(h, a)", "y",
    ),
    "a gate that is read": ("s = Sigmoid(x) y = Mul(x, s)", "y s"),
    "a gate of something else": ("n = Neg(x) s = Sigmoid(n) y = Mul(x, s)", "y"),
    "hard swish with another bound": (
        "a = Add(x, two) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", "y",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_only_resembles_a_formula_stays(name: str) -> None:
    body, outputs = LEFT[name]
    proto = build(body, outputs=outputs)
    module = to_torch(proto)
    assert not {F.layer_norm, rms_norm_of, F.gelu, F.silu, F.hardswish} & set(functions(module))
    compare_module(proto, module, random(3, 6, 8), rtol=1e-4)  # powers of float32


def test_the_mean_of_a_scalar_is_no_norm() -> None:
    scalar = "s = ReduceMean<keepdims=0>(x) " + RMS.replace("x, x", "s, s").replace("[2]", "[-1]")
    assert rms_norm_of not in functions(to_torch(build(scalar + " y = Div(s, r)")))


HEADS = "float[N, 2, 6, 8] q, float[N, 2, 5, 8] k, float[N, 2, 5, 4] v"
TURN = "t = Transpose<perm=[0,1,3,2]>(k) "
ATTEND = " p = Softmax<axis=-1>(s) y = MatMul(p, v)"
ATTENTION = {
    "divided": TURN + "d = MatMul(q, t) s = Div(d, root8)" + ATTEND,
    "multiplied": TURN + "d = MatMul(q, t) s = Mul(scale, d)" + ATTEND,
    "query scaled": TURN + "c = Mul(q, scale) s = MatMul(c, t)" + ATTEND,
    "both scaled": TURN + "c = Mul(q, fourth) u = Mul(t, fourth) s = MatMul(c, u)" + ATTEND,
    "not scaled": TURN + "s = MatMul(q, t)" + ATTEND,
    "masked": TURN + "d = MatMul(q, t) f = Div(d, root8) s = Add(f, mask)" + ATTEND,
    "masked from the left": TURN + "d = MatMul(q, t) f = Div(d, root8) s = Add(mask, f)" + ATTEND,
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_becomes_one_function(name: str) -> None:
    proto = build(ATTENTION[name], inputs=HEADS, mask=random(6, 5, seed=7))
    module = to_torch(proto)
    trains = "mask" in name
    assert functions(module) == [learned_mask_attention if trains else F.scaled_dot_product_attention]
    arrays = random(3, 2, 6, 8), random(3, 2, 5, 8, seed=1), random(3, 2, 5, 4, seed=2)
    compare_module(proto, module, *arrays, rtol=1e-5)  # rounding of float32
    assert [onnx_name(key) for key, _ in module.named_parameters()] == ["mask"] * trains
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_attention_on_a_key_that_comes_turned() -> None:
    inputs = HEADS.replace("5, 8] k", "8, 5] t")
    proto = build("d = MatMul(q, t) s = Div(d, root8)" + ATTEND, inputs=inputs)
    module = to_torch(proto)
    assert functions(module) == [torch.transpose, F.scaled_dot_product_attention]
    compare_module(proto, module, random(3, 2, 6, 8), random(3, 2, 8, 5, seed=1), random(3, 2, 5, 4, seed=2))


ORDINARY = {
    "a scale that may train": TURN + "d = MatMul(q, t) s = Mul(d, other)" + ATTEND,
    "softmax of another axis": TURN
    + "d = MatMul(q, t) s = Div(d, root8) p = Softmax<axis=1>(s) y = MatMul(p, v)",
    "an infinite mask": TURN + "d = MatMul(q, t) s = Add(d, endless)" + ATTEND,
}


@pytest.mark.parametrize("name", ORDINARY)
def test_attention_of_another_kind_stays(name: str) -> None:
    mask = np.where(np.eye(6, 5) > 0, np.float32(-np.inf), np.float32(0))
    proto = build(ORDINARY[name], inputs=HEADS, endless=mask)
    module = to_torch(proto)
    assert F.scaled_dot_product_attention not in functions(module)
    arrays = random(3, 2, 6, 8), random(3, 2, 5, 8, seed=1), random(3, 2, 5, 4, seed=2)
    compare_module(proto, module, *arrays)


def test_weights_of_attention_that_is_read_are_kept() -> None:
    proto = build(ATTENTION["divided"], inputs=HEADS, outputs="y p")
    assert F.scaled_dot_product_attention not in functions(to_torch(proto))


def test_a_matrix_and_a_bias_become_a_linear_function() -> None:
    proto = build("h = MatMul(x, w) y = Add(c, h)", w=random(8, 3), c=random(3))
    module = to_torch(proto)
    assert functions(module) == [torch.t, F.linear]
    assert {onnx_name(key) for key, _ in module.named_parameters()} == {"w", "c"}
    compare_module(proto, module, random(2, 6, 8), rtol=1e-5)  # rounding of float32


def test_weights_behind_a_formula_train_and_come_back() -> None:
    proto = build(LAYER_NORM + AFFINE)
    module = to_torch(proto).train()
    loss = nn.functional.mse_loss(module(torch.from_numpy(random(3, 6, 8))), torch.ones(3, 6, 8))
    loss.backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    compare_module(write_back(module), module, random(3, 6, 8))
    assert write_back(module).SerializeToString() != proto.SerializeToString()


def test_formulas_have_right_gradients() -> None:
    proto = build(
        LAYER_NORM + AFFINE.replace("y =", "g =") + " d2 = Div(g, root2) e2 = Erf(d2) a = Add(e2, one)"
        " m2 = Mul(g, a) y = Mul(m2, half)"
    )
    module = to_torch(proto).double()
    x = torch.from_numpy(random(2, 6, 8)).double().requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))
