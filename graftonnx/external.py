"""External data: elements of tensors in other files, which must be plain files in the model's folder.

A name in a model may be a trap: a path that leads elsewhere, a link, a device that never ends, a pipe that
blocks. So each part of a path is opened below the folder before it, following no link, and what was opened is
judged, not what has the name.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from onnx import GraphProto, ModelProto, TensorProto

from graftonnx.declarations import check_utf8, shortened
from graftonnx.errors import ModelError
from graftonnx.limits import check, limits
from graftonnx.tensors import SourceFile, Stored, Tensor, encoded_size
from graftonnx.wire import INLINE_BYTES

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_MOST_OVERLAP = 4
"""Tied weights may share their bytes; more than so many tensors on one byte multiply a file in memory."""

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_FILE = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)


def take_over(model: ModelProto, folder: Path) -> dict[str, Tensor]:
    """Return the large initializers whose elements lie in other files, and make them stubs, in place.

    The elements of all other tensors with external data are put into the model.

    Args:
        model: As it was parsed.
        folder: Where it lies.

    Raises:
        ModelError: If a file is not a plain one in the model's folder, or does not hold what it should.
    """
    found: dict[str, Tensor] = {}
    held = 0
    for tensor, is_main, elements in _outside(model, folder):
        tensor.ClearField("data_location")
        del tensor.external_data[:]
        tensor.ClearField("raw_data")
        if is_main and elements.nbytes > INLINE_BYTES and tensor.name not in found:
            found[tensor.name] = elements
            continue
        held += elements.nbytes
        check("folded", held, "the bytes of external data outside its large initializers are")
        tensor.raw_data = elements.encoded()
    return found


def outside(model: ModelProto, folder: Path) -> Iterator[Stored]:
    """Yield the elements that lie in other files, tensor by tensor; raises as :func:`take_over`."""
    return (elements for _, _, elements in _outside(model, folder))


def _outside(model: ModelProto, folder: Path) -> Iterator[tuple[TensorProto, bool, _Elements]]:
    """Yield every tensor with elements in another file, as :func:`_tensors` does, and these."""
    files: dict[str, SourceFile] = {}
    taken: dict[str, int] = {}
    for tensor, is_main in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        elements = _elements(tensor, folder, files)
        location = elements.location
        taken[location] = taken.get(location, 0) + elements.nbytes
        if taken[location] > _MOST_OVERLAP * files[location].size:
            raise ModelError(
                f"its tensors claim {taken[location]:,} bytes of '{location}', which has "
                f"{files[location].size:,}. Export it again."
            )
        check("file", sum(taken.values()), "the bytes of its external data are")
        yield tensor, is_main, elements


def _tensors(graph: GraphProto) -> Iterator[tuple[TensorProto, bool]]:
    """Yield every tensor in a graph, at any depth, and whether it is an initializer of the graph itself."""
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        for tensor in current.initializer:
            yield tensor, current is graph
        for sparse in current.sparse_initializer:
            yield sparse.values, False
            yield sparse.indices, False
        for node in current.node:
            for item in node.attribute:
                if item.HasField("t"):
                    yield item.t, False
                for tensor in item.tensors:
                    yield tensor, False
                if item.HasField("g"):
                    waiting.append(item.g)
                waiting.extend(item.graphs)


class _Elements(Stored):
    """Elements in a file of external data.

    Attributes:
        location: The name of the file.
    """

    location: str


def _elements(tensor: TensorProto, folder: Path, files: dict[str, SourceFile]) -> _Elements:
    """Return where the elements of a tensor lie, once that is known to be right."""
    check_utf8(tensor.name, *[text for entry in tensor.external_data for text in (entry.key, entry.value)])
    where = f"the data of '{shortened(tensor.name)}'"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) < len(tensor.external_data):
        raise ModelError(f"{where} is described twice. Export the file again.")
    location = entries.get("location", "")
    offset, given = (_number(entries.get(key), key, where) for key in ("offset", "length"))
    size = _size(tensor, where)
    if given is not None and given != size:
        raise ModelError(
            f"{where} takes {given:,} bytes by its length, {size:,} by its type and shape {tensor.dims[:]}. "
            "Export the file again."
        )
    if location not in files:
        descriptor = open_inside(folder, location, tensor.name)
        files[location] = SourceFile(folder / location, descriptor)
    start, file = offset or 0, files[location]
    if start + size > file.size:
        raise ModelError(
            f"{where} ends at byte {start + size:,} of '{location}', which has {file.size:,}. "
            "Copy that file again."
        )
    elements = _Elements(file, start, size, tensor)
    elements.location = location
    return elements


def _number(text: str | None, key: str, where: str) -> int | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise ModelError(
            f"{where} has the {key} '{shortened(text)}'; expected a number. Export the file again."
        )
    return int(text)


def _size(tensor: TensorProto, where: str) -> int:
    dims = tensor.dims[:]
    if dims and (min(dims) < 0 or math.prod(dims) > limits().elements):
        raise ModelError(f"{where} has the impossible shape {dims}. Export the file again.")
    size = encoded_size(tensor)
    if size is None:
        raise ModelError(f"{where} lies in another file and is no plain numbers. Export the file again.")
    return size


def open_inside(folder: Path, location: str, name: str) -> int:
    """Open a file of external data, and return its descriptor.

    Args:
        folder: Of the model.
        location: What the model says.
        name: Of the tensor, for the message.

    Raises:
        ModelError: If it is anything but a plain file in the model's folder, with one name.
    """
    parts = PurePosixPath(location).parts
    refusal = ModelError(
        f"the data of '{shortened(name)}' is said to lie in '{shortened(location)}'; expected a plain "
        "file in the model's folder."
    )
    if not parts or parts[0] == "/" or ".." in parts or "\0" in location or Path(location).is_absolute():
        raise refusal
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        for index, part in enumerate(parts):
            flags = _FILE if index == len(parts) - 1 else _DIRECTORY
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise refusal
        if status.st_nlink > 1:
            raise ModelError(
                f"the data of '{shortened(name)}' lies in '{location}', which has another name elsewhere (a "
                "hard link). Put a copy in its place."
            )
    except FileNotFoundError as error:
        os.close(descriptor)
        raise ModelError(
            f"the data of '{shortened(name)}' should lie in '{shortened(location)}' beside it, and there is "
            "no such file. Copy it there."
        ) from error
    except OSError as error:  # a link, a socket, a file where a folder should be, no permission
        os.close(descriptor)
        raise refusal from error
    except ModelError:
        os.close(descriptor)
        raise
    return descriptor
