"""Bring a channels-last image input, as TensorFlow exporters write it, to `[N, C, H, W]`."""

from __future__ import annotations

import onnx

from graftonnx.graph import GraphView, ints
from graftonnx.normalise.constants import replace

CHANNELS = (1, 3)


def to_last(rank: int) -> tuple[int, ...]:
    """Return the axes of a Transpose to channels-last."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """Return the axes of a Transpose to channels-first."""
    return (0, rank - 1, *range(1, rank - 1))


def to_channels_first(model: onnx.ModelProto, name: str, before: GraphView) -> bool:
    """Make the input `name` channels-first, in place; the second only for images.

        NHWC ─ Transpose(0,3,1,2) ─ Conv     becomes     NCHW ─ Conv
        NHWC ─ anything else                 becomes     NCHW ─ Transpose(0,2,3,1) ─ anything else

    Args:
        model: A skeleton.
        name: An input.
        before: An index over the model; it does not hold for what is changed.

    Returns:
        Whether the input was channels-last.
    """
    graph = model.graph
    value = next(item for item in graph.input if item.name == name)
    dims = value.type.tensor_type.shape.dim
    rank = len(dims)
    last = rank == 4 and dims[3].dim_value in CHANNELS and dims[1].dim_value not in CHANNELS
    if not last and "Transpose" not in before.kinds:
        return False
    view = GraphView(graph)
    readers = view.consumers[name]
    transposes = [n for n in readers if n.op_type == "Transpose" and ints(n, "perm") == to_first(rank)]
    if readers and len(transposes) == len(readers):
        for transpose in transposes:
            _rename_reads(view, transpose.output[0], name)
        dropped = {id(node) for node in transposes}
        replace(graph.node, [node for node in view.nodes if id(node) not in dropped])
    elif last:
        turned = f"{name}/channels_last"
        _rename_reads(view, name, turned)
        transpose = onnx.helper.make_node("Transpose", [name], [turned], name=turned, perm=to_last(rank))
        replace(graph.node, [transpose, *view.nodes])
    else:
        return False
    ordered = [onnx.TensorShapeProto.Dimension() for _ in dims]
    for target, source in zip(ordered, to_first(rank), strict=True):
        target.CopyFrom(dims[source])
    replace(dims, ordered)
    return True


def _rename_reads(view: GraphView, old: str, new: str) -> None:
    for node in view.consumers[old]:
        replace(node.input, [new if name == old else name for name in node.input])
