from __future__ import annotations

from typing import Any

import pytest
from builders import fire_cnn, grid_cnn, plain_cnn, residual_cnn
from hypothesis import given, settings
from hypothesis import strategies as st

from graftonnx.errors import PlanError
from graftonnx.fusion import fuse
from graftonnx.layouts import Layout
from graftonnx.matching import match
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.plan import Plan, Projection
from graftonnx.projections import project, projection_macs, projection_parameters
from graftonnx.taps import find_taps


def maps(channels: int, *grid: int) -> Layout:
    return Layout("channels_first", channels, grid)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((8, 14, 14), (8, 14, 14), Projection(kind="equal")),
        ((8, 14, 14), (16, 14, 14), Projection(kind="conv")),
        ((8, 28, 28), (16, 14, 14), Projection(kind="pool", kernel=(2, 2), stride=(2, 2))),
        ((8, 56, 28), (8, 55, 14), Projection(kind="pool", kernel=(2, 2), stride=(1, 2))),
        ((8, 55, 14), (8, 56, 14), Projection(kind="conv", pads=(0, 0, 1, 0))),
        ((8, 55, 14), (8, 56, 13), Projection(kind="resize")),
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


def test_the_policy_says_which_shapes_may_differ() -> None:
    small, large = maps(8, 7, 7), maps(8, 28, 28)
    assert isinstance(project(small, large, "near"), str)
    assert project(small, large, "all") == Projection(kind="resize")
    assert project(large, small, "all") == Projection(kind="pool", kernel=(4, 4), stride=(4, 4))
    assert project(small, maps(9, 7, 7), "exact") == "shapes differ: [8, 7, 7] against [9, 7, 7]"
    assert project(small, small, "exact") == Projection(kind="equal")


def test_grids_of_other_dimensions_are_rejected_in_words() -> None:
    line = Layout("tokens", 8, (49,))
    assert project(line, maps(8, 7, 7)) == "grids of different dimensions: 49 against 7x7"


def test_only_equal_shapes_are_exchanged_under_the_exact_policy(twins: tuple[Network, Network]) -> None:
    other = from_proto(plain_cnn((8, 12)), "c")
    assert {s.projection.kind for s in match(twins[0], other, policy="exact").skips} == {"equal"}
    assert {s.projection.kind for s in match(*twins, policy="exact").skips} == {"equal"}


def cost(a: Network, b: Network, plan: Plan) -> tuple[int, int]:
    """Return MACs and parameters of all projections of a plan."""
    taps = {
        f"{x}/{tap.name}": tap.layout for x, network in (("a", a), ("b", b)) for tap in find_taps(network)
    }
    ends = [(skip.projection, taps[skip.source], taps[skip.target]) for skip in plan.skips]
    return sum(projection_macs(*e) for e in ends), sum(projection_parameters(*e) for e in ends)


def test_a_budget_is_kept_and_used(twins: tuple[Network, Network]) -> None:
    whole = cost(*twins, match(*twins))
    for share in (0.9, 0.5, 0.1, 0):
        limits = [share * amount for amount in whole]
        for kept in (match(*twins, max_macs=limits[0]), match(*twins, max_parameters=limits[1])):
            assert (len(kept.skips) > 0) == (share > 0.1)
            assert all(c <= limit for c, limit in zip(cost(*twins, kept), limits, strict=True))
    short = match(*twins, max_macs=0.5 * whole[0])
    assert any(item.reason.startswith("beyond the budget: ") for item in short.rejections)


def test_three_networks_exchange_among_all_of_them() -> None:
    parents = [from_proto(residual_cnn(depth=2, seed=seed), name) for seed, name in enumerate("abc")]
    plan = match(*parents, max_skips=2)
    branches = {frozenset((s.source[0], s.target[0])) for s in plan.skips}
    assert branches == {frozenset("ab"), frozenset("ac"), frozenset("bc")}
    for pair in branches:
        between = [e for e in plan.exchanges if {s.source[0] for s in e} == pair]
        assert len(between) == 2
    fused = fuse(*parents, plan=plan)
    assert [note for note in fused.notes if "bit for bit" in note] == [
        f"branch {x} equals {x} as it was loaded, bit for bit" for x in "abc"
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([4, 6, 8]), min_size=2, max_size=5), min_size=3, max_size=4))
def test_any_number_of_networks_never_closes_a_cycle(widths: list[list[int]]) -> None:
    parents = [
        from_proto(plain_cnn(row, strides=[1, 2, 1, 2, 1][: len(row)], seed=seed), f"{seed}")
        for seed, row in enumerate(widths)
    ]
    plan = match(*parents, max_skips=3, policy="all")
    fuse(*parents, plan=plan, prove=False)  # refuses a cycle


def test_networks_for_other_kinds_of_data_are_refused() -> None:
    sound, image = from_proto(grid_cnn((24,)), "sound"), from_proto(plain_cnn(), "image")
    with pytest.raises(PlanError, match=r"^'sound' takes \[2, 24\] and 'image' \[3, 16, 16\]"):
        match(sound, image)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_skips": -1}, r"max_skips \(=-1\) must be 0 or more"),
        ({"max_macs": -1.0}, r"max_macs \(=-1.0\) must be 0 or more"),
        ({"max_parameters": float("nan")}, r"max_parameters \(=nan\) must be 0 or more"),
        ({"policy": "most"}, r"policy \(='most'\) is not one of 'exact', 'near', 'all'"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    twins: tuple[Network, Network], arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        match(*twins, **arguments)
