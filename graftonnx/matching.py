"""Choose which taps to exchange: score every pair, then align the orders optimally.

Pairs that cross would close a cycle, so the plan of two networks is a non-crossing matching. The one of the
largest sum with at most K pairs is found by dynamic programming over both orders (as in sequence alignment).
More networks are aligned one after the other, each with the order that those before it have found. Networks
that only give close no cycle; each of them is aligned with every one that receives, by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_lowercase
from typing import get_args

import numpy as np

from graftonnx import collector
from graftonnx.alignment import Budget, Scores, align_within
from graftonnx.costs import price
from graftonnx.errors import PlanError
from graftonnx.metadata import InputKind
from graftonnx.network import Network
from graftonnx.plan import MOST_SKIPS, Plan, PlannedParent, Rejection, Skip
from graftonnx.projections import Policy
from graftonnx.scoring import Pairs, score
from graftonnx.spelling import did_you_mean
from graftonnx.taps import Tap, find_taps, trunk

Branches = tuple[str, str]

DEFAULT_SKIPS = 6

MOST_TAPS = 1000
"""Taps of one network that take part; of more, those on the spine, evenly spread over the depth."""


@collector.paused()
def match(
    *parents: Network,
    max_skips: int = DEFAULT_SKIPS,
    policy: Policy = "near",
    max_macs: float | None = None,
    max_parameters: float | None = None,
    similarity: Mapping[tuple[str, str], Scores] | None = None,
    inputs: InputKind = "shared",
    into: Sequence[str] | None = None,
) -> Plan:
    """Plan the exchanges between networks.

    Args:
        *parents: Two or more; their branches are called a, b, c, ...
        max_skips: The largest number of exchanges between two parents; each is a skip in both directions, or
            one skip where only one of the two receives.
        policy: Which pairs may be exchanged.
        max_macs: What all projections together may compute, in multiply-accumulates for one image.
        max_parameters: How many weights they may have.
        similarity: For each two branches the similarity of their taps' activations, [I, J], 0..1, in the
            order of :func:`graftonnx.taps.find_taps`; it takes the place of closeness in depth.
        inputs: Whether the branches shall share one input, or have one each; it does not change the rest.
        into: The branches that skips may add to, as `("a",)`; the others give and do not receive, and are
            not paid for. All of them when omitted.

    Returns:
        The best plan, with a rejection for every tap of the first parents that it does not use.

    Raises:
        PlanError: If the parents do not take the same kind of input, or are to exchange at too many places.
        ValueError: If there are fewer than two parents, a limit is negative, there is no such policy, or
            `into` names no branch, a wrong one, or one twice.
    """
    if not 2 <= len(parents) <= len(ascii_lowercase):
        raise ValueError(f"{len(parents)} parents given; 2 to {len(ascii_lowercase)} can be matched")
    limits = {"max_skips": max_skips, "max_macs": max_macs, "max_parameters": max_parameters}
    for name, limit in limits.items():
        if limit is not None and not limit >= 0:
            raise ValueError(f"{name} (={limit}) must be 0 or more")
    for name, value, choices in (("policy", policy, Policy), ("inputs", inputs, InputKind)):
        if value not in get_args(choices):
            raise ValueError(
                f"{name} (={value!r}) is not one of {', '.join(map(repr, get_args(choices)))}."
                f"{did_you_mean(value, get_args(choices))}"
            )
    branches = dict(zip(ascii_lowercase, parents, strict=False))
    receivers = _receivers(list(branches), into)
    size = fused_size(parents)
    taps = {branch: candidates(network) for branch, network in branches.items()}
    pairs = _scored(branches, taps, policy, similarity, receivers)
    budget = Budget(max_macs, max_parameters)
    chosen = _aligned(receivers, taps, pairs, max_skips, budget)
    skips = tuple(
        skip for pair, both in pairs.items() for i, j in chosen[pair] for skip in _exchange(pair, both, i, j)
    )
    if len(skips) > MOST_SKIPS:
        raise PlanError(
            f"the plan has {len(skips):,} skips; expected at most {MOST_SKIPS:,}. Lower --max-skips."
        )
    return Plan(
        input_size=size,
        inputs=inputs,
        parents={branch: planned(network) for branch, network in branches.items()},
        skips=skips,
        rejections=tuple(
            rejection
            for pair, both in pairs.items()
            for rejection in _rejections(pair, both, chosen[pair], max_skips, budget)
        ),
    )


def score_pairs(
    *parents: Network,
    policy: Policy = "near",
    similarity: Mapping[tuple[str, str], Scores] | None = None,
    into: Sequence[str] | None = None,
) -> dict[tuple[str, str], Pairs]:
    """Return for each two branches the scores of all pairs of taps.

    Args:
        *parents: As for :func:`match`.
        policy: Likewise.
        similarity: Likewise.
        into: Likewise.

    Raises:
        ValueError: If `into` names no branch, a wrong one, or one twice.
    """
    branches = dict(zip(ascii_lowercase, parents, strict=False))
    taps = {branch: candidates(network) for branch, network in branches.items()}
    return _scored(branches, taps, policy, similarity, _receivers(list(branches), into))


def _receivers(branches: Sequence[str], into: Sequence[str] | None) -> list[str]:
    """Return the branches that skips may add to, in order.

    Raises:
        ValueError: If `into` names no branch, a wrong one, or one twice.
    """
    if into is None:
        return list(branches)
    known = ", ".join(map(repr, branches))
    if not into:
        raise ValueError(f"into (={into!r}) names no branch; expected some of {known}, or None for all")
    for branch in into:
        if branch not in branches:
            raise ValueError(f"into (={into!r}) names {branch!r}, which is not one of {known}")
    if len(set(into)) < len(into):
        raise ValueError(f"into (={into!r}) names a branch twice; name each of {known} once at most")
    return [branch for branch in branches if branch in into]


def _scored(
    branches: Mapping[str, Network],
    taps: Mapping[str, Sequence[Tap]],
    policy: Policy,
    similarity: Mapping[tuple[str, str], Scores] | None,
    receivers: Sequence[str],
) -> dict[Branches, Pairs]:
    work = sum(price(network.view, trunk(network)) for network in branches.values())
    return {
        (x, y): score(
            taps[x],
            taps[y],
            work,
            policy,
            similarity=(similarity or {}).get((x, y)),
            into=(x in receivers, y in receivers),
        )
        for x, y in itertools.combinations(branches, 2)
    }


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
        preprocess_reason=network.preprocess_reason,
    )


def fused_size(parents: Sequence[Network]) -> tuple[int, ...]:
    """Return the extents of the shared input: the largest of the parents' along each dimension.

    Raises:
        PlanError: If some take images and others signals or videos, or signals of other channels, or one has
            several inputs.
    """
    for parent in parents:
        check_input(parent)
    first, *others = parents
    for other in others:
        kinds = [(len(network.input_shape), network.input_shape[0]) for network in (first, other)]
        is_image = kinds[0][0] == kinds[1][0] == 3
        if not is_image and kinds[0] != kinds[1]:
            raise PlanError(
                f"'{first.name}' takes {list(first.input_shape)} and '{other.name}' "
                f"{list(other.input_shape)} (channels, extents): that is not the same kind of data. Fuse "
                "networks for one kind."
            )
    extents = zip(*(parent.input_shape[1:] for parent in parents), strict=True)
    return tuple(max(column) for column in extents)


def check_input(parent: Network) -> None:
    """Refuse a parent with several inputs, as a fused network may have them.

    Raises:
        PlanError: If it has.
    """
    if len(parent.input_shapes) > 1:
        names = ", ".join(f"'{name}'" for name in parent.input_shapes)
        raise PlanError(
            f"'{parent.name}' has the inputs {names}; expected a parent with one. Fuse its own parents again "
            "with shared inputs."
        )


def _aligned(
    receivers: Sequence[str],
    taps: Mapping[str, Sequence[Tap]],
    pairs: Mapping[Branches, Pairs],
    most: int,
    budget: Budget,
) -> dict[Branches, list[tuple[int, int]]]:
    """Align the networks that receive with each other, then each of the others with each of them.

    Nothing leads into the others, so that no cycle can close through them, however their pairs lie.

    Returns:
        For each two branches the pairs of taps that are exchanged.
    """
    chosen, budget = _progressive(receivers, taps, pairs, most, budget)
    for pair, both in pairs.items():
        if sum(both.into) == 1:
            macs, parameters = both.costs[:, both.kinds[0][:, None], both.kinds[1]]
            found = chosen[pair] = align_within(both.scores, most, macs, parameters, budget)
            budget = budget.less(sum(int(macs[p]) for p in found), sum(int(parameters[p]) for p in found))
    return chosen


def _progressive(
    branches: Sequence[str],
    taps: Mapping[str, Sequence[Tap]],
    pairs: Mapping[Branches, Pairs],
    most: int,
    budget: Budget,
) -> tuple[dict[Branches, list[tuple[int, int]]], Budget]:
    """Align the networks one after the other.

    The taps of those that are aligned stand in one order of columns: taps that are exchanged share a column.
    The next network is aligned with the columns, and a tap that is put into one is exchanged with every
    member of it. Skips lead from column to column forward only, so that no cycle can close.

    Returns:
        For each two branches the pairs of taps that are exchanged, and what is left of the budget.
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
                if budget != Budget():
                    costs[:, row] += np.where(gains > 0, with_y.cost(index), 0)
        found = align_within(scores, most, costs[0], costs[1], budget)
        for row, j in found:
            budget = budget.less(int(costs[0, row, j]), int(costs[1, row, j]))
            for x, index in columns[row].items():
                if pairs[x, y].scores[index, j] > 0:
                    chosen[x, y].append((index, j))
        columns = _merged(columns, taps, y, found)
    return chosen, budget


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


def _exchange(branches: Branches, pairs: Pairs, i: int, j: int) -> Iterator[Skip]:
    x, y = branches
    first, second = f"{x}/{pairs.first[i].name}", f"{y}/{pairs.second[j].name}"
    into_first, into_second = pairs.projection(i, j)  # type: ignore[str-unpack] # a chosen pair has them
    value = round(float(pairs.scores[i, j]), 4)
    both = (
        Skip(source=second, target=first, projection=into_first, score=value),
        Skip(source=first, target=second, projection=into_second, score=value),
    )
    return itertools.compress(both, pairs.into)


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
    kind = pairs.projection(*pair)
    if isinstance(kind, str):
        return kind
    (x, y), (i, j) = branches, pair
    macs, parameters = pairs.costs[:, pairs.kinds[0][i], pairs.kinds[1][j]]
    if pairs.scores[pair] <= 0:
        return f"not worth its cost: {macs:,} MACs"
    for k, m in chosen:
        a, b = f"{x}/{pairs.first[k].name}", f"{y}/{pairs.second[m].name}"
        if j == m:
            return f"'{b}' is exchanged with '{a}'"
        if (i - k) * (j - m) < 0:
            cause = (
                "the two would close a cycle" if all(pairs.into) else "pairs keep the order of both branches"
            )
            return f"crosses '{a}' - '{b}': {cause}"
    if len(chosen) < most and budget != Budget():
        return f"beyond the budget: {macs:,} MACs, {parameters:,} parameters"
    return f"not among the best {most}"
