"""What a file says of a tensor, a type or a text, checked against what is there and may be there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

from graftonnx.errors import ModelError
from graftonnx.limits import check, limits
from graftonnx.tensors import data_field, encoded_size
from graftonnx.wire import ELEMENTS

_TYPES = frozenset(TensorProto.DataType.values())
_WORDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.COMPLEX128: "double_data",
}
"""The field that holds the numbers of a type where they are not raw; `int32_data` for all others."""

_PAIRS = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def shortened(name: str, most: int = 100) -> str:
    """Return a name as messages show it."""
    return name if len(name) <= most else f"{name[:most]}..."


def check_utf8(*texts: Any) -> None:
    """Refuse what protobuf could not decode, which it hands out as bytes.

    Raises:
        ModelError: If one of the texts is not UTF-8.
    """
    if bytes in set(map(type, texts)):
        raise ModelError("a name or text in it is not UTF-8: the file is damaged. Export it again.")


def check_strings(attribute: AttributeProto) -> None:
    """Refuse an attribute whose strings, which protobuf hands out as bytes, are not UTF-8."""
    for content in (attribute.s, *attribute.strings):
        try:
            content.decode()
        except UnicodeDecodeError as error:
            name = shortened(attribute.name)
            raise ModelError(
                f"its attribute '{name}' is not UTF-8: the file is damaged. Export it again."
            ) from error


def check_entries(entries: Iterable[onnx.StringStringEntryProto]) -> None:
    """Refuse metadata of which a key or a text is too long, or not UTF-8."""
    for entry in entries:
        check_utf8(entry.key, entry.value)
        check("name", len(entry.key), "the length of a key of its metadata is")
        check("text", len(entry.value), f"the length of its metadata '{shortened(entry.key)}' is")


def check_tensor(tensor: TensorProto, *, elsewhere: bool = False) -> None:
    """Refuse a tensor whose elements are not those that its type and shape announce.

    Args:
        tensor: As it was parsed.
        elsewhere: Whether its elements are not in it, and were checked where they are.

    Raises:
        ModelError: If the type is unknown, the shape impossible or too large, or the elements are others.
    """
    check_utf8(tensor.name, tensor.doc_string)
    check_entries(tensor.metadata_props)
    where = f"the tensor '{shortened(tensor.name)}'"
    check("name", len(tensor.name), "the length of the name of a tensor is")
    check("rank", len(tensor.dims), f"{where} has a rank of")
    dims = tensor.dims[:]
    if dims and min(dims) < 0:
        raise ModelError(f"{where} has the shape {dims}; expected no negative extent. Export the file again.")
    if tensor.data_type not in _TYPES or tensor.data_type == TensorProto.UNDEFINED:
        raise ModelError(
            f"{where} has the element type {tensor.data_type}, which ONNX does not define. "
            "Export the file again."
        )
    count = math.prod(dims)
    check("elements", count, f"the number of elements of {where} is")
    if sum(1 for field, _ in tensor.ListFields() if field.name in ELEMENTS) > 1:
        raise ModelError(f"{where} has its elements twice, in different fields. Export the file again.")
    if tensor.HasField("segment"):
        raise ModelError(f"{where} is stored in segments, which nobody reads. Export the file again.")
    if elsewhere:
        return
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(
            f"{where} lies in another file, which only a model that is read from a file can have."
        )
    found, expected, unit = _held(tensor, count)
    if found != expected:
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        raise ModelError(
            f"{where} holds {found:,} {unit}, expected {expected:,} for {kind} {dims}. Export the file again."
        )


def _held(tensor: TensorProto, count: int) -> tuple[int, int, str]:
    """Return how much a tensor holds, how much its type and shape announce, and in which unit."""
    field = data_field(tensor)
    if field == "raw_data":
        size = encoded_size(tensor)
        if size is None:
            return 0, count, "texts"
        return len(tensor.raw_data), size, "bytes"
    size = count * 2 if tensor.data_type in _PAIRS else count
    if field != _WORDS.get(tensor.data_type, "int32_data"):
        return 0, max(size, 1), f"elements of its type (it has {field})"
    bits = encoded_size(TensorProto(data_type=tensor.data_type, dims=[8]))
    if bits is not None and bits < 8:  # several elements share a byte
        size = (count * bits + 7) // 8
    return len(getattr(tensor, field)), size, "elements"


def check_sparse(sparse: onnx.SparseTensorProto) -> None:
    """Refuse a sparse tensor whose parts are not sound, or whose dense form is too large."""
    name = shortened(sparse.values.name)
    check_tensor(sparse.values)
    check_tensor(sparse.indices)
    check("rank", len(sparse.dims), f"the sparse tensor '{name}' has a rank of")
    if sparse.dims and min(sparse.dims) < 0:
        raise ModelError(f"the sparse tensor '{name}' has the shape {sparse.dims[:]}. Export the file again.")
    check("folded", dense_size(sparse), f"the bytes of the sparse tensor '{name}', made dense, are")


def dense_size(sparse: onnx.SparseTensorProto) -> int:
    """Return how many bytes a sparse tensor takes, made dense; 0 if it has no elements."""
    if not sparse.HasField("values"):
        return 0
    size = encoded_size(TensorProto(data_type=sparse.values.data_type, dims=sparse.dims))
    return 8 * math.prod(sparse.dims) if size is None else size


def check_value(value: onnx.ValueInfoProto) -> None:
    """Refuse a declaration of a type that does not exist, or is nested deeply."""
    kind = value.type
    depth = 0
    while not kind.HasField("tensor_type"):
        which = kind.WhichOneof("value")
        if which is None or which in ("opaque_type", "sparse_tensor_type"):
            break
        inner = getattr(kind, which)
        kind = inner.value_type if which == "map_type" else inner.elem_type
        depth += 1
        if depth > limits().depth:
            check("depth", depth, f"the depth of the type of '{shortened(value.name)}' is at least")
    name = value.name
    check_utf8(name, value.doc_string, kind.denotation)
    check_entries(value.metadata_props)
    if len(name) > 100:
        check("name", len(name), "the length of the name of a value is")
    tensor = kind.tensor_type
    if tensor.elem_type not in _TYPES:
        raise ModelError(
            f"its value '{shortened(name)}' has the element type {tensor.elem_type}, which ONNX does not "
            "define. Export it again."
        )
    dims = tensor.shape.dim
    check_utf8(*[dim.dim_param for dim in dims])
    if len(dims) > 8:
        check("rank", len(dims), f"the rank of the value '{shortened(name)}' is")
