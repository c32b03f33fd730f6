"""Random numbers have the distribution that the graph asks for, and are new in every run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conversion.small_models import model

from graftonnx.conversion import to_torch

MANY = 40_000
"""Draws; a mean of so many differs from the expected one by 0.02 standard deviations at most (four sigma)."""


def draw(body: str, *inputs: torch.Tensor, opset: int = 18) -> torch.Tensor:
    torch.manual_seed(0)
    result: torch.Tensor = to_torch(model(body, inputs=f"float[N, {MANY}] x", opset=opset))(*inputs)
    return result


@pytest.mark.parametrize(
    ("body", "mean", "deviation"),
    [
        (f"y = RandomNormal<shape=[1, {MANY}], mean=3.0, scale=2.0>()", 3, 2),
        (f"y = RandomUniform<shape=[1, {MANY}], low=-1.0, high=5.0>()", 2, 6 / 12**0.5),
        ("y = RandomNormalLike<mean=-1.0, scale=0.5>(x)", -1, 0.5),
        ("y = RandomUniformLike<high=2.0>(x)", 1, 2 / 12**0.5),
        ("y = Bernoulli(x)", 0.25, 0.1875**0.5),
    ],
)
def test_mean_and_deviation_are_as_asked_for(body: str, mean: float, deviation: float) -> None:
    y = draw(body, torch.full((1, MANY), 0.25))
    assert y.shape == (1, MANY)
    assert y.mean().item() == pytest.approx(mean, abs=0.02 * deviation)
    assert y.std().item() == pytest.approx(deviation, rel=0.02)


def test_multinomial_draws_classes_by_their_log_probabilities() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.7]])
    module = to_torch(model(f"y = Multinomial<sample_size={MANY}>(x)", inputs="float[N, 3] x"))
    y = module(weights.log() + 5)  # they need not be normalised
    assert y.dtype == torch.int32
    torch.testing.assert_close(torch.bincount(y[0].long()) / MANY, weights[0], atol=0.02, rtol=0)


def test_every_run_draws_anew() -> None:
    module = to_torch(model("y = RandomNormalLike(x)", inputs="float[N, 4] x"))
    x = torch.zeros(1, 4)
    assert not torch.equal(module(x), module(x))


def test_dropout_drops_if_its_input_says_so() -> None:
    proto = model("y, m = Dropout(x, r, t)", inputs=f"float[1, {MANY}] x, float r, bool t", outputs="y m")
    module = to_torch(proto)
    x = torch.ones(1, MANY)
    kept, mask = module(x, torch.tensor(0.75), torch.tensor(True))
    assert mask.float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(kept, mask.float() * 4)
    same, mask = module.train()(x, torch.tensor(0.75), torch.tensor(False))
    assert torch.equal(same, x)
    assert mask.all()


def test_a_constant_is_no_seed() -> None:
    proto = model("y = Bernoulli(c)", {"c": np.full((1, 64), 0.5, np.float32)}, inputs="float[N, 2] x")
    module = to_torch(proto)
    assert not torch.equal(module(torch.zeros(1, 2)), module(torch.zeros(1, 2)))
