"""How well two taps suit an exchange, and what it would take.

score(i, j) = likeness(shapes) * closeness(i, j) * ends(blocks) - cost(projections)

| factor | value |
|---|---|
| likeness | 1 for equal shapes, 0.9 for equal grids, 0.8 to 0.6 for grids up to twice as large, then less |
| closeness | 1 - |difference of relative depths|; with a calibration batch, the similarity of activations |
| ends | 1 when both taps end whole blocks, 0.9 for one of them, 0.8 when both lie inside parallel branches |
| cost | MACs of the two projections, relative to those of both networks |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftonnx.alignment import Scores
from graftonnx.layouts import Layout
from graftonnx.plan import Projection
from graftonnx.shapes import downscaling
from graftonnx.taps import Tap

NEAR = 2.0
"""Grids that differ by more than this factor are not near: little of the map would survive."""

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
