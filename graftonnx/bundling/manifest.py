"""What is where in a bundle, and `bundle.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from graftonnx.classifier import Classifier
from graftonnx.errors import GraftError
from graftonnx.feeds import image_shape
from graftonnx.images import GREY
from graftonnx.metadata import ImageLayout, InputConvention, Precision, Preprocess, Record, first_error
from graftonnx.reading import read_bytes

MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"
LABELS = "labels.txt"
SCRIPT = "predict.py"
REQUIREMENTS = "requirements.txt"
WRITTEN = (SCRIPT, REQUIREMENTS)
"""Files that are the same in every bundle of a version of graftonnx."""

INPUTS = "selfcheck/inputs.npz"
EXAMPLE = "selfcheck/example.png"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
"""What may be a file name everywhere, and a model's name in Triton."""


class Input(Record):
    """How an image becomes what an input takes.

    The image, 8-bit RGB of the bundle's size, is divided by 255; each pixel `p`, [3], becomes
    `p @ matrix + offset`, [C]; then it is stretched to `size`, and rounded where the type is `uint8`.

    Attributes:
        size: Height and width, in pixels.
        matrix: [3, C].
        offset: [C].
        layout: Whether the channels come before height and width, or behind them.
        type: Of its elements.
    """

    size: tuple[int, int]
    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]
    layout: ImageLayout
    type: Literal["float32", "uint8"]


class Model(Record):
    """One precision of the network.

    Attributes:
        triton: Its name in the model repository.
    """

    triton: Name


class Manifest(Record):
    """The content of `bundle.json`.

    Attributes:
        format: Version of this table.
        name: Of the bundle.
        size: Height and width to which images are stretched, in pixels.
        inputs: What the network takes of them, by the names of its inputs.
        models: The precisions; the first one counts where none is asked for.
    """

    format: Literal[1] = 1
    name: Name
    size: tuple[int, int]
    inputs: dict[str, Input]
    models: dict[Precision, Model] = Field(min_length=1)


def model_path(folder: Path, precision: str) -> Path:
    """Return the file of a precision."""
    return folder / "models" / f"{precision}.onnx"


def external_path(folder: Path, precision: str) -> Path:
    """Return the file with the external data of a precision, which large networks have."""
    return folder / "models" / f"{precision}.onnx.data"


def outputs_path(folder: Path, precision: str) -> Path:
    """Return the file with the probabilities that a precision must give."""
    return folder / "selfcheck" / f"{precision}.npz"


def triton_path(folder: Path, name: str) -> Path:
    """Return the folder of a model in the model repository."""
    return folder / "triton" / name


def read_manifest(folder: Path) -> Manifest:
    """Read `bundle.json`.

    Raises:
        GraftError: If it is missing, damaged, or of a newer graftonnx.
    """
    try:
        return Manifest.model_validate_json(read_bytes(folder / MANIFEST))
    except FileNotFoundError as error:
        raise GraftError(
            f"'{folder}' is no bundle: it holds no {MANIFEST}. Make one: graftonnx bundle."
        ) from error
    except OSError as error:
        raise GraftError(
            f"cannot read '{folder / MANIFEST}': {error.strerror}. Make the bundle anew."
        ) from error
    except ValidationError as error:
        why = ": ".join(filter(None, first_error(error)))
        raise GraftError(
            f"cannot use '{folder / MANIFEST}': {why}. Make the bundle anew, or upgrade graftonnx."
        ) from error


def template(name: str) -> bytes:
    """Return the content of one of `WRITTEN`."""
    return (resources("graftonnx.bundling") / "files" / name).read_bytes()


def unfit(labels: Sequence[str]) -> str | None:
    """Say why class names are not fit for `labels.txt`, where each has a line; None if they are."""
    if not labels:
        return "it has no class names"
    for label, count in Counter(labels).items():
        if label.splitlines() != [label]:
            return f"the class name {label!r} is not one line"
        if count > 1:
            return f"{count} classes are called {label!r}"
    return None


def inputs_of(classifier: Classifier) -> dict[str, Input]:
    """Return what the inputs of a network take."""
    session = classifier.session
    convention = session.metadata.input or InputConvention()
    found = {}
    for name, shape in zip(session.input_names, session.input_shapes, strict=True):
        channels, height, width = image_shape(session.name, shape, convention)
        matrix, offset = affine(classifier.preprocess, channels)
        found[name] = Input(
            size=(height, width),
            matrix=matrix,
            offset=offset,
            layout=convention.layout,
            type="uint8" if session.input_type == np.uint8 else "float32",
        )
    return found


def affine(convention: Preprocess, channels: int) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Return the matrix [3, C] and the offset [C] that a convention is for a pixel in 0..1."""
    mixed = (
        np.array(GREY)[:, None] if channels == 1 else np.eye(3)[:, :: -1 if convention.order == "bgr" else 1]
    )
    std = np.broadcast_to(convention.std, channels)
    matrix = mixed * convention.scale / std
    offset = -np.broadcast_to(convention.mean, channels) / std
    return tuple(map(tuple, matrix.tolist())), tuple((offset + 0.0).tolist())
