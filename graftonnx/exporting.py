"""Write the deployable file of a trained network: folded, labelled, and proven to compute the same.

Nothing is written before ONNX Runtime has run the new network beside the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from graftonnx import files
from graftonnx.classifier import image_shape, known_preprocess, model_file, preprocessed, softmax
from graftonnx.errors import DataError, ModelError, ParityError
from graftonnx.folding import Folded, fold_operators
from graftonnx.graph import GraphView
from graftonnx.images import as_input
from graftonnx.metadata import InputConvention, Metadata, Preprocess, read_metadata, write_metadata
from graftonnx.model import load, save
from graftonnx.normalise.constants import replace
from graftonnx.normalise.inference import infer_shapes
from graftonnx.runtime import Session, open_session, with_outputs
from graftonnx.shapes import spelled
from graftonnx.spine import final_softmax
from graftonnx.weights import exceeds_protobuf, read, split, whole

PROBABILITIES, LOGITS = "probabilities", "logits"

TOLERANCE = 1e-4
"""Of the largest output. Folding rounds each weight once and changes the order of sums: about 1e-6 in
practice for networks of 100 layers; a wrong fold is off by 1e-2 or more."""

SOFTMAX_TOLERANCE = 1e-5
"""Absolute, between ONNX Runtime's softmax of the new logits and float64's."""

HALF_TOLERANCE = 1e-2
"""The same where the source computes in float16, whose rounding is 5e-4 of each value."""

IMAGES = 8
"""Random images that both networks have to agree on."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: The file.
        source: The network that it was made from.
        nodes_before: Nodes in `source`.
        nodes: Nodes in the file.
        bytes_before: Size of `source`.
        bytes: Size of the file, external data included.
        folded: What was taken out.
        output: Name of the output.
        labels: Number of class names inside; 0 if there are none.
        difference: Largest difference between the outputs of both, over random images, as a share of the
            largest output.
        tolerance: What `difference` may be at most.
    """

    path: Path
    source: Path
    nodes_before: int
    nodes: int
    bytes_before: int
    bytes: int
    folded: Folded
    output: str
    labels: int
    difference: float
    tolerance: float


def export(
    source: Path,
    output: Path,
    *,
    with_softmax: bool = True,
    labels: tuple[str, ...] | None = None,
    preprocess: Preprocess | str | None = None,
    force: bool = False,
) -> Export:
    """Fold a trained network and write it as one deployable file.

    Args:
        source: A run folder, or an ONNX file.
        output: The file to write.
        with_softmax: Whether the output is `probabilities`; otherwise the logits.
        labels: Class names that replace those in the file.
        preprocess: What the input expects, for a file that does not say so itself.
        force: Whether an existing file may be replaced.

    Raises:
        GraftError: If `output` cannot be written.
        ModelError: If `source` cannot be read or is no image classifier.
        DataError: If the labels do not fit.
        ParityError: If the new network gives other numbers than the old one.
    """
    files.check_writable(output, force=force)
    path = model_file(source)
    original = whole(*read(path))
    metadata = read_metadata(original)
    convention = known_preprocess(path, metadata, preprocess)
    before = original if metadata.input is not None else load(path, preprocess=convention).proto
    try:
        folded, counts = fold_operators(before)
        logits, uncovered = _single_output(folded, with_softmax=with_softmax)
        folded = _with_shapes(folded)
    except ModelError as error:
        raise error.at(f"cannot export '{path}'") from error
    _describe(folded, metadata, convention, labels, with_softmax=with_softmax)
    _check(folded, path)
    difference, tolerance = _compare(path, convention, folded, logits, uncovered=uncovered)
    save(folded, output, force=force)
    return Export(
        path=output,
        source=path,
        nodes_before=len(original.graph.node),
        nodes=len(folded.graph.node),
        bytes_before=_size(path),
        bytes=_size(output),
        folded=counts,
        output=folded.graph.output[0].name,
        labels=len(read_metadata(folded).labels),
        difference=difference,
        tolerance=tolerance,
    )


def _single_output(model: onnx.ModelProto, *, with_softmax: bool) -> tuple[str, bool]:
    """Leave one output [N, K] in place: probabilities or logits.

    Returns:
        The name of the logits (of the probabilities, where the network keeps a softmax of its own), and
        whether a softmax was taken off.
    """
    graph = model.graph
    view = GraphView(graph)
    output = graph.output[0]
    name, shape = str(output.name), view.shapes.get(output.name)
    if shape is None or len(shape) < 2 or shape[1] is None or any(extent != 1 for extent in shape[2:]):
        raise ModelError(f"its output '{name}' is {spelled(shape)}; expected one number each class.")
    own = final_softmax(view, name)
    if own is not None and not with_softmax:
        source = own.input[0]
        for node in graph.node:
            for index, read_name in enumerate(node.input):
                if read_name == own.output[0]:
                    node.input[index] = source
        replace(graph.node, [node for node in view.nodes if node is not own])
        name = source if name == own.output[0] else name
    if len(shape) > 2:
        graph.node.append(helper.make_node("Flatten", [name], [f"{name}/flat"], f"{name}/flatten", axis=1))
        name = f"{name}/flat"
    logits = name
    if with_softmax and own is None:
        graph.node.append(helper.make_node("Softmax", [name], [PROBABILITIES], PROBABILITIES, axis=1))
        name = PROBABILITIES
    else:
        logits = name = _renamed(model, name, PROBABILITIES if with_softmax else LOGITS)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    extent = batch.dim_param or batch.dim_value or "batch"
    value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [extent, shape[1]])
    replace(graph.output, [value])
    return logits, own is not None and not with_softmax


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the shape of every value, inferred anew."""
    skeleton, weights = split(model)
    return whole(infer_shapes(skeleton), weights)


def _renamed(model: onnx.ModelProto, old: str, new: str) -> str:
    """Rename a value that a node makes, unless the name is taken; return the name it has then."""
    nodes = model.graph.node
    taken = {name for node in nodes for name in (*node.input, *node.output)}
    if new in taken:
        return old
    for node in nodes:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name == old:
                    field[index] = new
    return new


def _describe(
    model: onnx.ModelProto,
    metadata: Metadata,
    convention: Preprocess,
    labels: tuple[str, ...] | None,
    *,
    with_softmax: bool,
) -> None:
    """Write into the file what its users need to know, and strip what its makers left in its nodes."""
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    names = metadata.labels if labels is None else labels
    if names and len(names) != classes:
        raise DataError(
            f"cannot label the network: {len(names)} labels given, it has {classes} classes. "
            "Give one each class."
        )
    described = Metadata(
        input=InputConvention(preprocess=convention),
        labels=names,
        parents=metadata.parents,
        plan=metadata.plan,
        head=metadata.head,
        activation="softmax" if with_softmax else None,
    )
    write_metadata(model, described)
    model.producer_name, model.producer_version = "graftonnx", version("graftonnx")
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")


def _check(model: onnx.ModelProto, path: Path) -> None:
    """Let onnx check the file completely, types and shapes included; it cannot beyond 2 GB."""
    if exceeds_protobuf(model):
        return
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"cannot export '{path}': the result is not valid ONNX: {reason} Please report this."
        ) from error


def _compare(
    path: Path, convention: Preprocess, exported: onnx.ModelProto, logits: str, *, uncovered: bool
) -> tuple[float, float]:
    """Run both networks on random images; return their largest difference and the tolerance.

    Both are shares of the largest output. The old one runs with every optimisation off, the new one as it
    will be deployed.

    Args:
        path: The old network.
        convention: What both expect.
        exported: The new network.
        logits: The value in it that stands for the old output.
        uncovered: Whether the old output is the softmax of that value.

    Raises:
        ModelError: If the old network gives numbers that are not finite.
        ParityError: If they differ by more than the tolerance.
    """
    old = open_session(path, provider="cpu", optimise=False)
    new = open_session(with_outputs(exported, [logits]), provider="cpu")
    shapes = [image_shape(path.name, shape) for shape in new.input_shapes]
    images = random_images(IMAGES, max(shape[1] for shape in shapes), max(shape[2] for shape in shapes))
    inputs = [preprocessed(as_input(images, shape), convention) for shape in shapes]
    final = exported.graph.output[0].name
    found, last = new.run(*inputs, outputs=[logits, final])
    expected = _run_as_is(old, inputs)
    if not np.isfinite(expected).all():
        raise ModelError(
            f"cannot export '{path}': it gives numbers that are not finite for random images. "
            "Its weights are damaged, or it was trained to divergence: train again."
        )
    difference = _difference(expected, softmax(found) if uncovered else found)
    tolerance = HALF_TOLERANCE if old.input_type == np.float16 else TOLERANCE
    if not difference <= tolerance:
        raise ParityError(
            f"cannot export '{path}': the folded network differs from it by {difference:.1e} of the largest "
            f"output, at most {tolerance:.0e} is rounding. Nothing is written. Please report this."
        )
    off = float(np.abs(last - softmax(found)).max()) if final != logits else 0.0
    if not off <= SOFTMAX_TOLERANCE:
        raise ParityError(
            f"cannot export '{path}': its probabilities are off by {off:.1e}, at most "
            f"{SOFTMAX_TOLERANCE:.0e} is rounding. Nothing is written. Please report this."
        )
    return difference, tolerance


def random_images(count: int, height: int, width: int) -> Floats:
    """Make images in 0..1, [N, 3, H, W]: a coloured surface at first, then more and more noise."""
    rng = np.random.default_rng(0)
    corners = rng.random((count, 3, 2, 2))
    y, x = (np.linspace(0, 1, n) for n in (height, width))
    surface = np.einsum("ncij,ih,jw->nchw", corners, np.stack([1 - y, y]), np.stack([1 - x, x]))
    strength = np.linspace(0, 1, count).reshape(-1, 1, 1, 1)
    noise = rng.random((count, 3, height, width))
    images: Floats = ((1 - strength) * surface + strength * noise).astype(np.float32)
    return images


def _run_as_is(session: Session, inputs: Sequence[Floats]) -> Floats:
    """Run a file on images [N, C, H, W] in the layout and batch size that it fixes; return [N, K]."""
    given = [
        _as_fixed(images, shape).astype(session.input_type)
        for images, shape in zip(inputs, session.input_shapes, strict=True)
    ]
    count, fixed = len(given[0]), session.input_shape[0]
    step = fixed if isinstance(fixed, int) and fixed > 0 else count
    output = session.output_names[0]
    parts = [
        session.run(*(images[i : i + step] for images in given), outputs=[output])[0]
        for i in range(0, count, step)
    ]
    return np.concatenate(parts).reshape(count, -1).astype(np.float32)


def _as_fixed(images: Floats, shape: tuple[int | str | None, ...]) -> Floats:
    """Bring images [N, C, H, W] to the layout of an input."""
    if shape[1] not in (1, 3) and shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return images


def _difference(expected: Floats, found: Floats) -> float:
    """Return the largest difference as a share of the largest expected number."""
    scale = np.abs(expected).max()
    return float(np.abs(found - expected).max() / scale) if scale > 0 else float(np.abs(found).max())


def _size(path: Path) -> int:
    """Return the bytes of a file and of its external data."""
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
