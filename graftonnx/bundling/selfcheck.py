"""Images and the probabilities that a network gives for them: does it still, there?

The images are drawn, not taken from anybody's data: coloured surfaces under more and more noise. Of many the
ones are kept of which the network is least sure, because a probability near 0 or 1 hides a difference.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graftonnx.bundling.manifest import EXAMPLE, INPUTS, outputs_path
from graftonnx.classifier import Classifier, Floats
from graftonnx.data.bounds import open_zip, read_array, read_entry
from graftonnx.errors import GraftError, ParityError
from graftonnx.exporting.pictures import random_images
from graftonnx.images import Pixels
from graftonnx.metadata import Precision

IMAGES = 8
DRAWN = 64
"""Images that are kept, of how many."""

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 1e-2, "int8": 5e-2}
"""How far a probability may be off on another machine.

CPUs sum float32 in different orders, which is 1e-6; GPUs multiply it in TF32, which is up to 1e-3. float16
and bfloat16 round each value by 5e-4 and 4e-3. Not every CPU has the instructions that add 8-bit products
without saturation.
"""


def draw(classifier: Classifier) -> Pixels:
    """Return the drawn images of which a network is least sure, uint8 [N, H, W, 3]."""
    images = random_images(DRAWN, *classifier.size)
    answers = _probabilities(classifier, images).astype(np.float64)
    entropy = -(answers * np.log(np.maximum(answers, np.finfo(np.float64).tiny))).sum(axis=1)
    chosen: Pixels = images[np.sort(np.argsort(-entropy, kind="stable")[:IMAGES])]
    return chosen


def write_inputs(folder: Path, images: Pixels) -> None:
    """Write the images, the first one as a picture as well."""
    np.savez_compressed(folder / INPUTS, images=images)
    Image.fromarray(images[0]).save(folder / EXAMPLE)


def write_outputs(folder: Path, precision: Precision, classifier: Classifier, images: Pixels) -> None:
    """Write what a precision gives for the images."""
    np.savez_compressed(
        outputs_path(folder, precision),
        probabilities=_probabilities(classifier, images),
        tolerance=np.float64(TOLERANCES[precision]),
    )


def check_outputs(folder: Path, precision: Precision, classifier: Classifier) -> tuple[float, float]:
    """Run a precision on the images again.

    Returns:
        The largest difference of a probability, and what it may be at most.

    Raises:
        GraftError: If images or probabilities cannot be read or do not fit the network.
        ParityError: If a probability differs by more than the tolerance.
    """
    (images,) = _read(folder / INPUTS, "images")
    expected, tolerance = _read(outputs_path(folder, precision), "probabilities", "tolerance")
    if images.dtype != np.uint8 or images.shape[1:] != (*classifier.size, 3):
        raise _unusable(folder / INPUTS, f"its images do not fit the network {precision}")
    if not 1 <= len(images) <= DRAWN:
        raise _unusable(folder / INPUTS, f"it has {len(images):,} images, expected 1 to {DRAWN}")
    path, most = outputs_path(folder, precision), TOLERANCES[precision]
    if tolerance.dtype.kind != "f" or tolerance.shape or not 0 <= tolerance <= most:
        raise _unusable(path, f"its tolerance is no number from 0 to {most:g}")
    if expected.dtype.kind != "f" or expected.shape != (len(images), classifier.classes):
        raise _unusable(path, "its probabilities do not fit images and network")
    if not np.all((expected >= -tolerance) & (expected <= 1 + tolerance)):
        raise _unusable(path, "its probabilities are not all from 0 to 1")
    difference = float(np.abs(_probabilities(classifier, images) - expected).max())
    if not difference <= tolerance:
        raise ParityError(
            f"the network {precision} in '{folder}' gives other probabilities than were recorded: "
            f"they differ by {difference:.1e}, at most {float(tolerance):.0e} is rounding. Do not use it "
            "here."
        )
    return difference, float(tolerance)


def _unusable(path: Path, reason: str) -> GraftError:
    return GraftError(f"cannot use '{path}': {reason}. Make the bundle anew.")


def _probabilities(classifier: Classifier, images: Pixels) -> Floats:
    """Classify images one by one, as `predict.py` does."""
    return np.concatenate([classifier.probabilities(image[None]) for image in images])


def _read(path: Path, *names: str) -> list[NDArray[Any]]:
    try:
        with open_zip(path) as archive:
            entries = [archive.getinfo(f"{name}.npy") for name in names]
            contents = [(io.BytesIO(read_entry(archive, entry)), entry.file_size) for entry in entries]
            return [read_array(file, size) for file, size in contents]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise GraftError(f"cannot read '{path}': {error}. Make the bundle anew.") from error
