from __future__ import annotations

import itertools

import numpy as np
import pytest
from builders import fire_cnn, plain_cnn, residual_cnn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from graftonnx.alignment import align
from graftonnx.layouts import Layout
from graftonnx.matching import match, project
from graftonnx.model import Network, from_proto
from graftonnx.plan import Projection


def maps(channels: int, *grid: int) -> Layout:
    return Layout("channels_first", channels, grid)


def brute_force(scores: np.ndarray, most: int) -> float:
    rows, columns = scores.shape
    pairs = [(i, j) for i in range(rows) for j in range(columns) if scores[i, j] > 0]
    best = 0.0
    for count in range(1, most + 1):
        for chosen in itertools.combinations(pairs, count):
            if all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(chosen)):
                best = max(best, sum(scores[pair] for pair in chosen))
    return best


@settings(max_examples=300, deadline=None)
@given(
    st_np.arrays(
        float, st.tuples(st.integers(0, 5), st.integers(0, 5)), elements=st.floats(-0.5, 1, allow_nan=False)
    ),
    st.integers(0, 4),
)
def test_an_alignment_is_non_crossing_and_as_good_as_brute_force(scores: np.ndarray, most: int) -> None:
    pairs = align(scores, most)
    assert len(pairs) <= most
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    assert all(scores[pair] > 0 for pair in pairs)
    assert sum(scores[pair] for pair in pairs) == pytest.approx(brute_force(scores, most))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((8, 14, 14), (8, 14, 14), Projection(kind="equal")),
        ((8, 14, 14), (16, 14, 14), Projection(kind="conv")),
        ((8, 28, 28), (16, 14, 14), Projection(kind="conv", kernel=(2, 2), stride=(2, 2))),
        ((8, 14, 14), (16, 28, 28), Projection(kind="resize")),
        ((8, 35, 35), (8, 28, 28), Projection(kind="resize")),
        ((8, 8, 4), (8, 4, 8), Projection(kind="resize")),
    ],
)
def test_a_projection_is_as_simple_as_the_shapes_allow(
    source: tuple[int, int, int], target: tuple[int, int, int], expected: Projection
) -> None:
    assert project(maps(*source), maps(*target)) == expected


def test_maps_more_than_twice_apart_are_rejected_in_words() -> None:
    assert project(maps(8, 28, 28), maps(8, 7, 7)) == "sizes too far apart: 28x28 against 7x7, more than 2x"


@pytest.fixture
def twins() -> tuple[Network, Network]:
    return from_proto(residual_cnn(depth=3), "a"), from_proto(residual_cnn(depth=3, seed=1), "b")


def test_equal_networks_exchange_their_equal_blocks(twins: tuple[Network, Network]) -> None:
    plan = match(*twins, max_skips=3)
    pairs = [(skip.source, skip.target) for skip in plan.skips]
    assert len(plan.exchanges) == 3
    assert all(source.split("/")[1] == target.split("/")[1] for source, target in pairs)
    assert all(skip.projection.kind == "equal" for skip in plan.skips)


def test_both_directions_of_every_exchange_are_planned(twins: tuple[Network, Network]) -> None:
    skips = {(skip.source, skip.target) for skip in match(*twins).skips}
    assert skips == {(target, source) for source, target in skips}


def test_the_feature_is_never_exchanged(twins: tuple[Network, Network]) -> None:
    named = {skip.source for skip in match(*twins, max_skips=99).skips}
    assert f"a/{twins[0].head.feature}" not in named
    assert len(named) == 12  # both networks: the stem, three inner blocks, two of three block ends


def test_no_skips_are_planned_when_none_are_wanted(twins: tuple[Network, Network]) -> None:
    assert match(*twins, max_skips=0).skips == ()


def test_every_unused_tap_has_a_reason(twins: tuple[Network, Network]) -> None:
    plan = match(*twins, max_skips=1)
    assert len(plan.rejections) == 5
    reasons = {item.reason for item in plan.rejections}
    assert "not among the best 1" in reasons


def test_a_tap_whose_best_partner_would_cross_the_plan_says_so() -> None:
    widths_a, widths_b = list(range(10, 22)), list(range(30, 42))
    widths_a[5] = widths_b[6] = 8
    widths_a[6] = widths_b[5] = 9
    flat = (1,) * 12
    a, b = (
        from_proto(plain_cnn(widths_a, strides=flat), "a"),
        from_proto(plain_cnn(widths_b, strides=flat), "b"),
    )
    plan = match(a, b, max_skips=1)
    taken = {skip.target for skip in plan.skips}
    crossing = {"a/r5": ("b/r6", "a/r6"), "a/r6": ("b/r5", "a/r5")}
    (used,) = taken & set(crossing)
    partner, other = crossing[used]
    reasons = {item.a: item.reason for item in plan.rejections}
    assert reasons[other] == f"crosses '{used}' - '{partner}': the two would close a cycle"


def test_a_plan_does_not_depend_on_the_order_of_nodes_in_the_file() -> None:
    other = from_proto(plain_cnn((8, 8, 16)), "b")
    expected = match(from_proto(fire_cnn(), "a"), other)
    assert expected.skips
    assert match(from_proto(fire_cnn(swapped=True), "a"), other) == expected


@pytest.mark.parametrize("opset", [9, 11, 15, 18])
def test_a_plan_does_not_depend_on_the_opset_of_the_file(opset: int) -> None:
    other = from_proto(residual_cnn(), "b")
    expected = match(from_proto(plain_cnn(opset=13), "a"), other)
    assert match(from_proto(plain_cnn(opset=opset), "a"), other) == expected
