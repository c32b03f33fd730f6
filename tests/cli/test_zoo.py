"""`graftonnx zoo`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from graftonnx.cli import graftonnx
from graftonnx.metadata import PRESETS, read_metadata
from graftonnx.models.inception_v3 import InceptionV3
from graftonnx.models.registry import build


def zoo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(graftonnx, ["zoo", *(str(argument) for argument in arguments)])


def test_list_shows_every_network_with_its_figures() -> None:
    result = zoo("list")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[1:]] == ["squeezenet1_0", "squeezenet1_1", "inception_v3", "custom16"]
    assert "23,834,568" in lines[3]
    assert "299x299" in lines[3]


def test_list_as_json_is_complete() -> None:
    entries = {entry["name"]: entry for entry in json.loads(zoo("list", "--json").stdout)}
    assert entries["squeezenet1_1"] == {
        "name": "squeezenet1_1",
        "summary": "SqueezeNet 1.1: as accurate, about 2.4 times cheaper",
        "parameters": 1_235_496,
        "input_size": 224,
        "smallest_input": 17,
        "classes": 1000,
        "preprocess": "imagenet",
        "source": "Iandola et al. 2016, arXiv 1602.07360",
    }


def test_list_imports_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys; from graftonnx.cli import graftonnx\n"
        "graftonnx(['zoo', 'list', '--json'], standalone_mode=False)\n"
        "print(sorted({'torch', 'onnxruntime'} & sys.modules.keys()), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


def test_export_writes_one_file_and_says_what_is_in_it(tmp_path: Path) -> None:
    target = tmp_path / "c.onnx"
    result = zoo("export", "custom16", "--width", "0.25", "--classes", 8, "--input-size", 32, "-o", target)
    assert result.exit_code == 0
    expected = (
        "custom16, 55,184 parameters, input [batch, 3, 32, 32], 8 classes, 0.2 MB; differs from PyTorch"
    )
    assert result.stdout.startswith(f"Wrote {target}: {expected}")
    assert [path.name for path in tmp_path.iterdir()] == ["c.onnx"]
    model = onnx.load(target)
    assert model.opset_import[0].version == 20
    assert read_metadata(model).input.preprocess == PRESETS["unit"]  # type: ignore[union-attr]  # written above


def test_export_says_that_random_weights_are_random(tmp_path: Path) -> None:
    result = zoo("export", "custom16", "--width", "0.25", "--seed", 7, "-o", tmp_path / "c.onnx")
    assert result.stderr == "Note: the weights are random (seed 7); pass --weights FILE for trained ones.\n"


def test_export_as_json_holds_the_same_figures(tmp_path: Path) -> None:
    result = zoo("export", "squeezenet1.1", "--width", "0.25", "-o", tmp_path / "s.onnx", "--json")
    answer = json.loads(result.stdout)
    assert (answer["name"], answer["input_shape"], answer["classes"]) == (
        "squeezenet1_1",
        [3, 224, 224],
        1000,
    )
    assert answer["bytes"] == (tmp_path / "s.onnx").stat().st_size
    assert answer["difference"] < 1e-4


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    zoo("export", "custom16", "--width", "0.25", "-o", tmp_path / "one.onnx")
    zoo("export", "custom16", "--width", "0.25", "-o", tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_export_reads_weights_and_drops_the_auxiliary_head_aloud(tmp_path: Path) -> None:
    with torch.no_grad():
        state = {
            key: value * 0 + 0.01 for key, value in InceptionV3(classes=2, aux=True).state_dict().items()
        }
    torch.save(state, tmp_path / "w.pth")
    target = tmp_path / "i.onnx"
    result = zoo(
        "export",
        "inception_v3",
        "--weights",
        tmp_path / "w.pth",
        "--classes",
        2,
        "--input-size",
        80,
        "-o",
        target,
    )
    assert result.exit_code == 0
    assert (
        result.stderr == "Note: dropped the checkpoint's 'AuxLogits.*': inception_v3 is built without it.\n"
    )
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(target).graph.initializer}
    assert weights["Mixed_7c.branch_pool.conv.weight"].max() == pytest.approx(0.01)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a custom16 of 8 classes at width 0.25."""
    path = tmp_path / "w.pth"
    torch.save(build("custom16", classes=8, width=0.25).state_dict(), path)
    return path


def test_another_number_of_classes_is_answered_with_the_option(tmp_path: Path, checkpoint: Path) -> None:
    target = tmp_path / "c.onnx"
    result = zoo("export", "custom16", "--width", "0.25", "--weights", checkpoint, "-o", target)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: cannot load '{checkpoint}' into custom16: the checkpoint has 8 classes "
        "('classifier.weight' is [8, 32]), expected 10. Pass --classes 8.\n"
    )
    assert not target.exists()


def test_another_width_is_answered_with_the_shapes(tmp_path: Path, checkpoint: Path) -> None:
    result = zoo("export", "custom16", "--classes", 8, "--weights", checkpoint, "-o", tmp_path / "c.onnx")
    assert result.exit_code == 1
    assert "'stages.0.entry.conv.weight' is [8, 3, 3, 3], expected [32, 3, 3, 3]" in result.stderr
    assert result.stderr.endswith("Check NAME and --width: the keys and shapes must be torchvision's.\n")
    assert not (tmp_path / "c.onnx").exists()


def test_an_existing_target_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "c.onnx"
    target.write_text("precious")
    result = zoo("export", "custom16", "--width", "0.25", "-o", target)
    assert result.exit_code == 1
    assert (
        result.stderr == f"Error: cannot write '{target}': it exists. Choose another -o, or pass --force.\n"
    )
    assert target.read_text() == "precious"
    assert zoo("export", "custom16", "--width", "0.25", "-o", target, "--force").exit_code == 0
    assert onnx.load(target).graph.name == "custom16"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["inceptionv3"],
            "Invalid value for 'NAME': there is no network 'inceptionv3'. Did you mean 'inception_v3'?",
        ),
        (["custom16", "--classes", "0"], "Invalid value for '--classes': 0 is not in the range x>=1."),
        (["custom16", "--width", "0"], "Invalid value for '--width': 0.0 is not in the range x>0."),
        (
            ["inception_v3", "--input-size", "74"],
            "cannot build inception_v3 for 74x74 images: the smallest it can run at is 75x75.",
        ),
        (
            ["inception_v3", "--width", "0.5"],
            "cannot build inception_v3: it has no width multiplier, width (=0.5) must be 1.",
        ),
    ],
)
def test_wrong_usage_exits_with_2_and_writes_nothing(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    result = zoo("export", *arguments, "-o", tmp_path / "x.onnx")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: {sentence}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("none.pth", "there is no such file."),
        ("w.h5", "its name ends in none of .pth, .pt, .safetensors."),
    ],
)
def test_weights_that_cannot_be_read_are_refused(tmp_path: Path, weights: str, sentence: str) -> None:
    path = tmp_path / weights
    result = zoo("export", "custom16", "--weights", path, "-o", tmp_path / "c.onnx")
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot read '{path}': {sentence}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_before_any_work(tmp_path: Path) -> None:
    result = zoo("export", "custom16", "-o", tmp_path / "none" / "c.onnx")
    assert result.exit_code == 1
    assert f"the folder '{tmp_path / 'none'}' does not exist. Create it first." in result.stderr
