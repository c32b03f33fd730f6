"""External data is read from plain files in the model's folder, and from nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import plain_cnn
from onnx import ModelProto, TensorProto, numpy_helper

from graftonnx.errors import ModelError
from graftonnx.model import load
from graftonnx.reading import sha256
from graftonnx.runtime import open_session
from graftonnx.weights import digest, read, whole

NAME = "r1.conv.weight"


def model_with(folder: Path, **entries: str) -> Path:
    """Write a network whose largest weight lies in `w.bin`, described by `entries`."""
    model = plain_cnn()
    tensor = next(t for t in model.graph.initializer if t.name == NAME)
    (folder / "w.bin").write_bytes(tensor.raw_data)
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    describe(tensor, **{"location": "w.bin", "offset": "0", "length": str(size), **entries})
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def describe(tensor: TensorProto, **entries: str) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def rewritten(path: Path) -> ModelProto:
    return onnx.load(path, load_external_data=False)


def test_what_lies_in_the_folder_is_read(tmp_path: Path) -> None:
    path = model_with(tmp_path)
    (tmp_path / "sub").mkdir()
    os.replace(tmp_path / "w.bin", tmp_path / "sub" / "w.bin")
    model = rewritten(path)
    next(t for t in model.graph.initializer if t.name == NAME).external_data[0].value = "sub/w.bin"
    path.write_bytes(model.SerializeToString())
    found = {t.name: numpy_helper.to_array(t) for t in whole(*read(path)).graph.initializer}
    expected = {t.name: numpy_helper.to_array(t) for t in plain_cnn().graph.initializer}
    np.testing.assert_array_equal(found[NAME], expected[NAME])


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../w.bin",
        "sub/../../w.bin",
        "./../w.bin",
        "",
        ".",
        "link.bin",
        "linked/w.bin",
        "w.bin\0",
        "pipe",
        "folder",
        "w.bin/x",
        "~/w.bin/",
        "x" * 5_000,
    ],
)
def test_a_path_that_is_no_plain_file_in_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = model_with(folder, location=location)
    (tmp_path / "w.bin").write_bytes(bytes(1 << 16))
    (folder / "link.bin").symlink_to("w.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    for use in (load, read, lambda p: open_session(p, provider="cpu")):
        with pytest.raises(ModelError, match=rf"cannot read '.*model.onnx': the data of '{NAME}'"):
            use(path)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    path = model_with(tmp_path, location="zero")
    try:
        os.mknod(tmp_path / "zero", 0o20_666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device needs root")
    with pytest.raises(ModelError, match=r"expected a plain file in the model's folder"):
        read(path)


def test_a_hard_link_is_not_read(tmp_path: Path) -> None:
    """It may be another name of a file that lies elsewhere."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = model_with(folder)
    os.link(folder / "w.bin", tmp_path / "secret")
    with pytest.raises(ModelError, match=r"which has another name elsewhere \(a hard link\)"):
        read(path)


def test_a_file_that_is_exchanged_for_a_link_afterwards_is_not_followed(tmp_path: Path) -> None:
    path = model_with(tmp_path)
    _, weights = read(path)
    expected = weights[NAME].array().copy()
    (tmp_path / "w.bin").rename(tmp_path / "before.bin")
    (tmp_path / "other.bin").write_bytes(bytes(expected.nbytes))
    (tmp_path / "w.bin").symlink_to("other.bin")
    np.testing.assert_array_equal(weights[NAME].array(), expected)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "-1"}, r"has the offset '-1'; expected a number"),
        ({"offset": "1e3"}, r"has the offset '1e3'"),
        ({"offset": "0x10"}, r"has the offset '0x10'"),
        ({"offset": " 0"}, r"has the offset ' 0'"),
        ({"offset": "٤"}, r"has the offset '٤'"),
        ({"offset": "9" * 5_000}, r"has the offset '999"),
        ({"offset": "18446744073709551615"}, r"has the offset '18446744073709551615'"),
        ({"offset": "999999999999999999"}, r"ends at byte 1,000,000,000,000,004,607 of 'w.bin', which"),
        ({"offset": "4"}, r"ends at byte 4,612 of 'w.bin', which has 4,608"),
        ({"length": "4604"}, r"takes 4,604 bytes by its length, 4,608 by its type and shape \[16, 8, 3, 3\]"),
        ({"length": "999999999999999999"}, r"takes 999,999,999,999,999,999 bytes by its length"),
        ({"length": "nan"}, r"has the length 'nan'"),
    ],
)  # fmt: skip
def test_a_place_that_is_not_in_the_file_is_refused(
    entries: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        read(model_with(tmp_path, **entries))


def test_a_place_that_is_described_twice_is_refused(tmp_path: Path) -> None:
    path = model_with(tmp_path)
    model = rewritten(path)
    next(t for t in model.graph.initializer if t.name == NAME).external_data.add(key="offset", value="8")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=rf"the data of '{NAME}' is described twice"):
        read(path)


def test_an_impossible_shape_of_external_data_is_refused(tmp_path: Path) -> None:
    path = model_with(tmp_path)
    model = rewritten(path)
    next(t for t in model.graph.initializer if t.name == NAME).dims[0] = 1 << 62
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"has the impossible shape"):
        read(path)


def test_many_tensors_cannot_multiply_one_file(tmp_path: Path) -> None:
    path = model_with(tmp_path)
    model = rewritten(path)
    tensor = next(t for t in model.graph.initializer if t.name == NAME)
    for index in range(10):
        copy = model.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = f"copy{index}"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"its tensors claim 23,040 bytes of 'w.bin', which has 4,608"):
        read(path)


def test_a_tensor_in_an_attribute_is_confined_too(tmp_path: Path) -> None:
    model = plain_cnn()
    node = model.graph.node.add(op_type="Constant", output=["held"])
    tensor = TensorProto(name="held", data_type=TensorProto.FLOAT, dims=[4])
    describe(tensor, location="../secret")
    node.attribute.append(onnx.helper.make_attribute("value", tensor))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"the data of 'held' is said to lie in '../secret'"):
        read(path)


def test_weights_outside_are_part_of_what_tells_a_network_from_others(tmp_path: Path) -> None:
    path = model_with(tmp_path)
    before = digest(path)
    assert digest(path) == before == load(path).sha256 != sha256(path)
    content = bytearray((tmp_path / "w.bin").read_bytes())
    content[-1] ^= 1
    (tmp_path / "w.bin").write_bytes(content)
    assert digest(path) == load(path).sha256 != before


def test_a_network_in_one_file_is_told_by_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(plain_cnn(), path)
    assert digest(path) == load(path).sha256 == sha256(path)
    path.write_bytes(b"no model; location")
    assert digest(path) == sha256(path)


def test_a_pipe_in_the_place_of_a_model_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"it is no plain file"):
        read(tmp_path / "model.onnx")
