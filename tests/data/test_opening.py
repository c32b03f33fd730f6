"""The one door."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from data.pictures import labelled, write_folder, write_zip

from graftonnx.data.opening import absolute, is_there, open_data
from graftonnx.errors import DataError


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read images from '.*a': there is no such file or folder\."):
        open_data(tmp_path / "a")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("")
    with pytest.raises(
        DataError,
        match=r"its format is unknown; expected a folder, a \.csv, \.parquet, \.npz, \.zip or \.tar",
    ):
        open_data(tmp_path / "a.docx")


def test_a_folder_of_archives_beside_class_folders_is_a_folder(tmp_path: Path) -> None:
    files = labelled({"red": 2, "blue": 2})
    write_folder(tmp_path, files)
    write_zip(tmp_path / "all.zip", files)
    assert len(open_data(tmp_path).train) == 4


def test_a_suffix_may_be_upper_case(tmp_path: Path) -> None:
    assert len(open_data(write_zip(tmp_path / "A.ZIP", labelled({"red": 2, "blue": 2}))).train) == 4


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot read '.*': Permission denied\."):
        open_data(tmp_path)


def test_a_run_remembers_where_its_data_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("data") == str(tmp_path / "data")
    assert absolute("hf:org/name") == "hf:org/name"
    assert not is_there("data")
    (tmp_path / "data").mkdir()
    assert is_there("data")
    assert is_there("hf:org/name")


def test_folders_need_neither_the_datasets_library_nor_torch(tmp_path: Path) -> None:
    write_folder(tmp_path, labelled({"red": 1, "blue": 1}))
    code = (
        "import sys; from graftonnx.data.opening import open_data\n"
        f"open_data({str(tmp_path)!r})\n"
        "print(sorted({'torch', 'datasets', 'pyarrow', 'pandas', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
