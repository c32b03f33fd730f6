"""Before opset 7 an attribute says how the second operand is broadcast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conversion.small_models import model, random

from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.errors import ModelError

CHANNELS = random(3)
X = random(2, 3, 8, 8, seed=1)


@pytest.mark.parametrize(
    ("body", "weight", "expected"),
    [
        ("y = Add<broadcast=1, axis=1>(x, w)", CHANNELS, X + CHANNELS[:, None, None]),
        ("y = Mul<broadcast=1, axis=-3>(x, w)", CHANNELS, X * CHANNELS[:, None, None]),
        ("y = Sub<broadcast=1, axis=1>(x, w)", random(3, 8), X - random(3, 8)[..., None]),
        ("y = Div<broadcast=1>(x, w)", random(8, seed=2), X / random(8, seed=2)),
        ("y = Add(x, w)", X, X + X),
        ("y = PRelu(x, w)", CHANNELS, np.where(X < 0, X * CHANNELS[:, None, None], X)),
        ("y = PRelu(x, w)", random(1), np.where(X < 0, X * random(1), X)),
    ],
)
def test_the_second_operand_lies_along_the_axis(
    body: str, weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expected: object
) -> None:
    proto = model(body, {"w": weight}, opset=6)
    module = to_torch(proto)
    np.testing.assert_allclose(module(torch.from_numpy(X)).detach().numpy(), expected, rtol=1e-6)
    assert [onnx_name(key) for key, _ in module.named_parameters()] == ["w"]
    assert write_back(module).SerializeToString() == proto.SerializeToString()


def test_an_opset_that_is_not_known_yet_is_refused() -> None:
    proto = model("y = Mul(, x)", {}, opset=1 << 16)
    with pytest.raises(ModelError, match=r"the model has opset 65536, expected \d+ or earlier"):
        to_torch(proto)


def test_batch_norm_and_dropout_of_opset_6_follow_the_mode_of_the_module() -> None:
    weights = {"s": random(3), "b": random(3, seed=1), "m": random(3, seed=2), "v": np.ones(3, np.float32)}
    proto = model(
        "h = BatchNormalization<is_test=1>(x, s, b, m, v) y = Dropout<is_test=1>(h)", weights, opset=6
    )
    module = to_torch(proto)
    x = torch.from_numpy(X)
    shaped = {name: torch.from_numpy(array)[:, None, None] for name, array in weights.items()}
    expected = (x - shaped["m"]) / (1 + 1e-5) ** 0.5 * shaped["s"] + shaped["b"]
    torch.testing.assert_close(module(x), expected)
    assert not torch.equal(module.train()(x), expected)
