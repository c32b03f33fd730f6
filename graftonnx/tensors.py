"""The elements of an initializer, in memory or in the file where they were found."""

from __future__ import annotations

import abc
import io
import math
import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from graftonnx import wire
from graftonnx.errors import ModelError

Array = NDArray[Any]

SHARED_BYTES = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
"""Element types of less than a byte, and their bits."""

_CHUNK = 1 << 24


class Tensor(abc.ABC):
    """An initializer's elements.

    Attributes:
        data_type: ONNX's number of the element type.
        dims: The shape.
        field: The field of a TensorProto in which the elements were found, and are written again.
    """

    data_type: int
    dims: tuple[int, ...]
    field: str = "raw_data"

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Size of the elements in bytes, as they are encoded."""

    @abc.abstractmethod
    def array(self) -> Array:
        """Return the elements; the array may share memory and must not be written to."""

    @abc.abstractmethod
    def fill(self, stub: TensorProto) -> None:
        """Put the elements into a tensor that has all but these."""


class Held(Tensor):
    """Elements in memory."""

    def __init__(self, tensor: TensorProto) -> None:
        self.data_type, self.dims, self.field = tensor.data_type, tuple(tensor.dims), data_field(tensor)
        self._tensor = tensor

    @property
    def nbytes(self) -> int:  # noqa: D102
        return len(self._tensor.raw_data) or self._tensor.ByteSize()

    def array(self) -> Array:  # noqa: D102
        return numpy_helper.to_array(self._tensor)

    def fill(self, stub: TensorProto) -> None:  # noqa: D102
        name = stub.name
        stub.CopyFrom(self._tensor)
        stub.name = name


class Computed(Held):
    """Elements in memory that were computed from others."""

    @property
    def nbytes(self) -> int:  # noqa: D102 # to count the bytes themselves copies them
        return encoded_size(self._tensor) or self._tensor.ByteSize()


class Made(Tensor):
    """Elements of our own, as an array: zeros that nobody has touched take no memory."""

    def __init__(self, array: Array) -> None:
        self.data_type, self.dims = onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        self._array = array

    @property
    def nbytes(self) -> int:  # noqa: D102
        return self._array.nbytes

    def array(self) -> Array:  # noqa: D102
        return self._array

    def fill(self, stub: TensorProto) -> None:  # noqa: D102
        stub.raw_data = self.encoded()

    def encoded(self) -> bytes:
        """Return the bytes of the elements as they are encoded."""
        return bytes(numpy_helper.from_array(self._array).raw_data)

    def copy_to(self, target: io.FileIO) -> None:
        """Append the encoded elements to a file."""
        wire.write_all(target, self.encoded())


class Spread(Made):
    """Elements of a sparse tensor, and the zeros between them."""


BLOCK = 1 << 24
"""Bytes that are read at once where that is enough."""


class Stored(Tensor):
    """Elements in a file.

    Args:
        file: Where they are.
        start: Offset of the first byte.
        nbytes: How many bytes they take.
        tensor: Has their type and shape.
        field: See :class:`Tensor`.
    """

    def __init__(
        self, file: SourceFile, start: int, nbytes: int, tensor: TensorProto, field: str = "raw_data"
    ) -> None:
        self.data_type, self.dims, self.field = tensor.data_type, tuple(tensor.dims), field
        self._file, self._start, self._nbytes = file, start, nbytes

    @property
    def nbytes(self) -> int:  # noqa: D102
        return self._nbytes

    def array(self) -> Array:
        """Read the elements: the array is the caller's own."""
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.data_type)
        if dtype.name in SHARED_BYTES:
            tensor = TensorProto(data_type=self.data_type, dims=self.dims)
            tensor.raw_data = self.encoded()
            return numpy_helper.to_array(tensor)
        content = np.empty(self._nbytes, np.uint8)
        self._file.read_into(self._start, content.data)
        array: Array = content.view(dtype.newbyteorder("<")).reshape(self.dims)
        return array if array.dtype.isnative else array.astype(dtype)

    def fill(self, stub: TensorProto) -> None:  # noqa: D102
        if self.field == "raw_data":
            stub.raw_data = self.encoded()
        else:
            stub.MergeFromString(wire.length_tag(wire.TENSOR[self.field], self._nbytes) + self.encoded())

    def copy_to(self, target: io.FileIO) -> None:
        """Append the encoded elements to a file."""
        self._file.copy_to(target, self._start, self._nbytes)

    def encoded(self) -> bytes:
        """Read the bytes of the elements as they are encoded."""
        content = bytearray(self._nbytes)
        self._file.read_into(self._start, memoryview(content))
        return bytes(content)

    def blocks(self) -> Iterator[bytes]:
        """Read the same piece by piece."""
        for done in range(0, self._nbytes, BLOCK):
            content = bytearray(min(BLOCK, self._nbytes - done))
            self._file.read_into(self._start + done, memoryview(content))
            yield bytes(content)


class SourceFile:
    """A file whose tensors are read when they are needed.

    It stays open, so that its content is there even when another file has taken its path.

    Args:
        path: Its path.
        descriptor: Of the open file; it is opened where there is none yet.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        self._file: BinaryIO = path.open("rb") if descriptor is None else os.fdopen(descriptor, "rb")
        self._lock = threading.Lock()
        self._stamp = self._now()
        self.size = self._stamp[0]

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            self._file.close()

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from an offset on.

        Raises:
            ModelError: If the file has changed since it was opened.
        """
        with self._lock:
            self._file.seek(start)
            while len(buffer):
                count = self._file.readinto(buffer)  # type: ignore[attr-defined] # BufferedReader has it
                if not count:
                    break
                buffer = buffer[count:]
            if len(buffer):
                raise ModelError(
                    f"'{self.path}' ends early: it changed while it was in use. Run the command again."
                )
        self._check()

    def copy_to(self, target: io.FileIO, start: int, length: int) -> None:
        """Append `length` bytes from an offset on to another file, by the kernel where it can.

        Raises:
            ModelError: If the file has changed since it was opened.
        """
        end = start + length
        while start < end and hasattr(os, "copy_file_range"):
            try:
                count = os.copy_file_range(self._file.fileno(), target.fileno(), end - start, start)
            except OSError:
                break  # between these two file systems it cannot
            if not count:
                break
            start += count
        while start < end:
            content = bytearray(min(_CHUNK, end - start))
            self.read_into(start, memoryview(content))
            wire.write_all(target, content)
            start += len(content)
        self._check()

    def _check(self) -> None:
        if self._now() != self._stamp:
            raise ModelError(f"'{self.path}' changed while it was in use. Run the command again.")

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns


def data_field(tensor: TensorProto) -> str:
    """Return the name of the field in which a tensor keeps its elements."""
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        if len(getattr(tensor, field)):
            return field
    return "raw_data"


def encoded_size(tensor: TensorProto | Tensor) -> int | None:
    """Return how many bytes a tensor's elements take; None for texts."""
    bits = _bits(tensor.data_type)
    return None if bits is None else (math.prod(tensor.dims) * bits + 7) // 8


@cache
def _bits(data_type: int) -> int | None:
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    except KeyError:
        return None
    return None if dtype.hasobject else SHARED_BYTES.get(dtype.name, 8 * dtype.itemsize)
