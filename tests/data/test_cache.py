"""Decoded images: where they are kept, which are bad, and which occur twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from data.pictures import encoded, labelled, picture, write_folder, write_tar

from graftonnx.data import cache, survey
from graftonnx.data.cache import Loaded, load
from graftonnx.data.opening import open_data
from graftonnx.data.splits import Split
from graftonnx.data.splits import split as split_data
from graftonnx.errors import DataError
from graftonnx.images import decode

FILES = labelled({"red": 10, "green": 5, "blue": 5})


def loaded(root: Path, folder: Path, **options: object) -> Loaded:
    """Load with training images of 7 x 5 and validation images of 6 x 8."""
    data = open_data(root)
    return load(data, split_data(data, 0.2, 0), (7, 5), (6, 8), folder=folder, **options)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", FILES)


@pytest.mark.parametrize("limit", [2**31, 0])
def test_images_are_the_same_in_memory_and_in_a_mapped_file(
    root: Path, tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "IN_MEMORY", limit)
    seen: list[None] = []
    found = loaded(root, tmp_path, on_image=lambda: seen.append(None))
    for images, samples, size in (
        (found.train, found.split.train, (7, 5)),
        (found.val, found.split.val, (6, 8)),
    ):
        assert isinstance(images.pixels, np.memmap) == (limit == 0)
        expected = [decode(root / sample.name, size) for sample in samples]
        np.testing.assert_array_equal(images.pixels, np.stack(expected))
        assert images.labels.tolist() == [sample.label for sample in samples]
    assert len(seen) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_source_in_its_own_order_gives_the_images_in_ours(root: Path, tmp_path: Path) -> None:
    backwards = write_tar(tmp_path / "a.tar.gz", dict(reversed(FILES.items())))
    folder, stream = loaded(root, tmp_path), loaded(backwards, tmp_path)
    np.testing.assert_array_equal(stream.train.pixels, folder.train.pixels)
    np.testing.assert_array_equal(stream.val.pixels, folder.val.pixels)
    assert stream.split == folder.split


def test_a_full_disk_is_told_before_decoding(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        DataError,
        match=r"cannot keep 16 decoded images in '.*': No space left on device, .* GiB are needed\.",
    ):
        loaded(root, tmp_path)


def test_the_limit_is_told_before_decoding(root: Path, tmp_path: Path) -> None:
    size = (16 * 7 * 5 + 4 * 6 * 8) * 3 / 2**30
    loaded(root, tmp_path, cache_limit=size)
    with pytest.raises(
        DataError,
        match=r"cannot keep the decoded images of '.*data': they take 0\.0 GiB, --cache-limit is 2e-06\.",
    ):
        loaded(root, tmp_path, cache_limit=2e-6)


class TestBadImages:
    @pytest.fixture
    def broken(self, root: Path) -> tuple[Path, set[str]]:
        """Three bad images, at least one of them a validation image."""
        data = open_data(root)
        names = {split_data(data, 0.2, 0).val[0].name, "red/3.png", "red/4.png"}
        for name in names:
            (root / name).write_bytes(FILES[name][:40])
        return root, names

    def test_are_counted_and_named(self, broken: tuple[Path, set[str]], tmp_path: Path) -> None:
        with pytest.raises(
            DataError,
            match=r"cannot decode 3 of 20 images of '.*data': 'red/3.png' \(.+\), .*\. Remove or mend what "
            r"is damaged, or pass --on-bad-image skip\.",
        ) as caught:
            loaded(broken[0], tmp_path)
        assert all(f"'{name}'" in caught.value.message for name in broken[1])

    @pytest.mark.parametrize("limit", [2**31, 0])
    def test_leave_no_gap_where_they_are_left_out(
        self, broken: tuple[Path, set[str]], tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache, "IN_MEMORY", limit)
        root, names = broken
        found = loaded(root, tmp_path, skip_bad=True)
        assert {image.name for image in found.bad} == names
        kept = (*found.split.train, *found.split.val)
        assert {s.name for s in kept} == FILES.keys() - names
        for images, samples in ((found.train, found.split.train), (found.val, found.split.val)):
            assert images.labels.tolist() == [s.label for s in samples]
            size = images.pixels.shape[1:3]
            expected = [decode(root / s.name, (size[0], size[1])) for s in samples]
            np.testing.assert_array_equal(images.pixels, np.stack(expected))

    def test_of_a_table_may_be_missing(self, root: Path, tmp_path: Path) -> None:
        rows = [f"data/{name},{name.partition('/')[0]}" for name in FILES] + ["data/absent.png,red"]
        (tmp_path / "m.csv").write_text("\n".join(["path,label", *rows]))
        found = loaded(tmp_path / "m.csv", tmp_path, skip_bad=True)
        assert found.bad == (("data/absent.png", "No such file or directory"),)

    def test_are_those_too_that_have_gone_since_they_were_listed(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar.gz", FILES)
        data = open_data(path)
        write_tar(path, {name: content for name, content in FILES.items() if name != "red/7.png"})
        found = load(data, split_data(data, 0.2, 0), (7, 5), (6, 8), folder=tmp_path, skip_bad=True)
        assert found.bad == (("red/7.png", "it is gone since the images were listed"),)

    def test_may_not_be_a_whole_class(self, root: Path, tmp_path: Path) -> None:
        for path in (root / "green").iterdir():
            path.write_bytes(b"no image")
        with pytest.raises(DataError, match=r"no training image of class 'green' can be decoded\. Mend its"):
            loaded(root, tmp_path, skip_bad=True)

    def test_may_not_be_all_that_validates(self, root: Path, tmp_path: Path) -> None:
        for sample in split_data(open_data(root), 0.2, 0).val:
            (root / sample.name).write_bytes(b"no image")
        with pytest.raises(DataError, match=r"no validation image can be decoded"):
            loaded(root, tmp_path, skip_bad=True)


class TestSurvey:
    def test_even_and_clean_data_gives_no_remark(self, root: Path, tmp_path: Path) -> None:
        assert survey.remarks(loaded(root, tmp_path)) == []

    def test_identical_images_in_both_parts_are_named(self, tmp_path: Path) -> None:
        copies = {"red/copy.png": FILES["red/0.png"], "blue/copy.png": FILES["red/0.png"]}
        root = write_folder(tmp_path / "data", {**FILES, **copies})
        data = open_data(root)
        names = [s.name for s in data.train]
        val = {"red/0.png", "green/0.png"}
        parts = [tuple(s for s in data.train if (s.name in val) == inside) for inside in (False, True)]
        found = load(data, Split(data.classes, parts[0], parts[1]), (4, 4), (8, 8), folder=tmp_path)
        assert found.twins in ((("red/0.png", "red/copy.png"),), (("red/0.png", "blue/copy.png"),))
        (remark,) = survey.remarks(found)
        assert remark.startswith("note: 1 of 2 validation images also train, byte for byte ('red/0.png' is ")
        assert remark.endswith("the validation accuracy is too good by up to 50.0%")
        assert len(names) == 22

    def test_the_same_name_in_two_parts_is_no_leak(self, tmp_path: Path) -> None:
        files = {
            f"{part}/{name}/0.png": encoded(picture(name, number))
            for number, part in enumerate(("train", "val"))
            for name in ("red", "blue")
        }
        assert loaded(write_folder(tmp_path / "data", files), tmp_path).twins == ()

    def test_uneven_classes_are_told(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "data", labelled({"red": 40, "green": 20, "blue": 5}))
        (remark,) = survey.remarks(loaded(root, tmp_path))
        assert remark == (
            "note: the classes are uneven: 32 training images of 'red', 4 of 'blue'; look at the recall of "
            "each class, not at the accuracy alone"
        )

    def test_bad_images_are_told(self, root: Path, tmp_path: Path) -> None:
        for number in range(1, 6):
            (root / f"red/{number}.png").write_bytes(b"no image")
        (remark,) = survey.remarks(loaded(root, tmp_path, skip_bad=True))
        assert remark.startswith("note: 5 of 20 images cannot be decoded, left out: 'red/")
        assert remark.endswith(" and 2 more")

    def test_all_of_it_is_in_the_file(self, root: Path, tmp_path: Path) -> None:
        (root / "red/1.png").write_bytes(b"no image")
        found = loaded(root, tmp_path, skip_bad=True)
        record = json.loads(survey.to_json("data", found))
        assert record["data"] == "data"
        assert record["images"]["blue"] == {"train": 4, "val": 1, "test": 0}
        assert sum(record["images"]["red"].values()) == 9
        assert record["bad_images"] == [
            {"name": "red/1.png", "reason": "it is not an image that Pillow can read"}
        ]
        assert record["leaks"] == []

    def test_classes_with_too_few_images_for_the_shots_are_told(self, root: Path) -> None:
        split = split_data(open_data(root), 0.2, 0)
        assert survey.few(split, 4) is None
        assert (
            survey.few(split, 5)
            == "note: 'blue', 'green': fewer training images than --shots 5, all are taken"
        )
