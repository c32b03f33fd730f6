"""Skips into some of the branches only: what is planned, what it costs, and what is said of the rest."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from builders import fire_cnn, plain_cnn, residual_cnn
from hypothesis import given, settings
from hypothesis import strategies as st

from graftonnx.drawing import explain_plan
from graftonnx.fusion import fuse
from graftonnx.layouts import Layout
from graftonnx.matching import match, score_pairs
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.plan import Plan
from graftonnx.projections import Policy, project, projection_macs, projection_parameters
from graftonnx.scoring import UNWANTED
from graftonnx.taps import find_taps


@pytest.fixture(scope="module")
def parents() -> list[Network]:
    models = (residual_cnn(depth=3), plain_cnn((8, 16, 32), seed=1), fire_cnn())
    return [from_proto(model, f"{letter}.onnx") for letter, model in zip("abc", models, strict=True)]


def costs(parents: list[Network], plan: Plan) -> tuple[int, int]:
    """Return MACs and weights of all projections of a plan."""
    layouts = {
        f"{letter}/{tap.name}": tap.layout
        for letter, network in zip("abcd", parents, strict=False)
        for tap in find_taps(network)
    }
    ends = [(skip.projection, layouts[skip.source], layouts[skip.target]) for skip in plan.skips]
    return sum(projection_macs(*e) for e in ends), sum(projection_parameters(*e) for e in ends)


def receivers(plan: Plan) -> set[str]:
    return {skip.target[0] for skip in plan.skips}


@pytest.mark.parametrize("into", ["a", "b"])
def test_skips_lead_into_one_of_two_branches(parents: list[Network], into: str) -> None:
    plan = match(*parents[:2], into=(into,))
    assert receivers(plan) == {into}
    assert all(len(exchange) == 1 for exchange in plan.exchanges)
    both = match(*parents[:2])
    assert len(plan.exchanges) == len(both.exchanges)
    assert all(p[0].score >= q[0].score for p, q in zip(plan.exchanges, both.exchanges, strict=True))  # type: ignore[operator] # the matching scores all


def test_every_branch_is_the_default(parents: list[Network]) -> None:
    assert match(*parents, into=("c", "a", "b")).to_yaml() == match(*parents).to_yaml()


def test_only_what_is_wanted_is_paid_for(parents: list[Network]) -> None:
    two = parents[:2]
    plan = match(*two, into=("b",))
    whole = costs(two, plan)
    assert match(*two, into=("b",), max_macs=whole[0], max_parameters=whole[1]) == plan
    assert match(*two, max_macs=whole[0], max_parameters=whole[1]).skips != match(*two).skips
    short = match(*two, into=("b",), max_parameters=whole[1] - 1)
    assert costs(two, short)[1] < whole[1]


def test_a_rejection_names_the_cost_of_the_wanted_direction(parents: list[Network]) -> None:
    two = parents[:2]
    layouts = [{tap.name: tap.layout for tap in find_taps(network)} for network in two]
    rejections = match(*two, into=("b",), max_parameters=0).rejections
    assert rejections
    for item in rejections:
        ends = layouts[0][item.a[2:]], layouts[1][item.b[2:]]
        projection = project(*ends)
        assert not isinstance(projection, str)
        macs, weights = projection_macs(projection, *ends), projection_parameters(projection, *ends)
        assert item.reason == f"beyond the budget: {macs:,} MACs, {weights:,} parameters"


LETTERS = st.lists(st.sampled_from("abcd"), min_size=1, unique=True)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([4, 6, 8]), min_size=2, max_size=4), min_size=2, max_size=4),
    LETTERS,
    st.sampled_from([None, 0.0, 2e4, 1e5]),
    st.sampled_from([None, 60.0, 300.0]),
)
def test_what_is_asked_for_is_kept(
    widths: list[list[int]], into: list[str], macs: float | None, parameters: float | None
) -> None:
    networks = [
        from_proto(plain_cnn(row, strides=[1, 2, 1, 2][: len(row)], seed=seed), f"{seed}")
        for seed, row in enumerate(widths)
    ]
    wanted = [letter for letter in into if letter in "abcd"[: len(networks)]] or ["a"]
    plan = match(*networks, max_skips=2, policy="all", into=wanted, max_macs=macs, max_parameters=parameters)
    assert receivers(plan) <= set(wanted)
    spent = costs(networks, plan)
    assert macs is None or spent[0] <= macs
    assert parameters is None or spent[1] <= parameters
    between = [frozenset((e[0].source[0], e[0].target[0])) for e in plan.exchanges]
    assert all(between.count(pair) <= 2 for pair in between)
    if set(wanted) == set("abcd"[: len(networks)]):
        assert plan == match(*networks, max_skips=2, policy="all", max_macs=macs, max_parameters=parameters)
    fuse(*networks, plan=plan, prove=False)  # refuses a cycle


def test_a_network_that_only_gives_is_aligned_by_itself(parents: list[Network]) -> None:
    plan = match(*parents, into=("a",), max_skips=2)
    for letter, other in (("b", parents[1]), ("c", parents[2])):
        alone = match(parents[0], other, into=("a",), max_skips=2)
        found = {(s.target, s.source) for s in plan.skips if s.source.startswith(f"{letter}/")}
        assert found == {(s.target, s.source.replace("b/", f"{letter}/")) for s in alone.skips}


def test_two_networks_that_only_give_exchange_nothing(parents: list[Network]) -> None:
    plan = match(*parents, into=("a",))
    assert {skip.source[0] for skip in plan.skips} == {"b", "c"}
    between = [item for item in plan.rejections if item.a[0] == "b"]
    assert len(between) == len(find_taps(parents[1]))
    assert {(item.score, item.reason) for item in between} == {(0.0, UNWANTED)}


@pytest.mark.parametrize("into", [("a",), ("b", "c")])
def test_a_file_with_skips_in_one_direction_is_proven(parents: list[Network], into: tuple[str, ...]) -> None:
    plan = match(*parents, into=into)
    assert receivers(plan) == set(into)
    fused = fuse(*parents, plan=plan, classes=3)
    assert sum("bit for bit" in note for note in fused.notes) == 3
    paper = fuse(*parents, plan=plan, classes=3, skip_init="paper")
    assert "valid ONNX" in paper.notes


def test_a_crossing_that_closes_no_cycle_is_not_said_to_close_one() -> None:
    widths_a, widths_b = list(range(10, 22)), list(range(30, 42))
    widths_a[5] = widths_b[6] = 8
    widths_a[6] = widths_b[5] = 9
    networks = [from_proto(plain_cnn(row, strides=(1,) * 12), "x") for row in (widths_a, widths_b)]
    reasons = [item.reason for item in match(*networks, into=("a",), max_skips=1, policy="exact").rejections]
    crossing = [reason for reason in reasons if reason.startswith("crosses ")]
    assert len(crossing) == 1
    assert crossing[0].endswith(": pairs keep the order of both branches")


GRIDS = st.lists(st.integers(1, 40), min_size=1, max_size=2).map(tuple)
MAPS = st.builds(Layout, st.just("channels_first"), st.sampled_from([4, 8]), GRIDS)


@settings(max_examples=200, deadline=None)
@given(MAPS, MAPS, st.sampled_from(get_args(Policy)))
def test_two_taps_have_projections_in_both_directions_or_in_none(
    a: Layout, b: Layout, policy: Policy
) -> None:
    assert isinstance(project(a, b, policy), str) == isinstance(project(b, a, policy), str)


@pytest.mark.parametrize(
    ("into", "sentence"),
    [
        ((), r"^into \(=\(\)\) names no branch; expected some of 'a', 'b', 'c', or None for all$"),
        (("a", "d"), r"^into \(=\('a', 'd'\)\) names 'd', which is not one of 'a', 'b', 'c'$"),
        ("a,b", r"^into \(='a,b'\) names ',', which is not one of"),
        (
            ("a", "a"),
            r"^into \(=\('a', 'a'\)\) names a branch twice; name each of 'a', 'b', 'c' once at most$",
        ),
    ],
)
def test_branches_that_make_no_sense_are_refused(parents: list[Network], into: Any, sentence: str) -> None:
    for function in (match, score_pairs):
        with pytest.raises(ValueError, match=sentence):
            function(*parents, into=into)


def test_the_page_of_a_match_says_where_skips_lead(parents: list[Network], tmp_path: Any) -> None:
    plan = match(*parents, into=("a",))
    page = explain_plan(plan, *parents, into=("a",), output=tmp_path / "why.html").read_text("utf-8")
    assert page.count("Lines are skips into a.") == 2
    assert page.count("Neither receives skips.") == 1
    assert "Lines are exchanges." not in page
    scored = score_pairs(*parents, into=("a",))
    assert [scored[pair].into for pair in itertools.combinations("abc", 2)] == [
        (True, False),
        (True, False),
        (False, False),
    ]
