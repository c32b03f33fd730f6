"""`freeze_bn` keeps batch norms in inference mode."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from conversion.small_models import model, random
from torch import fx

from graftonnx.conversion import freeze_bn, to_torch, write_back

BN = {
    "s": random(4, seed=1),
    "b": random(4, seed=2),
    "m": random(4, seed=3),
    "v": np.abs(random(4, seed=4)) + 0.5,
}
LAYER = model("h = Conv(x, w) y = BatchNormalization(h, s, b, m, v)", {"w": random(4, 3, 3, 3), **BN})
TIED = model(
    "h = Conv(x, w) i = BatchNormalization(h, s, b, m, v) t = Unsqueeze(s, axes) y = Mul(i, t)",
    {"w": random(4, 3, 3, 3), **BN, "axes": np.array([1, 2], np.int64)},
)
"""Another node reads the scale too, so the layer does not own it."""


@pytest.fixture(params=[LAYER, TIED], ids=["layer", "tied"])
def frozen(request: pytest.FixtureRequest) -> fx.GraphModule:
    module = to_torch(request.param)
    freeze_bn(module)
    return module


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.from_numpy(random(5, 3, 8, 8, seed=6))


def test_training_does_not_change_what_a_frozen_batch_norm_computes(
    frozen: fx.GraphModule, batch: torch.Tensor
) -> None:
    expected = frozen(batch)
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    assert torch.equal(frozen.train()(batch), expected)
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())


def test_scale_and_bias_of_a_frozen_batch_norm_train(frozen: fx.GraphModule, batch: torch.Tensor) -> None:
    frozen.train()(batch).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in frozen.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_stays_frozen(copied: object, frozen: fx.GraphModule, batch: torch.Tensor) -> None:
    twin = copied(frozen)  # type: ignore[operator]
    assert torch.equal(twin.train()(batch), frozen.eval()(batch))


def test_everything_else_follows_train() -> None:
    module = to_torch(
        model("h = Dropout(x) y = BatchNormalization(h, s, b, m, v)", {k: v[:3] for k, v in BN.items()})
    )
    freeze_bn(module)
    modes = {type(layer).__name__: layer.training for layer in module.train().children()}
    assert set(modes.values()) == {True, False}
    assert modes["Dropout"]


def test_a_frozen_module_writes_itself_back(frozen: fx.GraphModule, batch: torch.Tensor) -> None:
    frozen.train()(batch)
    written = write_back(frozen).SerializeToString()
    assert written in (LAYER.SerializeToString(), TIED.SerializeToString())
