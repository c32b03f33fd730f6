"""`graftonnx report`, from the command line's side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from training.fused import save_fused, save_images

from graftonnx.cli import graftonnx
from graftonnx.training import TrainConfig, train

CONFIG = TrainConfig(epochs=1, batch_size=8, precision="fp32", layout="contiguous", device="cpu")


def report(*arguments: object) -> Result:
    return CliRunner().invoke(graftonnx, ["report", *map(str, arguments)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return train(
        save_fused(tmp_path / "fused.onnx"), save_images(tmp_path / "data"), tmp_path / "run", CONFIG
    ).run


def test_writes_the_page_anew_and_says_where(run: Path) -> None:
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    result = report(run)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"wrote {run / 'report.html'}\n"
    assert result.stderr == ""
    assert (run / "report.html").read_bytes() == before


def test_says_what_is_missing_unless_it_is_to_be_quiet(run: Path) -> None:
    (run.parent / "data").rename(run.parent / "moved")
    assert "is gone: what the network does is shown as it was measured" in report(run).stderr
    assert report(run, "-q").stderr == ""
    assert report(run, "--data", run.parent / "moved").stderr == ""


def test_a_folder_without_a_run_exits_with_1_and_a_sentence(tmp_path: Path) -> None:
    result = report(tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: cannot report on '{tmp_path}': there is no 'config.yaml' in it.")
    assert list(tmp_path.iterdir()) == []


def test_needs_no_pytorch(run: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from graftonnx.cli import graftonnx\n"
        f"result = CliRunner().invoke(graftonnx, ['report', {str(run)!r}])\n"
        "assert result.exit_code == 0, result.output\n"
        "print(sorted({'torch', 'lightning', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
