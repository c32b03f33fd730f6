"""What reaches TensorBoard and the trackers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training.fused import save_fused, save_images

from graftonnx.errors import GraftError
from graftonnx.training import Interrupted, TrainConfig, finetuner, loggers, resume, train
from graftonnx.training.history import read_metrics
from graftonnx.training.loggers import FIGURES, check_logger

CONFIG = TrainConfig(epochs=3, batch_size=8, precision="fp32", layout="contiguous", device="cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_fused(tmp_path / "fused.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_images(tmp_path / "data")


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in FIGURES}


def recorded(run: Path) -> dict[str, list[tuple[int, Any]]]:
    epochs = read_metrics(run / "metrics.csv")
    return {
        name: [(row.epoch, pytest.approx(getattr(row, field), rel=1e-5)) for row in epochs]  # six digits
        for name, field in FIGURES.items()
    }


def test_tensorboard_gets_every_figure_of_every_epoch(source: Path, data: Path, tmp_path: Path) -> None:
    run = train(source, data, tmp_path / "run", CONFIG).run
    assert logged(run) == recorded(run)
    assert len(logged(run)["loss/val"]) == 3


def test_a_resumed_run_is_logged_like_one_that_was_not_interrupted(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, steps = finetuner.augment, iter(range(10**6))

    def augment(*arguments: Any) -> torch.Tensor:
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(finetuner, "augment", augment)
        with pytest.raises(Interrupted):
            train(source, data, tmp_path / "run", CONFIG)
    assert len(logged(tmp_path / "run")["loss/val"]) == 1
    resume(tmp_path / "run")
    assert logged(tmp_path / "run") == recorded(tmp_path / "run")


def test_a_run_in_place_of_another_keeps_none_of_its_events(source: Path, data: Path, tmp_path: Path) -> None:
    for epochs in (3, 1):
        train(source, data, tmp_path / "run", CONFIG.model_copy(update={"epochs": epochs}), force=True)
    assert len(logged(tmp_path / "run")["loss/val"]) == 1


def test_a_logger_that_fails_does_not_stop_the_run(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError("no space left")

    notes: list[str] = []
    monkeypatch.setattr(loggers.RecordWriter, "write", full)
    assert train(source, data, tmp_path / "run", CONFIG, note=notes.append).epochs == 3
    assert [note for note in notes if "logging" in note] == [
        "Note: logging stopped (OSError: no space left); training goes on."
    ]


def test_a_tracker_that_is_not_installed_is_refused_before_any_work(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        GraftError,
        match=r"cannot log to wandb: the package 'wandb' is not installed\. .*: pip install wandb",
    ):
        train(source, data, tmp_path / "run", CONFIG.model_copy(update={"logger": "wandb"}))
    assert not (tmp_path / "run").exists()
    check_logger("none")


@pytest.mark.filterwarnings("default")  # MLflow's own
def test_mlflow_gets_settings_and_figures(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    config = CONFIG.model_copy(update={"logger": "mlflow", "epochs": 2})
    run = train(source, data, tmp_path / "run", config).run
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'graftonnx'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["epochs"] == "2"
    history = client.get_metric_history(found.info.run_id, "accuracy/val")
    assert [(event.step, event.value) for event in history] == recorded(run)["accuracy/val"]


@pytest.mark.filterwarnings("default")  # W&B's own
def test_wandb_runs_offline_in_the_run_folder(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = CONFIG.model_copy(update={"logger": "wandb", "epochs": 1})
    run = train(source, data, tmp_path / "run", config).run
    assert wandb.run is None
    assert len(list(run.glob("wandb/offline-run-*/*.wandb"))) == 1
