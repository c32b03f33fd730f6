"""Which images train and which validate: by the seed, or as a file says."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from data.pictures import save
from hypothesis import given, settings
from hypothesis import strategies as st

from graftonnx.data.catalogue import catalogue
from graftonnx.data.folders import FolderTree
from graftonnx.data.opening import open_data
from graftonnx.data.splits import read_split
from graftonnx.data.splits import split as split_data
from graftonnx.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of 10, 5 and 2 images."""
    for name, count in (("cat", 10), ("dog", 5), ("eel", 2)):
        for i in range(count):
            save(tmp_path / "data" / name / f"img{i}.png")
    return tmp_path / "data"


def test_the_split_is_stratified_and_complete(data: Path) -> None:
    folder = open_data(data)
    split = split_data(folder, 0.2, seed=0)
    assert Counter(s.label for s in split.val) == {0: 2, 1: 1, 2: 1}
    assert sorted(s.name for s in split.train + split.val) == sorted(s.name for s in folder.train)


def test_the_split_depends_on_the_seed_alone(data: Path) -> None:
    folder = open_data(data)
    assert split_data(folder, 0.3, seed=1) == split_data(folder, 0.3, seed=1)
    assert split_data(folder, 0.3, seed=1) != split_data(folder, 0.3, seed=2)


def test_new_images_of_one_class_leave_the_others_validation_images_alone(data: Path) -> None:
    before = split_data(open_data(data), 0.3, seed=0)
    save(data / "dog" / "new.png")
    after = split_data(open_data(data), 0.3, seed=0)
    assert [s for s in after.val if s.label != 1] == [s for s in before.val if s.label != 1]


def test_a_split_survives_its_file(data: Path, tmp_path: Path) -> None:
    split = split_data(open_data(data), 0.3, seed=0)
    (tmp_path / "split.json").write_text(split.to_json())
    assert read_split(tmp_path / "split.json", open_data(data)) == split


def test_a_reordered_split_keeps_every_image_in_its_class(data: Path) -> None:
    split = split_data(open_data(data), 0.3, seed=0)
    turned = split.reordered(["eel", "cat", "dog"])
    assert {s.name: turned.classes[s.label] for s in turned.val} == {
        s.name: split.classes[s.label] for s in split.val
    }
    with pytest.raises(ValueError, match="not a permutation"):
        split.reordered(["eel", "cat"])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_share_outside_0_to_1_is_misuse(data: Path, fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_data(open_data(data), fraction, seed=0)


@pytest.mark.parametrize("shots", [1, 3, 4, 100])
def test_few_shots_are_taken_of_each_class_and_validation_is_left_alone(data: Path, shots: int) -> None:
    split = split_data(open_data(data), 0.3, seed=0)
    few = split.few_shot(shots, seed=0)
    counts = Counter(s.label for s in split.train)
    assert Counter(s.label for s in few.train) == {label: min(shots, n) for label, n in counts.items()}
    assert set(few.train) <= set(split.train)
    assert (few.val, few.test, few.classes) == (split.val, split.test, split.classes)


def test_few_shots_depend_on_the_seed_and_fewer_are_a_part_of_more(data: Path) -> None:
    split = split_data(open_data(data), 0.3, seed=0)
    assert split.few_shot(3, seed=1) == split.few_shot(3, seed=1)
    assert split.few_shot(3, seed=1) != split.few_shot(3, seed=2)
    assert set(split.few_shot(2, seed=1).train) < set(split.few_shot(3, seed=1).train)


@settings(deadline=None)  # files
@given(labels=st.lists(st.sampled_from("abc"), min_size=12, max_size=30), seed=st.integers(0, 9))
def test_a_split_read_from_its_file_is_in_the_order_of_the_run_that_wrote_it(
    labels: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Else a resumed run would meet its images in another order."""
    rows = [(str(i), label) for i, label in enumerate([*"abcabc", *labels])]
    data = catalogue("data", {"train": rows}, FolderTree(Path("data")))
    written = split_data(data, 0.4, seed).reordered(["c", "a", "b"])
    path = tmp_path_factory.mktemp("split") / "split.json"
    path.write_text(written.to_json())
    assert read_split(path, data) == written


@settings(deadline=None)  # files
@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_any_split_parts_every_class_and_loses_nobody(counts: list[int], fraction: float, seed: int) -> None:
    rows = [(f"{k}/{i}", f"class{k}") for k, count in enumerate(counts) for i in range(count)]
    data = catalogue("data", {"train": rows}, FolderTree(Path("data")))
    split = split_data(data, fraction, seed)
    assert sorted(split.train + split.val) == sorted(data.train)
    for part in (split.train, split.val):
        assert {s.label for s in part} == set(range(len(counts)))
    for label, count in enumerate(counts):
        share = sum(s.label == label for s in split.val)
        assert abs(share - count * fraction) <= 1


class TestRefusals:
    def test_a_class_too_small_to_split(self, data: Path) -> None:
        (data / "eel" / "img0.png").unlink()
        with pytest.raises(DataError, match=r"class 'eel' has 1 image, at least 2 are needed \(one to train"):
            split_data(open_data(data), 0.2, seed=0)

    def test_a_split_of_other_data(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "split.json").write_text(split_data(open_data(data), 0.3, seed=0).to_json())
        (data / "cat" / "img3.png").unlink()
        with pytest.raises(DataError, match=r"it names 'cat/img3.png', which is not in '.*data'"):
            read_split(tmp_path / "split.json", open_data(data))

    @pytest.mark.parametrize("content", ["{", "[]", '{"classes": ["a"]}', '{"classes": 3}'])
    def test_a_file_that_is_no_split(self, data: Path, tmp_path: Path, content: str) -> None:
        (tmp_path / "split.json").write_text(content)
        with pytest.raises(DataError, match="it is not a split that graftonnx wrote"):
            read_split(tmp_path / "split.json", open_data(data))

    def test_a_missing_split(self, data: Path) -> None:
        with pytest.raises(DataError, match=r"cannot read the split 'absent.json': No such file"):
            read_split(Path("absent.json"), open_data(data))

    def test_an_image_that_has_changed_its_class(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "split.json").write_text(split_data(open_data(data), 0.3, seed=0).to_json())
        text = (tmp_path / "split.json").read_text()
        (tmp_path / "split.json").write_text(text.replace("dog/img4.png", "cat/img5.png", 1))
        with pytest.raises(DataError, match=r"'cat/img5.png' is of class 'dog' there and of class 'cat' in"):
            read_split(tmp_path / "split.json", open_data(data))

    def test_an_image_that_it_names_twice(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "split.json").write_text(split_data(open_data(data), 0.3, seed=0).to_json())
        text = (tmp_path / "split.json").read_text()
        (tmp_path / "split.json").write_text(text.replace("dog/img4.png", "dog/img3.png", 1))
        with pytest.raises(DataError, match=r"it names 'dog/img3.png' twice\. Make it anew"):
            read_split(tmp_path / "split.json", open_data(data))

    def test_a_split_without_validation_images(self, data: Path, tmp_path: Path) -> None:
        split = split_data(open_data(data), 0.3, seed=0)
        (tmp_path / "split.json").write_text(dataclasses.replace(split, val=()).to_json())
        with pytest.raises(DataError, match="it needs images to train and images to validate"):
            read_split(tmp_path / "split.json", open_data(data))
