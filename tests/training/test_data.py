"""The order in which batches are cut from decoded images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from graftonnx.data.cache import Images
from graftonnx.training.data import TrainBatches, ValBatches


def numbered(count: int) -> Images:
    """Images whose every pixel, and label, is their number."""
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return Images(pixels, np.arange(count))


def drawn(batches: TrainBatches | ValBatches) -> list[list[int]]:
    return [batch.labels.tolist() for batch in batches]


def test_every_image_comes_once_an_epoch_and_the_last_batch_is_filled_up() -> None:
    epoch = drawn(TrainBatches(numbered(10), 4, seed=0))
    assert [len(batch) for batch in epoch] == [4, 4, 4]
    counts = Counter(number for batch in epoch for number in batch)
    assert set(counts) == set(range(10))
    assert sum(counts.values()) == 12
    assert all(len(set(batch)) == 4 for batch in epoch)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    assert [sorted(batch) for batch in drawn(TrainBatches(numbered(3), 32, seed=0))] == [[0, 1, 2]]


def test_epochs_differ_and_a_seed_repeats_them() -> None:
    one, other = TrainBatches(numbered(20), 4, seed=0), TrainBatches(numbered(20), 4, seed=0)
    first = drawn(one)
    assert drawn(other) == first
    second = drawn(one)
    assert second != first
    assert drawn(other) == second
    assert drawn(TrainBatches(numbered(20), 4, seed=1)) != first


def test_steps_are_counted_over_all_epochs() -> None:
    batches = TrainBatches(numbered(8), 4, seed=0)
    assert [batch.step for batch in batches] + [batch.step for batch in batches] == [0, 1, 2, 3]


@pytest.mark.parametrize("position", [1, 4, 5, 7, 10])
def test_a_loader_goes_on_where_its_state_was_taken(position: int) -> None:
    whole = TrainBatches(numbered(20), 4, seed=0)
    expected = [batch.labels.tolist() for _ in range(3) for batch in whole][position:]
    stopped = TrainBatches(numbered(20), 4, seed=0)
    stopped.load_state_dict({"step": position})
    resumed = TrainBatches(numbered(20), 4, seed=0)
    resumed.load_state_dict(stopped.state_dict())
    rest: list[list[int]] = []
    while len(rest) < len(expected):
        rest += drawn(resumed)
    assert rest == expected


def test_pixels_stay_with_their_labels() -> None:
    for batch in TrainBatches(numbered(9), 4, seed=3):
        assert torch.equal(batch.pixels[:, 0, 0, 0].long(), batch.labels)


def test_validation_batches_keep_the_order_and_miss_nobody() -> None:
    batches = ValBatches(numbered(10), 4)
    assert len(batches) == 3
    assert drawn(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert drawn(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
