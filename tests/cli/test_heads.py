"""Every head from `fuse` to `predict`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from builders import plain_cnn, residual_cnn, saved
from click.testing import CliRunner, Result
from onnx import TensorProto, numpy_helper
from test_heads import head_model
from training.fused import save_images

from graftonnx.cli import graftonnx
from graftonnx.metadata import read_metadata
from graftonnx.weights import read

TRAIN = ["--epochs", "1", "--batch-size", "16", "--precision", "fp32", "--device", "cpu", "--workers", "1"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two parents and a head of two classes, and the current directory."""
    saved(residual_cnn(depth=2), tmp_path / "a.onnx")
    saved(plain_cnn((8, 16, 32), seed=1), tmp_path / "b.onnx")
    saved(head_model(classes=2), tmp_path / "head.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(graftonnx, list(arguments))


def done(*arguments: str) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--heads", "sum"], "sum of penultimate features, normalised, hidden layer of 256, dropout 0.2"),
        (
            ["--heads", "attention", "--norm", "none"],
            "attention of penultimate features, hidden layer of 256, dropout 0.2",
        ),
        (["--features", "logits", "--hidden", "0"], "concat of logits features, no hidden layer"),
        (["--head-file", "head.onnx"], "head.onnx over penultimate features"),
    ],
    ids=["sum", "attention", "logits", "file"],
)
def test_every_head_is_trained_exported_measured_and_used(work: Path, options: list[str], said: str) -> None:
    done("fuse", "a.onnx", "b.onnx", "-o", "fused.onnx", "--classes", "2", *options)
    assert f"head        {said}" in done("inspect", "fused.onnx").stdout
    save_images(work / "data", count=8)
    done("train", "fused.onnx", "--data", "data", "-o", "run", *TRAIN, "-q")
    before, after = onnx.load("fused.onnx"), onnx.load("run/model.onnx")
    trained = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    still = [
        tensor.name
        for tensor in before.graph.initializer
        if tensor.name.startswith("head/")
        and tensor.data_type == TensorProto.FLOAT
        and tensor.dims
        and (numpy_helper.to_array(tensor) == trained[tensor.name]).all()
    ]
    assert still == []
    assert read_metadata(after).head == read_metadata(before).head
    done("export", "run", "-o", "deploy.onnx", "-q")
    assert read_metadata(read(Path("deploy.onnx"))[0]).head == read_metadata(before).head
    done("eval", "deploy.onnx", "--data", "data", "--split-file", "run/split.json", "-q")
    (record,) = json.loads(done("predict", "deploy.onnx", "data/blue/0.png", "--json").stdout)
    assert record["classes"][0]["label"] in ("blue", "green")


def test_json_says_which_head_it_has(work: Path) -> None:
    fused = done("fuse", "a.onnx", "-o", "f.onnx", "--classes", "3", "--heads", "sum", "--json")
    shape = {"kind": "sum", "features": "penultimate", "norm": "rms", "hidden": 256, "dropout": 0.2}
    expected = {**shape, "file": None, "sha256": None}
    assert json.loads(fused.stdout)["head"] == expected
    assert json.loads(done("inspect", "f.onnx", "--json").stdout)["head"] == expected
    assert json.loads(done("inspect", "a.onnx", "--json").stdout)["head"] is None


def test_the_number_of_classes_is_the_head_files(work: Path) -> None:
    facts = json.loads(
        done("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--head-file", "head.onnx", "--json").stdout
    )
    assert facts["classes"] == 2


def test_parents_cost_what_is_kept_of_them(work: Path) -> None:
    penultimate, logits = (
        json.loads(done("fuse", "b.onnx", "-o", f"{name}.onnx", "--features", name, "--json").stdout)
        for name in ("penultimate", "logits")
    )
    assert logits["parents_macs"] - penultimate["parents_macs"] == 32 * 4


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--heads", "mean"], 2, "'mean' is not one of 'concat', 'sum', 'attention'."),
        (["--features", "scores"], 2, "'scores' is not one of 'penultimate', 'logits'."),
        (
            ["--head-file", "head.onnx", "--heads", "sum"],
            2,
            "--heads and --head-file exclude each other: your own head decides. Leave one out.",
        ),
        (["--head-file", "head.onnx", "--hidden", "9"], 2, "--hidden and --head-file exclude each other"),
        (["--head-file", "head.onnx", "--dropout", "0"], 2, "--dropout and --head-file exclude each other"),
        (["--head-file", "gone.onnx"], 1, "cannot read 'gone.onnx': there is no such file."),
        (
            ["--head-file", "head.onnx", "--classes", "5"],
            1,
            "cannot use head 'head.onnx': its output 'y' is [N, 2]; expected [N, 5]",
        ),
        (
            ["--features", "logits", "--input-size", "24"],
            1,
            "'a.onnx' has no class scores at 24x24: its own head fits its own input size only.",
        ),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, list) else "",
)
def test_heads_that_do_not_fit_are_refused(work: Path, options: list[str], code: int, sentence: str) -> None:
    result = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", *options)
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert not (work / "f.onnx").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "a.onnx"),
        ("match", "a.onnx", "b.onnx", "-o", "plan.yaml"),
        ("fuse", "a.onnx", "b.onnx", "-o", "f.onnx"),
        ("export", "a.onnx", "-o", "f.onnx", "--preprocess", "unit"),
        ("zoo", "export", "custom16", "-o", "f.onnx"),
        ("zoo", "list"),
        ("check", "a.onnx"),
        ("predict", "a.onnx", "one.png", "--preprocess", "unit"),
    ],
    ids=lambda a: "-".join(a[:2]),
)
def test_quiet_leaves_the_result_and_nothing_on_stderr(work: Path, arguments: tuple[str, ...]) -> None:
    save_images(work / "data", count=1)
    (work / "data" / "blue" / "0.png").rename(work / "one.png")
    loud = done(*arguments)
    for name in ("f.onnx", "plan.yaml"):
        (work / name).unlink(missing_ok=True)
    quiet = done(*arguments, "--quiet")
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_quiet_is_forgotten_by_the_next_command(work: Path) -> None:
    assert done("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "-q").stderr == ""
    assert "note: preprocessing of a guessed" in done("fuse", "a.onnx", "b.onnx", "-o", "g.onnx").stderr
