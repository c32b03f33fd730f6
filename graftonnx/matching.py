"""Choose which taps to exchange: score every pair, then align the orders optimally.

score(i, j) = likeness(shapes) * closeness(i, j) * ends(blocks) - cost(projections)

| factor | value |
|---|---|
| likeness | 1 for equal shapes, 0.9 for equal grids, 0.8 to 0.6 for grids up to twice as large, then less |
| closeness | 1 - |difference of relative depths|; with a calibration batch, the similarity of activations |
| ends | 1 when both taps end whole blocks, 0.9 for one of them, 0.8 when both lie inside parallel branches |
| cost | MACs of the two projections, relative to those of both networks |

Pairs that cross would close a cycle, so the plan of two networks is a non-crossing matching. The one of the
largest sum with at most K pairs is found by dynamic programming over both orders (as in sequence alignment).
More networks are aligned one after the other, each with the order that those before it have found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from graftonnx import collector
from graftonnx.alignment import Budget, Scores, align_within
from graftonnx.costs import macs
from graftonnx.errors import PlanError
from graftonnx.layouts import Layout
from graftonnx.model import Network
from graftonnx.plan import Plan, PlannedParent, Projection, Rejection, Skip
from graftonnx.shapes import downscaling
from graftonnx.taps import Tap, find_taps, trunk

NEAR = 2.0
"""Grids that differ by more than this factor are not near: little of the map would survive."""

DEFAULT_SKIPS = 6

MOST_TAPS = 1500
"""Taps of one network that take part; of more, those on the spine, evenly spread over the depth."""

Policy = Literal["exact", "near", "all"]
"""Which pairs may be exchanged: equal shapes, grids within a factor of `NEAR`, or any."""


@dataclass(frozen=True)
class Pairs:
    """Every pair of a tap of one network and a tap of another.

    Attributes:
        first: The taps of the first, in order; I of them.
        second: Of the second; J of them.
        scores: [I, J]; 0 where a pair cannot be exchanged or is not worth it.
        macs: [I, J]; multiply-accumulates of the two projections.
        parameters: [I, J]; their weights.
        kinds: [I, J]; index into `projections`.
        projections: For each kind of pair the projections into the first and into the second, or the reason
            why there are none.
    """

    first: Sequence[Tap]
    second: Sequence[Tap]
    scores: Scores
    macs: NDArray[np.int64]
    parameters: NDArray[np.int64]
    kinds: NDArray[np.intp]
    projections: Sequence[tuple[Projection, Projection] | str]


@collector.paused()
def match(
    *parents: Network,
    max_skips: int = DEFAULT_SKIPS,
    policy: Policy = "near",
    max_macs: float | None = None,
    max_parameters: float | None = None,
    similarity: Mapping[tuple[str, str], Scores] | None = None,
) -> Plan:
    """Plan the exchanges between networks.

    Args:
        *parents: Two or more; their branches are called a, b, c, ...
        max_skips: The largest number of exchanges between two parents; each is a skip in both directions.
        policy: Which pairs may be exchanged.
        max_macs: What all projections together may compute, in multiply-accumulates for one image.
        max_parameters: How many weights they may have.
        similarity: For each two branches the similarity of their taps' activations, [I, J], 0..1, in the
            order of :func:`graftonnx.taps.find_taps`; it takes the place of closeness in depth.

    Returns:
        The best plan, with a rejection for every tap of the first parents that it does not use.

    Raises:
        PlanError: If the parents do not take the same kind of input.
        ValueError: If there are fewer than two parents, a limit is negative, or there is no such policy.
    """
    if not 2 <= len(parents) <= len(ascii_lowercase):
        raise ValueError(f"{len(parents)} parents given; 2 to {len(ascii_lowercase)} can be matched")
    limits = {"max_skips": max_skips, "max_macs": max_macs, "max_parameters": max_parameters}
    for name, limit in limits.items():
        if limit is not None and not limit >= 0:
            raise ValueError(f"{name} (={limit}) must be 0 or more")
    if policy not in get_args(Policy):
        raise ValueError(f"policy (={policy!r}) is not one of {', '.join(map(repr, get_args(Policy)))}")
    branches = dict(zip(ascii_lowercase, parents, strict=False))
    size = fused_size(parents)
    taps = {branch: candidates(network) for branch, network in branches.items()}
    work = sum(macs(network.view, trunk(network)) for network in parents)
    pairs = {
        (x, y): score(taps[x], taps[y], work, policy, (similarity or {}).get((x, y)))
        for x, y in itertools.combinations(branches, 2)
    }
    budget = Budget(max_macs, max_parameters)
    chosen = _progressive(list(branches), taps, pairs, max_skips, budget)
    return Plan(
        input_size=size,
        parents={branch: planned(network) for branch, network in branches.items()},
        skips=tuple(
            skip
            for pair, both in pairs.items()
            for i, j in chosen[pair]
            for skip in _exchange(pair, both, i, j)
        ),
        rejections=tuple(
            rejection
            for pair, both in pairs.items()
            for rejection in _rejections(pair, both, chosen[pair], max_skips, budget)
        ),
    )


def candidates(network: Network) -> list[Tap]:
    """Return the taps of a network that take part in a matching, in order: all, or `MOST_TAPS` of them."""
    return find_taps(network, MOST_TAPS)


def planned(network: Network) -> PlannedParent:
    """Return what a plan records of a parent."""
    return PlannedParent(
        name=network.name,
        sha256=network.sha256,
        input_size=network.input_shape[1:],
        preprocess=network.preprocess,
    )


def fused_size(parents: Sequence[Network]) -> tuple[int, ...]:
    """Return the extents of the shared input: the largest of the parents' along each dimension.

    Raises:
        PlanError: If some take images and others signals or videos, or signals of other channels.
    """
    first, *others = parents
    for other in others:
        kinds = [(len(network.input_shape), network.input_shape[0]) for network in (first, other)]
        is_image = kinds[0][0] == kinds[1][0] == 3
        if not is_image and kinds[0] != kinds[1]:
            raise PlanError(
                f"'{first.name}' takes {list(first.input_shape)} and '{other.name}' "
                f"{list(other.input_shape)} (channels, extents): they cannot share one input. Fuse networks "
                "for the same kind of data."
            )
    extents = zip(*(parent.input_shape[1:] for parent in parents), strict=True)
    return tuple(max(column) for column in extents)


def project(source: Layout, target: Layout, policy: Policy = "near") -> Projection | str:
    """Find the projection that turns a map into one that can be added to another.

    Returns:
        The projection, or the reason in words why there is none.
    """
    if len(source.grid) != len(target.grid):
        return f"grids of different dimensions: {_spelled(source)} against {_spelled(target)}"
    ones, zeros = (1,) * len(source.grid), (0,) * 2 * len(source.grid)
    if source.shape == target.shape:
        return Projection(kind="equal", kernel=ones, stride=ones, pads=zeros)
    if policy == "exact":
        return f"shapes differ: {list(source.shape)} against {list(target.shape)}"
    if source.grid == target.grid:
        return Projection(kind="conv", kernel=ones, stride=ones, pads=zeros)
    if policy == "near" and _ratio(source, target) > NEAR:
        return f"sizes too far apart: {_spelled(source)} against {_spelled(target)}, more than {NEAR:g}x"
    windows = [downscaling(s, t) for s, t in zip(source.grid, target.grid, strict=True)]
    if None in windows:
        return Projection(kind="resize", kernel=ones, stride=ones, pads=zeros)
    kernel, stride, begin, end = zip(*(window for window in windows if window), strict=True)
    return Projection(kind="conv", kernel=kernel, stride=stride, pads=begin + end)


def _spelled(layout: Layout) -> str:
    return "x".join(map(str, layout.grid))


def _ratio(a: Layout, b: Layout) -> float:
    return max(max(s, t) / min(s, t) for s, t in zip(a.grid, b.grid, strict=True))


def projection_macs(projection: Projection, source: Layout, target: Layout) -> int:
    """Return the MACs of a projection with a Conv for one image."""
    positions = target.positions
    if projection.kind == "resize":
        positions = min(positions, source.positions)
    return projection_parameters(projection, source, target) * positions


def projection_parameters(projection: Projection, source: Layout, target: Layout) -> int:
    """Return the number of weights of a projection with a Conv."""
    return source.channels * target.channels * math.prod(projection.kernel)


def score(
    first: Sequence[Tap],
    second: Sequence[Tap],
    work: int,
    policy: Policy = "near",
    similarity: Scores | None = None,
) -> Pairs:
    """Score every pair of taps of two networks; see the module's table.

    Pairs of equal layouts share everything but their place, so each kind of pair is looked at once.

    Args:
        first: The taps of one network.
        second: Of the other.
        work: MACs of all parents.
        policy: Which pairs may be exchanged.
        similarity: [I, J], 0..1, in the place of closeness in depth.
    """
    kinds_a, index_a = _kinds(first)
    kinds_b, index_b = _kinds(second)
    likeness = np.zeros((len(kinds_a), len(kinds_b)))
    costs = np.zeros((2, *likeness.shape), np.int64)
    projections: list[tuple[Projection, Projection] | str] = []
    for (i, a), (j, b) in itertools.product(enumerate(kinds_a), enumerate(kinds_b)):
        into_a, into_b = project(b, a, policy), project(a, b, policy)
        if isinstance(into_a, str) or isinstance(into_b, str):
            projections.append(into_b if isinstance(into_b, str) else str(into_a))
            continue
        projections.append((into_a, into_b))
        likeness[i, j] = _likeness(a, b)
        costs[0, i, j] = projection_macs(into_a, b, a) + projection_macs(into_b, a, b)
        costs[1, i, j] = projection_parameters(into_a, b, a) + projection_parameters(into_b, a, b)
    place = np.ix_(index_a, index_b)
    if similarity is None:
        depths = [np.array([tap.depth for tap in taps]) for taps in (first, second)]
        similarity = 1 - np.abs(depths[0][:, None] - depths[1][None, :])
    spine = [0.1 * np.array([tap.spine for tap in taps], float) for taps in (first, second)]
    ends = 0.8 + spine[0][:, None] + spine[1][None, :]
    macs_of_pairs = costs[0][place]
    gains = likeness[place] * similarity * ends - macs_of_pairs / max(work, 1)
    kinds = (index_a * max(len(kinds_b), 1))[:, None] + index_b[None, :]
    scores = np.where(likeness[place] > 0, np.maximum(gains, 0.0), 0.0)
    return Pairs(first, second, scores, macs_of_pairs, costs[1][place], kinds, projections)


def _kinds(taps: Sequence[Tap]) -> tuple[list[Layout], NDArray[np.intp]]:
    """Return the different layouts of some taps, and for each tap the index of its own."""
    places: dict[Layout, int] = {}
    indices = [places.setdefault(tap.layout, len(places)) for tap in taps]
    return list(places), np.array(indices, np.intp)


def _likeness(a: Layout, b: Layout) -> float:
    if a.shape == b.shape:
        return 1.0
    if a.grid == b.grid:
        return 0.9
    ratio = _ratio(a, b)
    return 0.8 - 0.2 * (ratio - 1) / (NEAR - 1) if ratio <= NEAR else 0.6 * NEAR / ratio


Branches = tuple[str, str]


def _progressive(
    branches: Sequence[str],
    taps: Mapping[str, Sequence[Tap]],
    pairs: Mapping[Branches, Pairs],
    most: int,
    budget: Budget,
) -> dict[Branches, list[tuple[int, int]]]:
    """Align the networks one after the other.

    The taps of those that are aligned stand in one order of columns: taps that are exchanged share a column.
    The next network is aligned with the columns, and a tap that is put into one is exchanged with every
    member of it. Skips lead from column to column forward only, so that no cycle can close.

    Returns:
        For each two branches the pairs of taps that are exchanged.
    """
    columns: list[dict[str, int]] = [{branches[0]: index} for index in range(len(taps[branches[0]]))]
    chosen: dict[Branches, list[tuple[int, int]]] = {pair: [] for pair in pairs}
    for y in branches[1:]:
        shape = (len(columns), len(taps[y]))
        scores, costs = np.zeros(shape), np.zeros((2, *shape), np.int64)
        for row, column in enumerate(columns):
            for x, index in column.items():
                with_y = pairs[x, y]
                gains = with_y.scores[index]
                scores[row] += gains
                costs[:, row] += np.where(gains > 0, [with_y.macs[index], with_y.parameters[index]], 0)
        found = align_within(scores, most, costs[0], costs[1], budget)
        for row, j in found:
            budget = budget.less(int(costs[0, row, j]), int(costs[1, row, j]))
            for x, index in columns[row].items():
                if pairs[x, y].scores[index, j] > 0:
                    chosen[x, y].append((index, j))
        columns = _merged(columns, taps, y, found)
    return chosen


def _merged(
    columns: list[dict[str, int]], taps: Mapping[str, Sequence[Tap]], y: str, found: list[tuple[int, int]]
) -> list[dict[str, int]]:
    """Put the taps of branch `y` into the order of columns, those between two matches by their depth."""
    merged: list[dict[str, int]] = []
    row = j = 0
    for next_row, next_j in [*found, (len(columns), len(taps[y]))]:
        between = [(_depth(columns[r], taps), 0, r) for r in range(row, next_row)]
        between += [(taps[y][i].depth, 1, i) for i in range(j, next_j)]
        rising = _rising(between)
        merged += [dict(columns[index]) if side == 0 else {y: index} for _, side, index in rising]
        if next_row < len(columns):
            merged.append({**columns[next_row], y: next_j})
        row, j = next_row + 1, next_j + 1
    return merged


def _rising(items: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """Merge two sequences, each of which keeps its order, by depth."""
    sides = [[item for item in items if item[1] == side] for side in (0, 1)]
    merged: list[tuple[float, int, int]] = []
    while sides[0] and sides[1]:
        merged.append(sides[0].pop(0) if sides[0][0][0] <= sides[1][0][0] else sides[1].pop(0))
    return merged + sides[0] + sides[1]


def _depth(column: dict[str, int], taps: Mapping[str, Sequence[Tap]]) -> float:
    return max(taps[branch][index].depth for branch, index in column.items())


def _exchange(branches: Branches, pairs: Pairs, i: int, j: int) -> tuple[Skip, Skip]:
    x, y = branches
    first, second = f"{x}/{pairs.first[i].name}", f"{y}/{pairs.second[j].name}"
    into_first, into_second = pairs.projections[pairs.kinds[i, j]]
    value = round(float(pairs.scores[i, j]), 4)
    return (
        Skip(source=second, target=first, projection=into_first, score=value),
        Skip(source=first, target=second, projection=into_second, score=value),
    )


def _rejections(
    branches: Branches, pairs: Pairs, chosen: list[tuple[int, int]], most: int, budget: Budget
) -> list[Rejection]:
    """Say for every unused tap of the first network why its best partner is not exchanged with it."""
    found: list[Rejection] = []
    if not pairs.second:
        return found
    x, y = branches
    used = {i for i, _ in chosen}
    depths = np.array([tap.depth for tap in pairs.second])
    for i, tap in enumerate(pairs.first):
        if i in used:
            continue
        best = np.flatnonzero(pairs.scores[i] == pairs.scores[i].max())
        j = int(best[np.argmin(np.abs(depths[best] - tap.depth))])
        found.append(
            Rejection(
                a=f"{x}/{tap.name}",
                b=f"{y}/{pairs.second[j].name}",
                score=round(float(pairs.scores[i, j]), 4),
                reason=_reason(branches, pairs, chosen, (i, j), most, budget),
            )
        )
    return found


def _reason(
    branches: Branches,
    pairs: Pairs,
    chosen: list[tuple[int, int]],
    pair: tuple[int, int],
    most: int,
    budget: Budget,
) -> str:
    kind = pairs.projections[pairs.kinds[pair]]
    if isinstance(kind, str):
        return kind
    if pairs.scores[pair] <= 0:
        return f"not worth its cost: {pairs.macs[pair]:,} MACs"
    (x, y), (i, j) = branches, pair
    for k, m in chosen:
        a, b = f"{x}/{pairs.first[k].name}", f"{y}/{pairs.second[m].name}"
        if j == m:
            return f"'{b}' is exchanged with '{a}'"
        if (i - k) * (j - m) < 0:
            return f"crosses '{a}' - '{b}': the two would close a cycle"
    if len(chosen) < most and budget != Budget():
        return f"beyond the budget: {pairs.macs[pair]:,} MACs, {pairs.parameters[pair]:,} parameters"
    return f"not among the best {most}"
