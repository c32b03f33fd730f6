"""Models are read without their weights, and written by copying these from file to file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import residual_cnn
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graftonnx import wire
from graftonnx.errors import ModelError
from graftonnx.tensors import Stored
from graftonnx.weights import exceeds_protobuf, read, split, whole, write, write_external

SIDE = 40
"""Square tensors of this side are large enough to stay in the file."""


def one_tensor(tensor: TensorProto) -> ModelProto:
    """Return a model with one initializer."""
    node = helper.make_node("Identity", [tensor.name], ["y"])
    output = helper.make_tensor_value_info("y", tensor.data_type, tensor.dims)
    graph = helper.make_graph([node], "g", [], [output], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def square(dtype: type = np.float32) -> TensorProto:
    array = np.random.default_rng(0).integers(0, 99, (SIDE, SIDE)).astype(dtype)
    return numpy_helper.from_array(array, "w")


def spelled(kind: int, field: str, values: list[float]) -> TensorProto:
    """Return a tensor that does not keep its elements as raw bytes."""
    tensor = TensorProto(name="w", data_type=kind, dims=[len(values)])
    getattr(tensor, field).extend(values)
    return tensor


def save(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


TENSORS: dict[str, Callable[[], TensorProto]] = {
    "float32": square,
    "float16": lambda: square(np.float16),
    "bfloat16": lambda: square(ml_dtypes.bfloat16),
    "int4": lambda: numpy_helper.from_array(np.ones((99, 99), ml_dtypes.int4), "w"),
    "float8": lambda: square(ml_dtypes.float8_e4m3fn),
    "int64": lambda: square(np.int64),
    "bool": lambda: square(np.bool_),
    "float_data": lambda: spelled(TensorProto.FLOAT, "float_data", list(range(999))),
    "double_data": lambda: spelled(TensorProto.DOUBLE, "double_data", list(range(999))),
    "complex64": lambda: spelled(TensorProto.COMPLEX64, "float_data", list(range(999)) * 2),
    "int64_data": lambda: spelled(TensorProto.INT64, "int64_data", list(range(999))),
    "texts": lambda: helper.make_tensor("w", TensorProto.STRING, [999], ["text"] * 999),
    "small": lambda: numpy_helper.from_array(np.ones(3, np.float32), "w"),
}
STAY = {"float32", "float16", "bfloat16", "int4", "float8", "int64", "bool", "float_data", "double_data"}
"""Those whose elements stay in the file."""


@pytest.mark.parametrize("name", TENSORS)
def test_every_element_type_comes_back(name: str, tmp_path: Path) -> None:
    tensor = TENSORS[name]()
    if name == "complex64":
        tensor.dims[:] = [999]
    path = save(one_tensor(tensor), tmp_path)
    model, weights = read(path)
    assert set(weights) == ({"w"} if name in STAY else set())
    assert whole(model, weights).SerializeToString(deterministic=True) == path.read_bytes()
    if weights:
        np.testing.assert_array_equal(weights["w"].array(), numpy_helper.to_array(tensor))
        assert model.ByteSize() < 200
    write(model, weights, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_network_comes_back_from_disk_and_from_memory(tmp_path: Path) -> None:
    network = residual_cnn(width=32)
    network.doc_string = "above the graph"
    network.metadata_props.add(key="k", value="v")
    network.graph.doc_string = "in the graph"
    network.graph.initializer[0].doc_string = "a weight"
    path = save(network, tmp_path)
    for model, weights in (read(path), split(network)):
        assert weights
        assert model.ByteSize() < network.ByteSize() / 4
        write(model, weights, tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_fields_may_stand_in_any_order(tmp_path: Path) -> None:
    network = residual_cnn(width=32)
    head, tail = ModelProto(), ModelProto()
    head.CopyFrom(network)
    head.ClearField("graph")
    tail.graph.CopyFrom(network.graph)
    path = tmp_path / "model.onnx"
    path.write_bytes(tail.SerializeToString() + head.SerializeToString())
    model, weights = read(path)
    assert weights
    assert whole(model, weights) == network


def test_two_graphs_are_merged_as_protobuf_does(tmp_path: Path) -> None:
    network = residual_cnn(width=32)
    more = ModelProto()
    more.graph.doc_string = "more"
    path = tmp_path / "model.onnx"
    path.write_bytes(network.SerializeToString() + more.SerializeToString())
    model, weights = read(path)
    assert whole(model, weights) == ModelProto.FromString(path.read_bytes())


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_truncated_file_is_refused(cut: int, tmp_path: Path) -> None:
    path = save(one_tensor(square()), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * cut // 60])
    with pytest.raises((ModelError, DecodeError), match=r"truncated|no graph"):
        read(path)


def test_elements_of_the_wrong_number_are_refused(tmp_path: Path) -> None:
    tensor = square()
    tensor.dims[:] = [SIDE, SIDE + 1]
    path = save(one_tensor(tensor), tmp_path)
    with pytest.raises(ModelError, match=r"'w' holds 6,400 bytes, expected 6,560 for float \[40, 41\]"):
        read(path)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = save(one_tensor(square()), tmp_path)
    _, weights = read(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="changed while it was in use"):
        weights["w"].array()


def test_a_file_that_is_replaced_stays_readable(tmp_path: Path) -> None:
    path = save(one_tensor(square()), tmp_path)
    _, weights = read(path)
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    other.replace(path)
    np.testing.assert_array_equal(weights["w"].array(), numpy_helper.to_array(square()))


def external(folder: Path) -> Path:
    """Save a model with two tensors in two files beside it."""
    model = one_tensor(square())
    model.graph.initializer.append(numpy_helper.from_array(np.ones((SIDE, SIDE), np.float16), "v"))
    path = folder / "model.onnx"
    for tensor in model.graph.initializer:
        (folder / f"{tensor.name}.bin").write_bytes(b"\0" * 64 + tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{tensor.name}.bin")
        tensor.external_data.add(key="offset", value="64")
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_stays_where_it_is(tmp_path: Path) -> None:
    path = external(tmp_path)
    model, weights = read(path)
    assert all(isinstance(tensor, Stored) for tensor in weights.values())
    expected = onnx.load(path)
    assert whole(model, weights) == ModelProto.FromString(_without_location(expected))


def _without_location(model: ModelProto) -> bytes:
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")
    content: bytes = model.SerializeToString()
    return content


def test_a_model_of_any_size_goes_into_two_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = external(source)
    model, weights = read(path)
    weights["v"] = split(onnx.load(path))[1]["v"]  # one in memory, one in a file
    write_external(model, weights, tmp_path / "big.onnx", tmp_path / "part", location="big.bin")
    (tmp_path / "part").rename(tmp_path / "big.bin")
    onnx.checker.check_model(str(tmp_path / "big.onnx"))
    again = onnx.load(tmp_path / "big.onnx")
    for tensor in onnx.load(path).graph.initializer:
        (found,) = (t for t in again.graph.initializer if t.name == tensor.name)
        np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(tensor))
    assert (tmp_path / "big.bin").stat().st_size == 4096 * 2 + SIDE * SIDE * 2


def relocate(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["/etc/passwd", "../model.onnx", "sub/../../w.bin", "link.bin", "."])
def test_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    relocate(path, location)
    with pytest.raises(ModelError, match=r"^cannot read '.*model.onnx': the data of 'w'"):
        read(path)


def test_absent_and_short_data_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    content = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"'w' ends at byte 6,464 of 'w.bin', which has 6,463"):
        read(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"'w' should lie in 'w.bin' beside it, and there is no such file"):
        read(path)


def test_sizes_are_added_up() -> None:
    model, weights = split(one_tensor(square()))
    assert not exceeds_protobuf(model, weights)
    assert exceeds_protobuf(model, weights | dict.fromkeys(map(str, range(2**19)), weights["w"]))


def test_every_real_file_comes_back(shared_models: Path) -> None:
    for path in sorted(shared_models.glob("*.onnx")):
        content, _ = wire.read_skeleton(path)
        assert len(content) < 110_000 or "paddle" in path.name  # which keeps weights in its nodes
        assert whole(*read(path)) == onnx.load(path)


@pytest.mark.parametrize("name", ["int4", "bfloat16", "texts", "int64_data"])
def test_elements_in_memory_are_encoded_for_a_second_file(name: str, tmp_path: Path) -> None:
    tensor = TENSORS[name]()
    model, weights = split(one_tensor(tensor))
    assert weights
    write_external(model, weights, tmp_path / "m.onnx", tmp_path / "m.data", location="m.data")
    (found,) = onnx.load(tmp_path / "m.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(tensor))
