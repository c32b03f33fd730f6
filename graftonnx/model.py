"""The door: read a network safely, bring it to one internal form, write it whole or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx

from graftonnx import collector, files
from graftonnx.admission import admit
from graftonnx.errors import GraftError, ModelError
from graftonnx.graph import WITH_BODIES, GraphView, value_shapes
from graftonnx.metadata import Metadata, Preprocess, read_metadata
from graftonnx.network import Index, Network
from graftonnx.normalise.batch import BATCH, check_batch, infer_freed
from graftonnx.normalise.computing import Work
from graftonnx.normalise.constants import constants_to_initializers, drop_dead, fold, replace
from graftonnx.normalise.divisions import DIVIDING, check_divisions
from graftonnx.normalise.dtypes import fold_narrow, widen
from graftonnx.normalise.extents import free_extents
from graftonnx.normalise.growth import KINDS, check_growth, check_shapes
from graftonnx.normalise.inference import infer_shapes, set_extents
from graftonnx.normalise.layout import to_channels_first
from graftonnx.normalise.names import name_nodes
from graftonnx.normalise.opset import (
    check_operators,
    convert_opset,
    declared_opset,
    inline_functions,
    use_default_domain,
)
from graftonnx.normalise.quantization import check_float, dequantise
from graftonnx.preprocessing import find_preprocess
from graftonnx.shapes import spelled
from graftonnx.spine import find_head
from graftonnx.weights import (
    Weights,
    digest,
    exceeds_protobuf,
    read,
    split,
    without_stubs,
    write,
    write_external,
)

DEFAULT_EXTENTS = {1: (16_000,), 2: (224, 224), 3: (16, 112, 112)}
"""The extents at which a network runs whose file leaves one open, by their number: a second of sound at
16 kHz, an image, a clip."""

LAYOUTS = {1: "[N, C, L]", 2: "[N, C, H, W]", 3: "[N, C, D, H, W]"}
"""What inputs look like, by the number of extents behind the channels."""


@collector.paused()
def load(
    path: str | Path,
    *,
    input_size: tuple[int, ...] | None = None,
    preprocess: Preprocess | str | None = None,
    dequantize: bool = False,
) -> Network:
    """Read a classifier and bring it to the internal form.

    Args:
        path: An ONNX file of any exporter, opset 7 or newer.
        input_size: The extents at which the network shall run, for images height and width in pixels; its own
            when omitted. When they differ from the network's own, the head is cut off.
        preprocess: What the input expects: a preset's name or the numbers; a guess with a reason when
            omitted.
        dequantize: Whether a quantised network becomes one of floats; otherwise it is refused.

    Returns:
        The network, with every shape inferred.

    Raises:
        ModelError: If the file cannot be read or is not such a classifier.
        UnsupportedOpError: If it holds operators that ONNX does not define.
    """
    path = Path(path)
    model, weights = read(path)
    try:
        network = _normalised(model, weights, path.name, digest(path), preprocess, dequantize)
        network = dataclasses.replace(network, path=path)
        return network if input_size is None else resize(network, input_size)
    except GraftError as error:
        raise error.at(f"cannot use '{path}'") from error


@collector.paused()
def from_proto(
    model: onnx.ModelProto,
    name: str,
    *,
    input_size: tuple[int, ...] | None = None,
    preprocess: Preprocess | str | None = None,
    dequantize: bool = False,
) -> Network:
    """Do what :func:`load` does, with a model that is in memory; `model` stays as it is."""
    admit(model)
    network = _normalised(*split(model), name, "", preprocess, dequantize)
    return network if input_size is None else resize(network, input_size)


def resize(network: Network, size: tuple[int, ...]) -> Network:
    """Return a network as it runs at another input size, with its head cut off.

    Args:
        network: Any network.
        size: The extents, for images height and width in pixels. At its own size the network is returned as
            it is.

    Raises:
        ModelError: If the trunk cannot run at this size, as with extents baked into a `Reshape`.
    """
    if min(size) < 1:
        raise ValueError(f"size (={size}) must be at least 1 in every extent")
    if len(network.input_shapes) > 1:
        raise ModelError(
            f"it has {len(network.input_shapes)} inputs, each of its own size; expected one. Fuse its "
            "parents again at another size."
        )
    if len(size) != len(network.input_shape) - 1:
        raise ModelError(
            f"its input has the shape {spelled((None, *network.input_shape))}; "
            f"it cannot run at {_by(size)}, which has another number of extents."
        )
    if size == network.input_shape[1:]:
        return network
    model, weights = onnx.ModelProto(), dict(network.weights)
    model.CopyFrom(network.skeleton)
    feature = network.head.feature
    replace(model.graph.output, [onnx.helper.make_tensor_value_info(feature, onnx.TensorProto.FLOAT, None)])
    drop_dead(model, weights)
    shape = (network.input_shape[0], *size)
    free_extents(model, weights)
    try:
        set_extents(model, network.input, (BATCH, *shape))
        model = infer_shapes(model)
        work = Work()
        while fold(model, weights, work=work):
            model = infer_shapes(model)
        check_batch(model, {network.input: shape}, 1)
        check_shapes(value_shapes(model.graph))
        check_divisions(model)
        check_growth(model)
    except ModelError as error:
        unit = " pixels" if len(size) == 2 else ""
        raise error.at(f"it cannot run at {_by(size)}{unit}") from error
    return dataclasses.replace(network, skeleton=model, weights=weights, input_shape=shape, complete=False)


@collector.paused()
def save(model: Network | onnx.ModelProto, path: str | Path, *, force: bool = False) -> None:
    """Write a model atomically; beyond 2 GB the weights go into `<name>.data` beside it.

    Raises:
        GraftError: If the target exists and `force` is false, or cannot be written.
    """
    skeleton, weights = (model.skeleton, model.weights) if isinstance(model, Network) else split(model)
    save_skeleton(skeleton, weights, Path(path), force=force)


def save_skeleton(skeleton: onnx.ModelProto, weights: Weights, path: Path, *, force: bool = False) -> None:
    """Do what :func:`save` does, with a skeleton and its large tensors."""
    files.check_writable(path, force=force)
    if not exceeds_protobuf(skeleton, weights):
        with files.atomic(path) as temporary:
            write(skeleton, weights, temporary)
        return
    data = path.with_name(f"{path.name}.data")
    files.check_writable(data, force=force)
    with files.atomic(path) as temporary, files.atomic(data) as elements:
        write_external(skeleton, weights, temporary, elements, location=data.name)
        path.unlink(missing_ok=True)  # an old file would go with the new data, were we killed between the two


def _normalised(
    model: onnx.ModelProto,
    weights: Weights,
    name: str,
    digest: str,
    preprocess: Preprocess | str | None,
    dequantize: bool,
) -> Network:
    opset, ir_version, producer = declared_opset(model), model.ir_version, model.producer_name
    nodes = len(model.graph.node)
    metadata = read_metadata(model)
    notes: list[str] = []
    model, weight_type, view = _cleaned(model, weights, opset, notes, dequantize=dequantize)
    inputs = _inputs(model, metadata)
    passed = _drop_passed_outputs(view)
    turned = [value for value in inputs if to_channels_first(model, value, view)]
    shapes = {value: _input_shape(model, value, value in turned, notes) for value in inputs}
    # A fused file was proven with batches of 1 and 3: what is done to one with an open batch is no news.
    is_proven = bool(metadata.parents) and all(_has_open_batch(model, value) for value in inputs)
    model, view = infer_freed(model, weights, shapes, [] if is_proven else notes, None if turned else view)
    check_shapes(view.shapes)
    if not (DIVIDING | WITH_BODIES).isdisjoint(view.kinds):
        check_divisions(model)
    if not KINDS.isdisjoint(view.kinds):
        check_growth(model)
    head, spine, auxiliary = find_head(view, inputs)
    dropped = (*passed, *auxiliary)
    if dropped:
        notes.append(f"other outputs dropped: {', '.join(dropped)}")
    model.graph.value_info.extend(o for o in model.graph.output if o.name in auxiliary)
    replace(model.graph.output, [o for o in model.graph.output if o.name == head.output])
    unchanged = not drop_dead(model, weights, view) and not dropped
    shape = shapes[inputs[0]]
    known, reason = find_preprocess(preprocess, metadata, producer, view, shape)
    return Network(
        name=name,
        skeleton=model,
        weights=weights,
        input=inputs[0],
        input_shape=shape,
        head=head,
        preprocess=known,
        preprocess_reason=reason,
        metadata=metadata,
        sha256=digest,
        producer=" ".join(part for part in (producer, model.producer_version) if part),
        opset=opset,
        ir_version=ir_version,
        weight_type=weight_type,
        notes=tuple(notes),
        file_nodes=nodes,
        _indices=[Index(model, view, {head.output: spine})] if unchanged else [],
    )


def _cleaned(
    model: onnx.ModelProto, weights: Weights, opset: int, notes: list[str], *, dequantize: bool
) -> tuple[onnx.ModelProto, str, GraphView]:
    """Return the model with valid float32 operators of one opset, the type its weights had, and an index."""
    if model.functions:
        use_default_domain(model)
        model = inline_functions(model)
    view = GraphView(model.graph)
    use_default_domain(model, view.kinds)
    if any(node is not other for node, other in zip(view.nodes, model.graph.node, strict=True)):
        replace(model.graph.node, view.nodes)
        notes.append("nodes brought into topological order")
        view = GraphView(model.graph)
    if dequantize:
        check_valid(model, weights)
        constants_to_initializers(model, weights)
        if count := dequantise(model, weights):
            notes.append(f"dequantised: {count} operators on quantised numbers replaced or dropped")
    kinds = None if dequantize else frozenset(view.kinds)
    check_float(model, kinds)
    check_operators(model, opset, kinds)
    check_valid(model, weights)
    changed = constants_to_initializers(model, weights, kinds) or dequantize
    found = [kind for kind in (fold_narrow(model, weights), widen(model, weights, kinds)) if kind]
    notes += [f"{kind} weights are float32 inside" for kind in found]
    converted = convert_opset(model, opset, kinds)
    if converted is not model:
        constants_to_initializers(converted, weights)
    changed = changed or bool(found) or converted is not model
    name_nodes(converted.graph, kinds if converted is model else None)
    if changed:
        view = GraphView(converted.graph)
    return converted, found[-1] if found else "float32", view


def check_valid(model: onnx.ModelProto, weights: Weights) -> None:
    """Run onnx's checker on a skeleton.

    Raises:
        ModelError: If it complains.
    """
    try:
        onnx.checker.check_model(without_stubs(model, weights))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"it is not valid ONNX: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split("\n\n==>")[0].split())
    return text if text.endswith(".") else f"{text}."


def _inputs(model: onnx.ModelProto, metadata: Metadata) -> list[str]:
    """Return the one input, or those of a fused network's branches: batches of images, sounds or clips."""
    inputs = list(model.graph.input)
    separate = inputs and {value.name for value in inputs} == metadata.branch_inputs.keys()
    if len(inputs) != 1 and not separate:
        names = ", ".join(f"'{value.name}'" for value in inputs) or "none"
        raise ModelError(
            f"its inputs are {names}; expected one image, sound or clip. Only networks with one input can be "
            "fused."
        )
    for value in inputs:
        kind = value.type.tensor_type
        dims = tuple(d.dim_value or None for d in kind.shape.dim)
        if kind.elem_type != onnx.TensorProto.FLOAT or len(dims) - 2 not in LAYOUTS:
            found = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
            raise ModelError(
                f"its input '{value.name}' is {found} {spelled(dims)}; expected a float image {LAYOUTS[2]}, "
                f"or sound {LAYOUTS[1]}, or video {LAYOUTS[3]}. Only such classifiers can be fused."
            )
    return [str(value.name) for value in inputs]


def _input_shape(model: onnx.ModelProto, image: str, was_last: bool, notes: list[str]) -> tuple[int, ...]:
    """Return an input's channels and extents, defaults where these are open."""
    channels, size = _input_extents(model, image)
    if was_last:
        notes.append(f"channels-last input brought to {LAYOUTS[len(size)]}")
    if 0 in size:
        what = "height and width" if len(size) == 2 else "extents"
        size = DEFAULT_EXTENTS[len(size)]
        notes.append(f"{what} are open: taken as {_by(size)}")
    return channels, *size


def _drop_passed_outputs(view: GraphView) -> list[str]:
    """Drop the outputs that no node makes, inputs and weights; return their names."""
    outputs = view.graph.output
    passed = [value.name for value in outputs if value.name not in view.position]
    replace(outputs, [value for value in outputs if value.name in view.position])
    return passed


def _input_extents(model: onnx.ModelProto, image: str) -> tuple[int, tuple[int, ...]]:
    """Return the channels of the input (if open: RGB, or one for sound), and its extents (0 where open)."""
    value = next(item for item in model.graph.input if item.name == image)
    _, channels, *extents = (max(d.dim_value, 0) for d in value.type.tensor_type.shape.dim)
    channels = channels or (1 if len(extents) == 1 else 3)
    if len(extents) == 2 and channels not in (1, 3):
        raise ModelError(
            f"its input '{image}' has {channels} channels; expected 1 (grey) or 3 (RGB). Only such "
            "networks can be fused."
        )
    return channels, tuple(extents)


def _has_open_batch(model: onnx.ModelProto, image: str) -> bool:
    (dim,) = (v.type.tensor_type.shape.dim[0] for v in model.graph.input if v.name == image)
    return not dim.HasField("dim_value")


def _by(size: tuple[int, ...]) -> str:
    """Return extents for people: `224x224`."""
    return "x".join(map(str, size))
