"""What a network's input expects: what was given, what the file says, or a guess with its reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graftonnx.errors import ModelError
from graftonnx.graph import GraphView
from graftonnx.metadata import GUESSED, PRESETS, Metadata, Preprocess

MARKS = (("tf2onnx", "inception"), ("keras", "inception"), ("caffe", "caffe"))
"""Words in the name of a producer, and the preset that its networks are usually trained with."""

PASSED = frozenset({"Transpose", "Cast", "Identity", "Resize"})
"""What may stand between the input and its normalisation."""

UNIT_LIMIT = 2.0
"""Means and deviations of images in 0..1 are below this, those of images in 0..255 above."""


def find_preprocess(
    given: Preprocess | str | None,
    metadata: Metadata,
    producer: str,
    view: GraphView,
    shape: Sequence[int],
) -> tuple[Preprocess, str]:
    """Return what the input of a network expects, and how we know.

    Args:
        given: A preset's name, or the numbers, if somebody said it.
        metadata: What the file says about itself.
        producer: What the file says made it.
        view: Its graph, with one input.
        shape: Of the input: C and the extents.

    Raises:
        ModelError: If what was given does not fit the input.
        ValueError: If there is no preset of that name.
    """
    channels, *extents = shape
    if isinstance(given, str):
        if given not in PRESETS:
            raise ValueError(f"preprocess (={given!r}) is not one of {', '.join(PRESETS)}")
        given = PRESETS[given]
    if given is not None:
        if len(extents) != 2 and given.order != "rgb":
            raise ModelError(
                f"its preprocessing orders channels as {given.order}, its input is no image. "
                "Give scale, mean and std alone."
            )
        return check_preprocess(given, channels), "given"
    if metadata.input is not None:
        return check_preprocess(metadata.input.preprocess, channels), "the file says so"
    if len(extents) != 2:
        return Preprocess(), "raw numbers: no image"
    return _guessed(producer, view, channels)


def check_preprocess(convention: Preprocess, channels: int) -> Preprocess:
    """Return `convention` if it fits an image of so many channels.

    Raises:
        ModelError: If it has another number of means or deviations, or greys an RGB input.
    """
    for what, numbers in (("mean", convention.mean), ("std", convention.std)):
        if len(numbers) not in (1, channels):
            raise ModelError(
                f"its preprocessing has {len(numbers)} numbers in {what}, its input {channels} "
                f"channel{'s' if channels > 1 else ''}. Give one number, or one each channel."
            )
    if convention.order == "grey" and channels != 1:
        raise ModelError(
            f"its preprocessing is for grey images, its input has {channels} channels. Use rgb or bgr."
        )
    return convention


def _guessed(producer: str, view: GraphView, channels: int) -> tuple[Preprocess, str]:
    own = _own_range(view)
    if channels == 1:
        reason = f"{GUESSED}: one channel" + ("" if own is None else f", it scales 0..{own} itself")
        return Preprocess(order="grey", scale=own or 1), reason
    if own is not None:
        preset = "unit" if own == 1 else "raw"
        return PRESETS[preset], f"{GUESSED} '{preset}': it scales 0..{own} itself"
    for mark, preset in MARKS:
        if mark in producer.lower():
            return PRESETS[preset], f"{GUESSED} '{preset}': made by {producer}"
    return PRESETS["imagenet"], f"{GUESSED} 'imagenet': made by {producer or 'an unknown exporter'}"


@np.errstate(all="ignore")  # numbers of a file: what comes out is only compared
def _own_range(view: GraphView) -> int | None:
    """Return the largest number of an image, 1 or 255, that a network normalises itself; None if it does not.

    What it does first is `x * scale + offset`: numbers around its mean become numbers around 0.
    """
    scale, offset, found = np.ones(1), np.zeros(1), False
    (value,) = view.inputs
    while len(view.consumers[value]) == 1:
        (node,) = view.consumers[value]
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            constant = view.constant(node.input[1])
            if constant is None or constant.size > 3 or node.input[0] != value or not np.all(constant):
                break
            number = constant.ravel().astype(np.float64)
            found = True
            if node.op_type in ("Add", "Sub"):
                offset = offset + (number if node.op_type == "Add" else -number)
            else:
                factor = number if node.op_type == "Mul" else 1 / number
                scale, offset = scale * factor, offset * factor
        elif node.op_type not in PASSED:
            break
        value = node.output[0]
    if not found:
        return None
    largest = max(np.abs(offset / scale).max(), np.abs(1 / scale).max())
    return 255 if largest > UNIT_LIMIT else 1
