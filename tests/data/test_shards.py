"""Tar files by the convention of WebDataset, of good people and of others."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from data.pictures import NAMES, PICTURES, check_rows, labelled, write_tar

from graftonnx.data import bounds
from graftonnx.data.opening import open_data
from graftonnx.errors import DataError
from graftonnx.images import decode_stream

"""The class of each row."""

CLASSES = ["red", "green", "blue"]


def name_of(row: int) -> str:
    return NAMES[row]


def shard(rows: range, **labels: Any) -> dict[str, bytes]:
    """Return the entries of a tar shard; `labels` makes the label file of each suffix."""
    files = {}
    for row in rows:
        files[f"{row:04d}.png"] = PICTURES[row]
        for suffix, label in labels.items():
            files[f"{row:04d}.{suffix}"] = str(label(row)).encode()
    return files


def test_classes_are_numbers(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", shard(range(6), cls=lambda row: CLASSES.index(NAMES[row])))
    check_rows(open_data(path), classes=("0", "1", "2"))


def test_classes_are_text(tmp_path: Path) -> None:
    check_rows(open_data(write_tar(tmp_path / "a.tar", shard(range(6), txt=lambda row: f"{NAMES[row]}\n"))))


def test_classes_are_in_json(tmp_path: Path) -> None:
    files = shard(range(6), json=lambda row: json.dumps({"label": NAMES[row], "width": 8}))
    check_rows(open_data(write_tar(tmp_path / "a.tar", files)))


def test_a_folder_of_shards(tmp_path: Path) -> None:
    def label(row: int) -> str:
        return NAMES[row]

    write_tar(tmp_path / "train-0.tar", shard(range(3), txt=label))
    write_tar(tmp_path / "train-1.tar", shard(range(3, 6), txt=label))
    write_tar(tmp_path / "val-0.tar", shard(range(1, 3), txt=label))
    data = open_data(tmp_path)
    check_rows(data)
    assert [data.classes[s.label] for s in data.val] == ["green", "blue"]


def test_class_folders_in_a_tar_file_are_no_shard(tmp_path: Path) -> None:
    data = open_data(write_tar(tmp_path / "a.tar", labelled({"red": 2, "blue": 2})))
    assert data.train[0].name == "blue/0.png"


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_shard_may_be_compressed(kind: str, tmp_path: Path) -> None:
    check_rows(open_data(write_tar(tmp_path / f"a.tar.{kind}", shard(range(6), txt=name_of))))


def test_the_library_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    check_rows(open_data(write_tar(tmp_path / "a.tar", shard(range(6), txt=name_of))))


def test_shards_of_one_part_are_all_images_whatever_it_is_called(tmp_path: Path) -> None:
    write_tar(tmp_path / "test-0.tar", shard(range(3), txt=name_of))
    write_tar(tmp_path / "test-1.tar", shard(range(3, 6), txt=name_of))
    check_rows(open_data(tmp_path))


def test_shards_without_a_training_part(tmp_path: Path) -> None:
    for part in ("test", "val"):
        write_tar(tmp_path / f"{part}.tar", shard(range(6), txt=name_of))
    with pytest.raises(DataError, match="its splits are 'test', 'val'; expected 'train' among them"):
        open_data(tmp_path)


def test_a_row_without_an_image_is_a_bad_image(tmp_path: Path) -> None:
    files = shard(range(6), txt=name_of)
    del files["0004.png"]
    data = open_data(write_tar(tmp_path / "a.tar", files))
    decoded = decode_stream(data.store.contents([s.name for s in data.train]), (4, 4))
    assert {image.position for image in decoded if image.pixels is None} == {4}


@pytest.mark.parametrize("leading", ["", "./", "a.b/c/"])
def test_names_are_rows_and_fields(leading: str, tmp_path: Path) -> None:
    files = shard(range(6), txt=name_of)
    hidden = {"._0000.png": b"x", "__x.txt": b"x", ".txt": b"x", "none": b"x"}
    files = {f"{leading}{name}": content for name, content in {**hidden, **files}.items()}
    write_tar(tmp_path / "train-0.tar", files)
    check_rows(open_data(tmp_path))


@pytest.mark.parametrize(
    "field",
    ["txt.gz", "png.xz", "json.zst", "npy", "npz", "cbor", "pth", "ten", "mp", "pickle", "pyd", "mp4", "glb"],
)
def test_what_is_neither_image_nor_label_is_not_looked_at(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gzip.compress(bytes(4 << 20))
    files: dict[str, bytes] = {}
    for name, image in shard(range(6), cls=lambda row: CLASSES.index(NAMES[row])).items():
        files[name] = image
        files[f"{name.partition('.')[0]}.{field}"] = content
    path = write_tar(tmp_path / "train-0.tar", files)
    looked: list[str] = []
    read = tarfile.TarFile.extractfile

    def extractfile(archive: tarfile.TarFile, entry: Any) -> Any:
        looked.append(entry.name)
        return read(archive, entry)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", extractfile)
    check_rows(open_data(path.parent), classes=("0", "1", "2"))
    assert {name.partition(".")[2] for name in looked} == {"cls", "png"}


@pytest.mark.parametrize(
    ("field", "content", "message"),
    [
        ("cls", b"cat", "its '0005.cls' holds b'cat', expected a whole number"),
        ("cls", b"9" * 5_000, r"its '0005.cls' holds b'9+', expected a whole number"),
        ("cls", b"1" * 70_000, "'0005.cls' has 70,000 bytes, at most 65,536 are read"),
        ("txt", b"\xff", r"its '0005.txt' holds b'\\xff', expected"),
        ("txt", b"x" * 70_000, "'0005.txt' has 70,000 bytes, at most 65,536 are read"),
        ("json", b"[" * 100_000, "its '0005.json' holds .*, expected"),
        ("json", b"x", "its '0005.json' holds b'x', expected"),
        ("json", b" " * (2 << 20), "'0005.json' has 2,097,152 bytes, at most 1,048,576 are read"),
        ("json", json.dumps({"label": "x" * 70_000}).encode(), "'json' has 70,000 bytes, at most 65,536"),
        ("json", b'{"width": 8}', "row 5 of the train images of .* its 'json' is missing, expected"),
        ("json", b'{"label": [1]}', "its 'json' is a list, expected"),
        ("json", b'{"label": 0.5}', "its 'json' is a float, expected"),
        ("json", b"[1]", "its 'json' is a list, expected"),
    ],
)
def test_a_label_that_is_none_is_refused(field: str, content: bytes, message: str, tmp_path: Path) -> None:
    usual = {"cls": "{}", "txt": "{}", "json": '{{"cls": {}}}'}[field]
    files = {**shard(range(6), **{field: lambda row: usual.format(row % 2)}), f"0005.{field}": content}
    with pytest.raises(DataError, match=message):
        open_data(write_tar(tmp_path / "a.tar", files))


def test_a_row_without_a_label_is_refused(tmp_path: Path) -> None:
    files = shard(range(6), txt=name_of)
    del files["0002.txt"]
    with pytest.raises(DataError, match=r"cannot use row 2 of the train images of .* its 'txt' is missing"):
        open_data(write_tar(tmp_path / "a.tar", files))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"0.txt": b"a"}, "none of the files 'txt' holds images"),
        ({"0.png": b"a"}, "none of the files 'png' holds labels"),
        ({"none": b"a"}, r"none of the files \(there are none\) holds images"),
    ],
)
def test_shards_without_images_or_labels(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", shard(range(6), txt=name_of))
    with tarfile.open(path, "a:") as archive:
        entry = tarfile.TarInfo("0005.txt")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(DataError, match=r"it holds '0005\.txt' twice\. Remove one of them"):
        open_data(path)


def test_a_shard_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", shard(range(6), txt=name_of))
    path.write_bytes(path.read_bytes()[:6_000])
    with pytest.raises(DataError, match="it is no tar file, or a damaged one"):
        open_data(tmp_path)


def test_an_image_in_a_shard_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LARGEST_IMAGE", 50)
    with pytest.raises(DataError, match=r"its image '0000\.png' has 0 MiB"):
        open_data(write_tar(tmp_path / "a.tar", shard(range(6), txt=name_of)))


def test_what_comes_out_of_a_compressed_shard_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_GROWTH", 1 << 20)
    files = {**shard(range(6), txt=name_of), "0005.npy": bytes(8 << 20)}
    with pytest.raises(DataError, match="It was made to fill the memory"):
        open_data(write_tar(tmp_path / "a.tar.gz", files))
