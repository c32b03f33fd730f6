"""Tables of paths and labels."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.pictures import labelled, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from graftonnx.data.catalogue import Data
from graftonnx.data.opening import open_data
from graftonnx.errors import DataError

FILES = labelled({"red": 3, "blue": 2})
ROWS = [("photos/" + name, name.partition("/")[0]) for name in FILES]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_folder(tmp_path / "photos", FILES)
    return tmp_path


def write_csv(path: Path, *rows: tuple[str, ...], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)
    return path


def write_parquet(path: Path, header: tuple[str, ...], *rows: tuple[str, ...]) -> Path:
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path)
    return path


def listed(data: Data) -> dict[str, list[tuple[str, str]]]:
    parts = {"train": data.train, "val": data.val, "test": data.test}
    return {part: [(s.name, data.classes[s.label]) for s in samples] for part, samples in parts.items()}


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_table_names_the_images_beside_it(place: Path, write: object) -> None:
    assert callable(write)
    path = write(place / ("m.csv" if write is write_csv else "m.parquet"), ("path", "label"), *ROWS)
    data = open_data(path)
    assert data.classes == ("blue", "red")
    assert listed(data) == {"train": ROWS, "val": [], "test": []}
    assert dict(data.store.contents([name for name, _ in ROWS]))[2] == place / "photos/red/2.png"


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_column_says_what_validates_and_what_tests(place: Path, write: object) -> None:
    assert callable(write)
    parts = ("train", "VAL", "testing", "training", "validation")
    rows = [(part, label, name) for part, (name, label) in zip(parts, ROWS, strict=True)]
    path = write(place / ("m.csv" if write is write_csv else "m.parquet"), ("split", "label", "path"), *rows)
    assert listed(open_data(path)) == {
        "train": [ROWS[0], ROWS[3]],
        "val": [ROWS[1], ROWS[4]],
        "test": [ROWS[2]],
    }


def test_columns_that_nobody_asked_for_do_not_matter(place: Path) -> None:
    rows = [("x", name, "7", label) for name, label in ROWS]
    path = write_csv(place / "m.csv", ("index", "Path", "size", "LABEL "), *rows, encoding="utf-8-sig")
    assert listed(open_data(path))["train"] == ROWS


def test_numbers_as_labels_are_names_in_natural_order(place: Path) -> None:
    rows = [(name, number) for (name, _), number in zip(ROWS, ("10", "2", "10", "9", "2"), strict=True)]
    assert open_data(write_csv(place / "m.csv", ("path", "label"), *rows)).classes == ("2", "9", "10")


def test_absolute_paths_are_kept(place: Path) -> None:
    rows = [(str(place / name), label) for name, label in ROWS]
    data = open_data(write_csv(place / "m.csv", ("path", "label"), *rows))
    assert dict(data.store.contents([rows[0][0]]))[0] == place / ROWS[0][0]


@settings(deadline=None)  # files
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8),
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8),
        ),
        min_size=2,
        unique_by=(lambda row: row[0], lambda row: row[1]),
    )
)
def test_any_text_is_a_path_or_a_label(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_csv(tmp_path_factory.mktemp("m") / "m.csv", ("path", "label"), *rows)
    assert listed(open_data(path))["train"] == rows


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"its columns are missing; expected 'path' and 'label', and 'split' if you like"),
            (b"file,class\na.png,x\n", r"its columns are 'file', 'class'; expected 'path' and 'label'"),
            (b"path,label\n", r"it holds no labelled training images"),
            (b"path,label\na.png,x\nb.png,x\n", r"it has only one class, 'x', at least 2 are needed"),
            (b"path,label\na.png,x\nb.png,\n", r"cannot use row 3 of '.*m.csv': its label is empty\. Fill"),
            (b"path,label\na.png,x\nb.png\n", r"cannot use row 3 of '.*m.csv': its label is empty\. Fill"),
            (
                b"path,label,split\na.png,x,train\nb.png,y,holdout\n",
                r"cannot use row 3 of '.*m.csv': its split is 'holdout'; expected train, val or test",
            ),
            (b"path,label\na.png,x\nb.png,y\na.png,y\n", r"it names 'a.png' twice\. Name each image once"),
            (
                b"path,label,split\na.png,x,train\nb.png,y,train\nc.png,z,val\n",
                r"cannot use the val images of '.*m.csv': class 'z' has no training images\.",
            ),
            (b"path,label\n\xff,x\n", r"it is not UTF-8 text\. Save it as UTF-8"),
            (b'path,label\n"a.png"x,y\n', r"it is not a CSV file \(.*\)\."),
        ],
    )
    def test_of_a_csv_file(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "m.csv").write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_data(tmp_path / "m.csv")

    def test_a_missing_value_in_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"path": ["a", "b"], "label": ["x", None]}), tmp_path / "m.parquet")
        with pytest.raises(DataError, match=r"cannot use row 2 of '.*m.parquet': its label is empty"):
            open_data(tmp_path / "m.parquet")
