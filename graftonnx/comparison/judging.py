"""From the answers of all networks to accuracies, intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graftonnx.comparison.answers import Answers
from graftonnx.comparison.record import FUSED, Contest, ImageTest
from graftonnx.comparison.significance import Estimate, mcnemar, over_seeds, paired_difference, wilson

Table = Mapping[str, Sequence[Answers]]
"""The answers of every network by its name, one set for each seed."""


def overlap(table: Table, images: int) -> float:
    """Return the ratio by which :func:`over_seeds` corrects: 0 unless each seed draws images of its own.

    Args:
        table: The answers.
        images: What each seed draws from: all images that train or are evaluated.
    """
    evaluated = len(table[FUSED][0].images)
    return evaluated / (images - evaluated) if is_redrawn(table) else 0.0


def is_redrawn(table: Table) -> bool:
    """Return whether the seeds evaluate on different images."""
    return len({frozenset(one.images) for one in table[FUSED]}) > 1


def shares(seeds: Sequence[Answers]) -> list[float]:
    """Return a network's accuracy for each seed."""
    return [float(one.hits.mean()) for one in seeds]


def accuracy(seeds: Sequence[Answers], overlap: float) -> Estimate:
    """Return a network's mean accuracy: over seeds, or with one seed over images."""
    if len(seeds) == 1:
        return wilson(int(seeds[0].hits.sum()), len(seeds[0].hits))
    mean, _ = over_seeds(shares(seeds), overlap)
    return _within(mean, 0.0)


def better_parent(table: Table, letters: Sequence[str]) -> str:
    """Return the branch with the highest mean accuracy alone; the first among equals."""
    return max(letters, key=lambda letter: float(np.mean(shares(table[letter]))))


def contest(
    table: Table, rival: str, numbers: Sequence[int], overlap: float, *, network: str = FUSED
) -> Contest:
    """Test a fused network against another one.

    Args:
        table: The answers.
        rival: The other one's name.
        numbers: The seeds.
        overlap: As in :func:`graftonnx.comparison.significance.over_seeds`.
        network: The fused one's name.
    """
    pairs = list(zip(table[network], table[rival], strict=True))
    tests = tuple(_image_test(seed, *pair) for seed, pair in zip(numbers, pairs, strict=True))
    if len(tests) == 1:
        (test,) = tests
        difference = paired_difference(test.fused_only, test.rival_only, test.images)
        return Contest(network=network, rival=rival, difference=difference, p=test.p, by_images=tests)
    differences = [(test.fused_only - test.rival_only) / test.images for test in tests]
    difference, p = over_seeds(differences, overlap)
    difference = _within(difference, -1.0)
    return Contest(network=network, rival=rival, difference=difference, p=p, by_images=tests)


def _within(estimate: Estimate, least: float) -> Estimate:
    """Return an estimate whose interval lies between `least` and 1."""
    return Estimate(value=estimate.value, low=max(estimate.low, least), high=min(estimate.high, 1.0))


def _image_test(seed: int, fused: Answers, rival: Answers) -> ImageTest:
    fused_only, rival_only = (int((a.hits & ~b.hits).sum()) for a, b in ((fused, rival), (rival, fused)))
    return ImageTest(
        seed=seed,
        images=len(fused.hits),
        fused_only=fused_only,
        rival_only=rival_only,
        p=mcnemar(fused_only, rival_only),
    )
