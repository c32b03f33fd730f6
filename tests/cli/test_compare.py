"""`graftonnx compare` and `graftonnx train --compare`, from the command line's side."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import plain_cnn, residual_cnn
from click import Context
from click.testing import CliRunner, Result
from training.fused import save_images

from graftonnx.cli import graftonnx
from graftonnx.comparison import Comparison
from graftonnx.fusion import fuse
from graftonnx.model import from_proto, save
from graftonnx.training import TrainConfig, finetuner, trainer

FAST = ["--epochs", "1", "--batch-size", "8", "--precision", "fp32", "--device", "cpu", "--augment", "none"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks this small are slower on many threads; dozens of runs take longer to draw than to train."""
    for name in ("write_curves", "write_report"):
        monkeypatch.setattr(trainer, name, lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a fused network and images."""
    a, b = from_proto(residual_cnn(4, depth=1), "first.onnx"), from_proto(plain_cnn((4, 8)), "second.onnx")
    save(fuse(a, b, classes=2, hidden=6), tmp_path / "fused.onnx")
    save_images(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object, command: str = "compare") -> Result:
    return CliRunner().invoke(graftonnx, [command, *map(str, arguments)])


def test_prints_a_table_and_the_verdict_on_stdout_and_remarks_on_stderr(work: Path) -> None:
    result = run("fused.onnx", "--data", "data", "-o", "out", "--seeds", 2, *FAST)
    assert result.exit_code == 0, result.output
    networks = [line.split(":")[0].lstrip("│ ") for line in result.stdout.splitlines()[3:8]]
    assert networks == ["a", "b", "average", "concatenated", "fused"]
    comparison = Comparison.model_validate_json((work / "out" / "compare.json").read_text())
    assert result.stdout.splitlines()[-1] == comparison.verdict
    assert comparison.verdict.startswith("The skips ")
    assert "[8/8] b, seed 1" in result.stderr
    assert "Accuracy in ONNX Runtime on 8 validation images, drawn anew by each seed" in result.stderr


def test_train_compare_is_the_same_and_json_the_whole_of_stdout(work: Path) -> None:
    one = run("fused.onnx", "--data", "data", "-o", "one", "--seeds", 1, "--json", "-q", *FAST)
    options = ("--compare", "--seeds", 1, "--json", "-q", *FAST)
    other = run("fused.onnx", "--data", "data", "-o", "other", *options, command="train")
    assert one.exit_code == other.exit_code == 0, one.output + other.output
    assert one.stderr == other.stderr == ""
    answers = [json.loads(result.stdout) for result in (one, other)]
    assert answers[0] == json.loads((work / "one" / "compare.json").read_text())
    assert len({answer["verdict"] for answer in answers}) == 1
    assert len({str([n["accuracies"] for n in answer["networks"]]) for answer in answers}) == 1


def test_takes_every_setting_of_train() -> None:
    context = Context(graftonnx)
    commands = [graftonnx.get_command(context, name) for name in ("compare", "train")]
    mine, its = ({param.name for param in command.params} for command in commands if command)
    assert its & TrainConfig.model_fields.keys() == mine & TrainConfig.model_fields.keys()
    assert len(mine) > 30


def test_settings_reach_every_run(work: Path) -> None:
    options = ("--seeds", 1, *FAST, "--seed", 5, "--lr-skips", 0.25, "--val-fraction", 0.5)
    assert run("fused.onnx", "--data", "data", "-o", "out", *options).exit_code == 0
    texts = [path.read_text() for path in work.glob("out/*/seed5/config.yaml")]
    assert len(texts) == 4
    assert all("  lr_skips: 0.25\n" in t and "  seed: 5\n" in t and "  val: 20\n" in t for t in texts)


def test_ctrl_c_saves_and_the_same_command_goes_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, steps = finetuner.augment, iter(range(100))

    def augment(*arguments: Any) -> torch.Tensor:
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    arguments = ("fused.onnx", "--data", "data", "-o", "out", "--seeds", 1, *FAST)
    with monkeypatch.context() as patch:
        patch.setattr(finetuner, "augment", augment)
        result = run(*arguments)
    assert result.exit_code == 130
    run_folder = Path("out", "concatenated", "seed0")
    assert f"Interrupted in epoch 1 of {run_folder}; everything is saved.\n" in result.stderr
    assert result.stderr.endswith("The same command goes on from there.\n")
    again = run(*arguments)
    assert again.exit_code == 0, again.output
    assert "[1/4] fused, seed 0: finished before" in again.stderr
    assert "[2/4] concatenated, seed 0: resumed" in again.stderr


def test_other_settings_exit_with_1_and_a_sentence() -> None:
    arguments = ("fused.onnx", "--data", "data", "-o", "out", "--seeds", 1)
    assert run(*arguments, *FAST).exit_code == 0
    result = run(*arguments, *FAST, "--lr-head", 0.5)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot go on in 'out': its runs were made with lr_head 0.003 ")
    assert run(*arguments, *FAST, "--lr-head", 0.5, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"),
    [
        ("compare", [], "Missing argument 'FUSED.onnx'."),
        ("compare", ["fused.onnx", "-o", "out"], "Missing option '--data'."),
        ("compare", ["fused.onnx", "--data", "data"], "Missing option '-o'"),
        ("compare", ["fused.onnx", "--seeds", "0"], "Invalid value for '--seeds'"),
        ("train", ["fused.onnx", "--data", "d", "-o", "o", "--seeds", "2"], "--seeds is for --compare"),
        (
            "compare",
            ["f.onnx", "--data", "d", "-o", "o", "--devices", "2"],
            "A comparison trains in one process.",
        ),
        ("train", ["--resume", "run", "--compare"], "--compare cannot be given with --resume"),
    ],
)
def test_misuse_exits_with_2_and_a_sentence(command: str, arguments: list[str], sentence: str) -> None:
    result = run(*arguments, command=command)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_network_without_parents_exits_with_1_and_writes_nothing(work: Path) -> None:
    (work / "plain.onnx").write_bytes(plain_cnn().SerializeToString())
    result = run("plain.onnx", "--data", "data", "-o", "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot take 'plain.onnx' apart: it does not say which networks ")
    assert not (work / "out").exists()
