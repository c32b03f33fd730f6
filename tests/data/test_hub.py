"""What the `datasets` library reads: local files, sets that it saved, names on the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.pictures import NAMES, PICTURES, check_rows, labelled, write_folder

from graftonnx.data.opening import open_data
from graftonnx.errors import DataError
from graftonnx.images import decode_stream

"""The class of each row."""

CLASSES = ["red", "green", "blue"]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def dataset() -> datasets.Dataset:
    """Six rows as a published data set has them."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=CLASSES),
            "note": datasets.Value("string"),
        }
    )
    rows = {
        "image": [{"bytes": content, "path": None} for content in PICTURES],
        "label": [CLASSES.index(name) for name in NAMES],
        "note": ["x"] * 6,
    }
    return datasets.Dataset.from_dict(rows, features=features)


class TestParquet:
    def test_of_a_published_data_set_knows_its_class_names(self, tmp_path: Path) -> None:
        dataset().to_parquet(tmp_path / "a.parquet")
        check_rows(open_data(tmp_path / "a.parquet"))

    @pytest.mark.parametrize("kind", ["bytes", "struct", "struct without path"])
    @pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "fine_label"), ("png", "cls")])
    def test_of_any_other_origin(self, tmp_path: Path, kind: str, image: str, label: str) -> None:
        cells: dict[str, Any] = {
            "bytes": PICTURES,
            "struct": [{"bytes": content, "path": "a.png"} for content in PICTURES],
            "struct without path": [{"bytes": content, "path": None} for content in PICTURES],
        }
        pq.write_table(pa.table({image: cells[kind], label: NAMES, "n": range(6)}), tmp_path / "a.parquet")
        check_rows(open_data(tmp_path / "a.parquet"))

    def test_in_several_files_with_the_part_in_their_names(self, tmp_path: Path) -> None:
        for name, rows in {
            "train-00001-of-00002": [3, 4, 5],
            "train-00000-of-00002": [0, 1, 2],
            "validation-00000": [1],
            "my_test": [2, 0],
        }.items():
            dataset().select(rows).to_parquet(tmp_path / f"{name}.parquet")
        (tmp_path / "README.md").write_text("text beside the files")
        data = open_data(tmp_path)
        check_rows(data)
        assert [(s.name, data.classes[s.label]) for s in data.val] == [("val/0", "green")]
        assert [(s.name, data.classes[s.label]) for s in data.test] == [("test/0", "blue"), ("test/1", "red")]

    def test_reads_an_image_from_the_path_that_a_row_names(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {f"{row}.png": content for row, content in enumerate(PICTURES)})
        cells = [{"bytes": None, "path": str(tmp_path / f"{row}.png")} for row in range(6)]
        schema = pa.schema(
            {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.string()}
        )
        table = pa.table({"image": cells, "label": NAMES}, schema=schema)
        pq.write_table(table, tmp_path / "a.parquet")
        check_rows(open_data(tmp_path / "a.parquet"))

    def test_a_row_without_an_image_is_a_bad_image(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": [*PICTURES[:5], None], "label": NAMES}), tmp_path / "a.parquet")
        data = open_data(tmp_path / "a.parquet")
        decoded = list(decode_stream(data.store.contents([s.name for s in data.train]), (4, 4)))
        assert [image.pixels is None for image in decoded] == [False] * 5 + [True]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (
                {"a": PICTURES, "label": NAMES},
                r"none of its columns 'a', 'label' holds images\. Name it 'image",
            ),
            (
                {"image": PICTURES, "b": NAMES},
                r"none of its columns 'image', 'b' holds labels\. Name it 'label",
            ),
            (
                {"image": PICTURES, "label": [*NAMES[:5], None]},
                r"row 5 of the train images .* is None, expecte",
            ),
            (
                {"image": PICTURES, "label": [0.5] * 6},
                r"its 'label' is 0\.5, expected a whole number or text",
            ),
            ({"image": PICTURES, "label": ["x"] * 6}, r"it has only one class, 'x'"),
        ],
    )
    def test_refusals(self, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=message):
            open_data(tmp_path / "a.parquet")

    def test_a_number_without_a_class_name(self, tmp_path: Path) -> None:
        wrong = dataset().cast_column("label", datasets.Value("int64")).map(lambda row: {"label": 7})
        features = pa.schema(wrong.features.arrow_schema).with_metadata(
            dataset().features.arrow_schema.metadata
        )
        pq.write_table(wrong.data.table.cast(features), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"cannot read '.*a.parquet': .+\.$"):
            open_data(tmp_path / "a.parquet")

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1 no parquet PAR1")
        with pytest.raises(DataError, match=r"cannot read '.*a.parquet': .*\.$"):
            open_data(tmp_path / "a.parquet")

    def test_files_without_a_training_part(self, tmp_path: Path) -> None:
        for name in ("val", "test"):
            dataset().to_parquet(tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match=r"its splits are 'test', 'val'; expected 'train' among them"):
            open_data(tmp_path)


class TestHostileLabels:
    """The types of columns are claims of the file."""

    KINDS = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh")

    @pytest.fixture(autouse=True)
    def _decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fail where the library decodes anything."""

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("decoded")

        for kind in self.KINDS:
            monkeypatch.setattr(getattr(datasets, kind), "decode_example", refuse)

    def write(self, path: Path, labels: Any, kind: object) -> Path:
        """Write a Parquet file whose labels claim a type of the library."""
        features = {"image": {"_type": "Image"}, "label": kind}
        table = pa.table(
            {"image": [{"bytes": content, "path": None} for content in PICTURES], "label": labels}
        )
        claim = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(claim), path)
        return path

    @pytest.mark.parametrize("kind", KINDS)
    def test_labels_that_the_library_would_decode_are_refused(self, kind: str, tmp_path: Path) -> None:
        files = pa.array([{"bytes": b"%!PS", "path": "http://127.0.0.1:9/a.png"}] * 6)
        path = self.write(tmp_path / "a.parquet", files, {"_type": kind})
        with pytest.raises(DataError, match=f"its 'label' is of the type {kind}, expected whole numbers or"):
            open_data(path)

    def test_of_an_object_the_label_alone_is_looked_at(self, tmp_path: Path) -> None:
        file = {"bytes": b"%!PS", "path": "a.eps"}
        cells = pa.array([{"label": name, "mask": file} for name in NAMES])
        kind = {"label": {"_type": "Value", "dtype": "string"}, "mask": {"_type": "Image"}}
        check_rows(open_data(self.write(tmp_path / "a.parquet", cells, kind)))
        kind["label"] = {"_type": "Image"}
        cells = pa.array([{"label": file, "mask": file}] * 6)
        with pytest.raises(DataError, match="its 'label' is of the type Image, expected"):
            open_data(self.write(tmp_path / "b.parquet", cells, kind))

    @pytest.mark.parametrize("kind", ["x", ["x"], {"_type": "Absent"}, {"_type": 5}, {"_type": "ClassLabel"}])
    def test_a_type_that_is_none_is_refused(self, kind: object, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"cannot (read|use) '.*a\.parquet': "):
            open_data(self.write(tmp_path / "a.parquet", NAMES, kind))

    def test_a_label_that_is_no_name_is_refused(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path / "a.parquet", [*NAMES[:5], "x" * 70_000], {"_type": "Value", "dtype": "string"}
        )
        with pytest.raises(
            DataError, match="a label in its 'label' has 70,000 bytes, at most 65,536 are read"
        ):
            open_data(path)

    @pytest.mark.parametrize("error", [ImportError, AttributeError, AssertionError, SystemError, SystemExit])
    def test_what_the_library_raises_is_a_sentence(
        self, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def load_dataset(*_: object) -> None:
            raise error("no such package")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(DataError, match=r"^cannot read 'hf:org/name': no such package\.$"):
            open_data("hf:org/name")


class TestSaved:
    def test_one_table(self, tmp_path: Path) -> None:
        dataset().save_to_disk(tmp_path / "saved")
        check_rows(open_data(tmp_path / "saved"))

    def test_several_parts(self, tmp_path: Path) -> None:
        parts = {"train": dataset(), "validation": dataset().select([3, 0]), "extra": dataset()}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
        data = open_data(tmp_path / "saved")
        check_rows(data)
        assert [(s.name, data.classes[s.label]) for s in data.val] == [("val/0", "green"), ("val/1", "red")]
        assert data.test == ()

    def test_rows_with_a_secret_class_do_not_count(self, tmp_path: Path) -> None:
        secret = dataset().map(lambda row: {"label": -1})
        datasets.DatasetDict({"train": dataset(), "test": secret}).save_to_disk(tmp_path / "saved")
        data = open_data(tmp_path / "saved")
        check_rows(data)
        assert data.test == ()


class TestHub:
    def test_a_name_goes_to_the_library_with_its_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def load_dataset(*arguments: str | None) -> datasets.DatasetDict:
            asked.append(arguments)
            return datasets.DatasetDict({"train": dataset(), "test": dataset()})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        data = open_data("hf:org/name:plain")
        check_rows(data)
        assert (data.where, len(data.test)) == ("hf:org/name:plain", 6)
        open_data("hf:org/name")
        assert asked == [("org/name", "plain"), ("org/name", None)]

    def test_the_library_loads_a_folder_of_images_under_its_own_rules(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of its loading but the download."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        write_folder(tmp_path / "org" / "name", labelled({"red": 3, "blue": 2}))
        data = open_data("hf:org/name")
        assert (data.classes, len(data.train)) == (("blue", "red"), 5)
        (image,) = decode_stream(data.store.contents(["train/4"]), (6, 8))
        assert image.pixels is not None

    def test_a_name_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load_dataset(*arguments: object) -> None:
            raise datasets.exceptions.DatasetNotFoundError(
                "Dataset 'org/absent' doesn't exist on the Hub.\nTry"
            )

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(
            DataError, match=r"^cannot read 'hf:org/absent': Dataset 'org/absent' doesn't exist on the Hub\.$"
        ):
            open_data("hf:org/absent")

    @pytest.mark.parametrize("where", ["hf:org/name", "a.parquet", "saved"])
    def test_without_the_library_a_sentence_says_how_to_get_it(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        dataset().to_parquet("a.parquet")
        dataset().save_to_disk("saved")
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(
            DataError,
            match=rf"cannot read '{where}': the package `datasets` is not installed\. "
            r"Install it: pip install 'graftonnx\[datasets\]'\.",
        ):
            open_data(where)
