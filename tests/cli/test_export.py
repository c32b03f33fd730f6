"""`graftonnx export` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from builders import plain_cnn
from click.testing import CliRunner
from lookalikes import RGB, colour_folder, colour_network, two_branches

from graftonnx.cli import graftonnx
from graftonnx.metadata import read_metadata


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
        "Folded: 1 scale or batch norm, 4 preprocessing steps, 2 skips that stayed zero, "
        "1 dropout or identity."
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


def test_precision_and_input_as_options(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "d.onnx"
    options = [
        "--precision",
        "fp16",
        "--input",
        "uint8",
        "--layout",
        "nhwc",
        "--size",
        "20x24",
        "--batch",
        "2",
    ]
    options += ["--opset", "19"]
    result = CliRunner().invoke(graftonnx, ["export", str(run), "-o", str(target), *options])
    assert result.exit_code == 0, result.output
    third, fourth = result.stdout.splitlines()[2:]
    assert third.startswith("In ONNX Runtime its float32 form differs from ")
    assert fourth.startswith(
        "In fp16 100.00% of 64 random images get the same answer; probabilities differ by "
    )
    exported = onnx.load(target)
    shape = [dim.dim_value for dim in exported.graph.input[0].type.tensor_type.shape.dim]
    assert (shape, exported.opset_import[0].version) == ([2, 20, 24, 3], 19)
    assert read_metadata(exported).precision == "fp16"


def test_accuracy_is_printed_where_labels_are_known(tmp_path: Path) -> None:
    onnx.save(colour_network(), tmp_path / "m.onnx")
    data = colour_folder(tmp_path / "data", dict.fromkeys(RGB, 3))
    args = ["export", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "d.onnx"), "--size", "dynamic"]
    result = CliRunner().invoke(graftonnx, [*args, "--data", str(data)])
    assert result.exit_code == 0, result.output
    fourth, fifth = result.stdout.splitlines()[3:]
    assert fourth.startswith(f"In fp32 100.00% of 9 images of {data} get the same answer; probabilities diff")
    assert fifth == "Accuracy 100.00% (of 100.00%, +0.00 points)."


def test_the_record_holds_the_fidelity(run: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "deploy.onnx")
    args = ["export", str(run), "-o", target, "--precision", "bf16", "--json"]
    record = json.loads(CliRunner().invoke(graftonnx, args).stdout)
    assert (record["precision"], record["kept"], record["fidelity"]["images"]) == ("bf16", [], 64)
    assert 0 <= record["fidelity"]["mean_difference"] <= record["fidelity"]["max_difference"]


def test_an_operator_that_an_older_opset_lacks_is_named(run: Path, tmp_path: Path) -> None:
    args = ["export", str(run), "-o", str(tmp_path / "d.onnx"), "--opset", "9"]
    result = CliRunner().invoke(graftonnx, args)
    assert result.exit_code == 1
    assert "(Resize) cannot be written in opset 9: that has no such operator. Choose a newer" in result.stderr
    assert not (tmp_path / "d.onnx").exists()


def test_labels_come_from_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    args = ["export", str(run), "-o", str(tmp_path / "d.onnx"), "--labels", str(tmp_path / "labels.txt")]
    result = CliRunner().invoke(graftonnx, args)
    assert result.exit_code == 0, result.output
    assert read_metadata(onnx.load(tmp_path / "d.onnx")).labels == ("ant", "bee", "cat", "dog")


def test_a_file_of_another_maker_needs_its_preprocessing(tmp_path: Path) -> None:
    onnx.save(plain_cnn((4, 8)), tmp_path / "m.onnx")
    result = CliRunner().invoke(
        graftonnx, ["export", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "d.onnx")]
    )
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: cannot use '{tmp_path / 'm.onnx'}': it does not say how its input is to be preprocessed. "
        "Give --preprocess, one of imagenet, inception, caffe, unit, raw, or numbers; from the file alone it "
        "is guessed 'imagenet': made by an unknown exporter.\n"
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
        (
            ["export", "run", "-o", "d.onnx", "--precision", "int8"],
            "Error: --precision int8 needs images: giv",
        ),
        (
            ["export", "run", "-o", "d.onnx", "--batch", "0"],
            "Error: Invalid value for '--batch': '0' is no num",
        ),
        (
            ["export", "run", "-o", "d.onnx", "--size", "1x"],
            "Error: Invalid value for '--size': '1x' is not a",
        ),
        (["export", "run", "-o", "d.onnx", "--preprocess", "vgg"], "Error: Invalid value for '--preproc"),
    ],
)
def test_usage_errors_exit_with_2(args: list[str], message: str) -> None:
    result = CliRunner().invoke(graftonnx, args)
    assert result.exit_code == 2
    assert message in result.stderr
