"""Weights of one element train, numbers of one element do not, and settings stay settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conversion.small_models import model, random
from conversion.torch_models import export_module, export_network
from torch import Tensor, fx, nn

from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.parity import compare_module


class Learned(nn.Module):
    """One learned number of each kind, beside numbers that the program states. [N, 3, 8, 8] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.PReLU(1)
        self.temperature = nn.Parameter(torch.tensor(2.5))
        self.logarithm = nn.Parameter(torch.tensor(0.7))
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("offset", torch.tensor(3.25))

    def forward(self, x: Tensor) -> Tensor:
        y = self.slope(x / self.temperature) * self.scale * self.logarithm.exp()
        return (y * 0.123 + self.offset) / (y.abs() + 1e-3) - 3.5


def trained(module: fx.GraphModule) -> list[float]:
    return sorted(round(p.item(), 3) for p in module.parameters())


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_learned_numbers_train_and_stated_ones_do_not(dynamo: bool) -> None:
    x = torch.from_numpy(random(2, 3, 8, 8))
    proto = export_module(Learned().eval(), (x,), dynamo=dynamo)
    module = to_torch(proto)
    # The newer exporter stores exp(logarithm); the older one does not tell a buffer from a parameter.
    expected = [0.25, 1.5, round(float(np.exp(0.7)), 3), 2.5] if dynamo else [0.25, 0.7, 1.5, 2.5, 3.25]
    assert trained(module) == expected
    module(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    compare_module(proto, module, x.numpy())


@pytest.mark.parametrize("name", ["bert", "lstm"])
def test_numbers_of_the_dynamo_exporter_are_no_parameters(name: str) -> None:
    """The mask's -10000, and the zero of the first state."""
    original, proto = export_network(name, dynamo=True)
    module = to_torch(proto)
    assert min(p.numel() for p in module.parameters()) > 1
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in original.parameters())


def test_what_only_scales_a_resize_is_no_weight() -> None:
    proto = model(
        "ones = Constant<value = float[2] {1.0, 1.0}>() twos = Constant<value = float[2] {2.0, 2.0}>() "
        "factors = Identity(twos) scales = Concat<axis=0>(ones, factors) h = Conv(x, w) "
        "y = Resize(h, , scales)",
        {"w": random(4, 3, 3, 3)},
    )
    module = to_torch(proto)
    assert [onnx_name(key) for key, _ in module.named_parameters()] == ["w"]
    x = torch.from_numpy(random(2, 3, 8, 8))
    torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.export.export(module, (x,))
    compare_module(proto, module, x.numpy())


def test_what_scales_a_resize_and_more_is_a_weight() -> None:
    text = "s = Concat<axis=0>(a, b) u = Resize(x, , s) t = Mul(b, b) n = ReduceSum(t) y = Mul(u, n)"
    one = np.ones(2, np.float32)
    module = to_torch(model(text, {"a": one, "b": one}))
    assert "a" not in dict(module.named_parameters())
