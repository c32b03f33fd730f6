"""How good and how fast the networks of a bundle are, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from graftonnx import machine
from graftonnx.classifier import Classifier
from graftonnx.evaluation import Evaluation, Selection, evaluate
from graftonnx.exporting import Export
from graftonnx.exporting.fidelity import Fidelity
from graftonnx.images import Pixels
from graftonnx.metadata import Precision

WARM_UP = 5
ROUNDS = 100
BUDGET = 10.0
"""Rounds in which every network runs once, and the seconds after which no other round begins."""


@dataclass(frozen=True)
class Measured:
    """A precision of a network.

    Attributes:
        precision: Its name.
        bytes: Size of its file, external data included.
        seconds: For one image; see :func:`latencies`.
        fidelity: How many answers it has in common with the network that was exported, where it was compared.
        evaluation: How often it is right, where there were images.
    """

    precision: Precision
    bytes: int
    seconds: float
    fidelity: Fidelity | None
    evaluation: Evaluation | None


def measure(
    exported: Mapping[Precision, Export],
    classifiers: Mapping[Precision, Classifier],
    images: Pixels,
    selection: Selection | None,
) -> tuple[Measured, ...]:
    """Measure networks on this machine.

    Args:
        exported: What was written, by precision.
        classifiers: The same, open.
        images: Pixels to take the time on, uint8 [N, H, W, 3].
        selection: Images to count hits on; those that cannot be decoded are left out.
    """
    seconds = latencies(classifiers, images)
    return tuple(
        Measured(
            precision,
            written.bytes,
            seconds[precision],
            written.fidelity,
            evaluate(classifiers[precision], selection, skip_bad=True) if selection is not None else None,
        )
        for precision, written in exported.items()
    )


def latencies(classifiers: Mapping[Precision, Classifier], images: Pixels) -> dict[Precision, float]:
    """Return the median seconds that each network takes for one decoded image.

    The networks take turns, so that another program's burst of work does not fall on one of them alone.

    Args:
        classifiers: The networks by name.
        images: Pixels at their size, uint8 [N, H, W, 3].
    """
    times: dict[Precision, list[float]] = {name: [] for name in classifiers}
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


def spelled_machine() -> str:
    """Return what computes here, in words."""
    return f"{machine.cores()} cores of {machine.processor()}"
