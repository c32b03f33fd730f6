"""CIFAR-100 as strips."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data.pictures import write_zip
from PIL import Image

from graftonnx.data.opening import open_data
from graftonnx.errors import DataError
from graftonnx.images import decode_stream

NAMES = ["zebra", "ant", "bee"]
RANDOM = np.random.default_rng(0)
IMAGES = {
    part: RANDOM.integers(0, 256, (3, count, 8, 8, 3), np.uint8)
    for part, count in (("train", 5), ("test", 2))
}
"""Images of each class, uint8 [K, N, 8, 8, 3]."""


def strips(part: str, names: list[str] = NAMES) -> dict[str, bytes]:
    files = {"labels.json": json.dumps({"fine": names}).encode()}
    for number, images in enumerate(IMAGES[part]):
        strip = io.BytesIO()
        Image.fromarray(images.reshape(-1, 8, 3)).save(strip, "WEBP", lossless=True)
        files[f"{part}_{number:02d}.webp"] = strip.getvalue()
    return files


def test_a_training_and_a_test_file_are_a_split(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_zip(tmp_path / f"cifar_{part}.zip", strips(part))
    data = open_data(tmp_path)
    assert data.classes == ("ant", "bee", "zebra")
    assert (len(data.train), len(data.val), len(data.test)) == (15, 0, 6)
    wanted = ["test/zebra/1", "train/bee/4", "train/bee/0"]
    expected = [IMAGES["test"][0, 1], IMAGES["train"][2, 4], IMAGES["train"][2, 0]]
    for image in decode_stream(data.store.contents(wanted), (8, 8), workers=1):
        assert image.pixels is not None
        np.testing.assert_array_equal(image.pixels, expected[image.position])


def test_a_file_alone_holds_all_images(tmp_path: Path) -> None:
    data = open_data(write_zip(tmp_path / "test.zip", strips("test")))
    assert (len(data.train), data.test) == (6, ())
    assert data.train[0].name.startswith("train/")


def test_a_strip_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'train_02.webp' has no name among the 2 in labels.json"):
        open_data(write_zip(tmp_path / "a.zip", strips("train", NAMES[:2])))


def test_names_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"its labels.json has no list 'fine' of class names"):
        open_data(write_zip(tmp_path / "a.zip", {**strips("train"), "labels.json": b"{}"}))


def test_a_damaged_strip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read 'train_01.webp' in '.*a.zip': .* Get the file anew"):
        open_data(write_zip(tmp_path / "a.zip", {**strips("train"), "train_01.webp": b"no image"}))


@pytest.mark.shared
def test_cifar_100_as_it_is_shared(shared: Path) -> None:
    data = open_data(shared / "data" / "cifar100")
    assert (len(data.classes), len(data.train), len(data.val), len(data.test)) == (100, 50000, 0, 10000)
    assert data.classes[:3] == ("apple", "aquarium_fish", "baby")
    with zipfile.ZipFile(shared / "data" / "cifar100" / "cifar100_test.zip") as archive:
        number = json.loads(archive.read("labels.json"))["fine"].index("baby")
        strip = Image.open(io.BytesIO(archive.read(f"test_{number:02d}.webp"))).convert("RGB")
    (image,) = decode_stream(data.store.contents(["test/baby/7"]), (32, 32))
    assert image.pixels is not None
    np.testing.assert_array_equal(image.pixels, np.asarray(strip)[7 * 32 : 8 * 32])


@pytest.mark.shared
def test_natural_images_as_they_are_shared(shared: Path) -> None:
    """A zip of class folders inside one folder, with a table beside them."""
    data = open_data(shared / "data" / "natural_images" / "natural_images_104.zip")
    counts = {name: sum(s.label == k for s in data.train) for k, name in enumerate(data.classes)}
    assert counts == {
        "airplane": 727, "car": 968, "cat": 885, "dog": 702,
        "flower": 843, "fruit": 1000, "motorbike": 788, "person": 986,
    }  # fmt: skip
