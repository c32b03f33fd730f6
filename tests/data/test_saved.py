"""What `save_to_disk` wrote, and somebody changed afterwards."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from data.pictures import encoded, picture

from graftonnx.data import bounds
from graftonnx.data.opening import open_data
from graftonnx.errors import DataError

ROWS = 8
FILE = "data-00000-of-00001.arrow"


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a table whose labels are three letters each."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    cells = {
        "image": [{"bytes": encoded(picture("red", 0)), "path": None}] * ROWS,
        "label": ["cat", "dog"] * 4,
    }
    datasets.Dataset.from_dict(cells, features=features).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def table(folder: Path) -> pa.Table:
    with pa.ipc.open_stream((folder / FILE).read_bytes()) as stream:
        return stream.read_all()


def rewrite(
    folder: Path, changed: pa.Table, options: pa.ipc.IpcWriteOptions | None = None, note: bytes | None = None
) -> None:
    """Write a table in the place of the one that was saved."""
    with pa.ipc.new_stream(folder / FILE, changed.schema, options=options) as stream:
        for batch in changed.to_batches():
            stream.write_batch(batch, custom_metadata=note and {b"ARROW:experimental_compression": note})


def labelled(folder: Path, labels: pa.Array) -> pa.Table:
    return pa.table({"image": table(folder)["image"], "label": labels})


def edit(path: Path, **values: object) -> None:
    """Change a record."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_nobody_changed_is_read(saved: Path) -> None:
    rewrite(saved, table(saved))
    assert open_data(saved).classes == ("cat", "dog")


def test_columns_of_any_kind_may_stand_beside(tmp_path: Path) -> None:
    kinds: dict[str, tuple[object, object]] = {
        "image": (datasets.Image(), {"bytes": encoded(picture("red", 0)), "path": None}),
        "label": (datasets.ClassLabel(names=["cat", "dog"]), 0),
        "box": (datasets.Array2D(shape=(1, 2), dtype="float32"), [[0.0, 1.0]]),
        "parts": (datasets.List({"name": datasets.Value("large_string")}), [{"name": "x"}]),
        "vector": (datasets.List(datasets.Value("float32"), length=2), [0.0, 1.0]),
        "note": (datasets.Json(), {"a": [1]}),
        "nothing": (datasets.Value("null"), None),
    }
    cells = {name: [cell] * ROWS for name, (_, cell) in kinds.items()} | {"label": [0, 1] * 4}
    features = datasets.Features({name: kind for name, (kind, _) in kinds.items()})
    datasets.Dataset.from_dict(cells, features=features).save_to_disk(tmp_path / "saved", num_shards=3)
    data = open_data(tmp_path / "saved")
    assert (data.classes, len(data.train)) == (("cat", "dog"), ROWS)


@pytest.mark.parametrize(
    "offsets",
    [
        [0, *[0x7FFFFFF0] * ROWS],
        [0x70000000 - 256 * row for row in range(ROWS + 1)],
        [-3 * row for row in range(9)],
    ],
    ids=["outside", "backwards", "negative"],
)
def test_values_that_do_not_lie_in_the_file_are_refused(offsets: list[int], saved: Path) -> None:
    content = (saved / FILE).read_bytes()
    usual = struct.pack("<9i", *range(0, 27, 3))
    assert content.count(usual) == 1
    (saved / FILE).write_bytes(content.replace(usual, struct.pack("<9i", *offsets)))
    with pytest.raises(DataError, match=r"its values are not where it says \(.*[Oo]ffset.*\)\. Get it anew"):
        open_data(saved)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_compressed_values_are_not_unpacked(kind: str, saved: Path) -> None:
    labels = pa.array(["cat" + "x" * (8 << 20)] * (ROWS - 1) + ["dog"])
    rewrite(saved, labelled(saved, labels), pa.ipc.IpcWriteOptions(compression=kind))
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="it holds compressed values or a dictionary, expected plain ones as"):
        open_data(saved)
    assert pa.total_allocated_bytes() <= before


def test_compression_of_an_older_kind_is_refused(saved: Path) -> None:
    rewrite(saved, table(saved), note=b"zstd")
    with pytest.raises(DataError, match="it holds compressed values or a dictionary"):
        open_data(saved)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array(["cat", "dog"] * 4).dictionary_encode(), "its columns are |a dictionary"),
        (pa.RunEndEncodedArray.from_arrays([4, ROWS], ["cat", "dog"]), "its columns are |run"),
        (pa.array(["cat", "dog"] * 4).cast(pa.string_view()), "its columns are string_view"),
        (pa.nulls(ROWS), "its columns are .*null"),
    ],
    ids=["dictionary", "runs", "view", "null"],
)
def test_values_that_many_rows_share_are_refused(labels: pa.Array, message: str, saved: Path) -> None:
    rewrite(saved, labelled(saved, labels))
    kind = "string_view" if labels.type == pa.string_view() else "string"
    features = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": kind}}
    edit(saved / "dataset_info.json", features=features)
    with pytest.raises(DataError, match=rf"cannot read '.*': .*({message})"):
        open_data(saved)


def test_too_many_rows_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_ENTRIES", ROWS - 1)
    with pytest.raises(DataError, match="it has more than 7 entries"):
        open_data(saved)


@pytest.mark.parametrize("name", ["../other", "..", "/dev/stdin", "x::http://127.0.0.1:9", "a\\b", ""])
def test_a_record_that_leads_elsewhere_is_refused(name: str, saved: Path) -> None:
    edit(saved / "state.json", _data_files=[{"filename": name}])
    with pytest.raises(DataError, match=r"it names '.*', expected each file and folder in it once"):
        open_data(saved)
    whole = saved.parent / "whole"
    whole.mkdir()
    (whole / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(DataError, match=r"it names '.*', expected each file and folder in it once"):
        open_data(whole)


def test_one_file_as_many_is_refused(saved: Path) -> None:
    edit(saved / "state.json", _data_files=[{"filename": FILE}] * 2)
    with pytest.raises(DataError, match="expected each file and folder in it once"):
        open_data(saved)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["[]", "[" * 100_000, "5", "", "{}"])
def test_a_record_that_is_none_is_refused(name: str, content: str, saved: Path) -> None:
    if (name, content) == ("dataset_info.json", "{}"):
        return  # says nothing wrong
    (saved / name).write_text(content)
    with pytest.raises(DataError, match=r"cannot read '.*': .+\.$"):
        open_data(saved)


@pytest.mark.parametrize(
    "values",
    [
        {"features": "x"},
        {"features": {"image": 5}},
        {"splits": "x"},
        {"features": {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}},
        {
            "features": {
                "image": {"_type": "Image"},
                "label": {"_type": "Array2D", "shape": [1, 2], "dtype": "int8"},
            }
        },
    ],
    ids=["text", "number", "splits", "other", "array"],
)
def test_columns_that_are_none_are_refused(values: Mapping[str, object], saved: Path) -> None:
    edit(saved / "dataset_info.json", **values)
    with pytest.raises(DataError, match=r"cannot read '.*': .+\.$"):
        open_data(saved)


@pytest.mark.parametrize("kind", ["pandas", "numpy", "arrow", "torch"])
def test_the_labels_are_those_of_the_file_whatever_format_was_set(kind: str, saved: Path) -> None:
    edit(saved / "state.json", _format_type=kind, _format_columns=["image"])
    data = open_data(saved)
    assert data.classes == ("cat", "dog")
    assert all(isinstance(content, bytes) for _, content in data.store.contents(["train/0", "train/7"]))
