"""What a fused file must show before it is written.

1. Structure: onnx's checker; the shapes around everything that is new are inferred when it is put in.
2. Numbers: ONNX Runtime runs it with batch 1 and batch 3; outputs are finite, rows independent of the batch.
3. Identity: with projections at zero, every branch's feature equals its parent's as loaded, bit for bit,
   and is compared with what the parent's untouched file gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from graftonnx.errors import ModelError, ParityError
from graftonnx.network import Network
from graftonnx.normalise.constants import drop_dead, replace
from graftonnx.normalise.names import name_nodes
from graftonnx.normalise.quantization import first_quantised
from graftonnx.runtime import Session, blamed, open_session, with_outputs
from graftonnx.shapes import Shape, spelled
from graftonnx.weights import Weights, read, without_stubs

BATCHES = (1, 3)
ROW_TOLERANCE = 1e-3
"""Relative to the largest output: another batch size may take another kernel, which sums in another order."""

MOST_ROWS = 1024
"""A file with a larger fixed batch is not asked."""

INPUTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
HALVES = ("float16", "bfloat16")
FILE_TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-2
"""Kernels of another opset sum in another order; a file with halves rounds at every step."""

Array = NDArray[Any]


def check_structure(skeleton: onnx.ModelProto, weights: Weights) -> None:
    """Run onnx's checker: operators, attributes, single assignment, topological order.

    It infers no shapes: each was inferred where its node came from, and checked against its neighbours where
    nodes were put between (:meth:`graftonnx.surgery.Window.close`). The tests infer the whole again.

    Args:
        skeleton: The fused model, without large tensors.
        weights: These; they are not read.

    Raises:
        ModelError: If the model is not valid; that would be a fault of ours.
    """
    try:
        onnx.checker.check_model(without_stubs(skeleton, weights))
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"the fused graph is not valid ONNX: {reason} Please report this.") from error


def check_runs(skeleton: onnx.ModelProto, weights: Weights, names: Mapping[str, str]) -> dict[str, Array]:
    """Run the fused model in ONNX Runtime, without optimisations, with batch 1 and batch 3.

    Every input gets random images of its own.

    Args:
        skeleton: The fused model, without large tensors.
        weights: These.
        names: Values whose contents are wanted, by any key.

    Returns:
        The contents for batch 3, by the same keys.

    Raises:
        ParityError: If an output is not finite, or a row depends on the other rows of its batch.
    """
    session = open_session(
        with_outputs(skeleton, list(names.values())),
        weights=weights,
        provider="cpu",
        threads=1,
        optimise=False,
    )
    rng = np.random.default_rng(0)
    images = [_images(shape, rng) for shape in session.input_shapes]
    output = session.output_names[0]
    three = session.run(*images, outputs=[output, *names.values()])
    one = session.run(*(image[:1] for image in images), outputs=[output])
    for batch, logits in zip(BATCHES, (one[0], three[0]), strict=True):
        if logits.shape[0] != batch:
            raise ParityError(
                f"with a batch of {batch} the output has shape {list(logits.shape)}; expected {batch} rows. "
                "Export the parents with a dynamic batch."
            )
        if not np.isfinite(logits).all():
            raise ParityError(
                f"the output is not finite with a batch of {batch}{_blamed(names, three[1:])}. "
                "Check its weights and --preprocess."
            )
    worst = float(np.abs(one[0][0] - three[0][0]).max())
    if worst > ROW_TOLERANCE * max(1.0, float(np.abs(three[0]).max())):
        raise ParityError(
            f"the first row of the output changes by {worst:.3g} with the batch it is in: a parent mixes the "
            "rows of a batch, or its batch extent could not be made dynamic. Export it with a dynamic batch."
        )
    return dict(zip(names, three[1:], strict=True))


def explained(error: ModelError, fused: onnx.ModelProto, parents: Mapping[str, Network]) -> ModelError:
    """Return why ONNX Runtime does not run a fused network, with the branch, the node and its shapes.

    A parent that does not run alone either is to blame; without one it is a fault of ours.

    Args:
        error: What ONNX Runtime said of the fused network.
        fused: The network, or its skeleton.
        parents: By branch letter.
    """
    for letter, parent in parents.items():
        for batch in BATCHES:
            image = _images((batch, *parent.input_shape), np.random.default_rng(0))[:batch]
            try:
                _alone(parent).run(image)
            except ModelError as own:
                size = "x".join(map(str, parent.input_shape[1:]))
                with_batch = f" with a batch of {batch}" if batch > 1 else ""
                return ModelError(
                    f"cannot run branch '{letter}' ('{parent.name}') at {size}{with_batch}: "
                    f"{_failure(own, parent, image)}. {_advice(parent, batch)}"
                )
    name, reason = blamed(error)
    node = next((node for node in fused.graph.node if node.name == name), None)
    where = "" if node is None else f" at node '{name}' ({node.op_type})"
    return ModelError(
        f"ONNX Runtime does not run the fused graph, although it runs every parent: it stops{where} because: "
        f"{reason}. Please report this, unless a head file or a hook of yours put that there."
    )


def _failure(error: ModelError, parent: Network, image: Array) -> str:
    """Return which node of a parent fails, on tensors of which shapes, and why."""
    name, reason = blamed(error)
    node = next((node for node in parent.view.nodes if node.name == name), None)
    if node is None:
        return f"ONNX Runtime says: {reason}"
    found = _found_shapes(parent, [value for value in node.input if value], image)
    return f"its node '{name}' ({node.op_type}) gets {' and '.join(found)}; ONNX Runtime says: {reason}"


def _found_shapes(parent: Network, values: Sequence[str], image: Array) -> list[str]:
    """Return the shapes of some values of a parent, found by running what leads to them, in words."""
    view = parent.view
    shapes: dict[str, Shape] = {**view.shapes, parent.input: image.shape}
    made = [value for value in dict.fromkeys(values) if value in view.producer]
    if made:
        try:
            arrays = _alone(parent, *made).run(image)
        except ModelError:
            arrays = []
        shapes.update((value, array.shape) for value, array in zip(made, arrays, strict=False))
    return [spelled(shapes.get(value)) for value in values]


def _advice(parent: Network, batch: int) -> str:
    if batch > 1:
        return "A batch of 1 is baked into it: export it with a dynamic batch."
    if parent.complete:
        return "The file does not run on its own either: export it again."
    return (
        "It is not made for this size: another one is baked into it, or the image is too small. Leave out "
        "--input-size, choose another, or export it for this one."
    )


def _alone(parent: Network, *values: str) -> Session:
    """Return a parent ready to run without optimisations, up to some values, by default to its feature."""
    model, weights = onnx.ModelProto(), dict(parent.weights)
    model.CopyFrom(parent.skeleton)
    outputs = [onnx.ValueInfoProto(name=value) for value in values or (parent.head.feature,)]
    replace(model.graph.output, outputs)
    drop_dead(model, weights, parent.view)
    return open_session(model, weights=weights, provider="cpu", threads=1, optimise=False)


def check_identity(parent: Network, branch: str, image: Array, feature: Array) -> None:
    """Compare a branch's feature with its parent's on the same preprocessed images.

    Args:
        parent: The network alone.
        branch: Its letter, for the message.
        image: The branch's input, [N, C, *extents].
        feature: What the branch made of it.

    Raises:
        ParityError: If a single number differs.
    """
    alone = _alone(parent).run(image)[0]
    if not np.array_equal(alone, feature, equal_nan=True):
        worst = float(np.abs(alone - feature).max())
        raise ParityError(
            f"with zero projections, branch '{branch}' differs from its parent '{parent.name}' by up to "
            f"{worst:.3g} in '{parent.head.feature}'. Please report this."
        )


def compare_with_file(parent: Network, image: Array, feature: Array) -> float | None:
    """Compare a branch's feature with what the parent's file, untouched, gives for the same images.

    Args:
        parent: The network, as it was loaded from a file.
        image: The branch's input, [N, C, *extents].
        feature: What the branch made of it.

    Returns:
        The largest difference as a share of the largest number; None if the file cannot be asked: it runs at
        another size or only at a huge batch, has no value of the feature's name, rounds to quantised numbers,
        or is too new for ONNX Runtime.

    Raises:
        ParityError: If they differ by more than another kernel explains.
    """
    wanted = parent.head.feature
    if parent.path is None or not parent.complete:
        return None
    model, weights = read(parent.path)
    if first_quantised(model) is not None:
        return None
    name_nodes(model.graph)
    element = next(
        value for value in model.graph.input if value.name == parent.input
    ).type.tensor_type.elem_type
    if element not in INPUTS or not any(wanted in node.output for node in model.graph.node):
        return None
    try:
        session = open_session(
            with_outputs(model, [wanted]), weights=weights, provider="cpu", threads=1, optimise=False
        )
    except ModelError:
        return None
    if session.input_shape[1] != image.shape[1] and session.input_shape[-1] == image.shape[1]:
        image = np.moveaxis(image, 1, -1)
    images = np.ascontiguousarray(image, onnx.helper.tensor_dtype_to_np_dtype(element))
    fixed = session.input_shape[0]
    batch = fixed if isinstance(fixed, int) and fixed > 0 else 1
    if batch > MOST_ROWS:
        return None
    try:
        rows = [session.run(np.repeat(row[None], batch, 0), outputs=[wanted])[0] for row in images]
    except ModelError:
        return None
    expected = np.concatenate([row[: len(row) // batch] for row in rows]).astype(feature.dtype)
    if expected.shape != feature.shape:
        return None
    difference = float(np.abs(expected - feature).max() / max(float(np.abs(expected).max()), 1e-30))
    if not difference <= (HALF_TOLERANCE if parent.weight_type in HALVES else FILE_TOLERANCE):
        raise ParityError(
            f"'{parent.name}' gives another '{wanted}' as it was loaded than as a file: they differ by "
            f"{difference:.1e} of the largest number. Please report this."
        )
    return difference


def _blamed(names: Mapping[str, str], values: list[Array]) -> str:
    """Name the first value that is not finite."""
    for name, value in zip(names.values(), values, strict=True):
        if not np.isfinite(value).all():
            return f"; branch '{name.split('/')[0]}' is not from '{name}' on"
    return ""


def _images(shape: tuple[int | str | None, ...], rng: np.random.Generator) -> Array:
    extents = [int(extent or 1) for extent in shape[1:]]
    return rng.random((max(BATCHES), *extents), np.float32)
