"""Intervals and tests against values from the literature, and how they agree with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftonnx.comparison.significance import mcnemar, over_seeds, paired_difference, wilson

SLEEP = (1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4)
"""Student's own example (Biometrika 6, 1908): additional hours of sleep, one drug minus the other."""

LENGTHS = st.lists(st.integers(-50, 50), min_size=2, max_size=6).map(lambda xs: [x / 100 for x in xs])


def test_students_sleep_data() -> None:
    estimate, p = over_seeds(SLEEP)
    assert estimate.value == pytest.approx(1.58)
    assert (estimate.low, estimate.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert p == pytest.approx(0.002833, abs=1e-6)


def test_overlapping_training_sets_widen_the_interval() -> None:
    plain, plain_p = over_seeds(SLEEP)
    corrected, p = over_seeds(SLEEP, overlap=0.25)
    ratio = (corrected.high - corrected.low) / (plain.high - plain.low)
    assert ratio == pytest.approx(math.sqrt((1 / 10 + 1 / 4) / (1 / 10)))
    assert p is not None
    assert plain_p is not None
    assert p > plain_p


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.1 + 0.2, None)])
def test_values_without_spread_give_no_p_but_for_zero(value: float, p: float | None) -> None:
    estimate, found = over_seeds([value] * 3)
    assert (estimate.value, estimate.low, estimate.high) == (value, value, value)
    assert found == p


@given(LENGTHS, st.floats(0, 1))
def test_p_is_below_5_percent_where_the_interval_leaves_out_zero(values: list[float], overlap: float) -> None:
    estimate, p = over_seeds(values, overlap)
    if p is not None and abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == (not estimate.low <= 0 <= estimate.high)


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_in_newcombe_1998(hits: int, images: int, low: float, high: float) -> None:
    estimate = wilson(hits, images)
    assert estimate.value == hits / images
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


def test_airway_data_of_fagerland_lydersen_and_laake() -> None:
    """Statistics in Medicine 33 (2014): 1 and 7 discordant pairs of 21."""
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    estimate = paired_difference(1, 7, 21)
    assert estimate.value == pytest.approx(-6 / 21)
    assert (estimate.low, estimate.high) == pytest.approx((-0.508, -0.013), abs=5e-4)


def test_networks_that_agree_on_every_image_do_not_differ() -> None:
    assert mcnemar(0, 0) == 1
    estimate = paired_difference(0, 0, 100)
    assert estimate.value == 0
    assert estimate.low == -estimate.high < 0


@given(st.integers(0, 40), st.integers(0, 40))
def test_both_tests_over_images_are_symmetric(one: int, other: int) -> None:
    assert mcnemar(one, other) == pytest.approx(mcnemar(other, one))
    there, back = paired_difference(one, other, 90), paired_difference(other, one, 90)
    assert np.allclose([there.value, there.low, there.high], [-back.value, -back.high, -back.low])
    assert there.low <= there.value <= there.high
