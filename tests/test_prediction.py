"""Which images are meant, and how answers are written down."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from lookalikes import RGB, write_image

from graftonnx.errors import DataError
from graftonnx.prediction import Answer, Candidate, answer, find_images, to_csv, to_records

ANSWER = Answer(Path('a "b", c.png'), (Candidate(2, "blue, dark", 0.75), Candidate(0, "red", 1 / 3)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in several places; the working directory is the folder."""
    for name in ("img10.png", "img2.PNG", "deep/er/img1.png", ".hidden.png", ".cache/a.png", "[x].png"):
        write_image(tmp_path / name.replace("PNG", "png"), RGB["red"])
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
class TestFindImages:
    def test_a_folder_is_everything_visible_below_it_in_natural_order(self) -> None:
        assert [p.as_posix() for p in find_images(["."])] == [
            "[x].png", "deep/er/img1.png", "img2.png", "img10.png",
        ]  # fmt: skip

    def test_arguments_keep_their_order(self) -> None:
        assert [p.as_posix() for p in find_images(["img10.png", "deep", "img2.png"])] == [
            "img10.png", "deep/er/img1.png", "img2.png",
        ]  # fmt: skip

    def test_a_pattern_is_expanded_in_natural_order(self) -> None:
        assert [p.as_posix() for p in find_images(["img*.png"])] == ["img2.png", "img10.png"]
        assert [p.as_posix() for p in find_images(["**/img1.png"])] == ["deep/er/img1.png"]

    def test_a_name_with_brackets_is_a_file_first(self) -> None:
        assert [p.as_posix() for p in find_images(["[x].png"])] == ["[x].png"]

    def test_a_file_counts_whatever_its_name_is(self) -> None:
        assert [p.as_posix() for p in find_images(["notes.txt"])] == ["notes.txt"]

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("absent.png", r"cannot classify 'absent.png': there is no such file or folder\."),
            ("*.jpg", r"cannot classify '\*.jpg': no file matches this pattern\."),
        ],
    )
    def test_an_argument_that_means_nothing_is_refused(self, argument: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            find_images([argument])

    def test_an_empty_folder_is_refused(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        with pytest.raises(DataError, match=r"cannot classify 'empty': no image file is in this folder \("):
            find_images(["empty"])


def test_the_likeliest_classes_come_first() -> None:
    found = answer(Path("a.png"), np.float32([0.2, 0.5, 0.3]), ("x", "y", "z"), 2)
    assert [(c.index, c.label) for c in found.candidates] == [(1, "y"), (2, "z")]


def test_without_labels_the_index_is_the_label() -> None:
    found = answer(Path("a.png"), np.float32([0.2, 0.8]), (), 1)
    assert found.candidates[0].label == "1"


def test_csv_survives_quotes_and_commas() -> None:
    rows = list(csv.reader(io.StringIO(to_csv([ANSWER], 2))))
    assert rows == [
        ["image", "label_1", "probability_1", "label_2", "probability_2"],
        ['a "b", c.png', "blue, dark", "0.750000", "red", "0.333333"],
    ]


def test_records_hold_plain_values() -> None:
    assert to_records([ANSWER]) == [
        {
            "image": 'a "b", c.png',
            "classes": [
                {"label": "blue, dark", "index": 2, "probability": 0.75},
                {"label": "red", "index": 0, "probability": 0.333333},
            ],
        }
    ]
