"""Free the batch extent that old exporters baked into the constants of a graph.

The batch is followed through the graph as an axis: it starts as axis 0 of the input, moves with `Transpose`,
`Squeeze`, `Gather` and their like, and merges with its neighbour in a `Reshape`, where it stays the outer
one.

| baked in | becomes |
|---|---|
| the target of a `Reshape` | -1 at the batch's axis |
| an operand of a `Concat` (a class token), the first state of an `LSTM` | expanded to the batch |
| the ends of a `Slice` that keeps the one row | no end |
| the sizes of a `Resize` | sizes of the other axes only |

`Expand`, `Tile` and broadcasting leave an extent of 1 open by themselves. Whether the result is right is
checked by shape inference with batch 2, and proven later, by running it with batch 1 and batch 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import NodeProto

from graftonnx.errors import ModelError
from graftonnx.graph import GraphView, attribute, integer, ints, sort_nodes, value_shapes
from graftonnx.normalise.computing import Work
from graftonnx.normalise.constants import fold, may_fold, replace
from graftonnx.normalise.inference import infer_shapes, set_extents
from graftonnx.normalise.names import fresh, value_names
from graftonnx.normalise.transposes import drop_transposes
from graftonnx.shapes import spelled
from graftonnx.weights import Weights, add_initializer

BATCH = "batch"
"""The name of the open extent."""

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
NO_END = np.iinfo(np.int64).max


def infer_freed(
    model: onnx.ModelProto,
    weights: Weights,
    shapes: Mapping[str, tuple[int, ...]],
    notes: list[str],
    before: GraphView | None,
) -> tuple[onnx.ModelProto, GraphView]:
    """Free the batch and infer every shape; constant parts are folded on the way.

    Args:
        model: A skeleton.
        weights: Its large tensors.
        shapes: Channels and extents of each input.
        notes: What was done is added.
        before: An index over the model, if there is one.

    Returns:
        The model with all shapes, and an index over it.

    Raises:
        ModelError: If the shapes do not fit together, or the batch cannot be freed.
    """
    _set_inputs(model, shapes, BATCH)
    model = infer_shapes(model, None if before is None else before.kinds)
    view = GraphView(model.graph, before)
    if may_fold(view) or "Transpose" in view.kinds:
        work = Work()
        while fold(model, weights, work=work):
            model = infer_shapes(model)
        if drop_transposes(model, weights):
            model = infer_shapes(model)
        view = GraphView(model.graph)
    if not _may_fix_batch(view):
        return model, view
    _set_inputs(model, shapes, 1)
    model = infer_shapes(model)
    if _free_batch(model, weights, shapes):
        notes.append("batch made dynamic")
        try:
            check_batch(model, shapes, 2)
        except ModelError as error:
            raise error.at("its batch is fixed to 1 and could not be freed") from error
    _set_inputs(model, shapes, BATCH)
    model = infer_shapes(model)
    return model, GraphView(model.graph)


def _set_inputs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], batch: int | str) -> None:
    for name, shape in shapes.items():
        set_extents(model, name, (batch, *shape))


def check_batch(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]], batch: int) -> None:
    """Check that every output has as many rows as the input, by inferring shapes with a given batch.

    Raises:
        ModelError: If one has not, or the shapes do not fit together.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _set_inputs(copy, inputs, batch)
    shapes = value_shapes(infer_shapes(copy).graph)
    for output in model.graph.output:
        found = shapes.get(output.name)
        if found and found[0] not in (None, batch):
            raise ModelError(
                f"a batch of {batch} gives '{output.name}' {spelled(found)}: extents are baked into its "
                "constants that could not be freed. Export it with a dynamic batch, at the size it shall run."
            )


def _may_fix_batch(view: GraphView) -> bool:
    """Return whether there is anything for :func:`_free_batch`: a constant target or a constant operand."""
    constant = view.initializers.keys()
    return any(
        kind in ("Reshape", "Concat") and not constant.isdisjoint(names)
        for kind, names in zip(view.kinds, view.given, strict=True)
    )


def _free_batch(model: onnx.ModelProto, weights: Weights, names: Iterable[str]) -> int:
    """Make constants independent of the batch, in place.

    Args:
        model: A skeleton whose shapes were inferred with batch 1.
        weights: The large tensors of the model.
        names: The inputs.

    Returns:
        The number of constants that were rewritten.
    """
    freeing = _Freeing(model, weights)
    first = len(model.graph.node)
    axis = dict.fromkeys(names, 0)
    rewritten = 0
    for node in freeing.view.nodes:
        carrier = next((item for item in node.input if item in axis), None)
        if carrier is None or node.op_type in ("Shape", "Size"):
            continue
        position = axis[carrier]
        for index, output in enumerate(node.output):
            moved = _moved(freeing.view, node, carrier, position, index)
            if output and moved is not None:
                axis[output] = moved
        rewritten += freeing.free(node, carrier, position, axis)
    if len(model.graph.node) > first:
        replace(model.graph.node, sort_nodes(model.graph.node))
    return rewritten


def _moved(view: GraphView, node: NodeProto, carrier: str, position: int, output: int) -> int | None:
    """Return the axis of the batch in an output of `node`; None if it is gone, or nobody knows where."""
    before, after = view.shapes.get(carrier), view.shapes.get(node.output[output])
    if before is None or after is None:
        return None
    kind = node.op_type
    if kind == "Transpose":
        return (ints(node, "perm") or tuple(reversed(range(len(before))))).index(position)
    if kind == "Reshape":
        return None if None in before or None in after else _carried(before, after, position)
    if kind == "Flatten":
        return 0 if position < integer(node, "axis", 1) % (len(before) + 1) else 1
    if kind == "Unsqueeze":
        added = {axis % len(after) for axis in _axes(view, node) or ()}
        return [axis for axis in range(len(after)) if axis not in added][position]
    if kind == "Squeeze" or (len(after) < len(before) and kind.startswith(("Reduce", "Arg"))):
        return _without(view, node, before, position)
    if kind == "Gather" and carrier == node.input[0]:
        axis = integer(node, "axis", 0) % len(before)
        shift = len(after) - len(before) if axis < position else 0
        return None if axis == position else position + shift
    if kind in RECURRENT and integer(node, "layout", 0) == 0:
        return 2 if output == 0 else 1
    if kind == "Einsum":
        return _in_equation(node, carrier, position)
    moved = position + len(after) - len(before)
    return moved if 0 <= moved < len(after) else None


def _carried(source: tuple[int | None, ...], target: tuple[int | None, ...], position: int) -> int:
    """Return the axis of `target` that holds the batch, which is axis `position` of `source`."""
    outer = math.prod(extent or 0 for extent in source[:position])
    before = (math.prod(extent or 0 for extent in target[:axis]) for axis in range(len(target)))
    return next((axis for axis, product in enumerate(before) if product == outer), 0)


def _axes(view: GraphView, node: NodeProto) -> tuple[int, ...] | None:
    """Return the axes of a Squeeze, an Unsqueeze or a reduction; None if it names none."""
    if len(node.input) > 1 and node.input[1]:
        given = view.constant(node.input[1])
        return None if given is None else tuple(int(axis) for axis in given.ravel())
    if node.op_type.startswith("Arg"):
        return (integer(node, "axis", 0),)
    return ints(node, "axes") or None


def _without(view: GraphView, node: NodeProto, before: tuple[int | None, ...], position: int) -> int | None:
    """Return the batch's axis after some axes are removed."""
    rank = len(before)
    given = _axes(view, node)
    if given is None and node.op_type != "Squeeze":
        return None
    ones = (axis for axis, extent in enumerate(before) if extent == 1)
    removed = {axis % rank for axis in (ones if given is None else given)}
    return None if position in removed else position - sum(axis < position for axis in removed)


def _in_equation(node: NodeProto, carrier: str, position: int) -> int | None:
    terms, _, result = str(attribute(node, "equation", "")).replace(" ", "").partition("->")
    if "." in terms or not result:
        return None
    letter = terms.split(",")[list(node.input).index(carrier)][position]
    found = result.find(letter)
    return None if found < 0 else found


class _Freeing:
    """Rewrites one node after the other."""

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self.model = model
        self.weights = weights
        self.view = GraphView(model.graph)
        self._taken = value_names(model.graph)

    def free(self, node: NodeProto, carrier: str, position: int, axis: dict[str, int]) -> int:
        """Free what is baked into `node`; `carrier` is an input that has the batch at `position`."""
        if node.op_type == "Reshape" and carrier == node.input[0] and node.output[0] in axis:
            return self._target(node, axis[node.output[0]])
        if node.op_type == "Slice" and carrier == node.input[0]:
            return self._ends(node, position)
        if node.op_type == "Resize" and carrier == node.input[0]:
            return self._sizes(node, position)
        if node.op_type == "Concat":
            if integer(node, "axis", 0) % len(self.view.shapes[carrier]) == position:
                return 0
            batchless = [index for index, name in enumerate(node.input) if name not in axis]
            return sum(self._expand(node, index, carrier, position, position) for index in batchless)
        if node.op_type in RECURRENT and carrier == node.input[0] and integer(node, "layout", 0) == 0:
            states = [index for index in (5, 6) if index < len(node.input) and node.input[index]]
            batchless = [index for index in states if node.input[index] not in axis]
            return sum(self._expand(node, index, carrier, position, 1) for index in batchless)
        return 0

    def _constant(self, name: str, values: list[int]) -> str:
        name = fresh(name, self._taken)
        add_initializer(self.model, self.weights, name, np.array(values, dtype=np.int64))
        return name

    def _target(self, node: NodeProto, position: int) -> int:
        given, shape = self.view.constant(node.input[1]), self.view.shapes[node.output[0]]
        if given is None:
            return 0
        freed = [-1 if index == position else int(extent or 0) for index, extent in enumerate(shape)]
        if [int(extent) for extent in given.ravel()] == freed:
            return 0
        replace(node.input, [node.input[0], self._constant(f"{node.output[0]}/free_batch", freed)])
        replace(node.attribute, [item for item in node.attribute if item.name != "allowzero"])
        return 1

    def _ends(self, node: NodeProto, position: int) -> int:
        rank = len(self.view.shapes[node.input[0]])
        starts, ends = (self.view.constant(name) for name in node.input[1:3])
        named = len(node.input) > 3 and node.input[3]
        axes = self.view.constant(node.input[3]) if named else np.arange(rank)
        if starts is None or ends is None or axes is None:
            return 0
        freed = [int(end) for end in ends.ravel()]
        for index, axis in enumerate(axes.ravel()):
            if int(axis) % rank == position and int(starts.ravel()[index]) == 0 and freed[index] == 1:
                freed[index] = int(NO_END)
        if freed == [int(end) for end in ends.ravel()]:
            return 0
        node.input[2] = self._constant(f"{node.output[0]}/free_batch", freed)
        return 1

    def _sizes(self, node: NodeProto, position: int) -> int:
        sizes = self.view.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        if sizes is None or ints(node, "axes") or (len(node.input) > 1 and node.input[1]):
            return 0
        axes = [axis for axis in range(sizes.size) if axis != position]
        kept = [int(sizes.ravel()[axis]) for axis in axes]
        node.input[3] = self._constant(f"{node.output[0]}/free_batch", kept)
        node.attribute.append(onnx.helper.make_attribute("axes", axes))
        return 1

    def _expand(self, node: NodeProto, index: int, carrier: str, position: int, axis: int) -> int:
        """Expand axis `axis` of a batchless operand to the batch, which is axis `position` of `carrier`.

        constant ─ Concat     becomes     constant ─ Expand(1, …, batch, …, 1) ─ Concat
        """
        operand = node.input[index]
        shape = self.view.shapes.get(operand)
        if shape is None or axis >= len(shape) or shape[axis] != 1:
            return 0
        name = fresh(f"{node.output[0]}/expand{index}", self._taken)
        before = self._constant(f"{name}/before", [1] * axis)
        after = self._constant(f"{name}/after", [1] * (len(shape) - axis - 1))
        batch, target = f"{name}/batch", f"{name}/target"
        make = onnx.helper.make_node
        self.model.graph.node.extend(
            [
                make("Shape", [carrier], [batch], name=batch, start=position, end=position + 1),
                make("Concat", [before, batch, after], [target], name=target, axis=0),
                make("Expand", [operand, target], [name], name=name),
            ]
        )
        node.input[index] = name
        return 1
