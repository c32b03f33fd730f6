"""The paper's custom network: 16 weight layers, residual connections, batch norm, a max pool per stage."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graftonnx.models.custom16 import Custom16


def test_it_has_sixteen_weight_layers() -> None:
    layers = [m for m in Custom16().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 16


def test_every_convolution_has_its_batch_normalisation_and_relu() -> None:
    modules = list(Custom16().modules())
    counts = [sum(isinstance(m, kind) for m in modules) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)]
    assert counts == [15, 15, 15]


def test_a_residual_connection_spans_every_four_blocks() -> None:
    """With the last batch norm of a stage at zero, the stage passes its pooled entry through unchanged."""
    stage = Custom16().stages[1].eval()
    nn.init.zeros_(stage.blocks[3].bn.weight)
    x = torch.rand(2, 32, 12, 12)
    assert torch.equal(stage(x), stage.pool(stage.entry(x)))


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (40, 24), (100, 100)])
def test_each_of_three_stages_halves_the_grid(size: tuple[int, int]) -> None:
    network = Custom16(classes=4, width=0.25).eval()
    x = torch.rand(2, 3, *size)
    assert network.stages(x).shape == (2, 32, size[0] // 8, size[1] // 8)
    assert network(x).shape == (2, 4)


def test_width_classes_and_channels_can_be_chosen() -> None:
    state = Custom16(classes=8, width=0.5, in_channels=1).state_dict()
    assert list(state["stages.0.entry.conv.weight"].shape) == [16, 1, 3, 3]
    assert list(state["stages.2.blocks.3.conv.weight"].shape) == [64, 64, 3, 3]
    assert list(state["classifier.weight"].shape) == [8, 64]


def test_a_training_step_moves_every_parameter() -> None:
    torch.manual_seed(0)
    network = Custom16(width=0.25).train()
    network(torch.rand(4, 3, 32, 32)).square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []
