"""Pixels in NumPy archives and in idx files."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graftonnx.data.catalogue import Data
from graftonnx.data.opening import open_data
from graftonnx.errors import DataError
from graftonnx.images import decode_stream

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
RGB = RANDOM.integers(0, 256, (6, 5, 4, 3), np.uint8)
LABELS = np.array([0, 1, 0, 2, 1, 2])


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def pixels(data: Data, names: list[str]) -> dict[str, np.ndarray]:
    found = {}
    for image in decode_stream(data.store.contents(names), (5, 4), workers=1):
        assert image.pixels is not None
        found[names[image.position]] = image.pixels
    return found


def write_idx(path: Path, array: np.ndarray, code: int = 8) -> Path:
    content = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


class TestNpz:
    @pytest.mark.parametrize("names", [("images", "labels"), ("x_train", "y_train"), ("x", "y")])
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_images_and_labels(self, tmp_path: Path, names: tuple[str, str], save: Any) -> None:
        save(tmp_path / "a.npz", **dict(zip(names, (RGB, LABELS), strict=True)))
        data = open_data(tmp_path / "a.npz")
        assert data.classes == ("0", "1", "2")
        assert [s.label for s in data.train] == LABELS.tolist()
        found = pixels(data, ["train/4", "train/1"])
        np.testing.assert_array_equal(found["train/4"], RGB[4])
        np.testing.assert_array_equal(found["train/1"], RGB[1])

    @pytest.mark.parametrize(
        "names", ["x_{part} y_{part}", "{part}_images {part}_labels"], ids=["Keras", "MedMNIST"]
    )
    def test_predefined_parts(self, tmp_path: Path, names: str) -> None:
        arrays = {}
        for number, part in enumerate(("train", "val", "test")):
            images, labels = names.format(part=part).split()
            arrays |= {images: RGB + np.uint8(number), labels: LABELS[:, None]}
        data = open_data(save_npz(tmp_path / "a.npz", **arrays))
        assert (len(data.train), len(data.val), len(data.test)) == (6, 6, 6)
        np.testing.assert_array_equal(pixels(data, ["test/2"])["test/2"], RGB[2] + np.uint8(2))

    @pytest.mark.parametrize("grey", [GREY, GREY[..., None]])
    def test_grey_images(self, tmp_path: Path, grey: np.ndarray) -> None:
        data = open_data(save_npz(tmp_path / "a.npz", images=grey, labels=LABELS))
        np.testing.assert_array_equal(pixels(data, ["train/3"])["train/3"], GREY[3][..., None].repeat(3, 2))

    def test_transparent_pixels_lie_on_white(self, tmp_path: Path) -> None:
        images = np.concatenate([RGB, np.zeros((6, 5, 4, 1), np.uint8)], axis=3)
        data = open_data(save_npz(tmp_path / "a.npz", images=images, labels=LABELS))
        assert pixels(data, ["train/0"])["train/0"].min() == 255

    def test_labels_may_be_text_or_have_names(self, tmp_path: Path) -> None:
        names = np.array(["eel", "cat", "dog"])
        data = open_data(save_npz(tmp_path / "a.npz", images=RGB, labels=LABELS, classes=names))
        assert data.classes == ("cat", "dog", "eel")
        text = open_data(save_npz(tmp_path / "b.npz", images=RGB, labels=names[LABELS]))
        assert (text.classes, text.train) == (data.classes, data.train)
        yes = save_npz(tmp_path / "c.npz", images=RGB, labels=LABELS > 0, classes=np.array(["no", "yes"]))
        assert open_data(yes).classes == ("no", "yes")

    @settings(deadline=None)  # files
    @given(
        labels=hnp.arrays(st.sampled_from([np.int32, np.uint8, np.int64]), 7, elements=st.integers(0, 99)),
        order=st.permutations(range(7)),
    )
    def test_any_row_is_found_in_any_order(
        self, labels: np.ndarray, order: list[int], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        labels[:2] = 0, 1
        images = RANDOM.integers(0, 256, (7, 5, 4, 3), np.uint8)
        path = save_npz(tmp_path_factory.mktemp("npz") / "a.npz", images=images, labels=labels)
        data = open_data(path)
        assert [data.classes[s.label] for s in data.train] == [str(label) for label in labels]
        for name, found in pixels(data, [f"train/{row}" for row in order]).items():
            np.testing.assert_array_equal(found, images[int(name.partition("/")[2])])

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"a": RGB}, r"it holds 'a'; expected 'images' and 'labels', or 'x_train' and 'y_train'\. Save"),
            (
                {"images": RGB / 255, "labels": LABELS},
                r"it is float64 \[6, 5, 4, 3\]; expected uint8 \[N, H,",
            ),
            (
                {"images": np.zeros((6, 3, 8, 8), np.uint8), "labels": LABELS},
                r"uint8 \[6, 3, 8, 8\]; expected uint8",
            ),
            ({"images": np.asfortranarray(RGB), "labels": LABELS}, "in Fortran order; expected"),
            ({"images": RGB, "labels": LABELS[:5]}, r"'images' has 6 images and 'labels' 5 labels"),
            (
                {"images": RGB, "labels": np.eye(6)},
                r"it is float64 \[6, 6\]; expected one whole number or te",
            ),
            (
                {"images": RGB, "labels": LABELS, "classes": np.array(["a", "b"])},
                "it holds numbers from 0 to 2; expected 0 to 1, for 2 class names",
            ),
            (
                {"images": RGB, "labels": LABELS, "classes": np.array("cat")},
                r"cannot use 'classes' in '.*': it is <U3 \[\]; expected the name of each class, text \[K\]",
            ),
            ({"images": RGB, "labels": np.zeros(6, int)}, "it has only one class, '0'"),
            (
                {"images": RGB, "labels": LABELS.astype(object)},
                r"it is damaged \(it holds Python objects, which could run code\)",
            ),
        ],
    )
    def test_refusals(self, tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
        with pytest.raises(DataError, match=message):
            open_data(save_npz(tmp_path / "a.npz", **arrays))

    def test_a_file_that_is_no_archive(self, tmp_path: Path) -> None:
        (tmp_path / "a.npz").write_bytes(b"no archive")
        with pytest.raises(DataError, match=r"cannot read '.*a.npz': it is damaged \(.*\)\. Get it anew"):
            open_data(tmp_path / "a.npz")

    def test_pixels_that_end_early(self, tmp_path: Path) -> None:
        save_npz(tmp_path / "a.npz", images=RGB, labels=LABELS)
        header = io.BytesIO()
        np.save(header, RGB)
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as short, zipfile.ZipFile(tmp_path / "a.npz") as whole:
            short.writestr("images.npy", header.getvalue()[:-100])
            short.writestr("labels.npy", whole.read("labels.npy"))
        with pytest.raises(
            DataError, match=r"'.*b.npz': it is damaged \(it claims uint8 \[6, 5, 4, 3\], and"
        ):
            open_data(tmp_path / "b.npz")


class TestIdx:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("names", ["{}-images-idx3-ubyte", "{}-images.idx3-ubyte"])
    def test_images_labels_and_the_test_part(self, tmp_path: Path, suffix: str, names: str) -> None:
        for part, images in (("train", GREY), ("t10k", GREY + np.uint8(1))):
            name = names.format(part) + suffix
            write_idx(tmp_path / name, images)
            labels = name.replace("images", "labels").replace("idx3", "idx1")
            write_idx(tmp_path / labels, LABELS.astype(np.uint8))
        data = open_data(tmp_path)
        assert data.classes == ("0", "1", "2")
        assert ([s.label for s in data.train], len(data.val), len(data.test)) == (LABELS.tolist(), 0, 6)
        expected = (GREY + np.uint8(1))[3][..., None].repeat(3, 2)
        np.testing.assert_array_equal(pixels(data, ["test/3"])["test/3"], expected)

    def test_one_of_both_may_be_packed(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "train-images-idx3-ubyte.gz", GREY)
        write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS.astype(np.uint8))
        assert len(open_data(tmp_path).train) == 6

    def test_a_file_that_is_cut_off(self, tmp_path: Path) -> None:
        path = write_idx(tmp_path / "train-images-idx3-ubyte", GREY)
        write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS.astype(np.uint8))
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(DataError, match=r"it is damaged \(it ends in image 4\)\. Get it anew"):
            pixels(open_data(tmp_path), ["train/5"])

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (None, LABELS, r"is damaged \(.*\)\. Get"),
            (GREY, None, r"its labels 'train-labels-idx1-ubyte' are missing\. Add them"),
            (
                GREY,
                LABELS[:4],
                r"it is \[6, 5, 4\] and its labels are \[4\] \(4 in the file\); expected \[N, H",
            ),
            (GREY[0], LABELS, r"it is \[5, 4\] and its labels are \[6\]"),
        ],
    )
    def test_refusals(
        self, tmp_path: Path, images: np.ndarray | None, labels: np.ndarray | None, message: str
    ) -> None:
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(b"no idx file")
        if images is not None:
            write_idx(path, images)
        if labels is not None:
            write_idx(tmp_path / "train-labels-idx1-ubyte", labels.astype(np.uint8))
        with pytest.raises(DataError, match=message):
            open_data(tmp_path)

    def test_numbers_that_are_no_bytes(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "train-images-idx3-ubyte", GREY.astype(">f4"), code=13)
        write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS.astype(np.uint8))
        with pytest.raises(DataError, match="does not begin as an idx file of unsigned bytes"):
            open_data(tmp_path)

    def test_a_folder_without_a_training_part(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "t10k-images-idx3-ubyte", GREY)
        write_idx(tmp_path / "t10k-labels-idx1-ubyte", LABELS.astype(np.uint8))
        with pytest.raises(DataError, match="there is no 'train-images-idx3-ubyte' in it"):
            open_data(tmp_path)

    def test_a_part_that_nobody_knows(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "extra-images-idx3-ubyte", GREY)
        with pytest.raises(DataError, match="'extra' is no part of a data set; expected train, val, test or"):
            open_data(tmp_path)


@pytest.mark.shared
def test_mnist_as_it_is_published(shared: Path) -> None:
    data = open_data(shared / "data" / "mnist")
    assert data.classes == tuple("0123456789")
    assert (len(data.train), len(data.val), len(data.test)) == (60000, 0, 10000)
    assert [s.label for s in data.train[:5]] == [5, 0, 4, 1, 9]
    assert [s.label for s in data.test[:5]] == [7, 2, 1, 0, 4]
    (image,) = decode_stream(data.store.contents(["train/0"]), (28, 28))
    assert image.pixels is not None
    assert image.pixels[5, 12:15, 0].tolist() == [3, 18, 18]
