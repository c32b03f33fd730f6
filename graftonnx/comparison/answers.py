"""What trained networks say about the images that they are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftonnx.classifier import Floats, open_classifier
from graftonnx.errors import DataError
from graftonnx.evaluation import match_labels, select
from graftonnx.training.run import RunFolder


@dataclass(frozen=True)
class Answers:
    """The answers of one network.

    Attributes:
        images: Paths below the data folder.
        truth: Index of each image's class, int64 [N].
        probabilities: Of each image and class, float32 [N, K].
    """

    images: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: Floats

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether the most probable class is right, [N]."""
        hits: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.truth
        return hits


def answers(run: RunFolder, data: Path, part: Literal["val", "test"]) -> Answers:
    """Run a trained network in ONNX Runtime on its validation or test images.

    Raises:
        DataError: If an image cannot be read.
    """
    record = run.read()
    classifier = open_classifier(run.path, provider=record.device)
    selection = select(data, part, source=run.path)
    outputs = match_labels(selection.classes, classifier.labels, classifier.classes)
    paths = (selection.root / sample.path for sample in selection.samples)
    rows: list[Floats] = []
    for prediction in classifier.predict(
        paths, batch_size=record.config.batch_size, workers=record.config.workers
    ):
        if prediction.probabilities is None:
            raise DataError(prediction.error)
        rows.append(prediction.probabilities)
    return Answers(
        tuple(sample.path for sample in selection.samples),
        np.array([outputs[sample.label] for sample in selection.samples], np.int64),
        np.stack(rows),
    )


def average(members: Sequence[Answers]) -> Answers:
    """Return the mean of several networks' probabilities for the same images."""
    stacked = np.stack([member.probabilities for member in members])
    return Answers(members[0].images, members[0].truth, stacked.mean(axis=0))
