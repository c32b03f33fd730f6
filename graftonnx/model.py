"""The door: read a network safely, bring it to one internal form, write it whole or not at all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from graftonnx import collector, files
from graftonnx.errors import GraftError, ModelError
from graftonnx.graph import GraphView
from graftonnx.metadata import PRESETS, Metadata, Preprocess, read_metadata
from graftonnx.normalise.batch import free_batch, may_fix_batch
from graftonnx.normalise.constants import constants_to_initializers, drop_dead, fold, replace
from graftonnx.normalise.dtypes import widen
from graftonnx.normalise.inference import infer_shapes, set_extents
from graftonnx.normalise.layout import to_channels_first
from graftonnx.normalise.opset import check_operators, convert_opset, declared_opset, inline_functions
from graftonnx.shapes import spelled
from graftonnx.spine import Head, Spine, find_head, find_spine
from graftonnx.weights import (
    Weights,
    exceeds_protobuf,
    read,
    split,
    whole,
    without_stubs,
    write,
    write_external,
)

BATCH = "batch"
DEFAULT_SIZE = (224, 224)
"""Height and width at which a network runs whose file leaves both open."""


@dataclass(frozen=True)
class Network:
    """An image classifier in the internal form.

    One opset, one channels-first float input `[batch, C, H, W]`, constants as initializers, every shape known
    but for the batch. Never modified in place.

    Attributes:
        name: The file's name, without its folder.
        skeleton: The graph; large initializers are stubs.
        weights: The data of the stubs.
        input: The image input.
        input_shape: C, H, W.
        head: Its own head: output, classes, and the feature tensor in front.
        preprocess: What the input expects, as far as we know.
        preprocess_reason: How we know.
        metadata: What the file said about itself.
        sha256: Of the file's bytes.
        producer: What the file says made it.
        opset: What the file was written in.
        ir_version: Likewise.
        complete: Whether the head is still there; it is cut off when the input size is changed.
        notes: What was changed on the way in, in words.
        path: The file, if it came from one.
    """

    name: str
    skeleton: onnx.ModelProto
    weights: Weights = field(repr=False)
    input: str
    input_shape: tuple[int, int, int]
    head: Head
    preprocess: Preprocess
    preprocess_reason: str
    metadata: Metadata = field(repr=False)
    sha256: str
    producer: str
    opset: int
    ir_version: int
    complete: bool = True
    notes: tuple[str, ...] = ()
    path: Path | None = None
    _views: list[tuple[onnx.ModelProto, GraphView]] = field(default_factory=list, repr=False, compare=False)

    @property
    def proto(self) -> onnx.ModelProto:
        """The whole model, weights included."""
        return whole(self.skeleton, self.weights)

    @property
    def view(self) -> GraphView:
        """An index over the skeleton's graph; made once for all networks that share the skeleton."""
        for skeleton, view in self._views:
            if skeleton is self.skeleton:
                return view
        view = GraphView(self.skeleton.graph)
        self._views.append((self.skeleton, view))
        return view

    @cached_property
    def spine(self) -> Spine:
        """The values on every path from the input to the output, or to the feature where the head is cut."""
        return find_spine(self.view, self.input, self.head.output if self.complete else self.head.feature)


@collector.paused()
def load(
    path: str | Path,
    *,
    input_size: tuple[int, int] | None = None,
    preprocess: Preprocess | str | None = None,
) -> Network:
    """Read an image classifier and bring it to the internal form.

    Args:
        path: An ONNX file of any exporter, opset 7 or newer.
        input_size: Height and width in pixels at which the network shall run; its own when omitted. When it
            differs from the network's own, the head is cut off.
        preprocess: What the input expects: a preset's name or the numbers; a guess with a reason when
            omitted.

    Returns:
        The network, with every shape inferred.

    Raises:
        ModelError: If the file cannot be read or is not an image classifier.
        UnsupportedOpError: If it holds operators that ONNX does not define.
    """
    path = Path(path)
    model, weights = read(path)
    try:
        network = _normalised(model, weights, path.name, files.sha256(path), preprocess)
        network = dataclasses.replace(network, path=path)
        return network if input_size is None else resize(network, input_size)
    except GraftError as error:
        raise error.at(f"cannot use '{path}'") from error


@collector.paused()
def from_proto(
    model: onnx.ModelProto,
    name: str,
    *,
    input_size: tuple[int, int] | None = None,
    preprocess: Preprocess | str | None = None,
) -> Network:
    """Do what :func:`load` does, with a model that is in memory; `model` stays as it is."""
    network = _normalised(*split(model), name, "", preprocess)
    return network if input_size is None else resize(network, input_size)


def resize(network: Network, size: tuple[int, int]) -> Network:
    """Return a network as it runs at another input size, with its head cut off.

    Args:
        network: Any network.
        size: Height and width in pixels. At its own size the network is returned as it is.

    Raises:
        ModelError: If the trunk cannot run at this size, as with extents baked into a `Reshape`.
    """
    if min(size) < 1:
        raise ValueError(f"size (={size}) must be at least 1 pixel in height and width")
    if size == network.input_shape[1:]:
        return network
    model, weights = onnx.ModelProto(), dict(network.weights)
    model.CopyFrom(network.skeleton)
    feature = network.head.feature
    replace(model.graph.output, [onnx.helper.make_tensor_value_info(feature, onnx.TensorProto.FLOAT, None)])
    drop_dead(model, weights)
    shape = (network.input_shape[0], *size)
    set_extents(model, network.input, (BATCH, *shape))
    try:
        model = infer_shapes(model)
    except ModelError as error:
        raise error.at(f"it cannot run at {size[0]}x{size[1]} pixels") from error
    return dataclasses.replace(network, skeleton=model, weights=weights, input_shape=shape, complete=False)


@collector.paused()
def save(model: Network | onnx.ModelProto, path: str | Path, *, force: bool = False) -> None:
    """Write a model atomically; beyond 2 GB the weights go into `<name>.data` beside it.

    Raises:
        GraftError: If the target exists and `force` is false, or cannot be written.
    """
    path = Path(path)
    files.check_writable(path, force=force)
    skeleton, weights = (model.skeleton, model.weights) if isinstance(model, Network) else split(model)
    if not exceeds_protobuf(skeleton, weights):
        with files.atomic(path) as temporary:
            write(skeleton, weights, temporary)
        return
    data = path.with_name(f"{path.name}.data")
    files.check_writable(data, force=force)
    with files.atomic(path) as temporary, files.atomic(data) as elements:
        write_external(skeleton, weights, temporary, elements, location=data.name)


def _normalised(
    model: onnx.ModelProto,
    weights: Weights,
    name: str,
    digest: str,
    preprocess: Preprocess | str | None,
) -> Network:
    opset, ir_version, producer = declared_opset(model), model.ir_version, model.producer_name
    metadata = read_metadata(model)
    model = inline_functions(model)
    check_operators(model, opset)
    _check(model, weights)
    notes: list[str] = []
    constants_to_initializers(model, weights)
    half = widen(model, weights)
    if half:
        notes.append(f"{half} weights are float32 inside")
    model = convert_opset(model, opset)
    constants_to_initializers(model, weights)
    image = _image_input(model)
    if to_channels_first(model, image):
        notes.append("channels-last input brought to [N, C, H, W]")
    channels, size = _input_extents(model, image)
    if size is None:
        size = DEFAULT_SIZE
        notes.append(f"height and width are open: taken as {size[0]}x{size[1]}")
    model = _infer(model, weights, image, (channels, *size), notes)
    view = GraphView(model.graph)
    head, _, auxiliary = find_head(view, image)
    if auxiliary:
        notes.append(f"other outputs dropped: {', '.join(auxiliary)}")
    replace(model.graph.output, [o for o in model.graph.output if o.name == head.output])
    unchanged = not drop_dead(model, weights, view) and not auxiliary
    known, reason = _preprocessing(preprocess, metadata, producer, channels)
    return Network(
        name=name,
        skeleton=model,
        weights=weights,
        input=image,
        input_shape=(channels, *size),
        head=head,
        preprocess=known,
        preprocess_reason=reason,
        metadata=metadata,
        sha256=digest,
        producer=" ".join(part for part in (producer, model.producer_version) if part),
        opset=opset,
        ir_version=ir_version,
        notes=tuple(notes),
        _views=[(model, view)] if unchanged else [],
    )


def _check(model: onnx.ModelProto, weights: Weights) -> None:
    """Run onnx's checker."""
    try:
        onnx.checker.check_model(without_stubs(model, weights))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"it is not valid ONNX: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split("\n\n==>")[0].split())
    return text if text.endswith(".") else f"{text}."


def _image_input(model: onnx.ModelProto) -> str:
    """Return the one input, which must be an image batch."""
    inputs = list(model.graph.input)
    if len(inputs) != 1:
        names = ", ".join(f"'{value.name}'" for value in inputs) or "none"
        raise ModelError(
            f"its inputs are {names}; expected one image. Only networks with one image input can be fused."
        )
    kind = inputs[0].type.tensor_type
    dims = tuple(d.dim_value or None for d in kind.shape.dim)
    if kind.elem_type != onnx.TensorProto.FLOAT or len(dims) != 4:
        found = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise ModelError(
            f"its input '{inputs[0].name}' is {found} {spelled(dims)}; expected a float image [N, C, H, W]. "
            "Only image classifiers can be fused."
        )
    return str(inputs[0].name)


def _input_extents(model: onnx.ModelProto, image: str) -> tuple[int, tuple[int, int] | None]:
    """Return the channels of the image input (RGB if open), and its size (None if open)."""
    value = next(item for item in model.graph.input if item.name == image)
    _, channels, height, width = (d.dim_value for d in value.type.tensor_type.shape.dim)
    channels = 3 if channels < 1 else channels
    if channels not in (1, 3):
        raise ModelError(f"its input '{image}' has {channels} channels; expected 1 (grey) or 3 (RGB).")
    if height < 1 or width < 1:
        return channels, None
    return channels, (height, width)


def _infer(
    model: onnx.ModelProto, weights: Weights, image: str, extents: tuple[int, int, int], notes: list[str]
) -> onnx.ModelProto:
    """Free the batch and infer every shape; constant parts are folded on the way."""
    set_extents(model, image, (BATCH, *extents))
    model = infer_shapes(model)
    while fold(model, weights):
        model = infer_shapes(model)
    if not may_fix_batch(model.graph):
        return model
    set_extents(model, image, (1, *extents))
    model = infer_shapes(model)
    if free_batch(model, weights, image):
        notes.append("batch made dynamic")
    set_extents(model, image, (BATCH, *extents))
    return infer_shapes(model)


def _preprocessing(
    given: Preprocess | str | None, metadata: Metadata, producer: str, channels: int
) -> tuple[Preprocess, str]:
    """Return what the input expects, and how we know."""
    if isinstance(given, str):
        given = PRESETS.get(given) or _unknown_preset(given)
    if given is not None:
        return check_preprocess(given, channels), "given"
    if metadata.input is not None:
        return check_preprocess(metadata.input.preprocess, channels), "the file says so"
    if channels == 1:
        return Preprocess(order="grey"), "guessed: one channel"
    for mark, preset in (("tf2onnx", "inception"), ("keras", "inception"), ("caffe", "caffe")):
        if mark in producer.lower():
            return PRESETS[preset], f"guessed '{preset}': made by {producer}"
    return PRESETS["imagenet"], f"guessed 'imagenet': made by {producer or 'an unknown exporter'}"


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


def _unknown_preset(name: str) -> Preprocess:
    raise ValueError(f"preprocess (={name!r}) is not one of {', '.join(PRESETS)}")
