"""Texts: what is no text is not written, and what never ends is not read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from graftonnx.bundling.sums import SUMS, check_sums
from graftonnx.data.catalogue import Data
from graftonnx.data.folders import FolderTree
from graftonnx.data.manifests import open_csv
from graftonnx.data.opening import open_data
from graftonnx.data.splits import read_split
from graftonnx.errors import DataError, GraftError
from graftonnx.files import write_text
from graftonnx.plan import read_plan
from graftonnx.reading import LARGEST_TEXT, read_labels, read_text
from graftonnx.training.history import read_metrics
from graftonnx.training.report.validation import read_findings
from graftonnx.training.run import RunFolder

NOTHING = Data("data", (), (), (), (), FolderTree(Path("data")))


def test_what_is_no_text_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(
        GraftError, match=r"cannot write '.*a': '.*caf\\udce9 and' in it is not UTF-8 text\. "
    ):
        write_text(tmp_path / "a", f"{'x' * 100} caf\udce9 and {'y' * 100}"[:-101])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.zip", "a.tar", "a.parquet"])
def test_a_pipe_in_the_place_of_data_does_not_block(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"cannot read '.*': it is no regular file"):
        open_data(tmp_path / name)
    with pytest.raises(
        DataError, match=r"cannot read '.*': it is no regular file|no image file|not in class"
    ):
        open_data(tmp_path)


def test_a_pipe_in_the_place_of_an_array_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match=r"it is no regular file"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    "read",
    [read_labels, read_plan, open_csv, functools.partial(read_split, data=NOTHING)],
    ids=["labels", "plan", "table", "split"],
)
def test_a_pipe_in_the_place_of_a_text_does_not_block(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises((GraftError, OSError), match=r"it is no regular file"):
        read(tmp_path / "a")


def test_pipes_in_the_folder_of_a_run_or_a_bundle_do_not_block(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for path in (run.config, run.metrics, run.findings, tmp_path / SUMS):
        os.mkfifo(path)
    for read in (run.read, lambda: check_sums(tmp_path)):
        with pytest.raises(GraftError, match=r"there is no 'config.yaml'|it is no regular file"):
            read()
    assert read_metrics(run.metrics) == []
    assert read_findings(run.findings) is None


def test_a_text_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(LARGEST_TEXT + 1)
    with pytest.raises(
        DataError, match=r"cannot read labels from '.*': it has 1024 MiB, at most 1024 MiB are"
    ):
        read_labels(tmp_path / "a.txt")


def test_text_is_read_as_python_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\xc3\xa9")
    for encoding in ("utf-8", "utf-8-sig"):
        assert read_text(tmp_path / "a.txt", encoding) == (tmp_path / "a.txt").read_text(encoding)
