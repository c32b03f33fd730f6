"""A classifier ready to run: images in, class probabilities out, whatever kind of file it comes from.

A run folder, a fused or trained file and an exported file say themselves what they expect and what their
outputs mean. Any other ONNX classifier goes through the same door as a parent, with its preprocessing given.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftonnx.errors import DataError, ModelError
from graftonnx.feeds import Feed, image_shape
from graftonnx.files import MODEL_FILE
from graftonnx.images import Decoded, Pixels, Planes, as_input, decode_stream, to_input, undecodable
from graftonnx.metadata import PRESETS, Metadata, Preprocess
from graftonnx.model import load
from graftonnx.providers import Provider
from graftonnx.providers.settings import Settings
from graftonnx.reading import beside, missing
from graftonnx.runtime import Session, open_session
from graftonnx.spine import final_softmax

AHEAD = 1
"""Batches that wait, decoded, while one is classified."""

FILES = 4
"""Image files that one task of a thread decodes."""

PIXELS = 1 << 24
"""Pixels of them, from the second one on."""

TOGETHER = 1 << 27
"""Bytes that one value may take on the CPU, of all images of a batch."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What came out for one image file.

    Attributes:
        path: The file.
        probabilities: One for each class, float32 [K]; None if the image cannot be read.
        error: Why it cannot be read, else None.
    """

    path: Path
    probabilities: Floats | None = None
    error: str | None = None


class Classifier:
    """A session that takes 8-bit RGB images and gives probabilities.

    Attributes:
        path: The file it was loaded from; None for a model in memory.
        session: Where it runs.
        size: Height and width at which it takes images, in pixels; of several inputs the largest.
        classes: Number of classes, K.
        labels: Their names; empty if nobody gave any.
        preprocess: What its inputs expect.
        batch: The batch size that the file fixes; None if it takes any.
        mirror: Whether each image is classified twice, as it is and mirrored left to right, and the two
            answers are averaged.
    """

    def __init__(
        self, session: Session, preprocess: Preprocess, *, softmax: bool, path: Path | None = None
    ) -> None:
        self.mirror = False
        self.path = path
        self.session = session
        self.labels = session.metadata.labels
        self.preprocess = preprocess
        self._softmax = softmax
        self._feed = Feed(session, preprocess)
        outputs = session.output_shape(session.output_names[0]) if session.output_names else ()
        classes = outputs[1] if len(outputs) > 1 else None
        if not isinstance(classes, int) or any(
            isinstance(extent, int) and extent != 1 for extent in outputs[2:]
        ):
            raise ModelError(
                f"cannot use '{session.name}': its output is {list(outputs)}; expected [N, classes] with a "
                "fixed number of classes. Export it with that."
            )
        self.size = self._feed.size
        self.classes = classes
        fixed = session.input_shape[0]
        self.batch = fixed if isinstance(fixed, int) else None

    def probabilities(self, images: Pixels) -> Floats:
        """Classify a batch.

        Args:
            images: RGB pixels, uint8 [N, H, W, 3].

        Returns:
            Probabilities, float32 [N, K].

        Raises:
            ModelError: If the network gives numbers that are not finite.
        """
        if not self.mirror:
            return self._run(images)
        mirrored = images[:, :, ::-1]
        both: Floats = np.mean([self._run(images), self._run(mirrored)], axis=0, dtype=np.float32)
        return both

    def _run(self, images: Pixels) -> Floats:
        """Return the probabilities [N, K] of images [N, H, W, 3] as they are."""
        step = self.batch or max(1, self._most(len(images)))
        lacking = -len(images) % step if self.batch else 0
        filled = np.concatenate([images, np.repeat(images[-1:], lacking, axis=0)]) if lacking else images
        parts = (to_input(filled[start : start + step]) for start in range(0, len(filled), step))
        scores = np.concatenate([self._scores(part) for part in parts])[: len(images)]
        if not np.isfinite(scores).all():
            raise ModelError(
                f"cannot classify with '{self.session.name}': it gives numbers that are not finite. "
                "Its weights are damaged, or it was trained to divergence: train again."
            )
        return scores if self._softmax else softmax(scores)

    def _scores(self, images: Planes) -> Floats:
        """Return what the network gives, [N, K], for images [N, 3, H, W]."""
        with self.session.bounded(len(images)):
            outputs = self.session.run(*self._feed(images))[0]
        shape, expected = np.shape(outputs), [len(images), self.classes]
        if list(shape[:2]) != expected or any(extent != 1 for extent in shape[2:]):
            raise ModelError(
                f"cannot classify with '{self.session.name}': it gives {list(shape)}, expected {expected}, a "
                "row for each image. Export it with an open batch size."
            )
        return np.asarray(outputs).reshape(expected).astype(np.float32)

    def predict(
        self, paths: Iterable[Path], *, batch_size: int = 32, workers: int = 0
    ) -> Iterator[Prediction]:
        """Classify image files in order while the next ones are decoded in threads; memory stays constant.

        Args:
            paths: The files. One that cannot be read gives a prediction with an error.
            batch_size: Images that go through the network at once.
            workers: Threads that decode; 0 means one per core.
        """
        waiting: deque[Path] = deque()

        def contents() -> Iterator[tuple[int, Path]]:
            for position, path in enumerate(paths):
                waiting.append(path)
                yield position, path

        height, width = self.size
        chunk = max(1, min(FILES, PIXELS // (height * width)))
        decoded = decode_stream(contents(), self.size, workers=workers, chunk=chunk)
        for batch, probabilities in self.classify(decoded, batch_size=batch_size):
            rows = iter(probabilities)
            for image in batch:
                path = waiting.popleft()
                if image.pixels is None:
                    yield Prediction(path, error=undecodable(path, image.reason).message)
                else:
                    yield Prediction(path, probabilities=next(rows))

    def classify(
        self, images: Iterable[Decoded], *, batch_size: int = 32
    ) -> Iterator[tuple[list[Decoded], Floats]]:
        """Classify decoded images; while a batch goes through the network the next ones are gathered.

        Batches are cut by position, so that the same images always share one, whichever can be decoded.

        Args:
            images: Pixels at the network's size, or reasons why there are none.
            batch_size: Images that go through the network at once, if their values fit into memory; else a
                part of it without remainder.

        Yields:
            The images of each batch, in order, and the probabilities of those that have pixels, [M, K].
        """
        source = iter(images)
        batch_size = self._fitting(batch_size)
        running: deque[tuple[list[Decoded], Future[Floats]]] = deque()
        with ThreadPoolExecutor(1) as runner:
            while batch := list(itertools.islice(source, batch_size)):
                running.append((batch, runner.submit(self._answers, batch)))
                if len(running) > AHEAD:
                    batch, answers = running.popleft()
                    yield batch, answers.result()
            for batch, answers in running:
                yield batch, answers.result()

    def _fitting(self, batch_size: int) -> int:
        """Return the largest divisor of a batch size that fits into memory."""
        return max(part for part in range(1, self._most(batch_size) + 1) if batch_size % part == 0)

    def _most(self, count: int) -> int:
        """Return how many of so many images may go through the network at once."""
        sizes = self.session.sizes
        if sizes is None or self.session.provider != "cpu":
            return count
        return min(count, max(1, TOGETHER // sizes.largest))

    def _answers(self, batch: list[Decoded]) -> Floats:
        """Return the probabilities [M, K] of the images that have pixels."""
        pixels = [image.pixels for image in batch if image.pixels is not None]
        return self.probabilities(np.stack(pixels)) if pixels else np.empty((0, self.classes), np.float32)


def open_classifier(
    source: str | Path,
    *,
    provider: Provider = "auto",
    preprocess: Preprocess | str | None = None,
    settings: Settings | None = None,
    labels: tuple[str, ...] = (),
    mirror: bool = False,
) -> Classifier:
    """Load a classifier.

    Args:
        source: A run folder, or an ONNX file.
        provider: As in :func:`graftonnx.runtime.open_session`.
        preprocess: What the input expects, for a file that does not say so itself.
        settings: How the provider is to run it.
        labels: Class names that replace those in the file.
        mirror: Whether to average the answers to each image and to its mirror image, left to right. It takes
            twice the time, and suits images that mean the same mirrored: no digits, no letters.

    Raises:
        ModelError: If it cannot be read, is no image classifier, does not say what its input expects, or has
            labels that do not fit and none were given.
        DataError: If the labels do not fit.
        RuntimeProviderError: If the provider cannot be used here.
    """
    classifier = _open(model_file(source), provider, preprocess, settings)
    if labels and len(labels) != classifier.classes:
        raise DataError(
            f"cannot label '{classifier.session.name}': {len(labels)} labels given, it has "
            f"{classifier.classes} classes. Give one each class."
        )
    classifier.labels = labels or classifier.labels
    if classifier.labels and len(classifier.labels) != classifier.classes:
        raise ModelError(
            f"cannot use '{classifier.session.name}': labels in its metadata: {len(classifier.labels):,}, "
            f"expected {classifier.classes:,}, one for each class. Give it others: graftonnx export --labels "
            "FILE."
        )
    classifier.mirror = mirror
    return classifier


def _open(
    path: Path, provider: Provider, preprocess: Preprocess | str | None, settings: Settings | None
) -> Classifier:
    session = open_session(path, provider=provider, settings=settings)
    convention = known_preprocess(path, session.metadata, preprocess)
    if session.metadata.input is not None:
        return Classifier(session, convention, softmax=session.metadata.activation == "softmax", path=path)
    network = load(path, preprocess=convention)
    proto = network.proto
    proto.graph.name = path.name
    session = open_session(proto, provider=provider, settings=settings, sizes=session.sizes)
    has_softmax = final_softmax(network.view, network.head.output) is not None
    return Classifier(session, convention, softmax=has_softmax, path=path)


def model_file(source: str | Path) -> Path:
    """Return the network of a run folder, or `source` itself if it is a file.

    Raises:
        ModelError: If there is no such file or folder, or no network in the folder.
    """
    source = Path(source)
    reason = missing(source, "file or run folder")
    if reason is not None:
        raise ModelError(f"cannot read '{source}': {reason}.{beside(source)}")
    if not source.is_dir():
        return source
    if not (source / MODEL_FILE).is_file():
        raise ModelError(
            f"cannot read '{source}': the folder holds no '{MODEL_FILE}'. Give the folder of a finished "
            "`graftonnx train`, or an .onnx file."
        )
    return source / MODEL_FILE


def known_preprocess(path: Path, metadata: Metadata, given: Preprocess | str | None) -> Preprocess:
    """Return what the network in `path` expects: what it says itself, else what was given.

    Raises:
        ModelError: If neither is there, or the two differ.
    """
    if isinstance(given, str):
        given = PRESETS[given]
    said = metadata.input.preprocess if metadata.input is not None else None
    if said is None and given is None:
        raise ModelError(
            f"cannot use '{path}': it does not say how its input is to be preprocessed. "
            f"Give --preprocess, one of {', '.join(PRESETS)}, or numbers; from the file alone it is "
            f"{load(path).preprocess_reason}."
        )
    if said is not None and given is not None and said != given:
        raise ModelError(
            f"cannot use '{path}': it says itself how its input is to be preprocessed, differently from what "
            "was given. Leave --preprocess out."
        )
    found = said or given
    assert found is not None
    return found


def same_picture(session: Session, images: Planes) -> tuple[Planes, ...]:
    """Return what each input of a network takes of the same images.

    Args:
        session: The network; its inputs take RGB or luma in 0..1.
        images: RGB in 0..1, [N, 3, H, W].

    Returns:
        For each input [N, C, H', W'] of its own shape.
    """
    return tuple(as_input(images, image_shape(session.name, shape)) for shape in session.input_shapes)


def softmax(logits: Floats) -> Floats:
    """Return the probabilities [N, K] of logits [N, K]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities
