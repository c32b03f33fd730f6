"""How much of a network's answers survives in another precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftonnx.classifier import Classifier
from graftonnx.exporting.pictures import Pictures
from graftonnx.metadata import Precision

AGREEMENT: dict[Precision, float] = {"fp16": 0.999, "bf16": 0.99, "int8": 0.99}
"""The least share of images whose likeliest class has to stay the same.

A number is rounded by at most 2^-11 of itself in float16, and by 2^-9 in bfloat16; what is left of that in
the probabilities changes an answer only where two classes are about as close. 8 bits hold 256 steps of each
value's range, or fewer. Of the 1,380 validation images of the README's network none, one and two change.
"""

RANDOM: dict[Precision, float] = {"fp16": 0.05, "bf16": 0.2}
"""The largest difference of a probability on random images, which resemble nothing: their likeliest class
says little, but what is out of range or converted wrongly shows."""


@dataclass(frozen=True)
class Fidelity:
    """What came out.

    Attributes:
        pictures: The images, in words.
        images: How many.
        random: Whether they are random ones.
        max_difference: Largest difference of a probability.
        mean_difference: Mean difference of a probability.
        agreement: Share of images whose likeliest class is the same.
        accuracy_before: Share of images whose likeliest class is right in the source; None without labels.
        accuracy: The same in the exported file.
    """

    pictures: str
    images: int
    random: bool
    max_difference: float
    mean_difference: float
    agreement: float
    accuracy_before: float | None
    accuracy: float | None


def compare(before: Classifier, after: Classifier, pictures: Pictures) -> Fidelity:
    """Classify images with both networks, at the size that the second takes; memory stays constant."""
    largest, total, same = 0.0, 0.0, 0
    right = np.zeros(2, np.int64)
    count, known = 0, True
    for pixels, labels in pictures.read(after.size):
        expected, found = before.probabilities(pixels), after.probabilities(pixels)
        differences = np.abs(expected - found)
        largest = max(largest, float(differences.max()))
        total += float(differences.sum(dtype=np.float64))
        answers = expected.argmax(axis=1), found.argmax(axis=1)
        same += int((answers[0] == answers[1]).sum())
        known = known and labels is not None
        if labels is not None:
            right += [int((answer == labels).sum()) for answer in answers]
        count += len(pixels)
    accuracies: NDArray[np.float64] = right / count
    return Fidelity(
        pictures=pictures.name,
        images=count,
        random=pictures.random,
        max_difference=largest,
        mean_difference=total / (count * after.classes),
        agreement=same / count,
        accuracy_before=float(accuracies[0]) if known else None,
        accuracy=float(accuracies[1]) if known else None,
    )
