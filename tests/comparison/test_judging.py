"""From answers to accuracies and tests, on answers made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graftonnx.comparison.answers import Answers, average
from graftonnx.comparison.judging import accuracy, better_parent, contest, is_redrawn, overlap


def answered(right: Sequence[int], *, images: str = "abcdefgh") -> Answers:
    """Return answers to two-class images, all of class 1: right where it says 1."""
    probabilities = np.array([[1 - r, r] for r in right], np.float32)
    return Answers(tuple(images), np.ones(len(right), np.int64), probabilities)


GOOD, FAIR, POOR = [1] * 8, [1] * 6 + [0] * 2, [0, 1] * 4


def test_one_seed_is_judged_by_its_images() -> None:
    table = {"fused": [answered(GOOD)], "a": [answered(POOR)]}
    found = contest(table, "a", [7], 0.0)
    (test,) = found.by_images
    assert (test.seed, test.images, test.fused_only, test.rival_only) == (7, 8, 4, 0)
    assert found.p == test.p == pytest.approx(2 / 2**4)
    assert found.difference.value == 0.5
    assert accuracy(table["a"], 0.0).low == pytest.approx(0.2152, abs=1e-4)


def test_seeds_are_judged_by_their_spread_and_images_beside_it() -> None:
    table = {
        "fused": [answered(GOOD), answered(GOOD), answered(FAIR)],
        "a": [answered(FAIR), answered(POOR), answered(FAIR)],
    }
    found = contest(table, "a", [0, 1, 2], 0.0)
    assert found.difference.value == pytest.approx((2 + 4 + 0) / 24)
    assert found.p == pytest.approx(0.2254, abs=1e-4)  # t = sqrt(3) with 2 degrees of freedom
    assert [(t.fused_only, t.rival_only) for t in found.by_images] == [(2, 0), (4, 0), (0, 0)]
    assert accuracy(table["fused"], 0.0).high == 1


def test_equal_differences_leave_no_p() -> None:
    table = {"fused": [answered(GOOD)] * 2, "a": [answered(FAIR)] * 2}
    assert contest(table, "a", [0, 1], 0.0).p is None
    assert contest(table, "fused", [0, 1], 0.0).p == 1


def test_the_correction_is_for_images_that_each_seed_draws() -> None:
    same = {"fused": [answered(GOOD), answered(FAIR)]}
    drawn = {"fused": [answered(GOOD), answered(FAIR, images="abcdefgx")]}
    assert not is_redrawn(same)
    assert overlap(same, 40) == 0
    assert is_redrawn(drawn)
    assert overlap(drawn, 40) == 8 / 32


def test_the_better_parent_has_the_higher_mean() -> None:
    table = {"a": [answered(GOOD), answered(POOR)], "b": [answered(FAIR), answered(GOOD)]}
    assert better_parent(table, ["a", "b"]) == "b"
    assert better_parent({"a": table["a"], "b": table["a"]}, ["a", "b"]) == "a"


def test_the_average_is_of_probabilities_not_of_votes() -> None:
    sure, unsure = ([0.1, 0.9], [0.2, 0.8]), ([0.6, 0.4], [0.9, 0.1])
    members = [Answers(("x", "y"), np.array([1, 1]), np.array(rows, np.float32)) for rows in (sure, unsure)]
    mean = average(members)
    assert np.allclose(mean.probabilities, [[0.35, 0.65], [0.55, 0.45]])
    assert mean.hits.tolist() == [True, False]
