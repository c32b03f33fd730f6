"""The networks of the paper as ONNX files: built or read from a published checkpoint, written, proven.

The file has a dynamic batch, a fixed height and width, batch normalisation and dropout as nodes of their
own, the parameters under their PyTorch names, and the input convention in its metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from graftonnx import files, runtime
from graftonnx.errors import ModelError, ParityError
from graftonnx.metadata import PRESETS, InputConvention, Metadata, Preprocess, write_metadata
from graftonnx.models import registry

if TYPE_CHECKING:
    from torch import nn

RTOL = 1e-4
"""Largest difference between PyTorch's and ONNX Runtime's logits, relative to the largest logit: both sum
in float32, in another order."""


@dataclass(frozen=True)
class Exported:
    """A network that was written.

    Attributes:
        path: The file.
        name: The network's name in the registry.
        input_shape: `(C, H, W)` of the input.
        classes: Number of logits.
        parameters: Elements of the parameters.
        bytes: Size of the file.
        difference: Largest difference between PyTorch's and ONNX Runtime's logits, relative to the largest
            logit.
        notes: Remarks for a person: random weights, keys of the checkpoint that were dropped.
    """

    path: Path
    name: str
    input_shape: tuple[int, int, int]
    classes: int
    parameters: int
    bytes: int
    difference: float
    notes: tuple[str, ...] = ()


def export_network(
    name: str,
    target: Path,
    *,
    weights: Path | None = None,
    input_size: int | None = None,
    classes: int | None = None,
    width: float = 1.0,
    seed: int = 0,
    force: bool = False,
) -> Exported:
    """Build a network of the registry, load its weights and write it as ONNX.

    Args:
        name: As for :func:`graftonnx.models.registry.find`.
        target: The ONNX file to write.
        weights: A `.pth`, `.pt` or `.safetensors` checkpoint; None for seeded random weights.
        input_size: Height and width in pixels; None for the published size.
        classes: Number of classes; None for the published number.
        width: Multiplies the channels.
        seed: Of the random weights.
        force: Whether an existing target may be replaced.

    Raises:
        ChoiceError: If there is no such network, it cannot have these classes, this width or this size, or
            it would have too many weights.
        ModelError: If the checkpoint cannot be read or does not fit.
        ParityError: If ONNX Runtime's logits are not PyTorch's.
        GraftError: If the target cannot be written.
    """
    entry = registry.find(name)
    size = entry.input_size if input_size is None else input_size
    if size < entry.smallest_input:
        raise registry.ChoiceError(
            f"cannot build {entry.name} for {size}x{size} images: the smallest it can run at is "
            f"{entry.smallest_input}x{entry.smallest_input}"
        )
    files.check_writable(target, force=force)
    module = registry.build(name, classes=classes, width=width, seed=seed)
    if weights is None:
        notes: tuple[str, ...] = (
            f"the weights are random (seed {seed}); pass --weights FILE for trained ones",
        )
    else:
        notes = _load_weights(module, entry, weights)
    model = to_model(module, entry.name, input_size=size, preprocess=PRESETS[entry.preprocess])
    difference = check_parity(model, module)
    content = model.SerializeToString()
    files.write_bytes(target, content)
    return Exported(
        path=target,
        name=entry.name,
        input_shape=_image_shape(model),
        classes=_sizes(model.graph.output[0])[1],
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        bytes=len(content),
        difference=difference,
        notes=notes,
    )


def to_model(
    module: nn.Module,
    name: str,
    *,
    input_size: int,
    preprocess: Preprocess,
    labels: Sequence[str] = (),
) -> onnx.ModelProto:
    """Write a network of :mod:`graftonnx.models` as a checked ONNX model with its input convention.

    Args:
        module: The network, for images of 3 channels.
        name: Name of the graph.
        input_size: Height and width in pixels.
        preprocess: From an RGB image in 0..1 to what the network expects.
        labels: Class names, in the order of the logits; none if they are not known.

    Returns:
        A model from `input: float32 [batch, 3, input_size, input_size]` to `logits: float32 [batch, K]`.

    Raises:
        ModelError: If the number of labels is not the number of logits.
    """
    from graftonnx.models.onnx_export import to_onnx

    model: onnx.ModelProto = to_onnx(module, (3, input_size, input_size), name=name)
    classes = _sizes(model.graph.output[0])[1]
    if labels and len(labels) != classes:
        raise ModelError(
            f"cannot label {name}: {len(labels)} labels for {classes} classes. Give one for each."
        )
    write_metadata(model, Metadata(input=InputConvention(preprocess=preprocess), labels=tuple(labels)))
    onnx.checker.check_model(model, full_check=True)
    return model


def check_parity(model: onnx.ModelProto, module: nn.Module) -> float:
    """Run model and module on the same noise, at batch 1 and 3, and compare their logits.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        ParityError: If it exceeds `RTOL`, or a logit is not finite.
    """
    from graftonnx.models.onnx_export import run

    session = runtime.open_session(model, provider="cpu")
    generator = np.random.default_rng(0)
    worst = 0.0
    for batch in (1, 3):
        x = generator.standard_normal((batch, *_image_shape(model)), dtype=np.float32)
        (found,) = session.run(x)
        expected = run(module, x)
        if not np.isfinite(expected).all():
            raise ParityError(
                f"cannot export {model.graph.name}: its logits are not finite. Check the weights."
            )
        difference = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))
        if not difference <= RTOL:
            raise ParityError(
                f"cannot export {model.graph.name}: ONNX Runtime's logits differ from PyTorch's by "
                f"{difference:.1e} of the largest at batch {batch}, expected at most {RTOL:.0e}. "
                "Please report this."
            )
        worst = max(worst, difference)
    return worst


def _load_weights(module: nn.Module, entry: registry.Entry, path: Path) -> tuple[str, ...]:
    """Load a checkpoint into the network and return what a person should know about it."""
    from graftonnx.models.checkpoint import CheckpointError, load_state_dict, read_state_dict

    try:
        state = read_state_dict(path)
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    try:
        dropped = load_state_dict(module, state, classifier=entry.classifier, optional=entry.optional)
    except CheckpointError as error:
        advice = (
            f"Pass --classes {error.classes}."
            if error.classes is not None
            else "Check NAME and --width: the keys and shapes must be torchvision's."
        )
        raise ModelError(f"cannot load '{path}' into {entry.name}: {error} {advice}") from error
    return tuple(
        f"dropped the checkpoint's '{prefix}*': {entry.name} is built without it" for prefix in dropped
    )


def _image_shape(model: onnx.ModelProto) -> tuple[int, int, int]:
    """Return `(C, H, W)` of the model's input."""
    _, channels, height, width = _sizes(model.graph.input[0])
    return channels, height, width


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """Return the sizes of a value's dimensions; 0 for a symbolic one."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
