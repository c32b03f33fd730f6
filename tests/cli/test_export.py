"""`graftonnx export` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from lookalikes import colour_network, two_branches

from graftonnx.cli import graftonnx
from graftonnx.metadata import Metadata, read_metadata


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    onnx.save(two_branches(), tmp_path / "run" / "model.onnx")
    return tmp_path / "run"


def test_export_writes_the_file_and_says_what_it_did(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(graftonnx, ["export", "run", "-o", "deploy.onnx"])
    assert result.exit_code == 0, result.output
    first, second, third = result.stdout.splitlines()
    assert first == (
        "Wrote deploy.onnx: 14 nodes (of 24), 0.0 MB (of 0.0), output 'probabilities', 4 labels inside."
    )
    assert second == (
        "Folded: 1 scales and batch norms, 4 preprocessing steps, 2 skips that stayed zero, "
        "1 dropouts and identities."
    )
    assert third.startswith("In ONNX Runtime it differs from run/model.onnx by ")
    assert third.endswith(" of the largest output (at most 1e-04 is allowed).")
    assert result.stderr == ""


def test_export_as_json(run: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "deploy.onnx")
    result = CliRunner().invoke(graftonnx, ["export", str(run), "-o", target, "--no-softmax", "--json"])
    record = json.loads(result.stdout)
    assert (record["path"], record["source"]) == (target, str(run / "model.onnx"))
    assert (record["output"], record["nodes"], record["folded"]["skips"]) == ("logits", 13, 2)
    assert 0 <= record["difference"] <= record["tolerance"]


def test_labels_come_from_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    args = ["export", str(run), "-o", str(tmp_path / "d.onnx"), "--labels", str(tmp_path / "labels.txt")]
    result = CliRunner().invoke(graftonnx, args)
    assert result.exit_code == 0, result.output
    assert read_metadata(onnx.load(tmp_path / "d.onnx")).labels == ("ant", "bee", "cat", "dog")


def test_a_file_of_another_maker_needs_its_preprocessing(tmp_path: Path) -> None:
    onnx.save(colour_network(Metadata()), tmp_path / "m.onnx")
    result = CliRunner().invoke(
        graftonnx, ["export", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "d.onnx")]
    )
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: cannot use '{tmp_path / 'm.onnx'}': it does not say how its input is to be preprocessed. "
        "Give --preprocess, one of imagenet, inception, caffe, unit, raw.\n"
    )
    assert not (tmp_path / "d.onnx").exists()


def test_an_existing_file_needs_force(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "d.onnx"
    target.write_bytes(b"old")
    refused = CliRunner().invoke(graftonnx, ["export", str(run), "-o", str(target)])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"Error: cannot write '{target}': it exists. Choose another -o, or pass --force.\n"
    )
    assert target.read_bytes() == b"old"
    assert CliRunner().invoke(graftonnx, ["export", str(run), "-o", str(target), "--force"]).exit_code == 0
    onnx.checker.check_model(onnx.load(target), full_check=True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["export", "run"], "Error: Missing option '-o' / '--output'."),
        (["export", "-o", "d.onnx"], "Error: Missing argument 'RUN|FILE.onnx'."),
        (["export", "run", "-o", "d.onnx", "--preprocess", "vgg"], "Error: Invalid value for '--preproc"),
    ],
)
def test_usage_errors_exit_with_2(args: list[str], message: str) -> None:
    result = CliRunner().invoke(graftonnx, args)
    assert result.exit_code == 2
    assert message in result.stderr
