"""SqueezeNet: torchvision's keys and shapes, sizes and widths."""

from __future__ import annotations

import pytest
import torch

from graftonnx.models.squeezenet import SqueezeNet, Version

PUBLISHED: dict[Version, dict[int, tuple[int, int, int]]] = {
    "1.0": {
        3: (96, 16, 64),
        4: (128, 16, 64),
        5: (128, 32, 128),
        7: (256, 32, 128),
        8: (256, 48, 192),
        9: (384, 48, 192),
        10: (384, 64, 256),
        12: (512, 64, 256),
    },
    "1.1": {
        3: (64, 16, 64),
        4: (128, 16, 64),
        6: (128, 32, 128),
        7: (256, 32, 128),
        9: (256, 48, 192),
        10: (384, 48, 192),
        11: (384, 64, 256),
        12: (512, 64, 256),
    },
}
"""Index in torchvision's `features`: input, squeeze and expand channels of the Fire module."""

STEM: dict[Version, list[int]] = {"1.0": [96, 3, 7, 7], "1.1": [64, 3, 3, 3]}


def published_shapes(version: Version) -> dict[str, list[int]]:
    """Return torchvision's state_dict as key -> shape."""
    weights = {"features.0": STEM[version], "classifier.1": [1000, 512, 1, 1]}
    for index, (channels, squeeze, expand) in PUBLISHED[version].items():
        weights[f"features.{index}.squeeze"] = [squeeze, channels, 1, 1]
        weights[f"features.{index}.expand1x1"] = [expand, squeeze, 1, 1]
        weights[f"features.{index}.expand3x3"] = [expand, squeeze, 3, 3]
    return {f"{path}.weight": shape for path, shape in weights.items()} | {
        f"{path}.bias": shape[:1] for path, shape in weights.items()
    }


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_keys_and_shapes_are_torchvisions(version: Version) -> None:
    found = {key: list(value.shape) for key, value in SqueezeNet(version).state_dict().items()}
    assert found == published_shapes(version)


@pytest.mark.parametrize(("version", "parameters"), [("1.0", 1_248_424), ("1.1", 1_235_496)])
def test_the_parameters_are_as_many_as_published(version: Version, parameters: int) -> None:
    assert sum(p.numel() for p in SqueezeNet(version).parameters()) == parameters


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (100, 100)])
def test_it_runs_at_several_sizes(version: Version, size: tuple[int, int]) -> None:
    logits = SqueezeNet(version, classes=7, width=0.25).eval()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize(("version", "grid"), [("1.0", 13), ("1.1", 13)])
def test_the_last_feature_map_at_224_is_the_published_grid(version: Version, grid: int) -> None:
    features = SqueezeNet(version, width=0.125).eval().features(torch.rand(1, 3, 224, 224))
    assert features.shape[2:] == (grid, grid)


def test_the_width_scales_every_hidden_layer_and_keeps_the_classes() -> None:
    half = SqueezeNet("1.1", width=0.5).state_dict()
    assert list(half["features.0.weight"].shape) == [32, 3, 3, 3]
    assert list(half["features.12.expand3x3.weight"].shape) == [128, 32, 3, 3]
    assert list(half["classifier.1.weight"].shape) == [1000, 256, 1, 1]


def test_a_tiny_width_leaves_at_least_eight_channels() -> None:
    assert min(p.shape[0] for p in SqueezeNet("1.1", width=0.01).features.parameters()) == 8


def test_the_stem_stride_changes_the_maps_but_no_weight() -> None:
    coarse = SqueezeNet("1.1", width=0.25).eval()
    fine = SqueezeNet("1.1", width=0.25, stem_stride=1).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.rand(1, 3, 32, 32)
    assert coarse.features(x).shape[2:] == (1, 1)
    assert fine.features(x).shape[2:] == (3, 3)


def test_grey_images_need_only_another_number_of_input_channels() -> None:
    network = SqueezeNet("1.0", classes=2, width=0.25, in_channels=1).eval()
    assert network(torch.rand(1, 1, 48, 48)).shape == (1, 2)
