"""A 1x1 Conv is linear: of what is added or concatenated in front of it, it can take each part for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import NodeProto, helper

from graftonnx.folding.projections import goes_behind, has_one_reader, is_pointwise
from graftonnx.folding.rewriting import Graph
from graftonnx.graph import GraphView, integer
from graftonnx.shapes import Shape

LANES = 16
"""Channels that a block of ONNX Runtime's blocked layout holds at most; other widths are laid out anew."""


def spread_over_sums(graph: Graph) -> int:
    """Before: `x + P z -> Conv V`. After: `V x + V P z`, of which `V P` becomes one Conv.

    P is a 1x1 Conv, with or without a pool behind it, that nobody else reads, and V a 1x1 Conv to fewer
    channels than the sum has: the projection of a skip shrinks to what the next layer looks at.
    """
    view = graph.view()
    added: list[NodeProto] = []
    shapes: dict[str, Shape | None] = {}
    for conv in view.nodes:
        total = view.producer.get(conv.input[0]) if is_pointwise(view, conv) else None
        if total is None or total.op_type != "Add" or not has_one_reader(view, conv.input[0]):
            continue
        channels, filters = _extents(view, conv)
        extents = [view.shapes.get(name) for name in (*total.input, total.output[0])]
        if filters >= channels or None in extents or len(set(extents)) > 1:
            continue
        projected = next((name for name in total.input if _is_projection(view, name)), None)
        if projected is None:
            continue
        (kept,) = (name for name in total.input if name != projected)
        name, first = (graph.fresh(view, f"{conv.output[0]}/of/{part}") for part in (projected, kept))
        added.append(helper.make_node("Conv", [projected, conv.input[1]], [name], name))
        shapes |= dict.fromkeys((name, first), view.shapes.get(conv.output[0]))
        conv.input[0] = kept
        conv.output[0], total.output[0] = first, conv.output[0]
        total.input[:] = [conv.output[0], name]
    graph.add(added, shapes)
    return len(added)


def spread_over_concats(graph: Graph) -> int:
    """Before: `Concat(x, z) -> Conv [V W]`. After: `V x + W z`, also through a MaxPool between them.

    That spares copying x and z, and is done where the sums are smaller than they: all that reads the Concat
    is a 1x1 Conv to fewer channels.
    """
    view = graph.view()
    added: list[NodeProto] = []
    removed: list[NodeProto] = []
    shapes: dict[str, Shape | None] = {}
    for concat in view.nodes:
        parts = _parts(view, concat)
        pool, convs = _pointwise_readers(view, concat)
        if not convs or not parts or not _is_worth_it(view, concat, len(parts), convs):
            continue
        names = list(concat.input)
        if pool is not None:
            names = [graph.fresh(view, f"{pool.output[0]}/of/{name}") for name in concat.input]
            for name, pooled, width in zip(concat.input, names, parts, strict=True):
                part = NodeProto()
                part.CopyFrom(pool)
                part.name, part.input[0], part.output[:] = pooled, name, [pooled]
                added.append(part)
                whole = view.shapes.get(pool.output[0])
                shapes[pooled] = whole and (whole[0], width, *whole[2:])
            removed.append(pool)
        for conv in convs:
            shape = view.shapes.get(conv.output[0])
            nodes = _split(graph, view, conv, names, parts)
            shapes |= dict.fromkeys([conv.output[0], *(n.output[0] for n in nodes[:-1])], shape)
            added += nodes
        removed.append(concat)
    graph.remove(view, removed)
    graph.add(added, shapes)
    return sum(node.op_type == "Concat" for node in removed)


def _split(
    graph: Graph, view: GraphView, conv: NodeProto, names: Sequence[str], parts: Sequence[int]
) -> list[NodeProto]:
    """Let a Conv take the first part alone; return the Convs of the others, and the sums."""
    weight = graph.array(view, conv.input[1])
    assert weight is not None, "is_pointwise has seen it"
    nodes: list[NodeProto] = []
    pieces = [graph.fresh(view, f"{conv.output[0]}/of/{name}") for name in names]
    total, start = pieces[0], parts[0]
    for name, piece, width in zip(names[1:], pieces[1:], parts[1:], strict=True):
        part = helper.make_node("Conv", [name, ""], [piece], piece)
        graph.set_input(view, part, 1, f"{conv.input[1]}/of/{name}", weight[:, start : start + width])
        start += width
        node = graph.fresh(view, f"{piece}/sum")
        both = node if start < sum(parts) else conv.output[0]
        nodes += [part, helper.make_node("Add", [total, piece], [both], node)]
        total = both
    graph.set_input(view, conv, 1, f"{conv.input[1]}/of/{names[0]}", weight[:, : parts[0]])
    conv.input[0], conv.output[0] = names[0], pieces[0]
    return nodes


def _parts(view: GraphView, concat: NodeProto) -> list[int]:
    """Return the channels of each part of a Concat along them; nothing where that cannot be split well."""
    if concat.op_type != "Concat" or integer(concat, "axis", 0) != 1 or len(set(concat.input)) < 2:
        return []
    shapes = [view.shapes.get(name) for name in concat.input]
    widths = [shape[1] for shape in shapes if shape is not None and len(shape) > 2]
    found = [width for width in widths if width is not None and width % LANES == 0]
    return found if len(found) == len(set(concat.input)) == len(concat.input) else []


def _pointwise_readers(view: GraphView, concat: NodeProto) -> tuple[NodeProto | None, list[NodeProto]]:
    """Return the MaxPool that alone reads a Concat, or None, and the 1x1 Convs that alone read either."""
    name, pool = concat.output[0], None
    if not has_one_reader(view, name) or (readers := view.consumers[name])[0].op_type != "MaxPool":
        readers = view.consumers[name]
    elif len(readers[0].output) == 1:
        pool = readers[0]
        name = pool.output[0]
        readers = view.consumers[name]
    fits = name not in view.outputs and all(is_pointwise(view, node) for node in readers)
    return pool, readers if fits else []


def _is_worth_it(view: GraphView, concat: NodeProto, parts: int, convs: Sequence[NodeProto]) -> bool:
    """Return whether the sums move fewer elements than the Concat copies."""
    shapes = [view.shapes.get(node.output[0]) for node in (concat, *convs)]
    sizes = [math.prod(extent or 1 for extent in shape[1:]) for shape in shapes if shape is not None]
    return len(sizes) == len(shapes) and (parts - 1) * sum(sizes[1:]) < sizes[0]


def _is_projection(view: GraphView, name: str) -> bool:
    """Return whether a value is what a 1x1 Conv makes for one reader, averaged by a pool or not."""
    maker = view.producer.get(name)
    if maker is not None and goes_behind(maker) and has_one_reader(view, name):
        name = maker.input[0]
        maker = view.producer.get(name)
    return maker is not None and is_pointwise(view, maker) and has_one_reader(view, name)


def _extents(view: GraphView, conv: NodeProto) -> tuple[int, int]:
    """Return how many channels a Conv of one group takes and gives."""
    filters, channels = view.initializers[conv.input[1]].dims[:2]
    return channels, filters
