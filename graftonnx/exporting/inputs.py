"""What an exported file takes: floats or 8-bit pixels, channels first or last, of one batch, of one size.

    input ─ (Transpose) ─ (Cast) ─ (Resize) ─ (channel order) ─ (Mul) ─ (Add) ─ what the network took before

8-bit pixels go through the network's whole convention inside: no program has to know it any more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from graftonnx.errors import ModelError
from graftonnx.exporting.form import Form
from graftonnx.graph import GraphView
from graftonnx.metadata import PRESETS, InputConvention, Preprocess
from graftonnx.normalise.constants import replace
from graftonnx.normalise.inference import set_extents
from graftonnx.normalise.layout import to_first
from graftonnx.normalise.names import fresh, value_names
from graftonnx.shapes import spelled
from graftonnx.weights import Weights, add_initializer

ANTIALIASED = {
    "axes": [2, 3],
    "mode": "linear",
    "coordinate_transformation_mode": "half_pixel",
    "antialias": 1,
    "exclude_outside": 1,
}
"""A Resize with the filter that decodes images; the last keeps what is outside from counting at the edges."""

ANY_SIZE = (0, 0)
"""The size of a form that takes images of any size."""


def set_inputs(
    model: onnx.ModelProto, weights: Weights, preprocess: Preprocess, form: Form
) -> InputConvention:
    """Give the image inputs of a network another form, in place.

    Args:
        model: The skeleton; its inputs are float32, [N, C, H, W].
        weights: Its large tensors.
        preprocess: What they expect.
        form: What they shall be.

    Returns:
        What they expect then.

    Raises:
        ModelError: If the network takes no images, its batch is fixed at another number, or images of another
            size are wanted for several inputs, each of its own size.
    """
    view = GraphView(model.graph)
    if form.size is not None and len(view.inputs) > 1:
        raise ModelError(
            f"it has {len(view.inputs)} inputs, each of its own size; --size is for networks with one. "
            "Leave it out."
        )
    sizes = [_set_input(model, weights, name, preprocess, form) for name in view.inputs]
    return InputConvention(
        preprocess=PRESETS["raw"] if form.element == "uint8" else preprocess,
        layout=form.layout,
        size=sizes[0] if form.size == ANY_SIZE else None,
    )


def _set_input(
    model: onnx.ModelProto, weights: Weights, name: str, preprocess: Preprocess, form: Form
) -> tuple[int, int]:
    """Change one input; return the height and width at which the network runs."""
    view = GraphView(model.graph)
    shape = view.shapes.get(name, ())
    if len(shape) != 4 or None in shape[1:]:
        raise ModelError(
            f"its input '{name}' is {spelled(shape)}; expected images [N, C, H, W] of a fixed size."
        )
    batch, channels, height, width = (extent or 0 for extent in shape)
    if batch and form.batch not in (None, batch):
        raise ModelError(
            f"its batch is fixed at {batch}, it cannot become {form.batch}. Export the run instead."
        )
    builder = _Builder(model, weights)
    end = name
    if form.layout == "nhwc":
        end = builder.add("Transpose", end, f"{name}/channels_first", perm=to_first(4))
    if form.element == "uint8":
        end = builder.add("Cast", end, f"{name}/float", to=TensorProto.FLOAT)
    if form.size not in (None, (height, width)):
        sizes = builder.constant(f"{name}/size", np.array([height, width], np.int64))
        end = builder.add("Resize", end, f"{name}/resize", "", "", sizes, **ANTIALIASED)
    if form.element == "uint8" and preprocess.order == "bgr" and channels == 3:
        order = builder.constant(f"{name}/bgr", np.array([2, 1, 0], np.int64))
        end = builder.add("Gather", end, f"{name}/order", order, axis=1)
    _lead_to(builder, view.consumers[name], name, end, preprocess if form.element == "uint8" else None)
    replace(model.graph.node, [*builder.nodes, *view.nodes])
    taken = form.size or (height, width)
    planes = [channels, *(extent or word for extent, word in zip(taken, ("height", "width"), strict=True))]
    ordered = planes if form.layout == "nchw" else [*planes[1:], planes[0]]
    set_extents(model, name, (form.batch or batch or "batch", *ordered))
    if form.element == "uint8":
        value = next(item for item in model.graph.input if item.name == name)
        value.type.tensor_type.elem_type = TensorProto.UINT8
    return height, width


def _lead_to(
    builder: _Builder, readers: list[NodeProto], name: str, end: str, preprocess: Preprocess | None
) -> None:
    """Let the readers of an input read `end`; each through a normalisation of its own, if there is one.

    So every branch can take it into its first Conv.
    """
    factors: list[tuple[str, str]] = []
    if preprocess is not None:
        along = (1, -1, 1, 1)
        mean, std = (np.array(v, np.float64).reshape(along) for v in (preprocess.mean, preprocess.std))
        factors.append(("Mul", builder.constant(f"{name}/scale", preprocess.scale / 255 / std)))
        if mean.any():
            factors.append(("Add", builder.constant(f"{name}/offset", -mean / std)))
    for reader in readers:
        source = end
        for op, constant in factors:
            source = builder.add(op, source, f"{name}/{op.lower()}", constant)
        replace(reader.input, [source if read == name else read for read in reader.input])


class _Builder:
    """Makes nodes whose names are free."""

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self._model, self._weights = model, weights
        self._taken = value_names(model.graph)
        self.nodes: list[NodeProto] = []

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        """Add an initializer, floats as float32; return its name."""
        name = fresh(name, self._taken)
        array = values.astype(np.float32) if values.dtype.kind == "f" else values
        add_initializer(self._model, self._weights, name, array)
        return name

    def add(self, op: str, source: str, name: str, *others: str, **attributes: Any) -> str:
        """Add a node that reads `source`, and `others` behind it; return what it makes."""
        name = fresh(name, self._taken)
        self.nodes.append(helper.make_node(op, [source, *others], [name], name, **attributes))
        return name
