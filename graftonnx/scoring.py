"""How well two taps suit an exchange, and what it would take.

gain(i, j) = likeness(shapes) * closeness(i, j) * ends(blocks)
score(i, j) = gain - cost(projections); gain^2 / (4 cost), which stays above 0, where cost > gain / 2

| factor | value |
|---|---|
| likeness | 1 for equal shapes, 0.9 for equal grids, 0.8 to 0.6 for grids up to twice as large, then less |
| closeness | 1 - |difference of relative depths|; with a calibration batch, the similarity of activations |
| ends | 1 when both taps end whole blocks, 0.9 for one of them, 0.8 when both lie inside parallel branches |
| cost | `DEAR` times the time of the two projections, relative to that of both networks, both in MACs |

A pair whose MACs alone, relative to the time of the networks, exceed its gain is not worth it. Where only one
of the two networks receives, its projection alone is paid for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftonnx.alignment import Scores
from graftonnx.layouts import Layout
from graftonnx.plan import Projection
from graftonnx.projections import (
    NEAR,
    Policy,
    project,
    projection_macs,
    projection_parameters,
    projection_price,
    ratio,
)
from graftonnx.taps import Tap

DEAR = 5
"""A projection that takes a fifth of the networks' time is not worth the best of gains.

Six exchanges of the four pairs in `tools/bench/export.py` take 4 to 10 % of the MACs at one, 2 to 4 % at
five, and little less at twenty.
"""


UNWANTED = "neither branch receives skips"
"""The reason against pairs of two networks that both only give."""


@dataclass(frozen=True)
class Pairs:
    """Every pair of a tap of one network and a tap of another.

    Attributes:
        first: The taps of the first, in order; I of them.
        second: Of the second; J of them.
        scores: [I, J]; 0 where a pair cannot be exchanged or is not worth it.
        kinds: [I] and [J]; the number of each tap's layout, among the K and L different ones.
        costs: [2, K, L]; multiply-accumulates and weights of the wanted projections between such layouts.
        projections: K x L; the projections into the first and into the second, wanted or not, or the reason
            why there are none.
        into: Whether the first and the second receive: which projections are wanted.
    """

    first: Sequence[Tap]
    second: Sequence[Tap]
    scores: Scores
    kinds: tuple[NDArray[np.intp], NDArray[np.intp]]
    costs: NDArray[np.int64]
    projections: Sequence[Sequence[tuple[Projection, Projection] | str]]
    into: tuple[bool, bool] = (True, True)

    def projection(self, i: int, j: int) -> tuple[Projection, Projection] | str:
        """Return the projections of a pair, or the reason why there are none."""
        return self.projections[int(self.kinds[0][i])][int(self.kinds[1][j])]

    def cost(self, i: int) -> NDArray[np.int64]:
        """Return [2, J]: what every pair with a tap of the first network costs; see `costs`."""
        return self.costs[:, self.kinds[0][i], self.kinds[1]]


def score(
    first: Sequence[Tap],
    second: Sequence[Tap],
    work: int,
    policy: Policy = "near",
    similarity: Scores | None = None,
    into: tuple[bool, bool] = (True, True),
) -> Pairs:
    """Score every pair of taps of two networks; see the module's table.

    Pairs of equal layouts share everything but their place, so each kind of pair is looked at once. Two taps
    have projections in both directions or in none, so one direction alone makes no other pairs possible.

    Args:
        first: The taps of one network.
        second: Of the other.
        work: Time that all parents take; see :func:`graftonnx.costs.price`.
        policy: Which pairs may be exchanged.
        similarity: [I, J], 0..1, in the place of closeness in depth.
        into: Whether the first and the second network receive.
    """
    kinds_a, index_a = _kinds(first)
    kinds_b, index_b = _kinds(second)
    likeness = np.zeros((len(kinds_a), len(kinds_b)))
    macs, parameters, prices = amounts = np.zeros((3, *likeness.shape), np.int64)
    projections: list[list[tuple[Projection, Projection] | str]] = [[] for _ in kinds_a]
    for (i, a), (j, b) in itertools.product(enumerate(kinds_a), enumerate(kinds_b)):
        if not any(into):
            projections[i].append(UNWANTED)
            continue
        into_a, into_b = project(b, a, policy), project(a, b, policy)
        if isinstance(into_a, str) or isinstance(into_b, str):
            projections[i].append(into_b if isinstance(into_b, str) else str(into_a))
            continue
        projections[i].append((into_a, into_b))
        likeness[i, j] = _likeness(a, b)
        wanted = tuple(itertools.compress(((into_a, b, a), (into_b, a, b)), into))
        macs[i, j] = sum(projection_macs(*ends) for ends in wanted)
        parameters[i, j] = sum(projection_parameters(*ends) for ends in wanted)
        prices[i, j] = sum(projection_price(*ends) for ends in wanted)
    likeness, cost, least = (
        table[:, index_b] for table in (likeness, DEAR * prices / max(work, 1), macs / max(work, 1))
    )
    depths = [np.array([tap.depth for tap in taps]) for taps in (first, second)]
    spine = [0.1 * np.array([tap.spine for tap in taps], float) for taps in (first, second)]
    scores = np.empty((len(first), len(second)))
    for i, kind in enumerate(index_a):  # row by row: whole matrices at every step take much more time
        alike = 1 - np.abs(depths[0][i] - depths[1]) if similarity is None else similarity[i]
        gains = likeness[kind] * alike * (0.8 + spine[0][i] + spine[1])
        scores[i] = _worth(gains, cost[kind], least[kind])
    return Pairs(first, second, scores, (index_a, index_b), amounts[:2], projections, into)


def _worth(gains: Scores, cost: Scores, least: Scores) -> Scores:
    """Return the scores of pairs; see the module's table. `least` is the cost of their MACs alone."""
    discounted = np.where(2 * cost <= gains, gains - cost, gains**2 / np.maximum(4 * cost, 1e-30))
    return np.where(gains > least, discounted, 0.0)


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
    times = ratio(a, b)
    return 0.8 - 0.2 * (times - 1) / (NEAR - 1) if times <= NEAR else 0.6 * NEAR / times
