"""Random changes of images: what they do, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftonnx.training.augment import augment, change_colour, crop, stored_size
from graftonnx.training.config import Augment
from graftonnx.training.world import World


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramps(count: int, size: int = 24) -> torch.Tensor:
    """Images whose red is x, whose green is y, both in 0..1; blue is 0.5. [N, 3, size, size]."""
    line = torch.linspace(0, 1, size)
    image = torch.stack(
        [line.expand(size, size), line[:, None].expand(size, size), torch.full((size, size), 0.5)]
    )
    return image.repeat(count, 1, 1, 1)


def test_none_changes_nothing() -> None:
    images = ramps(2)
    assert torch.equal(augment(images, (24, 24), "none", generator()), images)


def test_flip_mirrors_about_half_of_the_images_and_does_nothing_else() -> None:
    images = ramps(200)
    changed = augment(images, (24, 24), "flip", generator())
    mirrored = torch.tensor([torch.equal(image, images[0].flip(-1)) for image in changed])
    same = torch.tensor([torch.equal(image, images[0]) for image in changed])
    assert bool((mirrored ^ same).all())
    assert 70 < int(mirrored.sum()) < 130  # 200 coins; beyond four standard deviations


@pytest.mark.parametrize("kind", ["flip", "shift", "flip-shift", "standard"])
def test_the_generator_alone_decides(kind: Augment) -> None:
    images = ramps(8)
    one = augment(images, (20, 20), kind, generator(1))
    torch.manual_seed(3)
    assert torch.equal(augment(images, (20, 20), kind, generator(1)), one)
    assert not torch.equal(augment(images, (20, 20), kind, generator(2)), one)


def test_shift_moves_by_up_to_an_eighth_and_goes_on_with_a_mirror_image() -> None:
    image = torch.rand(3, 16, 24, generator=generator(7))
    padded = np.pad(image.numpy(), ((0, 0), (2, 2), (3, 3)), mode="reflect")
    moves = {
        (y, x): torch.from_numpy(padded[:, y : y + 16, x : x + 24].copy()) for y in range(5) for x in range(7)
    }
    changed = augment(image.expand(600, 3, 16, 24), (16, 24), "shift", generator())
    found = [[move for move, moved in moves.items() if torch.equal(moved, one)] for one in changed]
    assert all(len(fits) == 1 for fits in found)
    assert {fits[0] for fits in found} == moves.keys()  # 600 draws miss one of 35 once in a million times


def test_flip_shift_does_both() -> None:
    image = torch.rand(3, 16, 16, generator=generator(7))
    both = augment(image.expand(40, 3, 16, 16), (16, 16), "flip-shift", generator())
    alone = augment(image.expand(40, 3, 16, 16), (16, 16), "flip", generator())
    centre = (slice(None), slice(2, 14), slice(2, 14))
    patches = both.unfold(2, 12, 1).unfold(3, 12, 1).permute(0, 2, 3, 1, 4, 5)
    for one, mirrored in zip(patches, alone, strict=True):
        assert any(torch.equal(patch, mirrored[centre]) for patch in one.flatten(0, 1))


@pytest.mark.parametrize("size", [1, 5])
def test_a_tiny_image_is_not_shifted(size: int) -> None:
    images = ramps(3, size)
    assert torch.equal(augment(images, (size, size), "shift", generator()), images)


def test_crop_cuts_a_rectangle_of_at_least_four_tenths_out_of_the_image() -> None:
    crops = crop(ramps(100, 64), (64, 64), generator())
    assert crops.shape == (100, 3, 64, 64)
    x, y = crops[:, 0], crops[:, 1]
    width, height = (x.amax((1, 2)) - x.amin((1, 2))), (y.amax((1, 2)) - y.amin((1, 2)))
    assert float((width * height).min()) > 0.4 - 0.05  # the outer half pixels of a crop are not sampled
    assert float((width * height).max()) > 0.8
    ratio = width / height
    assert float(ratio.min()) > 0.75 * 0.95
    assert float(ratio.max()) < 4 / 3 * 1.05
    mirrored = x[:, 0, 0] > x[:, 0, -1]
    assert 25 < int(mirrored.sum()) < 75
    # a crop is an upright rectangle: columns have one x, rows one y
    assert float(x.std(1).max()) < 1e-3
    assert float(y.std(2).max()) < 1e-3


def test_colours_change_a_little_and_stay_in_range() -> None:
    images = ramps(100)
    changed = change_colour(images, generator())
    assert changed.min() >= 0
    assert changed.max() <= 1
    difference = (changed - images).abs().mean((1, 2, 3))
    assert float(difference.min()) > 0
    assert float(difference.max()) < 0.25


def test_grey_images_stay_grey() -> None:
    grey = torch.rand(5, 1, 8, 8, generator=generator()).expand(5, 3, 8, 8)
    changed = change_colour(grey, generator())
    torch.testing.assert_close(changed[:, 0], changed[:, 1])  # default tolerances: rounding of the mean
    torch.testing.assert_close(changed[:, 0], changed[:, 2])


@pytest.mark.parametrize(
    ("kind", "expected"), [("none", (100, 80)), ("flip-shift", (100, 80)), ("standard", (115, 92))]
)
def test_images_are_kept_larger_only_where_they_are_cropped(kind: Augment, expected: tuple[int, int]) -> None:
    assert stored_size((100, 80), kind) == expected


@pytest.mark.parametrize("kind", ["flip", "shift", "flip-shift", "standard"])
def test_processes_make_the_images_of_one(kind: Augment) -> None:
    images = torch.rand(6, 3, 24, 24, generator=generator(1))
    whole = augment(images, (24, 24), kind, generator())
    for rank in range(3):
        part = augment(images[rank::3], (24, 24), kind, generator(), World(rank, 3))
        torch.testing.assert_close(part, whole[rank::3])
