"""Read an ONNX file without its weights: walk protobuf's wire format, and note where the numbers lie.

A parser would copy every weight into memory. Here a file of any size becomes a small skeleton, and each large
tensor a span of bytes in the file, to be read when somebody wants the numbers, or copied from file to file.

Source: protobuf's encoding (protobuf.dev/programming-guides/encoding), field numbers of onnx.proto.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

INLINE_BYTES = 1024
"""Tensors up to this size stay in the skeleton: shapes, axes, scales, which analysis has to read."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
INITIALIZER = 5
TENSOR = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
"""The field numbers of a tensor, by name."""

_NAME, _TYPE = TENSOR["name"], TENSOR["data_type"]

ELEMENTS = tuple(name for name in TENSOR if name.endswith("_data") and name != "external_data")
"""The fields that may hold a tensor's elements."""

_NUMBERS = {
    TENSOR["raw_data"]: "raw_data",
    TENSOR["float_data"]: "float_data",
    TENSOR["double_data"]: "double_data",
}
"""Fields whose bytes are the elements themselves, in little-endian order (the last two when packed)."""

_PLAIN = {"float_data": TensorProto.FLOAT, "double_data": TensorProto.DOUBLE}
"""The element type for which that is so."""


@dataclass(frozen=True)
class Span:
    """Where a tensor's elements lie in an ONNX file.

    Attributes:
        start: Offset of the first byte.
        length: In bytes.
        field: The tensor's field that holds them.
    """

    start: int
    length: int
    field: str


def read_skeleton(path: Path) -> tuple[bytes, dict[str, Span]]:
    """Read a file, but for the elements of the main graph's large initializers.

    Args:
        path: An ONNX file; external data stays where it is.

    Returns:
        The encoded model, in which such an initializer has name, type, shape and remarks, but no elements;
        and where each one's elements lie, by its name.

    Raises:
        DecodeError: If the file is no protobuf message of this kind.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise DecodeError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pieces, spans = _without_elements(data)
    return b"".join(pieces), spans


def _without_elements(data: mmap.mmap) -> tuple[list[bytes], dict[str, Span]]:
    """Return the bytes of the skeleton in pieces, and the spans that are left out."""
    graphs = [field for field in _fields(data, 0, len(data)) if field[0] == GRAPH]
    if len(graphs) != 1 or graphs[0][1] != _LENGTH:
        return [data[:]], {}  # none, or several that the parser merges
    _, _, graph_tag, graph_start, graph_end = graphs[0]
    spans: dict[str, Span] = {}
    pieces: list[bytes] = []
    copied = graph_start
    for number, kind, tag, start, end in _fields(data, graph_start, graph_end):
        if number != INITIALIZER or kind != _LENGTH or end - start <= INLINE_BYTES:
            continue
        found = _elements(data, start, end)
        if found is None:
            continue
        name, hole, elements = found
        if name in spans:
            return [data[:]], {}  # two of one name: the checker will say so
        spans[name] = elements
        rest = data[start:hole] + data[elements.start + elements.length : end]
        pieces += [data[copied:tag], length_tag(INITIALIZER, len(rest)), rest]
        copied = end
    pieces.append(data[copied:graph_end])
    length = sum(len(piece) for piece in pieces)
    return [data[:graph_tag], length_tag(GRAPH, length), *pieces, data[graph_end:]], spans


def _elements(data: mmap.mmap, start: int, end: int) -> tuple[str, int, Span] | None:
    """Return a tensor's name, the offset of its elements' tag, and their span.

    None if they are few, or do not lie in one piece.
    """
    name, element, holes = "", 0, []
    for field in _fields(data, start, end):
        number, kind, _, first, last = field
        if number == _NAME and kind == _LENGTH:
            name = data[first:last].decode(errors="replace")
        elif number == _TYPE and kind == _VARINT:
            element = _varint(data, first, last)[0]
        elif number in _NUMBERS:
            holes.append(field)
    if len(holes) != 1 or not name or holes[0][1] != _LENGTH:
        return None
    number, _, tag, first, last = holes[0]
    if last - first <= INLINE_BYTES or _PLAIN.get(_NUMBERS[number], element) != element:
        return None
    return name, tag, Span(first, last - first, _NUMBERS[number])


_Field: TypeAlias = tuple[int, int, int, int, int]
"""One field of a message: number, kind, offset of its tag, offsets where its content begins and ends."""


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message that lies between two offsets."""
    position = start
    while position < end:
        tag = position
        key = data[position]
        position += 1
        if key >= 0x80:
            key, position = _varint(data, tag, end)
        kind = key & 7
        if kind == _LENGTH:
            if position < end and data[position] < 0x80:
                length = data[position]
                position += 1
            else:
                length, position = _varint(data, position, end)
        elif kind == _VARINT:
            length = _varint(data, position, end)[1] - position
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError(f"byte {tag}: a field of an unknown kind")
        if length > end - position:
            raise DecodeError(f"byte {tag}: a field ends behind its message")
        yield key >> 3, kind, tag, position, position + length
        position += length


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `position`, and where it ends."""
    number = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise DecodeError(f"byte {position}: a number does not end")


@lru_cache(1 << 12)
def length_tag(field: int, length: int) -> bytes:
    """Return the tag of a field that holds `length` bytes, and that length."""
    return _encoded(field << 3 | _LENGTH) + _encoded(length)


def write_all(target: io.FileIO, content: bytes | bytearray) -> None:
    """Write all of `content` to an unbuffered file."""
    rest = memoryview(content)
    while len(rest):
        rest = rest[target.write(rest) or 0 :]


def _encoded(number: int) -> bytes:
    content = bytearray()
    while number >= 0x80:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)
