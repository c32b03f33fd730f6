"""The order in which batches are cut from decoded images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftonnx.data.cache import Images
from graftonnx.training.data import TrainBatches, ValBatches
from graftonnx.training.world import World


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


@given(count=st.integers(4, 40), each=st.integers(1, 4), size=st.integers(1, 4))
def test_processes_share_the_batches_of_one(count: int, each: int, size: int) -> None:
    worlds = [World(rank, size) for rank in range(size)]
    whole = drawn(TrainBatches(numbered(count), each * size, 0)) if each * size <= count else None
    parts = [drawn(TrainBatches(numbered(count), each * size, 0, world)) for world in worlds]
    for number, batches in enumerate(zip(*parts, strict=True)):
        assert len({len(batch) for batch in batches}) == 1
        if whole is not None:
            assert sorted(label for batch in batches for label in batch) == sorted(whole[number])


@given(count=st.integers(4, 40), each=st.integers(1, 4), size=st.integers(1, 4))
def test_processes_validate_each_image_once_in_as_many_batches(count: int, each: int, size: int) -> None:
    parts = [drawn(ValBatches(numbered(count), each * size, World(rank, size))) for rank in range(size)]
    assert sorted(label for part in parts for batch in part for label in batch) == list(range(count))
    assert len({len(part) for part in parts}) == 1
    assert all(1 <= len(batch) <= each + 1 for part in parts for batch in part)
