"""Choose which taps to exchange: score every pair, then align the two orders optimally.

score(i, j) = likeness(shapes) * closeness(depths) * ends(blocks) - cost(projections)

| factor | value |
|---|---|
| likeness | 1 for equal shapes, 0.9 for equal height and width, 0.6 to 0.8 for sizes within a factor of two |
| closeness | 1 - |difference of relative depths| |
| ends | 1 when both taps end whole blocks, 0.9 for one of them, 0.8 when both lie inside parallel branches |
| cost | MACs of the two projections, relative to those of both networks |

Pairs that cross would close a cycle, so the plan is a non-crossing matching. The one of the largest sum with
at most K pairs is found by dynamic programming over both orders (as in sequence alignment).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from graftonnx import collector
from graftonnx.costs import macs
from graftonnx.model import Network
from graftonnx.plan import Plan, PlannedParent, Projection, Rejection, Skip
from graftonnx.scores import best_pairs
from graftonnx.shapes import downscaling
from graftonnx.taps import Tap, find_taps, trunk

NEAR = 2.0
"""Sizes that differ by more than this factor are not near: nothing of the map would survive."""

DEFAULT_SKIPS = 6

TABLE = 40_000
"""Pairs up to which all are scored; beyond, only those that can be in the best plan."""

Shape3: TypeAlias = tuple[int, int, int]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A pair of taps that could be exchanged, with what it would take in each direction."""

    a: Tap
    b: Tap
    into_a: Projection
    into_b: Projection
    score: float


@collector.paused()
def match(a: Network, b: Network, *, max_skips: int = DEFAULT_SKIPS) -> Plan:
    """Plan the exchanges between two networks.

    Args:
        a: The first parent; its branch is called `a`.
        b: The second, `b`.
        max_skips: The largest number of exchanges, each of which is a skip in both directions; 0 for none.

    Returns:
        The best plan, with a rejection for every tap of `a` that it does not use.
    """
    taps_a, taps_b = find_taps(a), find_taps(b)
    work = macs(a.view, trunk(a)) + macs(b.view, trunk(b))
    if len(taps_a) * len(taps_b) > TABLE:
        return _plan_of_many(a, b, taps_a, taps_b, max(work, 1), max_skips)
    candidates, reasons = _candidates(taps_a, taps_b, max(work, 1))
    scores = np.zeros((len(taps_a), len(taps_b)))
    for (i, j), candidate in candidates.items():
        scores[i, j] = candidate.score
    chosen = align(scores, max_skips)
    skips = [skip for i, j in chosen for skip in _exchange(candidates[i, j])]
    return Plan(
        input_size=fused_size([a, b]),
        parents={branch: planned(network) for branch, network in (("a", a), ("b", b))},
        skips=tuple(skips),
        rejections=tuple(_rejections(taps_a, taps_b, scores, reasons, chosen, max_skips)),
    )


def _plan_of_many(a: Network, b: Network, taps_a: list[Tap], taps_b: list[Tap], work: int, most: int) -> Plan:
    """Plan as :func:`match` does, without a table of all pairs, and without rejections."""

    def rating(one: tuple[Shape3, bool], other: tuple[Shape3, bool]) -> tuple[float, float] | None:
        tap, mate = (Tap("", "", shape, (1, 1), 0, spine, 0) for shape, spine in (one, other))
        found = _candidates([tap], [mate], work)[0].get((0, 0))
        weight = _likeness(tap, mate) * _ends(tap, mate)
        return None if found is None else (weight, weight - found.score)

    ones, others = ([((tap.shape, tap.spine), tap.depth) for tap in taps] for taps in (taps_a, taps_b))
    chosen = best_pairs(ones, others, rating, most)
    pairs = [_candidates([taps_a[i]], [taps_b[j]], work)[0][0, 0] for i, j in chosen]
    return Plan(
        input_size=fused_size([a, b]),
        parents={branch: planned(network) for branch, network in (("a", a), ("b", b))},
        skips=tuple(skip for pair in pairs for skip in _exchange(pair)),
        rejections=(),
    )


def planned(network: Network) -> PlannedParent:
    """Return what a plan records of a parent."""
    return PlannedParent(
        name=network.name,
        sha256=network.sha256,
        input_size=network.input_shape[1:],
        preprocess=network.preprocess,
    )


def fused_size(parents: list[Network]) -> tuple[int, int]:
    """Return height and width of the shared image: the largest of the parents'."""
    sizes = [parent.input_shape[1:] for parent in parents]
    return max(size[0] for size in sizes), max(size[1] for size in sizes)


def project(source: tuple[int, int, int], target: tuple[int, int, int]) -> Projection | str:
    """Find the projection that turns a map of shape `source` (C, H, W) into one of shape `target`.

    Returns:
        The projection, or the reason in words why there is none.
    """
    if source == target:
        return Projection(kind="equal")
    if source[1:] == target[1:]:
        return Projection(kind="conv")
    ratio = max(max(s, t) / min(s, t) for s, t in zip(source[1:], target[1:], strict=True))
    if ratio > NEAR:
        sizes = f"{source[1]}x{source[2]} against {target[1]}x{target[2]}"
        return f"sizes too far apart: {sizes}, more than {NEAR:g}x"
    vertical, horizontal = downscaling(source[1], target[1]), downscaling(source[2], target[2])
    if vertical is None or horizontal is None:
        return Projection(kind="resize")
    kernel_h, stride_h, top, bottom = vertical
    kernel_w, stride_w, left, right = horizontal
    return Projection(
        kind="conv",
        kernel=(kernel_h, kernel_w),
        stride=(stride_h, stride_w),
        pads=(top, left, bottom, right),
    )


def projection_macs(
    projection: Projection, source: tuple[int, int, int], target: tuple[int, int, int]
) -> int:
    """Return the MACs of a projection with a Conv for one image."""
    positions = math.prod(target[1:])
    if projection.kind == "resize":
        positions = min(positions, math.prod(source[1:]))
    return source[0] * target[0] * math.prod(projection.kernel) * positions


def align(scores: Scores, most: int) -> list[tuple[int, int]]:
    """Return the non-crossing pairs (i, j) of the largest summed score, at most `most` of them.

    `best[i, j, k]` is the largest sum over rows < i and columns < j with k pairs. Each row is computed at
    once. Ties go to later pairs; equal input gives equal output.

    Args:
        scores: [I, J]; pairs with a score <= 0 are never taken.
        most: The largest number of pairs.
    """
    rows, columns = scores.shape
    most = max(min(most, rows, columns), 0)
    if most == 0:
        return []
    impossible = -np.inf
    best = np.full((rows + 1, columns + 1, most + 1), impossible)
    best[:, :, 0] = 0.0
    gains = np.where(scores > 0, scores, impossible)
    for i in range(1, rows + 1):
        taken = best[i - 1, :-1, :-1] + gains[i - 1][:, None]
        best[i, 1:, 1:] = np.maximum(best[i - 1, 1:, 1:], taken)
        best[i, :, 1:] = np.maximum.accumulate(best[i, :, 1:], axis=0)
    pairs: list[tuple[int, int]] = []
    i, j, k = rows, columns, int(np.argmax(best[rows, columns]))
    while k > 0:
        if best[i - 1, j, k] == best[i, j, k]:
            i -= 1
        elif best[i, j - 1, k] == best[i, j, k]:
            j -= 1
        else:
            i, j, k = i - 1, j - 1, k - 1
            pairs.append((i, j))
    return pairs[::-1]


def _candidates(
    taps_a: list[Tap], taps_b: list[Tap], work: int
) -> tuple[dict[tuple[int, int], Candidate], dict[tuple[int, int], str]]:
    """Score every pair; a pair that cannot be exchanged gets a reason instead."""
    candidates: dict[tuple[int, int], Candidate] = {}
    reasons: dict[tuple[int, int], str] = {}
    for i, a in enumerate(taps_a):
        for j, b in enumerate(taps_b):
            into_a, into_b = project(b.shape, a.shape), project(a.shape, b.shape)
            if isinstance(into_a, str) or isinstance(into_b, str):
                reasons[i, j] = into_b if isinstance(into_b, str) else str(into_a)
                continue
            cost = projection_macs(into_a, b.shape, a.shape) + projection_macs(into_b, a.shape, b.shape)
            score = _likeness(a, b) * (1 - abs(a.depth - b.depth)) * _ends(a, b) - cost / work
            if score <= 0:
                reasons[i, j] = f"not worth its cost: {cost / work:.0%} of both networks' MACs"
                continue
            candidates[i, j] = Candidate(a, b, into_a, into_b, score)
    return candidates, reasons


def _likeness(a: Tap, b: Tap) -> float:
    if a.shape == b.shape:
        return 1.0
    if a.shape[1:] == b.shape[1:]:
        return 0.9
    ratio = max(max(s, t) / min(s, t) for s, t in zip(a.shape[1:], b.shape[1:], strict=True))
    return 0.8 - 0.2 * (ratio - 1) / (NEAR - 1)


def _ends(a: Tap, b: Tap) -> float:
    return 0.8 + 0.1 * a.spine + 0.1 * b.spine


def _exchange(candidate: Candidate) -> tuple[Skip, Skip]:
    a, b, score = f"a/{candidate.a.name}", f"b/{candidate.b.name}", round(candidate.score, 4)
    return (
        Skip(source=b, target=a, projection=candidate.into_a, score=score),
        Skip(source=a, target=b, projection=candidate.into_b, score=score),
    )


def _rejections(
    taps_a: list[Tap],
    taps_b: list[Tap],
    scores: Scores,
    reasons: dict[tuple[int, int], str],
    chosen: list[tuple[int, int]],
    most: int,
) -> list[Rejection]:
    """Say for every unused tap of `a` why its best partner is not exchanged with it."""
    found: list[Rejection] = []
    if not taps_b:
        return found
    used = {i for i, _ in chosen}
    for i, tap in enumerate(taps_a):
        if i in used:
            continue
        closeness = [-abs(tap.depth - other.depth) for other in taps_b]
        j = int(np.lexsort((closeness, scores[i]))[-1])
        reason = reasons.get((i, j)) or _reason(i, j, chosen, taps_a, taps_b, most)
        found.append(
            Rejection(
                a=f"a/{tap.name}", b=f"b/{taps_b[j].name}", score=round(float(scores[i, j]), 4), reason=reason
            )
        )
    return found


def _reason(
    i: int, j: int, chosen: list[tuple[int, int]], taps_a: list[Tap], taps_b: list[Tap], most: int
) -> str:
    for k, m in chosen:
        if j == m:
            return f"'b/{taps_b[j].name}' is exchanged with 'a/{taps_a[k].name}'"
        if (i - k) * (j - m) < 0:
            return f"crosses 'a/{taps_a[k].name}' - 'b/{taps_b[m].name}': the two would close a cycle"
    return f"not among the best {most}"
