"""The feature tensor in front of the classifier, in networks that PyTorch's exporters wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from conversion.torch_models import CASES as NETWORKS
from conversion.torch_models import TransformerBlock, export_module
from torch import Tensor, nn
from torch.nn import functional as F

from graftonnx.fusion import fuse
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.runtime import open_session


def trunk(width: int = 8) -> nn.Sequential:
    """Two blocks, the second halves the map. [N, 3, 16, 16] -> [N, width, 8, 8]."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width), nn.ReLU(),
    )  # fmt: skip


class Flat(nn.Module):
    """Flatten by `view`, as in older code. [N, C, H, W] -> [N, C * H * W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


class MeanTokens(nn.Module):
    """Vision transformer whose head reads the mean of all tokens. [N, 3, 16, 16] -> [N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, 24) * 0.02)
        self.block = TransformerBlock(24, 3)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.block(x)).mean(1))


class Auxiliary(nn.Module):
    """A second classifier halfway, as in GoogLeNet. [N, 3, 16, 16] -> [N, 4] twice."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.late = trunk(), nn.Conv2d(8, 8, 3, padding=1)
        self.halfway, self.head = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.halfway(x.mean((2, 3))), self.head(F.relu(self.late(x)).mean((2, 3)))


@dataclass(frozen=True)
class Case:
    """A network, and what its feature is.

    Attributes:
        network: Makes it.
        shape: Of the feature, without the batch.
        makers: Operators of which one makes it.
        size: Height and width of its images.
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    makers: frozenset[str] = frozenset({"Relu"})
    size: int = 16


NORM = frozenset({"LayerNormalization", "Add"})
HEADS = {
    "pool and dense": Case(
        lambda: nn.Sequential(trunk(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), (8, 8, 8)
    ),
    "pool, two dense layers and softmax": Case(
        lambda: nn.Sequential(
            trunk(), nn.AdaptiveMaxPool2d(1), Flat(), nn.Dropout(), nn.Linear(8, 6), nn.Hardswish(),
            nn.Linear(6, 4), nn.Softmax(1),
        ),
        (8, 8, 8),
    ),
    "convolution, as in SqueezeNet": Case(
        lambda: nn.Sequential(
            trunk(), nn.Dropout(), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        (8, 8, 8),
        frozenset({"Relu", "Dropout"}),
    ),
    "flatten and dense layers, as in AlexNet": Case(
        lambda: nn.Sequential(
            trunk(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(32, 12),
            nn.ReLU(), nn.Dropout(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4),
        ),
        (8, 2, 2),
        frozenset({"AveragePool"}),
    ),
    "flatten and dense layers, as in VGG": Case(
        lambda: nn.Sequential(
            trunk(), nn.MaxPool2d(2), Flat(), nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 4)
        ),
        (8, 4, 4),
        frozenset({"MaxPool"}),
    ),
    "class token": Case(NETWORKS["vit"].network, (48,), NORM | {"Gather", "Slice"}, 32),
    "mean of tokens": Case(MeanTokens, (16, 24), NORM),
    "squeeze-excite": Case(NETWORKS["mobilenet_v3"].network, (16, 16, 16), frozenset({"Add"}), 32),
    "norm behind the pool": Case(NETWORKS["convnext"].network, (32, 4, 4), frozenset({"Add"}), 32),
    "auxiliary classifier": Case(Auxiliary, (8, 8, 8)),
}  # fmt: skip


@functools.cache
def exported(name: str, dynamo: bool) -> onnx.ModelProto:
    torch.manual_seed(0)
    case = HEADS[name]
    return export_module(case.network().eval(), (torch.randn(2, 3, case.size, case.size),), dynamo=dynamo)


def loaded(name: str, dynamo: bool) -> Network:
    return from_proto(exported(name, dynamo), f"{name}.onnx")


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", HEADS)
def test_the_feature_in_front_of_every_kind_of_head_is_found(name: str, dynamo: bool) -> None:
    case, network = HEADS[name], loaded(name, dynamo)
    assert network.view.shapes[network.head.feature] == (None, *case.shape)
    assert network.view.producer[network.head.feature].op_type in case.makers
    assert network.head.classes in (4, 10)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_of_two_classifiers_the_last_is_the_head(dynamo: bool) -> None:
    model = exported("auxiliary classifier", dynamo)
    network = loaded("auxiliary classifier", dynamo)
    assert network.head.output == model.graph.output[1].name
    assert f"other outputs dropped: {model.graph.output[0].name}" in network.notes


@pytest.mark.parametrize("name", HEADS)
def test_eight_images_give_what_each_gives_alone(name: str) -> None:
    network = loaded(name, False)
    images = np.random.default_rng(0).random((8, *network.input_shape), np.float32)
    session = open_session(network.proto, provider="cpu", threads=1, optimise=False)
    alone = np.concatenate([session.run(image[None])[0] for image in images])
    np.testing.assert_allclose(session.run(images)[0], alone, rtol=1e-4, atol=1e-5)


def test_a_network_of_tokens_is_fused_with_one_of_maps() -> None:
    fused = fuse(loaded("mean of tokens", True), loaded("convolution, as in SqueezeNet", True), classes=3)
    assert [parent.features for parent in fused.metadata.parents] == [24, 8]
