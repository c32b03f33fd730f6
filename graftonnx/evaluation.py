"""How often a classifier is right: top-1, top-5, each class, and what it takes for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftonnx.classifier import Classifier, model_file
from graftonnx.data.cache import BadImage, bad_images, decode_samples
from graftonnx.data.catalogue import Data, Sample
from graftonnx.data.opening import open_data
from graftonnx.data.splits import read_split
from graftonnx.errors import DataError
from graftonnx.files import SPLIT_FILE
from graftonnx.spelling import did_you_mean

Part = Literal["train", "val", "test", "all"]

TOP = 5

LEAST = float(np.finfo(np.float32).tiny)
"""Probabilities below this count as this in the loss."""


@dataclass(frozen=True)
class Selection:
    """The images to evaluate on.

    Attributes:
        data: Where they are.
        part: What was selected.
        classes: Class names of the data; a sample's label indexes them.
        samples: The images.
    """

    data: Data
    part: Part
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class ClassScore:
    """How one class fares.

    Attributes:
        name: The class.
        images: Images of it.
        recall: Share of its images that are recognised; None without images.
        precision: Share of the answers "it is this class" that are right; None without such answers.
    """

    name: str
    images: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Confusion:
    """Images of class `true` that were taken for class `predicted`."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        labels: Class names, in the order of the network's outputs.
        confusion: Images of class i that were taken for class j, int64 [K, K].
        top5_hits: Images whose class is among the five most probable ones.
        loss: Mean cross-entropy, in nats.
        provider: Where the network ran.
        bad: Images that could not be decoded and do not count.
        mirror: Whether the answers to mirror images were averaged in.
    """

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    top5_hits: int
    loss: float
    provider: str
    bad: tuple[BadImage, ...] = ()
    mirror: bool = False

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of images whose most probable class is right."""
        return float(self.confusion.trace()) / self.images

    @property
    def top5(self) -> float:
        """Share of images whose class is among the five most probable ones."""
        return self.top5_hits / self.images

    @property
    def scores(self) -> tuple[ClassScore, ...]:
        """Every class, in the order of the labels."""
        right = self.confusion.diagonal()
        true, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return tuple(
            ClassScore(
                name,
                int(true[i]),
                float(right[i] / true[i]) if true[i] else None,
                float(right[i] / predicted[i]) if predicted[i] else None,
            )
            for i, name in enumerate(self.labels)
        )

    def most_confused(self, count: int) -> tuple[Confusion, ...]:
        """Return the pairs of classes that are confused most often, at most `count`."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = [divmod(int(index), len(self.labels)) for index in order]
        return tuple(
            Confusion(self.labels[i], self.labels[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]
        )


def select(
    where: str | Path,
    part: Part | None,
    *,
    source: str | Path | None,
    split_file: str | Path | None = None,
) -> Selection:
    """Choose the images to evaluate on.

    What trained and what validated a network stands in its run folder; data that comes split says it itself.

    Args:
        where: The data, as :func:`graftonnx.data.opening.open_data` takes it.
        part: Which part of it. By default the validation images where they are known, else the test images
            where there are any, else all images.
        source: The network; `split.json` beside it counts if no `split_file` is given. None for one in
            memory.
        split_file: The split of the run that trained the network.

    Raises:
        DataError: If the images cannot be listed, or nothing says which ones belong to `part`.
    """
    data = open_data(where)
    if part == "all":
        return Selection(data, "all", data.classes, (*data.train, *data.val, *data.test))
    if split_file is None and source is not None:
        beside = model_file(source).parent / SPLIT_FILE
        split_file = beside if beside.is_file() else None
    if split_file is not None:
        try:
            split = read_split(Path(split_file), data)
        except DataError as error:
            raise DataError(f"{error.message} Or choose --split all.") from error
        parts = {"train": split.train, "val": split.val, "test": split.test}
        classes = split.classes
    else:
        parts = {"train": data.train if data.val else (), "val": data.val, "test": data.test}
        classes = data.classes
    if part is None:
        part = next((name for name in ("val", "test") if parts[name]), None)
        if part is None:
            return Selection(data, "all", classes, data.train)
    if not parts[part]:
        raise DataError(
            f"cannot tell the {part} images of '{where}': it has no part '{part}', and no {SPLIT_FILE} of "
            "a training run names them. Give the run folder, or --split-file, or choose --split all."
        )
    return Selection(data, part, classes, parts[part])


def match_labels(classes: Sequence[str], labels: Sequence[str], count: int) -> tuple[int, ...]:
    """Find the network's output for every class of a data folder, by name.

    Args:
        classes: Class names of the data.
        labels: Class names of the network; empty if it has none, then the classes must be as many as its
            outputs and count in their order.
        count: Number of the network's outputs.

    Returns:
        For each class the index of its output.

    Raises:
        DataError: If a class has no output, or more than one.
    """
    if not labels:
        if len(classes) != count:
            raise DataError(
                f"the network has {count} outputs without names, and the data has {len(classes)} classes. "
                "Give the network its labels: graftonnx export --labels FILE."
            )
        return tuple(range(count))
    unknown = [name for name in classes if name not in labels]
    if unknown:
        raise DataError(
            f"the network does not know {_listed('class', unknown)}; it knows {_listed('class', labels)}."
            f"{did_you_mean(unknown[0], set(labels) - set(classes))} Rename the folders, or "
            "evaluate on the data it was trained for."
        )
    double = [name for name in classes if list(labels).count(name) > 1]
    if double:
        raise DataError(
            f"the network has more than one output for {_listed('class', double)}. Give it other labels."
        )
    return tuple(list(labels).index(name) for name in classes)


def evaluate(
    classifier: Classifier,
    data: str | Path | Selection,
    *,
    batch_size: int = 32,
    workers: int = 0,
    skip_bad: bool = False,
    on_image: Callable[[], object] | None = None,
) -> Evaluation:
    """Classify labelled images and count; memory does not grow with their number.

    Args:
        classifier: The network.
        data: Labelled images, as :func:`graftonnx.train` takes them, of which those that validated count
            where they are known, else the test images where there are any, else all; or what
            :func:`graftonnx.evaluation.select` chose.
        batch_size: Images that go through the network at once.
        workers: Threads that decode; 0 means one per core.
        skip_bad: Whether images that cannot be decoded are left out.
        on_image: Called after each image, for a progress bar.

    Raises:
        DataError: If images cannot be read and may not be left out, none can be, or a class has no output.
    """
    selection = data if isinstance(data, Selection) else select(data, None, source=classifier.path)
    where, samples = selection.data.where, selection.samples
    try:
        outputs = match_labels(selection.classes, classifier.labels, classifier.classes)
    except DataError as error:
        raise error.at(f"cannot evaluate '{classifier.session.name}' on '{where}'") from error
    labels = classifier.labels or selection.classes
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    hits, loss = 0, 0.0
    bad: list[BadImage] = []
    decoded = decode_samples(selection.data, samples, classifier.size, workers)
    for batch, probabilities in classifier.classify(decoded, batch_size=batch_size):
        true = np.array(
            [outputs[samples[image.position].label] for image in batch if image.pixels is not None], np.int64
        )
        right = probabilities[np.arange(len(true)), true]
        np.add.at(confusion, (true, probabilities.argmax(axis=1)), 1)
        hits += int(((probabilities > right[:, None]).sum(axis=1) < TOP).sum())
        loss -= float(np.log(np.maximum(right, LEAST), dtype=np.float64).sum())
        bad += [BadImage(samples[i.position].name, i.reason) for i in batch if i.pixels is None]
        if on_image is not None:
            for _ in batch:
                on_image()
    if bad and (not skip_bad or len(bad) == len(samples)):
        raise bad_images(where, bad, len(samples))
    return Evaluation(
        tuple(labels),
        confusion,
        hits,
        loss / (len(samples) - len(bad)),
        classifier.session.provider,
        tuple(bad),
        classifier.mirror,
    )


def _listed(what: str, names: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}{'es' if len(names) > 1 else ''} {shown}{more}"
