"""How good and how fast the networks of a bundle are, on this machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from graftonnx.classifier import Classifier
from graftonnx.images import Pixels

WARM_UP = 5
ROUNDS = 100
BUDGET = 10.0
"""Rounds in which every network runs once, and the seconds after which no other round begins."""


def latencies(classifiers: Mapping[str, Classifier], images: Pixels) -> dict[str, float]:
    """Return the median seconds that each network takes for one decoded image.

    The networks take turns, so that another program's burst of work does not fall on one of them alone.

    Args:
        classifiers: The networks by name.
        images: Pixels at their size, uint8 [N, H, W, 3].
    """
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    end = time.perf_counter() + BUDGET
    for number in range(-WARM_UP, ROUNDS):
        image = images[number % len(images)][None]
        for name, classifier in classifiers.items():
            begin = time.perf_counter()
            classifier.probabilities(image)
            if number >= 0:
                times[name].append(time.perf_counter() - begin)
        if number >= 0 and time.perf_counter() > end:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> str:
    """Return what computes here, in words."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {processor}"
