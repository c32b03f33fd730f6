"""What a file says beside its numbers: doc strings, `metadata_props` and quantization annotations.

onnx's version converter, shape inference and onnx-graphsurgeon drop them; here they are carried around, by
the names of values. In a fused file those of a whole model stand in its `metadata_props` under their branch:

| in parent a | in the fused file |
|---|---|
| `metadata_props` key `author` | `metadata_props` key `a/author` |
| `doc_string` of the model, of its graph | `metadata_props` keys `a/doc_string`, `a/graph.doc_string` |
| `metadata_props` of the graph | likewise of the graph, keys `a/…` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TypeAlias

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

Annotated: TypeAlias = GraphProto | NodeProto | TensorProto | ValueInfoProto


def carry(source: GraphProto, target: GraphProto, prefix: str = "") -> None:
    """Give what is in `target` the doc strings and annotations of what has the same name in `source`.

    Args:
        source: The graph before a tool worked on it; nodes are known by their first output.
        target: The graph after it, changed in place; what it says itself stays.
        prefix: In front of the names in `target`.
    """
    said = {
        (type(item), prefix + name): item
        for name, item in _named(source)
        if item.doc_string or item.metadata_props
    }
    if said:
        _list_values(target, [name for kind, name in said if kind is ValueInfoProto])
        for name, item in _named(target):
            if (type(item), name) in said:
                copy_remarks(said[type(item), name], item)
    if not prefix:
        copy_remarks(source, target)
    _carry_quantization(source, target, prefix)


def carry_outside(source: GraphProto, target: GraphProto, prefix: str) -> None:
    """Do what :func:`carry` does, where `target` has nodes, initializers and inner values as they were."""
    outside = GraphProto(input=source.input, output=source.output)
    outside.quantization_annotation.extend(source.quantization_annotation)
    if source.quantization_annotation:
        outside.initializer.extend(source.initializer)
    carry(outside, target, prefix)


def carry_model(source: ModelProto, target: ModelProto, prefix: str) -> None:
    """Enter what `source` says about itself as a whole into `target`, see the module's docstring."""
    whole = {"doc_string": source.doc_string, "graph.doc_string": source.graph.doc_string}
    for key, text in (*((p.key, p.value) for p in source.metadata_props), *whole.items()):
        if text:
            target.metadata_props.add(key=prefix + key, value=text)
    for entry in source.graph.metadata_props:
        target.graph.metadata_props.add(key=prefix + entry.key, value=entry.value)


def copy_remarks(source: Annotated, target: Annotated) -> None:
    """Copy doc string and metadata, unless `target` has its own."""
    target.doc_string = target.doc_string or source.doc_string
    if not target.metadata_props:
        target.metadata_props.extend(source.metadata_props)


def quantization_tensors(graph: GraphProto, values: Iterable[str]) -> set[str]:
    """Return the initializers that quantization annotations of these values name."""
    annotated = set(values)
    return {
        entry.value
        for item in graph.quantization_annotation
        if item.tensor_name in annotated
        for entry in item.quant_parameter_tensor_names
    }


def _list_values(graph: GraphProto, names: Iterable[str]) -> None:
    """Enter values into the `value_info` of a graph that has them, without a type."""
    made = {name for node in graph.node for name in node.output}
    made -= {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    for name in names:
        if name in made:
            graph.value_info.add(name=name)


def _named(graph: GraphProto) -> Iterable[tuple[str, Annotated]]:
    for value in (*graph.value_info, *graph.input, *graph.output):
        yield value.name, value
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        yield next(filter(None, node.output), ""), node


def _carry_quantization(source: GraphProto, target: GraphProto, prefix: str) -> None:
    if not source.quantization_annotation:
        return
    known = {name for name, _ in _named(target)} | set(chain.from_iterable(n.output for n in target.node))
    annotated = {item.tensor_name for item in target.quantization_annotation}
    tensors: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in source.initializer}
    held = {tensor.name for tensor in target.initializer}
    for item in source.quantization_annotation:
        if prefix + item.tensor_name not in known - annotated:
            continue
        copy = target.quantization_annotation.add(tensor_name=prefix + item.tensor_name)
        for entry in item.quant_parameter_tensor_names:
            name = prefix + entry.value
            copy.quant_parameter_tensor_names.add(key=entry.key, value=name)
            if name not in held and entry.value in tensors:
                held.add(name)
                target.initializer.add().CopyFrom(tensors[entry.value])
                target.initializer[-1].name = name
