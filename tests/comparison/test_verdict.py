"""The sentence at the end, in every case."""

from __future__ import annotations

import pytest

from graftonnx.comparison.record import Contest
from graftonnx.comparison.significance import Estimate
from graftonnx.comparison.verdict import outcome, spelled, verdict

NAMES = {"b": "branch b alone", "average": "the average", "concatenated": "the features without skips"}


def contest(rival: str, points: float, p: float | None) -> Contest:
    value = points / 100
    half = 0.0 if p is None else 0.01
    difference = Estimate(value=value, low=value - half, high=value + half)
    return Contest(rival=rival, difference=difference, p=p, by_images=())


def sentence(
    skips: tuple[float, float | None], parent: tuple[float, float], mean: tuple[float, float]
) -> str:
    return verdict([contest("b", *parent), contest("average", *mean), contest("concatenated", *skips)], NAMES)


def test_skips_and_fusion_helped() -> None:
    assert sentence((1.5, 0.03), (2.0, 0.0001), (1.75, 0.012)) == (
        "The skips helped here: +1.50 points against the features without skips (95 % interval +0.50 to "
        "+2.50, p = 0.03); the fused network beats branch b alone (+2.00 points, 95 % interval +1.00 to "
        "+3.00, p < 0.001) and beats the average (+1.75 points, 95 % interval +0.75 to +2.75, p = 0.012)."
    )


def test_skips_did_not_help_and_fusion_is_not_shown_to() -> None:
    found = sentence((0.5, 0.31), (0.25, 0.05), (-1.5, 0.04))
    assert found.startswith("The skips did not help here: +0.50 points against the features without skips (")
    assert "is not shown to beat branch b alone (+0.25 points" in found
    assert "and loses to the average (-1.50 points" in found


def test_skips_hurt() -> None:
    assert sentence((-2.0, 0.01), (0, 1), (0, 1)).startswith("The skips hurt here: -2.00 points against ")


def test_equal_differences_are_no_proof() -> None:
    found = sentence((0.5, None), (0, 1), (0, 1))
    assert found.startswith(
        "The skips did not help here: +0.50 points against the features without skips (the same for every "
        "seed: no interval, no p); "
    )


@pytest.mark.parametrize(
    ("points", "p", "expected"),
    [(1, 0.049, "better"), (1, 0.05, "open"), (-1, 0.049, "worse"), (-1, 0.2, "open"), (1, None, "open")],
)
def test_outcomes(points: float, p: float | None, expected: str) -> None:
    assert outcome(contest("b", points, p)) == expected


@pytest.mark.parametrize(
    ("p", "expected"), [(0.04321, "p = 0.043"), (1.0, "p = 1"), (0.0009, "p < 0.001"), (0.001, "p = 0.001")]
)
def test_p_is_short(p: float, expected: str) -> None:
    assert spelled(p) == expected
