"""A model repository of NVIDIA's Triton Inference Server.

    triton/<name>/config.pbtxt    name, backend, inputs, outputs, batching
    triton/<name>/labels.txt      what its classification extension answers
    triton/<name>/1/model.onnx    the network: where the disk can, a hard link to `models/<precision>.onnx`

`config.pbtxt` is protobuf's text format. Its messages are in `model_config.proto` of triton-inference-server/
common; the fields used here are described below, so that protobuf, which onnx brings, writes and reads them.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnx import TensorProto

from graftonnx.bundling.manifest import LABELS, external_path, model_path, triton_path
from graftonnx.errors import GraftError
from graftonnx.reading import read_text, sha256

CONFIG = "config.pbtxt"
VERSION = "1"
NETWORK = "model.onnx"

MOST_IMAGES = 64
"""Images up to which Triton gathers requests into one batch."""

TYPES: dict[int, tuple[str, int]] = {
    TensorProto.UINT8: ("TYPE_UINT8", 2),
    TensorProto.FLOAT16: ("TYPE_FP16", 10),
    TensorProto.FLOAT: ("TYPE_FP32", 11),
}
"""Element types of inputs and outputs, with Triton's names and numbers."""

_MESSAGES = {
    "ModelInput": {"name": (1, "STRING"), "data_type": (2, "DataType"), "dims": (4, "INT64*")},
    "ModelOutput": {
        "name": (1, "STRING"),
        "data_type": (2, "DataType"),
        "dims": (3, "INT64*"),
        "label_filename": (4, "STRING"),
    },
    "ModelDynamicBatching": {},
    "ModelConfig": {
        "name": (1, "STRING"),
        "max_batch_size": (4, "INT32"),
        "input": (5, "ModelInput*"),
        "output": (6, "ModelOutput*"),
        "dynamic_batching": (11, "ModelDynamicBatching"),
        "backend": (17, "STRING"),
    },
}
"""The fields of Triton's messages that are used: number and type; a star means repeated."""


def write_repository(folder: Path, precision: str, name: str, labels: str) -> None:
    """Put a precision of a bundle into its model repository.

    Args:
        folder: The bundle.
        precision: The precision.
        name: What Triton shall call it.
        labels: The content of `labels.txt`.
    """
    target, source = triton_path(folder, name), model_path(folder, precision)
    (target / VERSION).mkdir(parents=True)
    (target / CONFIG).write_text(text_format.MessageToString(describe(source, name)), encoding="utf-8")
    (target / LABELS).write_text(labels, encoding="utf-8")
    _link(source, target / VERSION / NETWORK)
    for file in _files(folder, precision)[1:]:
        shutil.copy2(file, target / VERSION / file.name)  # external data with two names is refused by readers


def repository(precision: str, name: str) -> tuple[set[str], set[str]]:
    """Return the paths in a bundle of the files that serve a precision: which must be, and which may be."""
    place = triton_path(Path(), name)
    served = {place / CONFIG, place / LABELS, place / VERSION / NETWORK}
    data = place / VERSION / external_path(Path(), precision).name
    return {path.as_posix() for path in served}, {data.as_posix()}


def check_repository(folder: Path, precision: str, name: str) -> None:
    """Check that the model repository serves a precision of a bundle.

    Raises:
        GraftError: If its configuration, its labels or its network is another.
    """
    target, source = triton_path(folder, name), model_path(folder, precision)
    expected = describe(source, name)
    found = _read_config(target / CONFIG)
    for field in expected.DESCRIPTOR.fields:
        if getattr(found, field.name) != getattr(expected, field.name):
            raise GraftError(
                f"cannot serve '{target}': {field.name} in its {CONFIG} does not fit the network {precision}."
                " Make the bundle anew."
            )
    for file in _files(folder, precision):
        copy = target / VERSION / (NETWORK if file == source else file.name)
        if not copy.is_file() or sha256(copy) != sha256(file):
            raise GraftError(f"cannot serve '{target}': '{copy}' is not '{file}'. Make the bundle anew.")


def describe(network: Path, name: str) -> Any:
    """Return the `ModelConfig` of a network, which Triton shall call `name`.

    Raises:
        GraftError: If it has several outputs, or values of a type that is not in `TYPES`.
    """
    graph = onnx.load(network, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(graph.output) != 1:
        raise GraftError(
            f"cannot serve '{network}': it has {len(graph.output)} outputs, expected one. Make the bundle "
            "anew."
        )
    for value in (*inputs, *graph.output):
        if value.type.tensor_type.elem_type not in TYPES:
            raise GraftError(
                f"cannot serve '{network}': '{value.name}' is {_type(value)}, expected float, float16 or "
                "uint8. Make the bundle anew."
            )
    config = _types()["ModelConfig"](name=name, backend="onnxruntime")
    dynamic = not any(value.type.tensor_type.shape.dim[0].HasField("dim_value") for value in inputs)
    if dynamic:
        config.max_batch_size = MOST_IMAGES
        config.dynamic_batching.SetInParent()
    for value in inputs:
        config.input.add(**_tensor(value, dynamic=dynamic))
    (output,) = graph.output
    config.output.add(**_tensor(output, dynamic=dynamic), label_filename=LABELS)
    return config


def _type(value: onnx.ValueInfoProto) -> str:
    """Return the type of a value's elements for people."""
    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()


def _tensor(value: onnx.ValueInfoProto, *, dynamic: bool) -> dict[str, Any]:
    """Return name, type and extents of an input or output, without the batch where Triton makes that."""
    tensor = value.type.tensor_type
    extents = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return {
        "name": value.name,
        "data_type": TYPES[tensor.elem_type][1],
        "dims": extents[1:] if dynamic else extents,
    }


def _read_config(path: Path) -> Any:
    try:
        return text_format.Parse(read_text(path), _types()["ModelConfig"]())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise GraftError(f"cannot read '{path}': {error}. Make the bundle anew.") from error


@functools.cache
def _types() -> dict[str, Any]:
    """Return the classes of `_MESSAGES`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="graftonnx/model_config.proto", package="inference", syntax="proto3"
    )
    values = file.enum_type.add(name="DataType").value
    for name, number in (("TYPE_INVALID", 0), *TYPES.values()):
        values.add(name=name, number=number)
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            _add_field(described, name, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{message}"))
        for message in _MESSAGES
    }


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    types = descriptor_pb2.FieldDescriptorProto
    repeated, kind = kind.endswith("*"), kind.removesuffix("*")
    field = message.field.add(name=name, number=number)
    field.label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
    if kind == "DataType":
        field.type, field.type_name = types.TYPE_ENUM, ".inference.DataType"
    elif kind in _MESSAGES:
        field.type, field.type_name = types.TYPE_MESSAGE, f".inference.{kind}"
    else:
        field.type = getattr(types, f"TYPE_{kind}")


def _files(folder: Path, precision: str) -> list[Path]:
    """Return the files of a precision: its own, and its external data where there are any."""
    data = external_path(folder, precision)
    return [model_path(folder, precision), *([data] if data.exists() else [])]


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(file, target)
