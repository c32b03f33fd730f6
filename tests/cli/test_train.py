"""`graftonnx train`, from the command line's side."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from training.fused import save_fused, save_images

from graftonnx.cli import graftonnx
from graftonnx.cli.training_options import SETTINGS, config_of
from graftonnx.data.opening import open_data
from graftonnx.data.splits import read_split
from graftonnx.data.splits import split as split_data
from graftonnx.training import TrainConfig, finetuner
from graftonnx.training import config as settings

FAST = ["--epochs", "2", "--batch-size", "8", "--precision", "fp32", "--device", "cpu"]
ALL = ["f.onnx", "--data", "d", "-o", "run"]
RATES = ["--lr-branches", "0.01", "--lr-skips", "0.01", "--lr-head", "0.01"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on many threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_fused(tmp_path / "fused.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_images(tmp_path / "data")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(graftonnx, ["train", *map(str, arguments)])


def test_prints_a_table_on_stdout_and_remarks_on_stderr(source: Path, data: Path, tmp_path: Path) -> None:
    result = run(source, "--data", data, "-o", tmp_path / "run", *FAST, *RATES)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1][:5] == ["validation", "accuracy", "100.00%", "of", "8"]
    assert lines[2] == ["100.00%", "(PyTorch)"]
    assert lines[3] in (["best", "epoch", "1", "of", "2"], ["best", "epoch", "2", "of", "2"])
    assert "32 images to train, 8 to validate, 2 classes; cpu, fp32" in result.stderr
    assert "epoch 2: train loss" in result.stderr
    assert (tmp_path / "run" / "model.onnx").is_file()


def test_json_is_the_whole_of_stdout(source: Path, data: Path, tmp_path: Path) -> None:
    result = run(source, "--data", data, "-o", tmp_path / "run", *FAST, "--json", "-q")
    answer = json.loads(result.stdout)
    assert result.stderr == ""
    assert answer["model"] == str(tmp_path / "run" / "model.onnx")
    assert answer["epochs"] == 2
    assert answer["labels"] == ["blue", "green"]
    assert 0 <= answer["val_accuracy"] <= 1


def test_every_setting_has_an_option_that_reaches_the_run(source: Path, data: Path, tmp_path: Path) -> None:
    split = split_data(open_data(data), 0.5, seed=3)
    (tmp_path / "split.json").write_text(split.to_json())
    wanted = {
        "recipe": "best", "epochs": 1, "min_steps": 1, "batch_size": 4, "accumulate": 2, "patience": 3,
        "seed": 7,
        "optimizer": "nadam", "lr_branches": 0.1, "lr_skips": 0.2, "lr_head": 0.3, "layer_decay": 0.9,
        "val_every": 2, "branch_loss": 0.3, "skip_rates": "equal",
        "schedule": "constant", "warmup": 0.2, "weight_decay": 0.4, "clip": 0.7, "ema": 0.6,
        "freeze": "norms", "unfreeze": 1, "val_fraction": 0.5, "augment": "flip", "mixup": 0.3, "cutmix": 0.8,
        "label_smoothing": 0.5, "class_weights": "balanced", "device": "cpu", "precision": "bf16",
        "layout": "contiguous", "compile": "no", "workers": 1,
        "devices": 1, "nodes": 1, "strategy": "ddp", "shots": 3,
        "on_bad_image": "skip", "cache_limit": 3.0, "split_file": tmp_path / "split.json", "save_every": 60.0,
        "logger": "none",
    }  # fmt: skip
    options = [text for name, value in wanted.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    result = run(source, "--data", data, "-o", tmp_path / "run", *options, "--restore-norm")
    assert result.exit_code == 0, result.output
    assert "batch norms put back: 1, by the statistics of 6 training images" in result.stderr
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert [name for name, value in wanted.items() if f"  {name}: {value}\n" not in text] == []
    assert read_split(tmp_path / "run" / "split.json", open_data(data)) == split.few_shot(3, seed=7)
    assert "  restore_norm: true\n" in text
    assert set(TrainConfig.model_fields) == {*wanted, "restore_norm"}


def test_a_recipe_gives_the_defaults_and_an_option_overrides_it() -> None:
    assert config_of({"recipe": None, "epochs": None}) == TrainConfig()
    quick = config_of({"recipe": "quick", "augment": "standard", "optimizer": "sgd"})
    assert (quick.epochs, quick.augment, quick.lr_head) == (3, "standard", settings.RATES["sgd"]["lr_head"])


def test_settings_that_do_not_go_together_are_refused(source: Path, data: Path, tmp_path: Path) -> None:
    result = run(source, "--data", data, "-o", tmp_path / "run", "--freeze", "branches", "--unfreeze", 2)
    assert result.exit_code == 2
    assert "unfreeze releases the branches that freeze='branches' keeps: give one of them." in result.stderr


def test_help_fits_two_screens_and_is_grouped() -> None:
    text = run("--help").output
    assert len(text.splitlines()) <= 90
    lines = [line.strip() for line in text.splitlines()]
    places = [lines.index(title) for title in ("Run", *SETTINGS)]
    assert places == sorted(places)


def test_ctrl_c_saves_and_says_how_to_go_on(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, steps = finetuner.augment, iter(range(100))

    def augment(*arguments: Any) -> torch.Tensor:
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(finetuner, "augment", augment)
        result = run(source, "--data", data, "-o", tmp_path / "my run", *FAST)
    assert result.exit_code == 130
    assert "Interrupted in epoch 2; everything is saved. Go on with:" in result.stderr
    assert f"  graftonnx train --resume '{tmp_path / 'my run'}'\n" in result.stderr
    assert not (tmp_path / "my run" / "model.onnx").exists()
    again = run("--resume", tmp_path / "my run")
    assert again.exit_code == 0, again.output
    rows = csv.DictReader((tmp_path / "my run" / "metrics.csv").read_text().splitlines())
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert (tmp_path / "my run" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param([], "Missing FUSED.onnx, --data, -o. Give them, or --resume RUN.", id="nothing"),
        pytest.param(["f.onnx", "--data", "d"], "Missing -o.", id="no output"),
        pytest.param(
            ["--resume", "run", "--epochs", "3"],
            "--epochs cannot be given with --resume: a resumed run keeps its settings.",
            id="a setting of a resumed run",
        ),
        pytest.param(
            ["f.onnx", "--resume", "run"], "FUSED.onnx cannot be given with --resume", id="a source"
        ),
        pytest.param(["f.onnx", "--epochs", "0"], "Invalid value for '--epochs'", id="no epochs"),
        pytest.param(
            ["f.onnx", "--val-fraction", "1"], "Invalid value for '--val-fraction'", id="no training"
        ),
        pytest.param(
            [*ALL, "--mixup", "nan"],
            "Invalid value for '--mixup': nan is not a finite number.",
            id="no number",
        ),
        pytest.param(
            [*ALL, "--lr-head", "inf"],
            "Invalid value for '--lr-head': inf is not a finite number.",
            id="no end",
        ),
        pytest.param(
            [*ALL, "--workers", "1000000"],
            "Invalid value for '--workers': Input should be less than or equal to 1024 (found 1000000).",
            id="a crowd",
        ),
        pytest.param(
            [*ALL, "--batch-size", "99999999"],
            "must be from 1 to 1,048,576, or 'auto'.",
            id="a crowd of images",
        ),
        pytest.param(["f.onnx", "--augment", "much"], "Invalid value for '--augment'", id="augmentation"),
    ],
)
def test_misuse_exits_with_2_and_a_sentence(arguments: list[str], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_one_class_exits_with_1_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    result = run(source, "--data", save_images(tmp_path / "data", classes=1), "-o", tmp_path / "run", *FAST)
    assert result.exit_code == 1
    assert "it has only one class, 'blue', at least 2 are needed." in result.stderr
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "run").exists()


def test_an_existing_run_exits_with_1_and_names_both_ways_on(
    source: Path, data: Path, tmp_path: Path
) -> None:
    arguments = (source, "--data", data, "-o", tmp_path / "my run", *FAST)
    assert run(*arguments).exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"go on with --resume '{tmp_path / 'my run'}', or pass --force" in result.stderr
    assert run(*arguments, "--force").exit_code == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_exits_with_1_and_writes_nothing(source: Path, data: Path, tmp_path: Path) -> None:
    result = run(source, "--data", data, "-o", tmp_path / "run", "--device", "cuda")
    assert result.exit_code == 1
    assert "cannot train on CUDA" in result.stderr
    assert not (tmp_path / "run").exists()


def test_help_loads_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from graftonnx.cli import graftonnx\n"
        "result = CliRunner().invoke(graftonnx, ['train', '--help'])\n"
        "assert result.exit_code == 0 and '--lr-skips' in result.output\n"
        "print(sorted({'torch', 'lightning', 'onnxruntime', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
