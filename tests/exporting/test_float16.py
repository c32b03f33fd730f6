"""float16 inside, float32 outside, and what float16 cannot hold stays as it is."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx.parser
import pytest
from lookalikes import two_branches
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase

from graftonnx.errors import UnsupportedOpError
from graftonnx.exporting.float16 import to_float16
from graftonnx.folding import fold_operators
from graftonnx.normalise.inference import add_shapes
from graftonnx.runtime import open_session
from graftonnx.weights import split, whole

TRAPS = (
    "batchnorm", "cast_", "clip", "cumsum", "gather", "globalaveragepool", "instancenorm",
    "layer_normalization", "lrn", "max_float32", "maxpool", "mean_", "nonzero",
    "onehot", "pad", "pow", "prelu", "range",
    "reduce_l2", "resize", "scatter", "softmax", "split", "top_k", "upsample", "where",
)  # fmt: skip
"""Operators with inputs that stay float32, without float16 kernels, or with numbers of their own."""

TOLERANCE = 2e-2
"""Absolute and relative: float16 rounds at 5e-4, and the cases add up to a few dozen numbers below 10."""


def halved(model: onnx.ModelProto, *kept: str) -> onnx.ModelProto:
    skeleton, weights = split(model)
    model = whole(to_float16(add_shapes(skeleton), weights, kept), weights)
    onnx.checker.check_model(model, full_check=True)
    return model


def build(body: str, **weights: NDArray[np.generic]) -> onnx.ModelProto:
    """Build `g(x [2, 4]) -> y`; `m` is the identity, behind which float16 begins."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[2, 4] x) => (float[2, 4] y) {{ {body} }}'
    )
    weights["m"] = np.eye(4, dtype=np.float32)
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    return model


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def run(model: onnx.ModelProto, *inputs: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return open_session(model, provider="cpu").run(*inputs)


def official_cases() -> list[TestCase]:
    """Return the standard's cases of one operator on float32, where ONNX Runtime has that operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [
        case
        for case in cases
        if case.name.removeprefix("test_").startswith(TRAPS)
        and len(case.model.graph.node) == 1
        and not case.model.graph.node[0].domain
        and not case.model.functions
        and any(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in case.model.graph.input)
        and all(value.type.HasField("tensor_type") for value in case.model.graph.output)
    ]


def test_official_cases_run_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as normalisation in front of weights here, so that every operator is halved."""
    monkeypatch.setattr("graftonnx.exporting.float16.first_nodes", lambda view: [])
    compared, wrong = 0, []
    for case in official_cases():
        inputs = [np.asarray(value) for value in case.data_sets[0][0]]
        try:
            expected = run(case.model, *inputs)
        except Exception:  # ONNX Runtime does not know this one
            continue
        found = run(halved(case.model), *inputs)
        compared += 1
        for one, other in zip(found, expected, strict=True):
            if one.dtype.kind == "f" and not np.allclose(one, other, TOLERANCE, TOLERANCE, equal_nan=True):
                wrong.append(case.name)
    assert wrong == []
    assert compared > 150


def test_what_goes_in_and_out_stays_float32_and_so_do_normalisation_and_softmax() -> None:
    model, _ = fold_operators(two_branches(skip=0.5))
    before = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("Softmax", [before], ["p"], "p", axis=1))
    model.graph.output[0].name = "p"
    half = halved(model)
    found = types(half)
    assert found["input"] == found["p"] == found[f"{before}/float32"] == TensorProto.FLOAT
    assert {found[n] for n in ("a/conv1.weight", "head/hidden/weight", "ar", "a2")} == {TensorProto.FLOAT16}
    first = next(node for node in half.graph.node if node.op_type == "Resize")
    assert found[first.output[0]] == TensorProto.FLOAT
    x = np.random.default_rng(0).random((2, 3, 12, 12), dtype=np.float32)
    # The probabilities of a network of four layers: a few roundings of 5e-4 each.
    np.testing.assert_allclose(run(half, x)[0], run(model, x)[0], atol=5e-3)


X = np.float32([[1, -2, 0.5, 3], [4, 0, -1, 2]])


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("h = MatMul(x, m) i = Mul(h, large) y = Mul(i, small)", {"large": 1e6, "small": 1e-6}),
        ("h = MatMul(x, m) i = Mul(h, zero) j = Add(i, tiny) y = Div(j, tiny)", {"zero": 0, "tiny": 1e-12}),
    ],
    ids=["beyond the range", "becomes zero"],
)
def test_constants_that_float16_cannot_hold_keep_their_node_in_float32(
    body: str, constants: dict[str, float]
) -> None:
    model = build(body, **{name: np.float32(value) for name, value in constants.items()})
    half = halved(model)
    assert types(half)["h"] == TensorProto.FLOAT16
    np.testing.assert_allclose(run(half, X)[0], run(model, X)[0], rtol=1e-3)


def test_bounds_of_a_clip_are_cut_off_at_the_end_of_the_range() -> None:
    model = build("h = MatMul(x, m) y = Clip(h, low, high)", low=np.float32(0), high=np.float32(3.4e38))
    half = halved(model)
    assert types(half)["high"] == TensorProto.FLOAT16
    np.testing.assert_array_equal(run(half, X)[0], np.maximum(X, 0))


def test_nodes_named_by_the_caller_stay_float32() -> None:
    model = build("h = MatMul(x, m) i = Mul(h, h) y = Sqrt(i)")
    assert types(halved(model))["i"] == TensorProto.FLOAT16
    kept = halved(model, "i")
    assert types(kept)["i"] == TensorProto.FLOAT
    big = X * np.float32(1000)
    np.testing.assert_allclose(run(halved(model, "i", "y"), big)[0], np.abs(big), rtol=1e-3)


def test_a_value_that_both_kinds_of_nodes_read_is_cast_once() -> None:
    body = "h = MatMul(x, m) i = Mul(h, large) j = Mul(h, large) k = Relu(h) l = Add(i, j) y = Mul(l, k)"
    model = build(body, large=np.float32(1e6))
    casts = [node for node in halved(model).graph.node if node.op_type == "Cast" and node.input[0] == "h"]
    assert len(casts) == 1


def test_a_node_that_holds_graphs_is_refused() -> None:
    model = build(
        "h = MatMul(x, m) y = If (c) <then_branch = t () => (float[2, 4] a) { a = Relu(h) }, "
        "else_branch = e () => (float[2, 4] b) { b = Neg(h) }>",
        c=np.bool_(True),
    )
    with pytest.raises(
        UnsupportedOpError, match=r"node 'y' \(If\) holds graphs, which stay in float32\. Choose"
    ):
        halved(model)
