"""What the trained file makes of the validation images, in one pass of ONNX Runtime: `validation.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from graftonnx.classifier import Floats, same_picture, softmax
from graftonnx.errors import GraftError
from graftonnx.evaluation import LEAST, TOP, Evaluation
from graftonnx.images import Pixels, to_input
from graftonnx.metadata import Record
from graftonnx.providers import Provider
from graftonnx.reading import read_bytes
from graftonnx.runtime import open_session
from graftonnx.training.report.strength import Strength, add_norms, find_probes, strengths
from graftonnx.training.run import MOST_IMAGES, Count
from graftonnx.weights import read, whole

MOST_MISTAKES = 24
"""How many of the most confident mistakes are kept."""

Batches = Iterable[tuple[Pixels, npt.NDArray[np.int64]]]
"""Pixels uint8 [N, H, W, 3] and labels int64 [N], batch by batch."""


class Mistake(Record):
    """A validation image that was taken for another class.

    Attributes:
        image: Its name in the data.
        true: Its class.
        predicted: The class it was taken for.
        probability: The network's probability of that.
        probability_of_true: Its probability of the right class.
    """

    image: str
    true: str
    predicted: str
    probability: float
    probability_of_true: float


class Findings(Record):
    """The content of `validation.json`.

    Attributes:
        labels: Class names in the order of the logits.
        confusion: Images of class i that were taken for class j.
        top5_hits: Images whose class is among the five most probable ones.
        loss: Mean cross-entropy, in nats.
        provider: Where ONNX Runtime ran.
        mistakes: The most confident ones, most confident first.
        strengths: What each skip carried.
    """

    labels: tuple[str, ...]
    confusion: tuple[tuple[Count, ...], ...]
    top5_hits: Count
    loss: float
    provider: str
    mistakes: tuple[Mistake, ...] = Field(default=(), max_length=MOST_MISTAKES)
    strengths: tuple[Strength, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Findings:
        """Refuse a confusion matrix of other classes, of no images, or of more than can be counted.

        Raises:
            ValueError: Then.
        """
        classes, images = len(self.labels), sum(map(sum, self.confusion))
        if [len(row) for row in self.confusion] != [classes] * classes:
            raise ValueError(f"confusion must have {classes} rows of {classes} numbers, one for each label")
        if not 1 <= images <= MOST_IMAGES:
            raise ValueError(f"confusion counts {images} images, expected from 1 to {MOST_IMAGES}")
        return self

    @property
    def evaluation(self) -> Evaluation:
        """The same as `graftonnx eval` counts it."""
        return Evaluation(
            self.labels, np.array(self.confusion, np.int64), self.top5_hits, self.loss, self.provider
        )


def read_findings(path: Path) -> Findings | None:
    """Read `validation.json`; None if it is not there.

    Raises:
        GraftError: If it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return Findings.model_validate_json(read_bytes(path))
    except (OSError, ValidationError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> GraftError:
    """Return the error about a file that the report measures or draws."""
    return GraftError(
        f"cannot read '{path}': it is damaged. Remove it; with its data at hand, the report measures anew."
    )


def examine(
    path: Path, batches: Batches, names: Sequence[str], labels: Sequence[str], provider: Provider = "auto"
) -> tuple[Findings, list[Pixels]]:
    """Classify the validation images and measure the skips on them.

    Args:
        path: The trained file.
        batches: The images in the order of `names`, at the largest size of the network's inputs.
        names: What each image is called.
        labels: Class names in the order of the logits.
        provider: Where to run.

    Returns:
        What came out, and the pixels of its mistakes, uint8 [H, W, 3] each.
    """
    model = whole(*read(path))
    probes = find_probes(model)
    norms = add_norms(model, probes)
    session = open_session(model, provider=provider)
    logits_name = session.output_names[0]
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    squares = np.zeros(len(norms))
    worst: list[tuple[Mistake, Pixels]] = []
    loss, hits, seen = 0.0, 0, 0
    for pixels, true in batches:
        logits, *sums = session.run(*same_picture(session, to_input(pixels)), outputs=[logits_name, *norms])
        squares += np.array(sums, np.float64)
        probabilities = softmax(logits)
        of_true = probabilities[np.arange(len(true)), true]
        np.add.at(confusion, (true, probabilities.argmax(1)), 1)
        hits += int(((probabilities > of_true[:, None]).sum(1) < TOP).sum())
        loss -= sum(math.log(max(float(p), LEAST)) for p in of_true)
        worst += _mistakes(pixels, true, probabilities, names[seen:], labels)
        worst = sorted(worst, key=lambda entry: -entry[0].probability)[:MOST_MISTAKES]
        seen += len(true)
    findings = Findings(
        labels=tuple(labels),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        top5_hits=hits,
        loss=loss / seen,
        provider=session.provider,
        mistakes=tuple(mistake for mistake, _ in worst),
        strengths=strengths(probes, squares, seen),
    )
    return findings, [image for _, image in worst]


def _mistakes(
    pixels: Pixels,
    true: npt.NDArray[np.int64],
    probabilities: Floats,
    names: Sequence[str],
    labels: Sequence[str],
) -> list[tuple[Mistake, Pixels]]:
    """Return the images of a batch that were taken for another class, with copies of their pixels."""
    predicted = probabilities.argmax(1)
    return [
        (
            Mistake(
                image=names[i],
                true=labels[true[i]],
                predicted=labels[predicted[i]],
                probability=float(probabilities[i, predicted[i]]),
                probability_of_true=float(probabilities[i, true[i]]),
            ),
            pixels[i].copy(),
        )
        for i in np.flatnonzero(predicted != true).tolist()
    ]
