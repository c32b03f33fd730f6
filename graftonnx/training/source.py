"""The network that comes in: is it one that can be fine-tuned on these images?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from graftonnx.errors import DataError, GraftError, ModelError
from graftonnx.metadata import Metadata, Preprocess, read_metadata
from graftonnx.spelling import did_you_mean
from graftonnx.training.run import RunRecord
from graftonnx.weights import digest, read, whole

SHOWN = 10
"""Class names that a message lists before it says how many more there are."""


@dataclass(frozen=True)
class Source:
    """A network to fine-tune.

    Attributes:
        path: Its file.
        sha256: See :func:`graftonnx.weights.digest`.
        model: Its content; images [N, 3, H, W] in 0..1 go in, or several of C = 3 (RGB) or 1 (luma), and
            one output [N, K] comes out.
        size: H and W, in pixels; of several inputs the largest.
        shapes: C, H and W of its inputs, in their order.
        classes: K.
        metadata: What the file says about itself.
    """

    path: Path
    sha256: str
    model: onnx.ModelProto
    size: tuple[int, int]
    shapes: tuple[tuple[int, int, int], ...]
    classes: int
    metadata: Metadata


def open_source(path: Path, doing: str = "train") -> Source:
    """Read a network that :func:`graftonnx.fuse` wrote, or one that was trained from it.

    Args:
        path: Its file.
        doing: What for, for the message: `cannot <doing> 'fused.onnx': ...`.

    Raises:
        ModelError: If it cannot be read, or takes or gives something else than a fused network.
    """
    model = whole(*read(path))
    try:
        metadata = read_metadata(model)
        shapes, classes = _interface(model, metadata)
        if metadata.input is None or metadata.input.preprocess != Preprocess():
            found = (
                "does not say what its input expects" if metadata.input is None else "expects other pixels"
            )
            raise ModelError(
                f"it {found}; expected RGB in 0..1, as `graftonnx fuse` writes it. Fuse it first."
            )
        if metadata.activation is not None:
            raise ModelError(f"its output is behind a {metadata.activation}; expected logits. Fuse it first.")
    except GraftError as error:
        raise error.at(f"cannot {doing} '{path}'") from error
    size = max(shape[1] for shape in shapes), max(shape[2] for shape in shapes)
    return Source(path, digest(path), model, size, shapes, classes, metadata)


def labels_for(source: Source, classes: Sequence[str], data: str) -> tuple[str, ...]:
    """Return the class names in the order of the network's logits.

    Raises:
        DataError: If the classes of the data are not the network's.
    """
    if len(classes) != source.classes:
        raise DataError(
            f"cannot train '{source.path}' on '{data}': the network has {source.classes} outputs, the data "
            f"has {len(classes)} classes ({listed(classes)}). Fuse again with --classes {len(classes)}."
        )
    labels = source.metadata.labels
    unknown, missing = sorted(set(classes) - set(labels)), sorted(set(labels) - set(classes))
    if labels and (unknown or missing):
        raise DataError(
            f"cannot train '{source.path}' on '{data}': the network's labels are {listed(labels)}; "
            f"the data lacks {listed(missing)} and has {listed(unknown)} instead."
            f"{did_you_mean(unknown[0], missing)} Rename the classes, or fuse again with "
            f"--classes {len(classes)}."
        )
    return labels or tuple(classes)


def check_record(run: Path, record: RunRecord, source: Source, doing: str) -> None:
    """Refuse the record of a run whose labels or size are not those of its network.

    Args:
        run: The run folder.
        record: What its `config.yaml` says.
        source: The network that the run began with, or the one that it wrote.
        doing: What for, for the message: `cannot <doing> 'run': ...`.

    Raises:
        GraftError: Then.
    """
    known = source.metadata.labels
    if len(record.labels) != source.classes:
        found, expected = f"{len(record.labels)} labels", f"{source.classes} outputs"
    elif known and record.labels != known:
        found, expected = f"the labels {listed(record.labels)}", listed(known)
    elif record.input_size != source.size:
        found, expected = (f"{height}x{width} pixels" for height, width in (record.input_size, source.size))
    else:
        return
    raise GraftError(
        f"cannot {doing} '{run}': its config.yaml says {found}, '{source.path}' has {expected}. "
        "Bring the files back, or start a new run."
    )


def listed(names: Sequence[str]) -> str:
    """Return names in quotes, the first few of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


def _interface(model: onnx.ModelProto, metadata: Metadata) -> tuple[tuple[tuple[int, int, int], ...], int]:
    """Return C, H and W of every image that a graph takes, and K of its one output [N, K]."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    separate = bool(inputs) and {value.name for value in inputs} == metadata.branch_inputs.keys()
    if not (len(inputs) == 1 or separate) or len(model.graph.output) != 1:
        raise ModelError(
            f"it has {len(inputs)} inputs and {len(model.graph.output)} outputs, expected one image and its "
            "logits. Fuse it first."
        )
    shapes = tuple(_image_shape(value, (1, 3) if separate else (3,)) for value in inputs)
    logits = model.graph.output[0]
    made = _dims(logits)
    if len(made) != 2 or not isinstance(made[1], int):
        raise ModelError(f"its output '{logits.name}' has shape {made}, expected [batch, classes].")
    return shapes, made[1]


def _image_shape(image: onnx.ValueInfoProto, channels: tuple[int, ...]) -> tuple[int, int, int]:
    """Return C, H and W of an input that must take images of as many channels as any of these."""
    given = _dims(image)
    if len(given) in (3, 5):
        raise ModelError(
            f"its input '{image.name}' has shape {given}; only networks that take images [batch, 3, H, W] "
            "can be trained here. Train the module that graftonnx.to_torch gives."
        )
    is_float = image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if not is_float or len(given) != 4 or given[1] not in channels:
        raise ModelError(
            f"its input '{image.name}' has shape {given}, expected float32 [batch, 3, H, W]. Fuse it first."
        )
    height, width = given[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise ModelError(
            f"its input '{image.name}' has shape {given}; height and width must be numbers. "
            "Fuse again with --input-size."
        )
    return int(given[1]), height, width


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return a value's shape: numbers where fixed, names where dynamic."""
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    ]
