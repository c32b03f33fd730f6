"""The large tensors of a model, apart from its graph: analysis and surgery work on a light skeleton.

A tensor that lies in a file stays there until somebody needs its numbers; writing a model copies it from file
to file.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, numpy_helper

from graftonnx import reading, wire
from graftonnx.admission import admit
from graftonnx.errors import ModelError
from graftonnx.external import outside, take_over
from graftonnx.graph import is_stub
from graftonnx.limits import check
from graftonnx.reading import beside
from graftonnx.tensors import Array, Computed, Held, Made, SourceFile, Stored, Tensor, encoded_size
from graftonnx.wire import INLINE_BYTES

PROTOBUF_LIMIT = 2**31 - 2**20
"""Bytes; protobuf refuses messages of 2 GiB, the margin is for structure."""

Weights: TypeAlias = dict[str, Tensor]
"""The large tensors of a model by initializer name."""


def read(path: Path) -> tuple[ModelProto, Weights]:
    """Read an ONNX file, but for the elements of its large initializers.

    Returns:
        The skeleton, in which these initializers are stubs, and their elements, which stay in the file, or in
        the files that hold its external data.

    Raises:
        ModelError: If there is no such file, or it is not an ONNX model, or its data is missing.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ModelError("it is no plain file; expected an .onnx file.")
        check("file", status.st_size, "the bytes of the file are")
        content, spans = _skeleton(path)
        model = ModelProto.FromString(content)
        stubs = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in spans}
        if not spans.keys() <= stubs.keys():
            raise ModelError("a name in it is not UTF-8: the file is damaged. Export it again.")
        file = SourceFile(path)
        weights: Weights = {
            name: Stored(file, span.start, span.length, stubs[name], span.field)
            for name, span in spans.items()
        }
        for name, tensor in weights.items():
            _check_size(name, tensor)
        if b"location" in content:
            weights |= take_over(model, path.parent)
        admit(model, weights)
    except FileNotFoundError as error:
        raise ModelError(f"cannot read '{path}': there is no such file.{beside(path)}") from error
    except IsADirectoryError as error:
        raise ModelError(f"cannot read '{path}': it is a folder; expected an .onnx file.") from error
    except OSError as error:
        raise ModelError(f"cannot read '{path}': {error.strerror or error}.") from error
    except DecodeError as error:
        raise ModelError(
            f"cannot read '{path}': it is not an ONNX file, or it is truncated "
            f"({path.stat().st_size:,} bytes). Download or export it again."
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(
            f"cannot read '{path}': a name or text in it is not UTF-8. Download or export it again."
        ) from error
    except ModelError as error:
        raise error.at(f"cannot read '{path}'") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(
            f"cannot read '{path}': it is not an ONNX network (no graph in it). Export it again."
        )
    return model, weights


def _skeleton(path: Path) -> tuple[bytes, dict[str, wire.Span]]:
    """Do what :func:`graftonnx.wire.read_skeleton` does, with a limit."""
    content, spans = wire.read_skeleton(path)
    check("structure", len(content), "the bytes of the file without its large weights are")
    return content, spans


def digest(path: Path) -> str:
    """Return what tells a network from others, as 64 hexadecimal digits.

    Returns:
        The SHA-256 of the file's bytes; where weights lie in other files, of these 32 bytes and the weights.

    Raises:
        ModelError: If weights in other files cannot be read.
        OSError: If the file cannot.
    """
    own = reading.sha256(path)
    try:
        content, _ = _skeleton(path)
        model = ModelProto.FromString(content if b"location" in content else b"")
    except DecodeError:  # no model: :func:`read` says so
        return own
    everything = hashlib.sha256(bytes.fromhex(own))
    is_alone = True
    for elements in outside(model, path.parent):
        is_alone = False
        for block in elements.blocks():
            everything.update(block)
    return own if is_alone else everything.hexdigest()


def _check_size(name: str, tensor: Tensor) -> None:
    expected = encoded_size(tensor)
    if expected is not None and tensor.nbytes != expected:
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        raise ModelError(
            f"the initializer '{name}' holds {tensor.nbytes:,} bytes, expected {expected:,} for {kind} "
            f"{list(tensor.dims)}. Export the file again."
        )


def exceeds_protobuf(model: ModelProto, weights: Weights | None = None) -> bool:
    """Return whether a model is too large for one protobuf message; `ByteSize` raises on such a model."""
    sizes = [len(tensor.raw_data) or tensor.ByteSize() for tensor in model.graph.initializer]
    sizes += [tensor.nbytes for tensor in (weights or {}).values()]
    return sum(sizes) >= PROTOBUF_LIMIT


def split(model: ModelProto) -> tuple[ModelProto, Weights]:
    """Return a copy of a model without the elements of its large initializers, and these, not copied."""
    skeleton = ModelProto()
    weights: Weights = {}
    _copy_fields(model, skeleton, "graph")
    _copy_fields(model.graph, skeleton.graph, "initializer")
    for tensor in model.graph.initializer:
        copy = skeleton.graph.initializer.add()
        if _is_large(tensor) and not is_stub(tensor) and tensor.name not in weights:
            weights[tensor.name] = Held(tensor)
            _copy_fields(tensor, copy, *wire.ELEMENTS)
        else:
            copy.CopyFrom(tensor)
    return skeleton, weights


def _is_large(tensor: TensorProto) -> bool:
    return (encoded_size(tensor) or tensor.ByteSize()) > INLINE_BYTES


def _copy_fields(source: Any, target: Any, *without: str) -> None:
    """Copy all fields of a protobuf message, but for some."""
    for descriptor, value in source.ListFields():
        if descriptor.name in without:
            continue
        if hasattr(value, "extend"):
            getattr(target, descriptor.name).extend(value)
        elif descriptor.message_type is not None:
            getattr(target, descriptor.name).CopyFrom(value)
        else:
            setattr(target, descriptor.name, value)


def attach(model: ModelProto, weights: Weights) -> None:
    """Put the elements back into every stub of `model`, by the stub's name."""
    for tensor in model.graph.initializer:
        whole = weights.get(tensor.name)
        if whole is not None:
            whole.fill(tensor)


def whole(model: ModelProto, weights: Weights) -> ModelProto:
    """Return a copy of a skeleton with its elements."""
    copy = ModelProto()
    copy.CopyFrom(model)
    attach(copy, weights)
    return copy


def set_elements(model: ModelProto, weights: Weights, name: str, array: Array) -> None:
    """Replace the elements of an initializer of the skeleton `model` by others of the same type and shape."""
    (stub,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    whole = numpy_helper.from_array(array, name)
    if name in weights:
        weights[name] = Held(whole)
    else:
        stub.CopyFrom(whole)


def array_of(tensor: TensorProto, weights: Weights) -> Array:
    """Return the elements of an initializer of a skeleton; the array must not be written to."""
    elements = weights.get(tensor.name)
    return numpy_helper.to_array(tensor) if elements is None else elements.array()


def without_stubs(model: ModelProto, weights: Weights) -> ModelProto:
    """Return a skeleton as onnx's checker takes it: what has no elements has none by its shape either."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("dims")
            tensor.dims.append(0)
    return copy


def add_initializer(model: ModelProto, weights: Weights, name: str, array: Array) -> None:
    """Add an initializer to the skeleton `model`; the elements of a large one go to `weights`."""
    tensor = numpy_helper.from_array(array, name)
    if _is_large(tensor):
        weights[name] = Computed(tensor)
        tensor = TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims)
    model.graph.initializer.append(tensor)


def write(model: ModelProto, weights: Weights, path: Path) -> None:
    """Write a model to a file without holding it in memory: stored elements are copied from file to file.

    The bytes are those that protobuf writes for the whole model.

    Args:
        model: The skeleton.
        weights: Its elements; together less than 2 GB.
        path: The target; it is replaced.
    """
    head, tail = _around(model, "graph")
    graph_head, graph_tail = _around(model.graph, "initializer")
    parts = [_encoded(tensor, weights.get(tensor.name)) for tensor in model.graph.initializer]
    length = (
        len(graph_head)
        + len(graph_tail)
        + sum(
            [len(before) + (stored.nbytes if stored else 0) + len(after) for before, stored, after in parts]
        )
    )
    with path.open("wb", buffering=0) as target:
        pending = bytearray(head + wire.length_tag(wire.GRAPH, length) + graph_head)
        for part in parts:
            pending += part.before
            if part.stored is not None and part.stored.nbytes <= _GATHERED:
                pending += part.stored.encoded()
            elif part.stored is not None:
                wire.write_all(target, pending)
                pending.clear()
                part.stored.copy_to(target)
            pending += part.after
            if len(pending) > _GATHERED:
                wire.write_all(target, pending)
                pending.clear()
        wire.write_all(target, pending + graph_tail + tail)


def write_external(model: ModelProto, weights: Weights, path: Path, data: Path, *, location: str) -> None:
    """Write a model of any size: its large elements go to a second file, which the first one names.

    Args:
        model: The skeleton.
        weights: Its elements.
        path: The target; it is replaced.
        data: The target for the elements, likewise.
        location: The name that `data` will have beside the model.
    """
    skeleton = ModelProto()
    skeleton.CopyFrom(model)
    with data.open("wb", buffering=0) as target:
        for tensor in skeleton.graph.initializer:
            elements = weights.get(tensor.name)
            if elements is None:
                continue
            if tensor.data_type == TensorProto.STRING:
                elements.fill(tensor)  # texts have no bytes that could lie elsewhere
                continue
            start = -target.tell() % _PAGE + target.tell()
            target.seek(start)
            if isinstance(elements, (Stored, Made)):
                elements.copy_to(target)
            else:
                wire.write_all(target, numpy_helper.from_array(elements.array()).raw_data)
            tensor.data_location = TensorProto.EXTERNAL
            places = {"location": location, "offset": start, "length": target.tell() - start}
            for key, value in places.items():
                tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(skeleton.SerializeToString(deterministic=True))


_GATHERED = 1 << 16
"""Bytes up to which elements are gathered and written together: below, a call each costs more than a copy."""

_PAGE = 4096
"""Elements in external data begin at a page, so that they can be mapped into memory."""


class _Encoded(NamedTuple):
    """An initializer as a field of its graph: bytes, elements fetched when they are written, and bytes."""

    before: bytes
    stored: Stored | Made | None = None
    after: bytes = b""


def _encoded(stub: TensorProto, elements: Tensor | None) -> _Encoded:
    if elements is None or not isinstance(elements, (Stored, Made)):
        tensor = stub
        if elements is not None:
            tensor = TensorProto()
            tensor.CopyFrom(stub)
            elements.fill(tensor)
        content = tensor.SerializeToString(deterministic=True)
        return _Encoded(wire.length_tag(wire.INITIALIZER, len(content)) + content)
    before, after = _around(stub, elements.field)
    before += wire.length_tag(wire.TENSOR[elements.field], elements.nbytes)
    tag = wire.length_tag(wire.INITIALIZER, len(before) + elements.nbytes + len(after))
    return _Encoded(tag + before, elements, after)


def _around(message: Any, field: str) -> tuple[bytes, bytes]:
    """Return what protobuf writes in front of a field, and behind it."""
    fields = message.DESCRIPTOR.fields_by_name
    present = message.ListFields()
    if not present or present[-1][0].number < fields[field].number:
        return message.SerializeToString(deterministic=True), b""
    before, after = type(message)(), type(message)()
    _copy_fields(message, before, *(n for n, f in fields.items() if f.number >= fields[field].number))
    _copy_fields(message, after, *(n for n, f in fields.items() if f.number <= fields[field].number))
    return before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True)
