"""A run folder may be a stranger's: it opens no connection, and starts no crowd of processes, by itself."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from training.fused import save_fused, save_images

from graftonnx import documents
from graftonnx.cli import graftonnx
from graftonnx.data import hub
from graftonnx.data.opening import open_data
from graftonnx.errors import GraftError
from graftonnx.training import (
    Interrupted,
    TrainConfig,
    TrainResult,
    finetuner,
    launching,
    loggers,
    resume,
    train,
)
from graftonnx.training.report import rewrite_report
from graftonnx.training.run import RunFolder

CONFIG = TrainConfig(epochs=2, batch_size=8, precision="fp32", layout="contiguous", device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("images") / "data", count=8)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fused(tmp_path_factory.mktemp("network") / "fused.onnx")


@pytest.fixture(scope="module")
def finished(source: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(source, data, tmp_path_factory.mktemp("whole") / "run", CONFIG)


@pytest.fixture
def strange(finished: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose record wants to connect."""

    def connect(*arguments: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(hub, "open_hub", connect)
    monkeypatch.setattr(loggers, "open_tracker", connect)
    shutil.copytree(finished.run, tmp_path / "strange")
    return change(tmp_path / "strange", {"data": "hf:org/name"}, {"logger": "wandb"})


def change(run: Path, fields: dict[str, Any], settings: dict[str, Any]) -> Path:
    """Write other things into a run's record."""
    config = run / "config.yaml"
    record = documents.load(config.read_text())
    record = {**record, **fields, "config": {**record["config"], **settings}}
    config.write_text(documents.dump(record))
    return run


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the third step end with Ctrl-C."""
    original, steps = finetuner.augment, iter(range(10**6))

    def augment(*arguments: Any) -> torch.Tensor:
        if next(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(finetuner, "augment", augment)


def test_a_run_on_data_of_the_hub_goes_on_when_it_is_asked_for_again(
    data: Path, source: Path, finished: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "open_hub", lambda where: replace(open_data(data), where=where))
    with monkeypatch.context() as patch:
        interrupt(patch)
        with pytest.raises(Interrupted):
            train(source, "hf:org/name", tmp_path / "run", CONFIG)
    options = f"--resume {tmp_path / 'run'} --data hf:org/name"
    assert RunFolder(tmp_path / "run").resuming == options
    with pytest.raises(GraftError, match="reads 'hf:org/name' from the Hugging Face hub, and") as caught:
        resume(tmp_path / "run")
    assert caught.value.message.endswith(f"If you want that: graftonnx train {options}")
    result = resume(tmp_path / "run", data="hf:org/name")
    assert result.model.read_bytes() == finished.model.read_bytes()


def test_a_run_of_a_stranger_opens_no_connection(strange: Path) -> None:
    with pytest.raises(
        GraftError, match=r"reads 'hf:org/name' .* and sends its figures to wandb, "
    ) as caught:
        resume(strange)
    assert caught.value.message.endswith("strange --data hf:org/name --logger wandb")
    with pytest.raises(GraftError, match=r"^cannot resume '.*': it sends its figures to wandb, and"):
        resume(strange, data="hf:org/name")
    with pytest.raises(AssertionError, match="a connection"):
        resume(strange, data="hf:org/name", logger="none")


def test_a_report_of_a_stranger_opens_no_connection(strange: Path) -> None:
    notes: list[str] = []
    rewrite_report(strange, note=notes.append)
    assert "is on the Hugging Face hub, which is read only where the command says so" in notes[0]
    (strange / "validation.json").unlink()
    with pytest.raises(GraftError, match=r"is on the Hugging Face hub.* Say where it is with --data\."):
        rewrite_report(strange)
    with pytest.raises(AssertionError, match="a connection"):
        rewrite_report(strange, data="hf:org/name")


def test_the_tracker_of_a_resumed_run_is_said_again(
    strange: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    change(strange, {"data": str(data)}, {})
    refused = CliRunner().invoke(graftonnx, ["train", "--resume", str(strange)])
    assert refused.exit_code == 1
    assert "sends its figures to wandb" in " ".join(refused.stderr.split())
    monkeypatch.setattr(loggers, "open_tracker", lambda config, run: asked.append(config.logger))
    for logger in ("none", "wandb"):
        result = CliRunner().invoke(graftonnx, ["train", "--resume", str(strange), "--logger", logger])
        assert result.exit_code == 0
    assert asked == ["none", "wandb"]


@pytest.mark.parametrize("setting", ["workers", "devices", "nodes", "epochs", "batch_size", "accumulate"])
def test_a_record_cannot_ask_for_any_number(strange: Path, setting: str) -> None:
    change(strange, {}, {setting: 100_000_000})
    with pytest.raises(GraftError, match=rf"its config\.yaml is damaged \(config.*({setting}|equal to)"):
        resume(strange)


@pytest.mark.parametrize(
    ("fields", "settings", "where"),
    [
        ({}, {"recipe": ["a"]}, r"config\.recipe"),
        ({}, {"optimizer": {"a": "b"}}, r"config\.optimizer"),
        ({}, {"batch_size": "auto"}, "config"),
        ({"source": "a\0b"}, {}, "source"),
        ({"data": "a\0b"}, {}, "data"),
        ({"images": {}}, {}, "images"),
        ({"images": {"train": 8, "val": 2, "other": 0}}, {}, "images"),
        ({"images": {"train": 2**63, "val": 2, "test": 0}}, {}, "images"),
        *(({"input_size": size}, {}, "input_size") for size in ([0, 0], [-1, -1_000_000], [1, 10**6])),
    ],
)
@pytest.mark.parametrize("go_on", [resume, rewrite_report])
def test_a_record_of_what_no_run_has_is_damaged(
    fields: dict[str, Any],
    settings: dict[str, Any],
    where: str,
    go_on: Callable[[Path], object],
    strange: Path,
) -> None:
    change(strange, fields, settings)
    with pytest.raises(GraftError, match=rf"its config\.yaml is damaged \({where}[^ ]* "):
        go_on(strange)


@pytest.mark.parametrize("go_on", [resume, rewrite_report])
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"labels": ["green", "blue"]}, "the labels 'green', 'blue', .* 'blue', 'green'"),
        ({"labels": ["blue", "blue"]}, "the labels 'blue', 'blue', .* 'blue', 'green'"),
        ({"labels": ["blue"]}, "1 labels, .* has 2 outputs"),
        ({"input_size": [1, 1]}, "1x1 pixels, .* has 16x16 pixels"),
    ],
)
def test_a_record_fits_its_network_and_its_split(
    fields: dict[str, Any],
    what: str,
    go_on: Callable[[Path], object],
    finished: TrainResult,
    tmp_path: Path,
) -> None:
    change(Path(shutil.copytree(finished.run, tmp_path / "run")), fields, {})
    with pytest.raises(GraftError, match=rf"^cannot .* '.*run': its config\.yaml says {what}\. Bring"):
        go_on(tmp_path / "run")


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "wandb"])
def test_a_link_in_a_run_leads_into_no_other_run(
    name: str, finished: TrainResult, source: Path, data: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(finished.run, tmp_path / "other"))
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    change(run, {}, {"epochs": 3})
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(other / name)
    for doing, go_on in (
        ("resume", lambda: resume(run)),
        ("report on", lambda: rewrite_report(run)),
        ("write the run to", lambda: train(source, data, run, CONFIG, force=True)),
    ):
        with pytest.raises(GraftError, match=rf"cannot {doing} '.*run': its '{name}' is a link, expected a"):
            go_on()
    for file in run.iterdir():
        if not file.is_symlink() and file.is_file():
            file.unlink()
    with pytest.raises(GraftError, match=rf"cannot write the run to '.*run': its '{name}' is a link"):
        train(source, data, run, CONFIG, force=True)
    assert {file: file.read_bytes() for file in other.rglob("*") if file.is_file()} == before


def test_a_batch_that_does_not_divide_starts_no_processes(
    strange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*arguments: object) -> None:
        raise AssertionError("processes")

    monkeypatch.setattr(launching, "launch", launch)
    change(strange, {}, {"devices": 3})
    result = CliRunner().invoke(graftonnx, ["train", "--resume", str(strange)])
    assert " ".join(result.stderr.split()) == (
        "Error: cannot share 8 images per batch out among 3 processes: each takes the same number. "
        "Pass --devices with a number that divides 8."
    )


def test_a_record_starts_no_crowd_of_processes(strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    change(strange, {}, {"devices": 1000})
    result = CliRunner().invoke(graftonnx, ["train", "--resume", str(strange)])
    assert result.exit_code == 2
    assert "Say how many with --devices." in " ".join(result.stderr.split())
