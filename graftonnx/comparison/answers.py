"""What trained networks say about the images that they are compared on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftonnx.classifier import Floats, open_classifier
from graftonnx.data.cache import BadImage, bad_images
from graftonnx.data.catalogue import Data
from graftonnx.errors import DataError
from graftonnx.evaluation import Selection, match_labels, select
from graftonnx.images import Pixels, decode_stream
from graftonnx.providers.settings import SETTLE, Settings
from graftonnx.reading import read_bytes
from graftonnx.training.run import RunFolder

BATCH = 32
"""Images that go through a network at once."""


@dataclass(frozen=True)
class Answers:
    """The answers of one network.

    Attributes:
        images: Their names in the data.
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


def check_test_images(data: Data, *, workers: int) -> None:
    """Find out before hours of training whether a test image cannot be decoded.

    Raises:
        DataError: Naming the images.
    """
    contents = data.store.contents([sample.name for sample in data.test])
    decoded = decode_stream(contents, (1, 1), workers=workers)
    bad = [
        BadImage(data.test[image.position].name, image.reason) for image in decoded if image.pixels is None
    ]
    if bad:
        raise bad_images(data.where, bad, len(data.test))


def ask(runs: Mapping[str, RunFolder], data: str, part: Literal["val", "test"]) -> dict[str, Answers]:
    """Run trained networks in ONNX Runtime on the same images, which are decoded once.

    Args:
        runs: Of networks that were trained on the same split, by any key.
        data: The labelled images, as :func:`graftonnx.data.opening.open_data` takes them.
        part: Which of them.

    Raises:
        DataError: If the runs have different splits, or images cannot be decoded and the runs' settings do
            not leave them out.
    """
    first = next(iter(runs.values()))
    _check_split(runs, data)
    record = first.read()
    settings = Settings(options=SETTLE)
    classifiers = {
        name: open_classifier(run.path, provider=record.device, settings=settings)
        for name, run in runs.items()
    }
    one = classifiers[next(iter(runs))]
    selection = select(data, part, source=first.path)
    outputs = match_labels(selection.classes, one.labels, one.classes)
    bad: list[BadImage] = []
    decoded = _decoded(selection, one.size, record.config.workers, bad)
    positions: list[int] = []
    rows: dict[str, list[Floats]] = {name: [] for name in runs}
    while batch := list(itertools.islice(decoded, BATCH)):
        pixels = np.stack([image for _, image in batch])
        positions += [position for position, _ in batch]
        for name, classifier in classifiers.items():
            rows[name].append(classifier.probabilities(pixels))
    if bad and (record.config.on_bad_image != "skip" or not positions):
        raise bad_images(data, bad, len(selection.samples))
    samples = [selection.samples[position] for position in positions]
    truth = np.array([outputs[sample.label] for sample in samples], np.int64)
    images = tuple(sample.name for sample in samples)
    return {name: Answers(images, truth, np.concatenate(parts)) for name, parts in rows.items()}


def average(members: Sequence[Answers]) -> Answers:
    """Return the mean of several networks' probabilities for the same images."""
    stacked = np.stack([member.probabilities for member in members])
    return Answers(members[0].images, members[0].truth, stacked.mean(axis=0))


def _check_split(runs: Mapping[str, RunFolder], data: str) -> None:
    try:
        splits = {read_bytes(run.split) for run in runs.values()}
    except OSError as error:
        raise DataError(
            f"cannot read the split '{error.filename}': {error.strerror}. Start again with --force."
        ) from error
    if len(splits) > 1:
        names = ", ".join(f"'{run.path}'" for run in runs.values())
        raise DataError(
            f"cannot compare {names}: they have different splits, so '{data}' has changed between them. "
            "Start again with --force."
        )


def _decoded(
    selection: Selection, size: tuple[int, int], workers: int, bad: list[BadImage]
) -> Iterator[tuple[int, Pixels]]:
    """Yield position and pixels of each image; put those that cannot be decoded into `bad`."""
    contents = selection.data.store.contents([sample.name for sample in selection.samples])
    for image in decode_stream(contents, size, workers=workers):
        if image.pixels is None:
            bad.append(BadImage(selection.samples[image.position].name, image.reason))
        else:
            yield image.position, image.pixels
