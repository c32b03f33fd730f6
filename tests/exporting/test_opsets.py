"""The same network in another opset, or the node that cannot be said in it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from graftonnx.errors import UnsupportedOpError
from graftonnx.exporting.opsets import to_opset
from graftonnx.normalise.inference import infer_shapes
from graftonnx.runtime import open_session
from graftonnx.weights import split, whole

X = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)


def build(body: str, opset: int = 18, **weights: NDArray[np.generic]) -> onnx.ModelProto:
    """Build `g(x [N, 4, 6, 6]) -> y` from ONNX text and NumPy weights."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> g (float[N, 4, 6, 6] x) => (float y) {{ {body} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    return model


def brought(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    skeleton, weights = split(model)
    lowered = to_opset(infer_shapes(skeleton), weights, opset)
    return whole(lowered, weights)


CONV = {"w": np.ones((4, 4, 1, 1), np.float32)}
AXES = {"axes": np.int64([2, 3])}


@pytest.mark.parametrize(
    ("body", "weights", "oldest"),
    [
        ("c = Conv(x, w) r = Relu(c) s = Add(r, x) y = Mul(s, x)", CONV, 7),
        ("r = Sigmoid(x) i = Identity(r) y = Concat <axis = 1> (i, x)", {}, 7),
        ("y = ReduceMean <keepdims = 0> (x, axes)", AXES, 7),
        ("p = GlobalAveragePool(x) y = Squeeze(p, axes)", AXES, 7),
        ("p = GlobalAveragePool(x) f = Flatten(p) g = Softmax(f) y = Unsqueeze(g, axes)", AXES, 7),
        ("y = Clip(x, low, high)", {"low": np.float32(0), "high": np.float32(6)}, 7),
        ("y = Clip(x, , high)", {"high": np.float32(1)}, 7),
        ("a, b = Split <axis = 1, num_outputs = 2> (x) y = Mul(a, b)", {}, 7),
        ("a, b = Split <axis = 1> (x, s) y = Concat <axis = 1> (b, a)", {"s": np.int64([1, 3])}, 7),
        ("y = Slice(x, one, two, two)", {"one": np.int64([1]), "two": np.int64([3])}, 7),
        ("s = Shape <start = 0, end = -2> (x) t = Concat <axis = 0> (s, e) y = Reshape(x, t)",
         {"e": np.int64([36])}, 7),
        ("y = Reshape <allowzero = 1> (x, t)", {"t": np.int64([-1, 144])}, 7),
        ("y = MaxPool <kernel_shape = [2, 2], dilations = [1, 1]> (x)", {}, 7),
        ("y = HardSwish(x)", {}, 7),
        ("y = LayerNormalization <axis = 3> (x, g)", {"g": np.ones(6, np.float32)}, 7),
        ('y = Resize <axes = [2, 3], mode = "linear"> (x, , , s)', {"s": np.int64([9, 5])}, 11),
        ("y = Pad(x, p)", {"p": np.int64([0, 0, 1, 1, 0, 0, 2, 2])}, 7),
    ],
)  # fmt: skip
def test_a_network_computes_the_same_in_every_opset_down_to_its_oldest(
    body: str, weights: dict[str, NDArray[np.generic]], oldest: int
) -> None:
    model = build(body, **weights)
    (expected,) = open_session(model, provider="cpu", optimise=False).run(X)
    for opset in (17, 14, 13, 12, 11, 10, 9, 8, 7):
        if opset < oldest:
            with pytest.raises(UnsupportedOpError):
                brought(model, opset)
            continue
        lowered = brought(model, opset)
        onnx.checker.check_model(lowered, full_check=True)
        assert lowered.opset_import[0].version == opset
        (found,) = open_session(lowered, provider="cpu", optimise=False).run(X)
        # Expanded operators are summed in another order.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "opset", "message"),
    [
        ('y = Resize <axes = [2, 3], mode = "linear", antialias = 1> (x, , , s)', 17,
         r"node 'y' \(Resize\) cannot be written in opset 17: it has the attribute 'antialias'\. Choose"),
        ("y = Softmax <axis = 1> (x)", 12, r"node 'y' \(Softmax\) .* opset 12: its axis is not the last"),
        ("y = GridSample(x, grid)", 15, r"node 'y' \(GridSample\) .* opset 15: that has no such operator\."),
        ("m = ReduceMax(x) i = Cast <to = 7> (m) t = Unsqueeze(i, i) y = Expand(x, t)", 12,
         r"node 't' \(Unsqueeze\) .* opset 12: its input 'axes' is not constant\."),
        ("y = Relu(x)", 6, r"opset 6 is unknown here; 7 to \d+ are supported\."),
    ],
)  # fmt: skip
def test_what_an_older_opset_cannot_say_is_refused_with_the_node(body: str, opset: int, message: str) -> None:
    with pytest.raises(UnsupportedOpError, match=message):
        brought(build(body, s=np.int64([9, 5]), grid=np.zeros((2, 6, 6, 2), np.float32)), opset)


def test_a_newer_opset_is_reached_too() -> None:
    model = build("r = Relu(x) y = ReduceMean(r, axes)", **AXES)
    raised = brought(model, 21)
    onnx.checker.check_model(raised, full_check=True)
    assert (raised.opset_import[0].version, raised.ir_version) == (21, 10)
    (found,) = open_session(raised, provider="cpu").run(X)
    np.testing.assert_array_equal(found, open_session(model, provider="cpu").run(X)[0])


def test_the_ir_version_is_one_that_runtimes_of_that_time_read() -> None:
    model = build("y = Relu(x)")
    assert {opset: brought(model, opset).ir_version for opset in (7, 9, 13, 17)} == {7: 4, 9: 4, 13: 7, 17: 8}
    assert brought(model, 18).ir_version == 10
