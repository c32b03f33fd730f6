"""Mixtures of images carry the mixture of their labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftonnx.training.mixing import mix


def batch(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images whose value is their class, of two classes, and their targets."""
    labels = torch.arange(count) % 2
    return labels.float().view(-1, 1, 1, 1).expand(-1, 3, 12, 20).clone(), torch.nn.functional.one_hot(
        labels
    ).float()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_the_mean_of_an_image_is_its_share_of_the_second_class(mixup: float, cutmix: float) -> None:
    images, targets = batch()
    for seed in range(6):
        mixed, shares = mix(images, targets, mixup, cutmix, np.random.default_rng(seed))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), shares[:, 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))
        assert not torch.equal(mixed, images)


def test_mixup_blends_and_cutmix_cuts() -> None:
    images, targets = batch()
    blended, _ = mix(images, targets, 1.0, 0.0, np.random.default_rng(0))
    cut, _ = mix(images, targets, 0.0, 1.0, np.random.default_rng(0))
    assert float(blended.std((1, 2, 3)).max()) < 1e-6
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    assert float(cut.std((1, 2, 3)).max()) > 0.3


def test_both_take_turns_and_the_generator_decides() -> None:
    images, targets = batch()
    kinds = set()
    for seed in range(20):
        mixed, _ = mix(images, targets, 1.0, 1.0, np.random.default_rng(seed))
        again, _ = mix(images, targets, 1.0, 1.0, np.random.default_rng(seed))
        assert torch.equal(mixed, again)
        kinds.add(bool((mixed.frac() == 0).all()))
    assert kinds == {True, False}
