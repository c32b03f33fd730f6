"""Inception V3: torchvision's keys and shapes, the auxiliary head, sizes."""

from __future__ import annotations

import pytest
import torch

from graftonnx.models.inception_v3 import InceptionOutputs, InceptionV3

A = {
    "branch1x1": "64,{0},1,1",
    "branch5x5_1": "48,{0},1,1",
    "branch5x5_2": "64,48,5,5",
    "branch3x3dbl_1": "64,{0},1,1",
    "branch3x3dbl_2": "96,64,3,3",
    "branch3x3dbl_3": "96,96,3,3",
    "branch_pool": "{1},{0},1,1",
}
B = {
    "branch3x3": "384,{0},3,3",
    "branch3x3dbl_1": "64,{0},1,1",
    "branch3x3dbl_2": "96,64,3,3",
    "branch3x3dbl_3": "96,96,3,3",
}
C = {
    "branch1x1": "192,{0},1,1",
    "branch7x7_1": "{1},{0},1,1",
    "branch7x7_2": "{1},{1},1,7",
    "branch7x7_3": "192,{1},7,1",
    "branch7x7dbl_1": "{1},{0},1,1",
    "branch7x7dbl_2": "{1},{1},7,1",
    "branch7x7dbl_3": "{1},{1},1,7",
    "branch7x7dbl_4": "{1},{1},7,1",
    "branch7x7dbl_5": "192,{1},1,7",
    "branch_pool": "192,{0},1,1",
}
D = {
    "branch3x3_1": "192,{0},1,1",
    "branch3x3_2": "320,192,3,3",
    "branch7x7x3_1": "192,{0},1,1",
    "branch7x7x3_2": "192,192,1,7",
    "branch7x7x3_3": "192,192,7,1",
    "branch7x7x3_4": "192,192,3,3",
}
E = {
    "branch1x1": "320,{0},1,1",
    "branch3x3_1": "384,{0},1,1",
    "branch3x3_2a": "384,384,1,3",
    "branch3x3_2b": "384,384,3,1",
    "branch3x3dbl_1": "448,{0},1,1",
    "branch3x3dbl_2": "384,448,3,3",
    "branch3x3dbl_3a": "384,384,1,3",
    "branch3x3dbl_3b": "384,384,3,1",
    "branch_pool": "192,{0},1,1",
}
STEM = {
    "Conv2d_1a_3x3": "32,3,3,3",
    "Conv2d_2a_3x3": "32,32,3,3",
    "Conv2d_2b_3x3": "64,32,3,3",
    "Conv2d_3b_1x1": "80,64,1,1",
    "Conv2d_4a_3x3": "192,80,3,3",
}
AUX = {"AuxLogits.conv0": "128,768,1,1", "AuxLogits.conv1": "768,128,5,5"}
MIXED = {
    "Mixed_5b": (A, 192, 32),
    "Mixed_5c": (A, 256, 64),
    "Mixed_5d": (A, 288, 64),
    "Mixed_6a": (B, 288),
    "Mixed_6b": (C, 768, 128),
    "Mixed_6c": (C, 768, 160),
    "Mixed_6d": (C, 768, 160),
    "Mixed_6e": (C, 768, 192),
    "Mixed_7a": (D, 768),
    "Mixed_7b": (E, 1280),
    "Mixed_7c": (E, 2048),
}
"""torchvision's convolutions: path -> kernel shape, with the module's sizes for {0} and {1}."""


def published_shapes(aux: bool) -> dict[str, list[int]]:
    """Return torchvision's state_dict as key -> shape."""
    kernels = dict(STEM)
    for path, (branches, *sizes) in MIXED.items():
        kernels |= {f"{path}.{branch}": text.format(*sizes) for branch, text in branches.items()}
    shapes = {"fc.weight": [1000, 2048], "fc.bias": [1000]}
    if aux:
        kernels |= AUX
        shapes |= {"AuxLogits.fc.weight": [1000, 768], "AuxLogits.fc.bias": [1000]}
    for path, text in kernels.items():
        kernel = [int(size) for size in text.split(",")]
        shapes[f"{path}.conv.weight"] = kernel
        shapes |= {f"{path}.bn.{k}": kernel[:1] for k in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{path}.bn.num_batches_tracked"] = []
    return shapes


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    return InceptionV3(classes=5).eval()


@pytest.mark.parametrize("aux", [True, False])
def test_the_keys_and_shapes_are_torchvisions(aux: bool) -> None:
    found = {key: list(value.shape) for key, value in InceptionV3(aux=aux).state_dict().items()}
    assert found == published_shapes(aux)


@pytest.mark.parametrize(("aux", "parameters"), [(True, 27_161_264), (False, 23_834_568)])
def test_the_parameters_are_as_many_as_published(aux: bool, parameters: int) -> None:
    assert sum(p.numel() for p in InceptionV3(aux=aux).parameters()) == parameters


def test_every_batch_normalisation_has_the_published_epsilon(network: InceptionV3) -> None:
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.001}


@pytest.mark.parametrize("size", [(75, 75), (96, 80), (139, 139)])
def test_it_runs_at_several_sizes(network: InceptionV3, size: tuple[int, int]) -> None:
    assert network(torch.rand(2, 3, *size)).shape == (2, 5)


def test_74_pixels_are_too_few(network: InceptionV3) -> None:
    with pytest.raises(RuntimeError, match=r"Output size is too small|Kernel size can't be greater"):
        network(torch.rand(1, 3, 74, 74))


def test_the_auxiliary_head_speaks_only_in_training() -> None:
    network = InceptionV3(classes=3, aux=True)
    x = torch.rand(2, 3, 299, 299)
    with torch.no_grad():
        trained = network.train()(x)
        assert isinstance(trained, InceptionOutputs)
        assert (trained.logits.shape, trained.aux_logits.shape) == ((2, 3), (2, 3))
        assert isinstance(network.eval()(x[:, :, :96, :96]), torch.Tensor)


def test_the_feature_map_at_299_is_the_published_one(network: InceptionV3) -> None:
    shapes = []
    handle = network.Mixed_7c.register_forward_hook(lambda module, args, out: shapes.append(out.shape))
    with torch.no_grad():
        network(torch.rand(1, 3, 299, 299))
    handle.remove()
    assert shapes == [(1, 2048, 8, 8)]
