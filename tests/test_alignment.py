"""The alignment is the best one, with and without a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from numpy.typing import NDArray

from graftonnx import alignment
from graftonnx.alignment import Budget, align, align_within


def crosses(pairs: list[tuple[int, int]]) -> bool:
    return any(a[0] >= b[0] or a[1] >= b[1] for a, b in itertools.pairwise(pairs))


def brute_force(scores: NDArray[np.float64], most: int, *limited: tuple[NDArray[np.int64], float]) -> float:
    """Return the best sum over all sets of pairs."""
    pairs = [(int(i), int(j)) for i, j in zip(*np.nonzero(scores > 0), strict=True)]
    best = 0.0
    for count in range(1, most + 1):
        for chosen in itertools.combinations(pairs, count):
            fits = all(sum(int(cost[p]) for p in chosen) <= limit for cost, limit in limited)
            if fits and not crosses(list(chosen)):
                best = max(best, float(sum(scores[pair] for pair in chosen)))
    return best


SCORES = st_np.arrays(
    float, st.tuples(st.integers(0, 5), st.integers(0, 5)), elements=st.floats(-0.5, 1, allow_nan=False)
)


TIED = (-0.5, 0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Scores of which many are equal."""


@settings(max_examples=300, deadline=None)
@given(SCORES, st.integers(0, 4))
def test_an_alignment_is_non_crossing_and_as_good_as_brute_force(
    scores: NDArray[np.float64], most: int
) -> None:
    pairs = align(scores, most)
    assert len(pairs) <= most
    assert not crosses(pairs)
    assert all(scores[pair] > 0 for pair in pairs)
    assert sum(scores[pair] for pair in pairs) == pytest.approx(brute_force(scores, most))


@settings(max_examples=300, deadline=None)
@given(
    st_np.arrays(float, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from(TIED)),
    st.integers(0, 4),
)
def test_rows_and_columns_left_out_change_no_pair(scores: NDArray[np.float64], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = align(scores, most)
        patch.setattr(alignment, "SAMPLE", 1)
        assert align(scores, most) == expected


def test_rows_and_columns_without_a_pair_of_a_best_set_are_left_out() -> None:
    scores = np.full((200, 300), 0.1)
    scores[range(10, 200, 50), range(20, 220, 50)] = 1.0
    rows, columns = alignment._promising(scores, 3)
    assert (rows.tolist(), columns.tolist()) == ([10, 60, 110, 160], [20, 70, 120, 170])


@settings(max_examples=200, deadline=None)
@given(SCORES, st.integers(0, 4), st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(0, 60))
def test_within_a_budget_it_is_as_good_as_brute_force(
    scores: NDArray[np.float64], most: int, seed: int, macs: int, parameters: int
) -> None:
    costs = np.random.default_rng(seed).integers(0, 30, (2, *scores.shape))
    pairs = align_within(scores, most, costs[0], costs[1], Budget(macs, parameters))
    assert not crosses(pairs)
    assert sum(int(costs[0][pair]) for pair in pairs) <= macs
    assert sum(int(costs[1][pair]) for pair in pairs) <= parameters
    expected = brute_force(scores, most, (costs[0], macs), (costs[1], parameters))
    assert sum(scores[pair] for pair in pairs) == pytest.approx(expected)


def test_a_large_alignment_within_a_budget_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "SEARCH", 500)
    rng = np.random.default_rng(0)
    scores, costs = rng.random((60, 60)), rng.integers(1, 1000, (60, 60))
    pairs = align_within(scores, 6, costs, costs, Budget(600, None))
    assert 1 <= len(pairs) <= 6
    assert sum(int(costs[pair]) for pair in pairs) <= 600


def test_equal_input_gives_equal_output() -> None:
    scores = np.ones((30, 40))
    assert align(scores, 7) == align(scores.copy(), 7)
    assert len(align(scores, 7)) == 7
