"""What a few runs, or the images of one run, can say about accuracies and their differences.

Over seeds: Student's t. Where every seed draws validation images of its own, training sets overlap, the
accuracies are not independent and their spread is too small; the variance is then corrected by the ratio of
evaluated images to those that can train (Nadeau and Bengio, "Inference for the generalization error",
Machine Learning 52, 2003).

Over images: Wilson's interval for an accuracy; for two networks on the same images McNemar's exact test
(Psychometrika 12, 1947; recommended for one run by Dietterich, Neural Computation 10, 1998) and the interval
of Bonett and Price (J. Educational and Behavioral Statistics 37, 2012). These hold for the trained networks
at hand; hits of several seeds are never pooled, because seeds share images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from graftonnx.metadata import Record

CONFIDENCE = 0.95


class Estimate(Record):
    """A number, and an interval that covers it with a probability of 95 %."""

    value: float
    low: float
    high: float


def over_seeds(values: Sequence[float], overlap: float = 0.0) -> tuple[Estimate, float | None]:
    """Return the mean of at least two values with Student's interval, and the p of the mean being 0.

    Args:
        values: One for each seed: accuracies, or differences of two networks' accuracies.
        overlap: Evaluated images by those left to train where each seed draws its own, else 0.

    Returns:
        The estimate and the two-sided p. Values without any spread give an interval without width, and p is 1
        if all are 0, else None: there is nothing to compare the mean with.
    """
    mean, count = float(np.mean(values)), len(values)
    if np.ptp(values) == 0:
        return Estimate(value=values[0], low=values[0], high=values[0]), None if values[0] else 1.0
    error = math.sqrt((1 / count + overlap) * float(np.var(values, ddof=1)))
    t = stats.t(count - 1)
    half = float(t.ppf((1 + CONFIDENCE) / 2)) * error
    return Estimate(value=mean, low=mean - half, high=mean + half), float(2 * t.sf(abs(mean) / error))


def wilson(hits: int, images: int) -> Estimate:
    """Return the share of hits with Wilson's interval."""
    interval = stats.binomtest(hits, images).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(value=hits / images, low=float(interval.low), high=float(interval.high))


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p of McNemar's exact test.

    Args:
        first_only: Images that the first network gets right and the second does not.
        second_only: The other way round.
    """
    discordant = first_only + second_only
    return float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0


def paired_difference(first_only: int, second_only: int, images: int) -> Estimate:
    """Return the difference of two accuracies on the same images with Bonett and Price's interval.

    Args:
        first_only: Images that the first network gets right and the second does not.
        second_only: The other way round.
        images: All images.
    """
    first, second = (first_only + 1) / (images + 2), (second_only + 1) / (images + 2)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(
        (first + second - (first - second) ** 2) / (images + 2)
    )
    value = (first_only - second_only) / images
    return Estimate(value=value, low=max(first - second - half, -1.0), high=min(first - second + half, 1.0))
