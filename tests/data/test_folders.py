"""Class folders, and the split that is made of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from data.pictures import closed_to_all, save

from graftonnx.data.folders import FolderTree
from graftonnx.data.opening import open_data
from graftonnx.data.splits import split as split_data
from graftonnx.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of 10, 5 and 2 images."""
    for name, count in (("cat", 10), ("dog", 5), ("eel", 2)):
        for i in range(count):
            save(tmp_path / "data" / name / f"img{i}.png")
    return tmp_path / "data"


def test_lists_class_folders_in_natural_order(data: Path) -> None:
    save(data / "cat" / "img10.png")
    folder = open_data(data)
    assert folder.classes == ("cat", "dog", "eel")
    assert [s.name for s in folder.train[:11]] == [f"cat/img{i}.png" for i in range(11)]
    assert Counter(s.label for s in folder.train) == {0: 11, 1: 5, 2: 2}


def test_puts_class_2_before_class_10(tmp_path: Path) -> None:
    for name in ("class10", "class2", "class1"):
        save(tmp_path / name / "a.png")
    assert open_data(tmp_path).classes == ("class1", "class2", "class10")


def test_ignores_hidden_files_other_files_and_hidden_folders(data: Path) -> None:
    before = open_data(data)
    save(data / "cat" / ".hidden.png")
    save(data / ".cache" / "a.png")
    (data / "cat" / "notes.txt").write_text("no image")
    (data / "index.csv").write_text("no image")
    assert open_data(data) == before


def test_finds_images_below_a_class_folder_and_upper_case_extensions(data: Path) -> None:
    save(data / "dog" / "more" / "Z.JPG")
    assert "dog/more/Z.JPG" in [s.name for s in open_data(data).train]


@pytest.mark.parametrize("closed", ["dog", "dog/more", "."])
def test_a_folder_that_cannot_be_read_is_named(
    closed: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(data / "dog" / "more" / "a.png")
    closed_to_all(monkeypatch, data / closed)
    if closed == ".":
        with pytest.raises(DataError, match=r"cannot read '.*/data': Permission denied\.$"):
            open_data(data)
    else:
        with pytest.raises(
            DataError, match=rf"cannot read the folder '.*/{closed}': Permission denied\. Let it be read, or"
        ):
            open_data(data)


def test_a_folder_whose_folders_cannot_be_listed_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_to_all(monkeypatch, data / "dog")
    with pytest.raises(DataError, match=r"cannot read the folder '.*/dog': Permission denied\."):
        FolderTree(data).folders("dog/")


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_reads_a_predefined_split(tmp_path: Path, val: str) -> None:
    for part in ("train", val, "test"):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / f"{part}.png")
    folder = open_data(tmp_path)
    split = split_data(folder, 0.2, seed=0)
    assert [s.name for s in split.train] == ["train/cat/train.png", "train/dog/train.png"]
    assert [s.name for s in split.val] == [f"{val}/cat/{val}.png", f"{val}/dog/{val}.png"]
    assert [s.name for s in split.test] == ["test/cat/test.png", "test/dog/test.png"]


def test_without_a_val_folder_the_training_part_is_split_and_the_test_part_kept(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            for i in range(4):
                save(tmp_path / part / name / f"{i}.png")
    split = split_data(open_data(tmp_path), 0.25, seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == (6, 2, 8)
    assert all(s.name.startswith("train/") for s in split.val)


class TestRefusals:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"cannot read images from '.*absent': there is no such file or folder\."
        ):
            open_data(tmp_path / "absent")

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no image file is in it \(looked for \.avif, "):
            open_data(tmp_path)

    def test_images_outside_of_class_folders(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"its images are not in class folders\. Put the images"):
            open_data(tmp_path)

    def test_one_class(self, tmp_path: Path) -> None:
        save(tmp_path / "cat" / "a.png")
        with pytest.raises(DataError, match=r"it has only one class, 'cat', at least 2 are needed\. Put"):
            open_data(tmp_path)

    def test_a_folder_too_high_is_told_the_folder_meant(self, data: Path) -> None:
        with pytest.raises(DataError, match=r"only one class, 'data', .* Did you mean '.*data'\?"):
            open_data(data.parent)

    def test_an_empty_class(self, data: Path) -> None:
        (data / "fox").mkdir()
        with pytest.raises(DataError, match=r"cannot use '.*fox': no image file is in it\. Add images"):
            open_data(data)

    def test_a_validation_class_without_training_images(self, tmp_path: Path) -> None:
        for name in ("train/cat", "train/dog", "val/cat", "val/fox"):
            save(tmp_path / name / "a.png")
        with pytest.raises(
            DataError, match=r"'fox' has no training images\. Training classes are 'cat', 'dog'"
        ):
            open_data(tmp_path)

    def test_an_empty_validation_folder(self, tmp_path: Path) -> None:
        for name in ("train/cat", "train/dog"):
            save(tmp_path / name / "a.png")
        (tmp_path / "val").mkdir()
        with pytest.raises(DataError, match=r"cannot use '.*val': no image file is in it"):
            open_data(tmp_path)
